//! How much of a file a reader has ahead, or a writer behind.
//!
//! Made by programs, used by the reader and the writer beside this file. Invariant: a block is a
//! multiple of every alignment that a direct file may have, and one operation can move it.

use crate::error::{Error, Result};
use crate::limits;

/// How much of a file is under way at a time: blocks of so many bytes, and how many. The memory of
/// a [`super::DirectReader`] or a [`super::DirectWriter`] is that much and one block more.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub(super) block_bytes: usize,
    pub(super) blocks: usize,
}

impl Default for Window {
    /// [`limits::DIRECT_BLOCKS_COUNT_DEFAULT`] blocks of [`limits::DIRECT_BLOCK_BYTES`].
    fn default() -> Self {
        Self {
            block_bytes: limits::DIRECT_BLOCK_BYTES,
            blocks: limits::DIRECT_BLOCKS_COUNT_DEFAULT,
        }
    }
}

impl Window {
    /// `blocks` blocks of `block_bytes` bytes, a multiple of
    /// [`limits::POOLED_ALIGNMENT_BYTES`].
    ///
    /// # Errors
    /// No block or none of bytes, bytes that are no such multiple or more than one operation moves
    /// ([`limits::TRANSFER_BYTES_MAX`]), or more than [`limits::DIRECT_BLOCKS_COUNT_MAX`] blocks.
    pub fn new(block_bytes: usize, blocks: usize) -> Result<Self> {
        let (alignment, most) = (limits::POOLED_ALIGNMENT_BYTES, limits::TRANSFER_BYTES_MAX);
        if block_bytes == 0 || !block_bytes.is_multiple_of(alignment) || block_bytes > most as usize
        {
            return Err(Error::config(format!(
                "a block of {block_bytes} bytes: give a multiple of {alignment}, at most {most}"
            )));
        }
        if blocks == 0 || blocks > limits::DIRECT_BLOCKS_COUNT_MAX {
            return Err(Error::config(format!(
                "{blocks} blocks at a time: give 1 to {}",
                limits::DIRECT_BLOCKS_COUNT_MAX
            )));
        }
        Ok(Self { block_bytes, blocks })
    }
}
