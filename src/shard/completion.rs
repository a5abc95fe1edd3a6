//! Operations as futures: what tasks await. Dropping one cancels the operation and leaves it, with
//! all it owns, to the driver.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::context;
use crate::driver::SlotKey;
use crate::error::Errno;
use crate::op::{Event, Op, Outcome};

enum State {
    /// Not yet submitted: a future does nothing until it is polled.
    Idle(Op),
    InFlight(SlotKey),
    Done,
}

/// A one-shot operation.
#[must_use = "a future does nothing unless awaited"]
pub(crate) struct Completion {
    state: State,
}

impl Completion {
    pub(crate) fn new(op: Op) -> Self {
        Self { state: State::Idle(op) }
    }
}

impl Future for Completion {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        context::with(|shard| {
            let mut driver = shard.driver.borrow_mut();
            let key = match std::mem::replace(&mut self.state, State::Done) {
                State::Idle(op) => match driver.submit(op, shard.now()) {
                    Ok(key) => key,
                    Err(errno) => {
                        return Poll::Ready(Outcome { result: Err(errno), op: Op::Idle });
                    }
                },
                State::InFlight(key) => key,
                State::Done => panic!("an operation is not polled after its outcome"),
            };
            let poll = driver.poll(key, context);
            if poll.is_pending() {
                self.state = State::InFlight(key);
            }
            poll
        })
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let State::InFlight(key) = self.state {
            // Without a shard the driver has been shut down, and the slot with it.
            context::try_with(|shard| shard.driver.borrow_mut().abandon(key));
        }
    }
}

/// Starts an operation that nobody waits for. Without a shard it is dropped.
pub(crate) fn detach(op: Op) {
    let mut op = Some(op);
    context::try_with(|shard| {
        if let Some(op) = op.take() {
            shard.driver.borrow_mut().submit_detached(op, shard.now());
        }
    });
}

/// A multishot operation: an endless supply of events, in order.
pub(crate) struct Stream {
    key: SlotKey,
}

impl Stream {
    /// Starts the operation on the calling thread's shard.
    pub(crate) fn open(op: Op) -> Result<Self, Errno> {
        context::with(|shard| {
            let key = shard.driver.borrow_mut().open_stream(op, shard.now())?;
            Ok(Self { key })
        })
    }

    /// The next event. Cancel-safe: an event that is not taken stays.
    #[inline]
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Event> {
        context::with(|shard| shard.driver.borrow_mut().poll_event(self.key, context))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        context::try_with(|shard| shard.driver.borrow_mut().abandon(self.key));
    }
}
