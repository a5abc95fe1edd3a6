//! What commands wait for that is neither input nor another partition: the disk.
//!
//! Used by the connection loop, after it has sent the replies before. Invariant: a reply is
//! appended once what it tells is so, or the time for it is over.

use std::time::Duration;

use crate::log::{Log, Lsn};
use crate::protocol::resp::{Encoder, Protocol};
use crate::store::saving::Requested;
use crate::time;

/// What a command waits for.
#[derive(Debug)]
pub enum Wait {
    /// The connection's writes being durable, for at most this long; `WAITAOF`.
    Durable(Option<Duration>),
    /// A snapshot; `SAVE`.
    Saved(Requested),
    /// A snapshot, and then the end of the server; `SHUTDOWN SAVE`. If it fails, the server goes on
    /// unless it was told otherwise.
    SavedToEnd {
        /// The snapshot.
        requested: Requested,
        /// Whether the server ends in any case.
        force: bool,
    },
}

/// What follows a wait.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Waited {
    /// The reply, which has been appended.
    Reply,
    /// The end of the server.
    ShutDown,
}

impl Wait {
    /// Waits; `wrote` is the last record that the connection has written to.
    pub(super) async fn over(
        self,
        log: Option<&Log>,
        wrote: Lsn,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) -> Waited {
        match self {
            Self::Durable(timeout) => {
                if let Some(log) = log {
                    let durable = log.made_durable(wrote);
                    // A log that fails ends the process; until then nothing is durable.
                    let _ = match timeout {
                        Some(timeout) => time::timeout(timeout, durable).await.is_ok(),
                        None => durable.await.is_ok(),
                    };
                }
                reply_durable(log, wrote, &mut Encoder::new(out, protocol));
            }
            Self::Saved(requested) => {
                let saved = requested.finished().await;
                let mut reply = Encoder::new(out, protocol);
                match saved {
                    Ok(_) => reply.ok(),
                    Err(failed) => reply.error(format!("ERR {failed}")),
                }
            }
            Self::SavedToEnd { requested, force } => match requested.finished().await {
                Err(failed) if !force => {
                    let text = format!("ERR Errors trying to SHUTDOWN: {failed}");
                    Encoder::new(out, protocol).error(text);
                }
                _ => return Waited::ShutDown,
            },
        }
        Waited::Reply
    }
}

/// The reply of `WAITAOF`: how many local logs hold what the connection has written, and how many
/// of replicas.
pub(super) fn reply_durable(log: Option<&Log>, wrote: Lsn, reply: &mut Encoder<'_>) {
    let durable = log.is_some_and(|log| log.durable_lsn() >= wrote);
    reply.array(2);
    reply.integer(i64::from(durable));
    reply.integer(0);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::log::Policy;

    #[test]
    fn a_connection_is_told_that_its_writes_are_durable_when_they_are() {
        let log = Log::new(1, Lsn::NONE, Policy::Never, Duration::ZERO);
        let mut context = Context::from_waker(Waker::noop());
        let (mut out, mut early) = (Vec::new(), Vec::new());
        {
            let wait = Wait::Durable(None).over(Some(&log), Lsn(2), Protocol::Resp2, &mut out);
            let mut wait = pin!(wait);
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
            log.set_durable(Lsn(1));
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
            reply_durable(Some(&log), Lsn(2), &mut Encoder::new(&mut early, Protocol::Resp2));
            log.set_durable(Lsn(2));
            assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(Waited::Reply));
        }
        assert_eq!(
            (&early[..], &out[..]),
            (&b"*2\r\n:0\r\n:0\r\n"[..], &b"*2\r\n:1\r\n:0\r\n"[..])
        );
        let mut without = Vec::new();
        reply_durable(None, Lsn::NONE, &mut Encoder::new(&mut without, Protocol::Resp2));
        assert_eq!(without, b"*2\r\n:0\r\n:0\r\n", "there is no log");
    }
}
