//! Writes that do not suit the disk: copied to aligned memory, with what stands beside them in the
//! blocks at their edges.
//!
//! Called by `DirectFile` alone. Invariant: a block of which the payload is only a part is read and
//! written back while no other write of the same `DirectFile` is under way.

use super::{Completion, DirectFile, write_outcome};
use crate::buffer::{Payload, PooledBuffer};
use crate::error::{Error, Result};
use crate::fs::file::check_offset;
use crate::limits;

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
            let (block, file_end) = self.with_edges(part, at).await?;
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

    /// `part`, which belongs at `at`, with what stands before and behind it in its first and last
    /// block; and where the file has to end afterwards, if the padding goes beyond its end.
    async fn with_edges(&self, part: &[u8], at: u64) -> Result<(PooledBuffer, Option<u64>)> {
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
            return Ok((block, None));
        }
        let end = at + part.len() as u64;
        let behind = self.read_at(end, block.room()).await?;
        block.extend_from_slice(&behind);
        let file_end = (block.room() > 0).then_some(end + behind.len() as u64);
        block.pad(self.alignment);
        Ok((block, file_end))
    }
}
