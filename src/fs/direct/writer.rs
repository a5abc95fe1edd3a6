//! A file written in order, with the last blocks on their way while the next is filled.
//!
//! For what is written once from front to back: snapshots, copies, exports. Invariant: `behind`
//! holds writes of whole blocks in order, all under way; what is being filled begins where they
//! end.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::edges::Landing;
use super::{Completion, DirectFile, Window, write_outcome};
use crate::buffer::{Payload, PooledBuffer};
use crate::error::{Error, Result};
use crate::fs::file::check_offset;

/// A write that is under way.
struct Behind {
    completion: Completion,
    /// Where its block belongs.
    offset: u64,
    /// Keeps others from cutting the file off in front of it.
    landing: Landing,
}

/// Writes a [`DirectFile`] from an offset on, block by block, with writes behind.
///
/// Until [`DirectWriter::flush`] or [`DirectWriter::finish`], bytes that were taken may be in
/// memory only; until [`DirectWriter::sync`], they need not be durable. An error of a write comes
/// with a later call, and from then on with every one. It has its part of the file to itself:
/// nobody else writes there meanwhile.
///
/// Writes that extend a file wait for each other: where it is known how much there will be,
/// allocate it before ([`crate::fs::File::allocate`] by [`DirectFile::file`]), which is about twice
/// as fast on ext4. [`DirectWriter::finish`] cuts what was too much.
///
/// Dropping it gives up what is in memory, and cancels what is under way: any part of that may have
/// been written.
pub struct DirectWriter {
    // In this order: what is under way is cancelled before the file can be closed.
    behind: VecDeque<Behind>,
    file: Rc<DirectFile>,
    window: Window,
    /// What is being filled, and where it belongs.
    current: PooledBuffer,
    offset: u64,
    failed: Option<Error>,
}

impl DirectWriter {
    /// Writes `file` from `offset` on.
    ///
    /// # Errors
    /// An offset that is no multiple of [`DirectFile::alignment`].
    pub fn new(file: impl Into<Rc<DirectFile>>, offset: u64, window: Window) -> Result<Self> {
        let file = file.into();
        if !offset.is_multiple_of(file.alignment as u64) {
            return Err(Error::config(format!(
                "a direct writer at offset {offset}: give a multiple of {}",
                file.alignment
            )));
        }
        Ok(Self {
            behind: VecDeque::with_capacity(window.blocks),
            file,
            window,
            current: PooledBuffer::new(window.block_bytes),
            offset,
            failed: None,
        })
    }

    /// The file that it writes.
    pub fn file(&self) -> &Rc<DirectFile> {
        &self.file
    }

    /// Where the next byte belongs.
    pub fn position(&self) -> u64 {
        self.offset + self.current.len() as u64
    }

    /// Takes all of `bytes`. It waits while as many blocks as the window has are under way.
    ///
    /// A dropped future may have taken a first part of them: [`DirectWriter::position`] tells.
    ///
    /// # Errors
    /// The errors of pwrite(2) of these or of earlier bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.room().await?;
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            self.fill(count);
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Room for bytes to be put in place, at least one: then tell how many by
    /// [`DirectWriter::fill`]. It waits and fails as [`DirectWriter::write`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`DirectWriter::write`].
    pub async fn room(&mut self) -> Result<&mut [u8]> {
        self.check()?;
        if self.current.room() == 0 {
            self.hand_over().await?;
        }
        Ok(self.current.spare_mut())
    }

    /// Takes the first `count` bytes of [`DirectWriter::room`] as they stand.
    ///
    /// # Panics
    /// If there is not so much room.
    pub fn fill(&mut self, count: usize) {
        self.current.fill(count);
    }

