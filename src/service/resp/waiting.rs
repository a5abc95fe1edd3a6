//! What commands wait for that is neither input nor another partition: the disk.
//!
//! Used by the connection loop, after it has sent the replies before. Invariant: a reply is
//! appended once what it tells is so, or the time for it is over. A snapshot is asked for here, and
//! not where the command is decoded: by now the commands in front of it have been done, those at
//! other partitions too, so that the snapshot holds what they did.

use std::sync::Arc;
use std::time::Duration;

use crate::log::{Log, Lsn};
use crate::metrics::{self, Counter};
use crate::protocol::resp::{Encoder, Protocol};
use crate::store::saving::Saving;
use crate::time;

use super::command::Refusal;

/// What a command waits for.
#[derive(Debug)]
pub enum Wait {
    /// The connection's writes being durable, for at most this long; `WAITAOF`.
    Durable(Option<Duration>),
    /// A snapshot; `SAVE`.
    Saved(Arc<Saving>),
    /// A snapshot being asked for; `BGSAVE`.
    Asked {
        /// Who is asked.
        saving: Arc<Saving>,
        /// What is said, or why it is not asked for, given whether a snapshot is under way.
        told: fn(bool) -> Result<&'static str, Refusal>,
    },
    /// A snapshot, and then the end of the server; `SHUTDOWN SAVE`. If it fails, the server goes on
    /// unless it was told otherwise.
    SavedToEnd {
        /// Who is asked for it.
        saving: Arc<Saving>,
        /// Whether the server ends in any case.
        force: bool,
    },
}

/// What is said where one snapshot at a time is wanted and one is under way.
pub(super) const BUSY: Refusal = Refusal::Fixed("ERR Background save already in progress");

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
            Self::Saved(saving) if saving.is_under_way() => refuse(BUSY.text(), protocol, out),
            Self::Saved(saving) => match saving.request().finished().await {
                Ok(_) => Encoder::new(out, protocol).ok(),
                Err(failed) => refuse(format!("ERR {failed}"), protocol, out),
            },
            Self::Asked { saving, told } => match told(saving.is_under_way()) {
                Ok(text) => {
                    saving.ask();
                    Encoder::new(out, protocol).simple(text);
                }
                Err(refusal) => refuse(refusal.text(), protocol, out),
            },
            Self::SavedToEnd { saving, force } => match saving.request().finished().await {
                Err(failed) if !force => {
                    let text = format!("ERR Errors trying to SHUTDOWN: {failed}");
                    refuse(text, protocol, out);
                }
                _ => return Waited::ShutDown,
            },
        }
        Waited::Reply
    }
}

fn refuse(text: impl AsRef<[u8]>, protocol: Protocol, out: &mut Vec<u8>) {
    metrics::add(Counter::RespErrors, 1);
    Encoder::new(out, protocol).error(text);
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
#[path = "waiting_tests.rs"]
mod tests;
