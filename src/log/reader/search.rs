//! What lies behind the spot where a log does not go on. Called by the reader to tell a torn tail
//! from damage.
//!
//! Invariant: every whole record behind the spot is found, wherever a block begins; work is linear
//! in the bytes searched, since only headers that this store wrote lead to a longer look.

use std::io;

use super::super::record::{decode_head, is_whole, padded_bytes};
use super::super::{ALIGNMENT_BYTES, Link, Lsn, Seed};
use super::Torn;
use super::files::{ReadAt, Window};

static ZEROS: [u8; ALIGNMENT_BYTES] = [0; ALIGNMENT_BYTES];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A record that was written when the expected one was known to be durable.
    pub(super) proof: Option<Lsn>,
    /// The highest number of a whole record that is not older than the expected one.
    pub(super) newest: Option<Lsn>,
    /// Whether records from before the file's present use remain.
    is_recycled: bool,
    /// Where what was written last ends: the last block that is not all zeros.
    content_end: u64,
    /// Where the last new record ends, or would if it were whole.
    newest_end: u64,
}

impl Found {
    /// What is lost from `offset` on.
    pub(super) fn torn(&self, offset: u64) -> Option<Torn> {
        // A file that was used before is full of old bytes: there, only what is recognised as new
        // counts.
        let content_end = if self.is_recycled { offset } else { self.content_end };
        let bytes = self.newest_end.max(content_end) - offset;
        (bytes > 0).then_some(Torn { bytes, newest: self.newest })
    }
}

/// Searches from `offset` to the end of the file.
pub(super) fn behind<T: ReadAt>(
    window: &mut Window<T>,
    offset: u64,
    expected: Link,
    seed: Seed,
) -> io::Result<Found> {
    let mut found = Found { content_end: offset, newest_end: offset, ..Found::default() };
    let mut at = offset;
    while at < window.file_bytes() {
        let Some(block) = window.at(at, ALIGNMENT_BYTES)?.get(..ALIGNMENT_BYTES) else { break };
        let next = at + ALIGNMENT_BYTES as u64;
        if block != ZEROS {
            found.content_end = next.min(window.file_bytes());
        }
        at = look(window, at, expected, seed, &mut found)?.unwrap_or(next);
    }
    Ok(found)
}

/// Looks for a record at `at`; answers where to go on behind a whole new one.
fn look<T: ReadAt>(
    window: &mut Window<T>,
    at: u64,
    expected: Link,
    seed: Seed,
    found: &mut Found,
) -> io::Result<Option<u64>> {
    let Ok((head, checksum, length)) = decode_head(window.held(at), seed) else { return Ok(None) };
    if head.link.lsn < expected.lsn {
        found.is_recycled = true;
        return Ok(None);
    }
    let padded = padded_bytes(length);
    let end = (at + padded as u64).min(window.file_bytes());
    found.newest_end = found.newest_end.max(end);
    let bytes = window.at(at, padded)?;
    if bytes.len() < padded || !is_whole(bytes, checksum, length, seed) {
        return Ok(None);
    }
    found.content_end = found.content_end.max(end);
    found.newest = found.newest.max(Some(head.link.lsn));
    if head.durable >= expected.lsn {
        found.proof = found.proof.or(Some(head.link.lsn));
    }
    Ok(Some(at + padded as u64))
}
