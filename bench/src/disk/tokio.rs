//! A job on tokio: a task for each operation under way, each a positioned call by `spawn_blocking`,
//! which is how `tokio::fs` reads and writes. Its own `File` has neither offsets nor aligned memory
//! and would need two such hops for each operation, so this is the fastest that it can be.
//!
//! Invariant: the runtime has one thread besides those of its blocking pool.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use annulus::buffer::AlignedBuffer;
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

use super::job::{Books, Job, Offsets};
use crate::failure::Failure;
use crate::load::Outcome;

/// What a direct buffer is aligned to.
const ALIGNMENT: usize = 4096;

/// Does `job` on a runtime of its own.
pub(super) fn run(job: &Job) -> Result<Outcome, Failure> {
    perform(job).map_err(|error| Failure::failed(job.path.display(), error))
}

fn perform(job: &Job) -> io::Result<Outcome> {
    let mut flags = if job.direct { libc::O_DIRECT } else { 0 };
    if job.durable {
        flags |= libc::O_DSYNC;
    }
    let is_write = job.operation.is_write();
    let file = OpenOptions::new().read(true).write(is_write).custom_flags(flags).open(&job.path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    LocalSet::new().block_on(&runtime, lines(job, Arc::new(file)))
}

async fn lines(job: &Job, file: Arc<File>) -> io::Result<Outcome> {
    let (books, offsets) = (Rc::new(Books::new(job)), Rc::new(Offsets::new(job)));
    let opened = (!job.operation.is_random()).then(|| books.open());
    let tasks: Vec<_> = (0..job.depth)
        .map(|_| {
            let (file, books) = (Arc::clone(&file), Rc::clone(&books));
            spawn_local(line(job.clone(), file, books, Rc::clone(&offsets)))
        })
        .collect();
    let mut outcome = None;
    if opened.is_none() {
        tokio::time::sleep(job.warmup).await;
        let window = books.open();
        tokio::time::sleep(job.window()).await;
        outcome = Some(books.close(&window));
    }
    for task in tasks {
        task.await.map_err(io::Error::other)??;
    }
    if let Some(opened) = opened {
        outcome = Some(books.close(&opened));
    }
    Ok(outcome.expect("every job has a window"))
}

async fn line(job: Job, file: Arc<File>, books: Rc<Books>, offsets: Rc<Offsets>) -> io::Result<()> {
    let is_write = job.operation.is_write();
    let mut buffer = AlignedBuffer::new(job.block_bytes, ALIGNMENT);
    buffer.as_mut_slice().fill(0xa5);
    let mut started = Instant::now();
    while let Some(offset) = offsets.next() {
        let file = Arc::clone(&file);
        let call = move || {
            let block = buffer.as_mut_slice();
            let done = if is_write {
                file.write_all_at(block, offset)
            } else {
                file.read_exact_at(block, offset)
            };
            done.map(|()| buffer)
        };
        buffer = spawn_blocking(call).await.map_err(io::Error::other)??;
        let ended = Instant::now();
        if !books.record(started, ended) {
            break;
        }
        started = ended;
    }
    Ok(())
}