    /// Waits until everything taken so far is in the file. A last block that is not full is written
    /// as [`DirectFile::write_at`] does, and again when it is full: not for every few bytes.
    ///
    /// A future that is dropped while it writes that last block leaves a writer that fails; before,
    /// nothing is lost.
    ///
    /// # Errors
    /// As [`DirectWriter::write`].
    pub async fn flush(&mut self) -> Result<()> {
        self.check()?;
        if self.current.room() == 0 {
            self.hand_over().await?;
        }
        self.land_all().await?;
        if self.current.is_empty() {
            return Ok(());
        }
        // A copy: what is being filled stays.
        let mut tail = PooledBuffer::new(self.current.len());
        tail.extend_from_slice(&self.current);
        // A write that is given up may yet reach the disk, after a later one of the same block.
        self.failed = Some(Error::cancelled("the flush of a direct writer"));
        let written = self.file.write(tail.into(), self.offset, false).await;
        self.failed = written.err();
        self.check()
    }

    /// [`DirectWriter::flush`], and makes the file's data durable (fdatasync(2)).
    ///
    /// A dropped future may have done it or not.
    ///
    /// # Errors
    /// As [`DirectWriter::write`], and those of fdatasync(2).
    pub async fn sync(&mut self) -> Result<()> {
        self.flush().await?;
        let synced = self.file.file.sync_data().await;
        synced.map_err(|error| self.fail(error))
    }

    /// Writes what is left and makes the file end where this writer stands, whatever was behind.
    /// Not durable yet: sync the file that comes back.
    ///
    /// A dropped future is as a dropped writer.
    ///
    /// # Errors
    /// As [`DirectWriter::write`], and those of ftruncate(2).
    pub async fn finish(mut self) -> Result<Rc<DirectFile>> {
        self.check()?;
        let end = self.position();
        if !self.current.is_empty() {
            self.current.pad(self.file.alignment);
            self.hand_over().await?;
        }
        self.land_all().await?;
        self.file.file.set_len(end).await?;
        Ok(Rc::clone(&self.file))
    }

    fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error
    }

    /// Has the current block written, once there is a place for it, and begins the next.
    async fn hand_over(&mut self) -> Result<()> {
        // What has come meanwhile is looked at first, so that errors are told early.
        let mut glance = Context::from_waker(Waker::noop());
        while let Poll::Ready(true) = self.poll_land(&mut glance)? {}
        while self.behind.len() >= self.window.blocks {
            poll_fn(|context| self.poll_land(context)).await?;
        }
        let next = self.offset + self.current.len() as u64;
        if let Err(errno) = check_offset(next, self.window.block_bytes) {
            return Err(self.fail(Error::io("writing a file", errno)));
        }
        let file = Rc::clone(&self.file);
        // Held alone, the file may be about to be cut off in front of this block.
        let shared = file.edges.read().await;
        let fresh = PooledBuffer::new(self.window.block_bytes);
        let block = std::mem::replace(&mut self.current, fresh);
        let landing = Landing::new(Rc::clone(&self.file), next);
        let behind = self.begin(block.into(), 0, self.offset, landing);
        self.behind.push_back(behind);
        drop(shared);
        self.offset = next;
        Ok(())
    }

    fn begin(&self, block: Payload, written: usize, offset: u64, landing: Landing) -> Behind {
        let op = self.file.write_op(block, written, offset, false);
        let mut completion = Completion::new(op);
        completion.start();
        Behind { completion, offset, landing }
    }

    async fn land_all(&mut self) -> Result<()> {
        while poll_fn(|context| self.poll_land(context)).await? {}
        Ok(())
    }

    /// Takes the outcome of the first write; false if there is none.
    fn poll_land(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        let Some(first) = self.behind.front_mut() else { return Poll::Ready(Ok(false)) };
        let outcome = ready!(Pin::new(&mut first.completion).poll(context));
        let Some(Behind { offset, landing, .. }) = self.behind.pop_front() else {
            unreachable!("it was there just now")
        };
        match write_outcome(outcome) {
            Ok((block, written)) => {
                if written < block.len() {
                    let rest = self.begin(block, written, offset, landing);
                    self.behind.push_front(rest);
                }
                Poll::Ready(Ok(true))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }
}

impl std::fmt::Debug for DirectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("DirectWriter");
        debug.field("position", &self.position()).field("behind", &self.behind.len());
        debug.finish_non_exhaustive()
    }
}
