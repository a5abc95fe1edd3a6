//! Writes that do not suit the disk: copied to aligned memory, with what stands beside them in the
//! blocks at their edges.
//!
//! Called by `DirectFile` alone. Invariant: a block of which the payload is only a part is read and
//! written back while no other write of the same `DirectFile` is under way, but for blocks of
//! writers: those begin before or after, and a file is not cut off in front of one that is landing.

use std::rc::Rc;

use super::{Completion, DirectFile, write_outcome};
use crate::buffer::{Payload, PooledBuffer};
use crate::error::{Error, Result};
use crate::fs::file::check_offset;
use crate::limits;

/// A writer's block that is under way. The writer must not hold up others until it comes to look:
/// its own task may be the one that waits for an unaligned write.
pub(super) struct Landing {
    file: Rc<DirectFile>,
    end: u64,
}

impl Landing {
    /// A block that ends at `end`. To be made while `edges` is held, in front of the write.
    pub(super) fn new(file: Rc<DirectFile>, end: u64) -> Self {
        file.landing.borrow_mut().push(end);
        Self { file, end }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut landing = self.file.landing.borrow_mut();
        if let Some(place) = landing.iter().position(|end| *end == self.end) {
            landing.swap_remove(place);
        }
    }
}

impl DirectFile {
    pub(super) async fn write(
        &self,
        payload: Payload,
        offset: u64,
        durable: bool,
    ) -> Result<Payload> {
        check_offset(offset, payload.len()).map_err(|errno| Error::io("writing a file", errno))?;
        if payload.is_empty() {
            return Ok(payload);
        }
        let is_whole = self.is_aligned(offset) && self.is_aligned(payload.len() as u64);
        if is_whole && (payload.as_ptr() as usize).is_multiple_of(self.memory_alignment) {
            let _shared = self.edges.read().await;
            return self.write_aligned(payload, offset, durable).await;
        }
        if is_whole {
            let _shared = self.edges.read().await;
            self.write_copied(&payload, offset, durable).await?;
        } else {
            let _alone = self.edges.write().await;
            self.write_copied(&payload, offset, durable).await?;
        }
        Ok(payload)
    }

    fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.alignment as u64)
    }

    /// Writes what suits the disk, in as many parts as the kernel takes.
    async fn write_aligned(&self, payload: Payload, offset: u64, durable: bool) -> Result<Payload> {
        let (mut payload, mut written) = (payload, 0);
        while written < payload.len() {
            let op = self.write_op(payload, written, offset, durable);
            (payload, written) = write_outcome(Completion::new(op).await)?;
        }
        Ok(payload)
    }

    /// Writes by way of aligned memory, a block at a time.
    async fn write_copied(&self, payload: &[u8], offset: u64, durable: bool) -> Result<()> {
        let end = offset + payload.len() as u64;
        let first = offset - offset % self.alignment as u64;
        let is_one = end - first <= limits::DIRECT_BLOCK_BYTES as u64;
        let mut at = offset;
        let mut is_durable = !durable;
        while at < end {
            let start = at - at % self.alignment as u64;
            let stop = end.min(start + limits::DIRECT_BLOCK_BYTES as u64);
            let part = &payload[(at - offset) as usize..(stop - offset) as usize];
            let (block, is_last) = self.with_edges(part, at).await?;
            let padded = start + block.len() as u64;
            let file_end = if is_last { self.end_before(stop, padded).await? } else { None };
            let at_once = durable && is_one && file_end.is_none();
            self.write_aligned(block.into(), start, at_once).await?;
            if let Some(length) = file_end {
                self.file.set_len(length).await?;
            }
            is_durable |= at_once;
            at = stop;
        }
        if is_durable { Ok(()) } else { self.file.sync_data().await }
    }

    /// Where the file has to end after a write up to `end` that is padded up to `padded`, if that
    /// is before: with `edges` held alone, nothing begins behind it until the file is cut.
    async fn end_before(&self, end: u64, padded: u64) -> Result<Option<u64>> {
        // What has landed by the time of the answer is in the length.
        let is_landing = self.landing.borrow().iter().any(|end| *end > padded);
        let length = self.file.metadata().await?.len().max(end);
        Ok((length < padded && !is_landing).then_some(length))
    }

    /// `part`, which belongs at `at`, with what stands before and behind it in its first and last
    /// block; and whether there was less behind it, so that the rest of the block is padding.
    async fn with_edges(&self, part: &[u8], at: u64) -> Result<(PooledBuffer, bool)> {
        let head = at as usize & (self.alignment - 1);
        let length = (head + part.len()).next_multiple_of(self.alignment);
        let mut block = PooledBuffer::new(length);
        if head > 0 {
            let before = self.read_at(at - head as u64, head).await?;
            block.extend_from_slice(&before);
            // Where the file has ended before, there will be zeros.
            block.spare_mut()[..head - before.len()].fill(0);
            block.fill(head - before.len());
        }
        block.extend_from_slice(part);
        if block.room() == 0 {
            return Ok((block, false));
        }
        let end = at + part.len() as u64;
        let behind = self.read_at(end, block.room()).await?;
        block.extend_from_slice(&behind);
        let is_last = block.room() > 0;
        block.pad(self.alignment);
        Ok((block, is_last))
    }
}
