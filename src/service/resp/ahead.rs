//! Requests decoded ahead of running them, so that the memory that they need can be fetched for all
//! of them at once. Used by a session.
//!
//! Invariant: requests run in the order in which they were decoded, and none is decoded behind one
//! that may change how the next is to be read.

use crate::protocol::resp::{Args, Decode, Decoder, Kept, limits};
use crate::store::keyspace::WARM_COUNT_MAX;

/// How far one call of a session has got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of input whose requests have been run.
    pub(super) consumed: usize,
    /// Bytes of input whose requests have been decoded.
    pub(super) decoded: usize,
    /// Requests run.
    pub(super) commands: u64,
    /// Row of the last command.
    pub(super) last: Option<u16>,
}

/// Some requests, decoded.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    requests: [Request; WARM_COUNT_MAX],
    len: usize,
}

/// A request, and where it starts and ends in the input.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Request {
    kept: Kept,
    start: u32,
    end: u32,
}

const _: () = assert!(limits::QUERY_BYTES_MAX <= u32::MAX as usize);

impl Request {
    #[inline]
    pub(super) fn args<'a>(&self, decoder: &'a Decoder, input: &'a [u8]) -> Args<'a> {
        decoder.args(self.kept, &input[self.start as usize..])
    }

    #[inline]
    pub(super) fn end(&self) -> usize {
        self.end as usize
    }
}

impl Ahead {
    /// Decodes requests until there is no room or the decoder says something else than complete;
    /// answers that.
    #[inline]
    pub(super) fn fill(
        &mut self,
        decoder: &mut Decoder,
        input: &[u8],
        progress: &mut Progress,
        authenticated: bool,
    ) -> Option<Decode> {
        decoder.forget();
        decoder.set_authenticated(authenticated);
        // A stranger's next request may be read by other limits, once this one has let it in.
        let room = if authenticated { self.requests.len() } else { 1 };
        for request in &mut self.requests[..room] {
            let start = progress.decoded;
            match decoder.decode(&input[start..]) {
                Decode::Complete(len) => progress.decoded += len,
                other => return Some(other),
            }
            let end = progress.decoded as u32;
            *request = Request { kept: decoder.last(), start: start as u32, end };
            self.len += 1;
        }
        None
    }

    /// The requests, in order.
    #[inline]
    pub(super) fn requests(&self) -> &[Request] {
        &self.requests[..self.len]
    }
}
