//! A file read in order, with the next blocks on their way while one is looked at.
//!
//! For scans: recovery, verification, bulk copies. Invariant: `ahead` holds reads of neighbouring
//! blocks in order, all under way, the first of which is the one to be given next.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{Completion, DirectFile, Window, read_outcome};
use crate::buffer::PooledBuffer;
use crate::error::{Error, Result};
use crate::fs::file::check_offset;

/// A read that is under way.
struct Ahead {
    completion: Completion,
    /// Where its block begins.
    offset: u64,
}

/// What a read has left of its block, on its way; it may be that the file ends there.
type ShortRest = Pin<Box<dyn Future<Output = Result<PooledBuffer>>>>;

/// Reads a [`DirectFile`] from an offset to its end, block by block, with reads ahead.
///
/// It begins with one block ahead and goes up to its [`Window`] as blocks are taken, so that a
/// short file costs little. Where the file grows meanwhile, the end is where it was met.
///
/// Dropping it cancels what is under way.
pub struct DirectReader {
    // In this order: what is under way is cancelled before the file can be closed.
    ahead: VecDeque<Ahead>,
    /// Of the block in front of `ahead`, and where that begins.
    short: Option<(ShortRest, u64)>,
    file: Rc<DirectFile>,
    window: Window,
    /// Blocks that may be ahead by now.
    blocks: usize,
    /// Where the next block that is not yet ahead begins.
    next: u64,
    /// Where the next byte to be given stands.
    position: u64,
    /// What is left of a block for [`DirectReader::read`].
    rest: Option<PooledBuffer>,
    over: Option<Result<()>>,
}

impl DirectReader {
    /// Reads `file` from `offset` on, which need not be aligned. Nothing is read before the first
    /// call.
    pub fn new(file: impl Into<Rc<DirectFile>>, offset: u64, window: Window) -> Self {
        let file = file.into();
        let next = offset - offset % file.alignment as u64;
        Self {
            ahead: VecDeque::with_capacity(window.blocks),
            short: None,
            file,
            window,
            blocks: 1,
            next,
            position: offset,
            rest: None,
            over: None,
        }
    }

    /// The file that it reads.
    pub fn file(&self) -> &Rc<DirectFile> {
        &self.file
    }

    /// Where the next byte stands.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes in order: a block, less where it begins in the middle of one or the file
    /// ends, never none; `None` at the end. Give the buffer back soon (by dropping it): it is
    /// beyond the window's memory.
    ///
    /// Cancel-safe: a block that has come is there for the next call.
    ///
    /// # Errors
    /// The errors of pread(2), where they are met in the order of the file; from then on every call
    /// fails so.
    pub async fn next_block(&mut self) -> Result<Option<PooledBuffer>> {
        let block = match self.rest.take() {
            Some(rest) => Some(rest),
            None => poll_fn(|context| self.poll_block(context)).await?,
        };
        self.position += block.as_ref().map_or(0, |block| block.len() as u64);
        Ok(block)
    }

    /// Fills as much of `target` as the current block has; 0 at the end of the file, or if there
    /// is nothing to fill.
    ///
    /// Cancel-safe, and fails as [`DirectReader::next_block`].
    ///
    /// # Errors
    /// As [`DirectReader::next_block`].
    pub async fn read(&mut self, target: &mut [u8]) -> Result<usize> {
        if self.rest.is_none() {
            self.rest = poll_fn(|context| self.poll_block(context)).await?;
        }
        let Some(mut block) = self.rest.take() else { return Ok(0) };
        let count = block.len().min(target.len());
        target[..count].copy_from_slice(&block[..count]);
        self.position += count as u64;
        block.show(count, usize::MAX);
        self.rest = Some(block).filter(|block| !block.is_empty());
        Ok(count)
    }

    /// The next block, from `position` on.
    fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<PooledBuffer>>> {
        loop {
            if let Some(over) = &self.over {
                return Poll::Ready(over.clone().map(|()| None));
            }
            self.look_ahead()?;
            let (outcome, offset) = ready!(self.poll_front(context));
            let mut block = match outcome {
                Ok(block) => block,
                Err(error) => return Poll::Ready(Err(self.fail(error))),
            };
            if block.room() > 0 {
                self.over = Some(Ok(()));
                self.ahead.clear();
            }
            self.blocks = (self.blocks * 2).min(self.window.blocks);
            block.show((self.position - offset) as usize, usize::MAX);
            if !block.is_empty() {
                return Poll::Ready(Ok(Some(block)));
            }
        }
    }

    /// The first block under way, less only at the end of the file, and where it begins.
    fn poll_front(&mut self, context: &mut Context<'_>) -> Poll<(Result<PooledBuffer>, u64)> {
        if self.short.is_none() {
            let front = self.ahead.front_mut().expect("there is a read until it is over");
            let outcome = ready!(Pin::new(&mut front.completion).poll(context));
            let offset = front.offset;
            self.ahead.pop_front();
            match read_outcome(outcome) {
                Ok(block) if block.room() > 0 => {
                    let (file, wanted) = (Rc::clone(&self.file), block.capacity());
                    let rest = async move { file.read_on(block, offset, wanted).await };
                    self.short = Some((Box::pin(rest), offset));
                }
                outcome => return Poll::Ready((outcome, offset)),
            }
        }
        let (rest, offset) = self.short.as_mut().expect("it is there or was just made");
        let (outcome, offset) = (ready!(rest.as_mut().poll(context)), *offset);
        self.short = None;
        Poll::Ready((outcome, offset))
    }

    fn fail(&mut self, error: Error) -> Error {
        self.ahead.clear();
        self.over = Some(Err(error.clone()));
        error
    }

    fn under_way(&self) -> usize {
        self.ahead.len() + usize::from(self.short.is_some())
    }

    /// Starts reads up to the window.
    fn look_ahead(&mut self) -> Result<()> {
        while self.under_way() < self.blocks {
            if let Err(errno) = check_offset(self.next, self.window.block_bytes) {
                // Behind the largest offset there is nothing ahead.
                if self.under_way() == 0 {
                    return Err(self.fail(Error::io("reading a file", errno)));
                }
                return Ok(());
            }
            let block = PooledBuffer::new(self.window.block_bytes);
            let ahead = self.begin(block, self.next);
            self.ahead.push_back(ahead);
            self.next += self.window.block_bytes as u64;
        }
        Ok(())
    }

    fn begin(&self, block: PooledBuffer, offset: u64) -> Ahead {
        let mut completion = Completion::new(self.file.read_op(block, offset));
        completion.start();
        Ahead { completion, offset }
    }
}

impl std::fmt::Debug for DirectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("DirectReader");
        debug.field("position", &self.position).field("ahead", &self.ahead.len());
        debug.finish_non_exhaustive()
    }
}
