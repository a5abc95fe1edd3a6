//! Sends as futures of their own, so that what a send owns lies in it once. An async function would
//! keep it at each level again, and an idle connection's task has room for its largest await.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::connection::Connection;
use crate::buffer::Payload;
use crate::error::{Error, Result};
use crate::op::{Op, Outcome};
use crate::shard::completion::Completion;

/// An operation behind what polled writes have copied.
#[must_use = "a future does nothing unless awaited"]
pub(super) struct Performing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) completion: Completion,
}

impl Future for Performing<'_> {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.connection.number(); // On the shard whose driver knows it.
        ready!(self.connection.poll_flush(context))?;
        Pin::new(&mut self.completion).poll(context).map(Ok)
    }
}

/// Sends all of a payload and gives it back; see [`super::TcpStream::send`].
#[must_use = "a future does nothing unless awaited"]
pub struct Sending<'a>(pub(super) Performing<'a>);

impl Future for Sending<'_> {
    type Output = Result<Payload>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_empty = |op: &Op| matches!(op, Op::Send { payload, .. } if payload.is_empty());
        if let Some(Op::Send { payload, .. }) = self.0.completion.take_unless_begun(is_empty) {
            return Poll::Ready(Ok(payload)); // Nothing to send.
        }
        let outcome = ready!(Pin::new(&mut self.0).poll(context))?;
        Poll::Ready(match (outcome.result, outcome.op) {
            (Ok(_), Op::Send { payload, .. }) => Ok(payload),
            (Err(errno), _) => Err(Error::io("sending", errno)),
            (Ok(_), _) => unreachable!("an outcome gives its own operation back"),
        })
    }
}

impl std::fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sending({})", self.0.connection.raw())
    }
}
