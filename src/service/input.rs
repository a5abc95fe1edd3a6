//! Received bytes that are not consumed yet, as one slice. Owned by the connection loops.
//!
//! Invariant: either a lease or a buffer holds them, never both. What arrives whole is read from
//! the lease in place; only what a request left over is copied.

use crate::Lease;

/// Room for a partial request that a connection may keep while it waits.
const KEPT_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Input {
    lease: Option<Lease>,
    kept: Vec<u8>,
    /// Consumed bytes of `kept`.
    at: usize,
}

impl Input {
    /// Everything not yet consumed.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.lease {
            Some(lease) => lease,
            None => &self.kept[self.at..],
        }
    }

    /// Whether everything has been consumed.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Drops the first `count` bytes.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        match &mut self.lease {
            Some(lease) if count == lease.len() => self.lease = None,
            Some(lease) => lease.advance(count),
            None => self.at += count,
        }
        if self.at > 0 && self.at == self.kept.len() {
            self.kept.clear();
            self.kept.shrink_to(KEPT_BYTES_MAX);
            self.at = 0;
        }
    }

    /// Adds a chunk behind what is left.
    pub(super) fn push(&mut self, chunk: Lease) {
        self.keep();
        if self.kept.is_empty() {
            self.lease = Some(chunk);
        } else {
            self.kept.extend_from_slice(&chunk);
        }
    }

    /// Gives the lease back, with what is left of it copied: nobody holds the shard's buffers while
    /// waiting for a peer.
    pub(super) fn keep(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.kept.extend_from_slice(&lease);
        } else if self.at > 0 {
            self.kept.drain(..self.at);
            self.at = 0;
        }
    }
}
