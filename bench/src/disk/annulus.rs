//! A job on annulus: one shard, and the same code for every engine.
//!
//! Random jobs, and those that sync every write, are as many tasks as the depth; the others read
//! ahead or write behind by so many blocks.

use std::rc::Rc;
use std::time::Instant;

use annulus::buffer::{Payload, PooledBuffer};
use annulus::fs::{DirectFile, DirectReader, DirectWriter, OpenOptions, Window};
use annulus::{Error, Result, Runtime, task, time};

use super::job::{Books, Job, Offsets, Operation};
use crate::compare::contender::Engine;
use crate::failure::Failure;
use crate::load::Outcome;

/// Each of these of a written block has something of its own.
const SECTOR_BYTES: usize = 512;

/// Does `job` on a runtime of its own.
pub(super) fn run(job: &Job, engine: Engine) -> std::result::Result<Outcome, Failure> {
    let failed = |error: Error| Failure::failed(job.path.display(), error);
    let runtime = Runtime::builder().engine(engine.into()).shards(1).cpu_cores(0).build();
    let runtime = runtime.map_err(failed)?;
    runtime.block_on(perform(job)).map_err(failed)
}

async fn perform(job: &Job) -> Result<Outcome> {
    let options = OpenOptions::new().read(true).write(job.operation.is_write());
    let file = if job.direct {
        options.open_direct(&job.path).await?
    } else {
        DirectFile::through_cache(options.open(&job.path).await?)
    };
    let file = Rc::new(file);
    match job.operation {
        Operation::Read => read(job, file).await,
        Operation::Write if !job.durable => write(job, file).await,
        _ => lines(job, file).await,
    }
}

async fn read(job: &Job, file: Rc<DirectFile>) -> Result<Outcome> {
    let books = Books::new(job);
    let opened = books.open();
    let mut reader = DirectReader::new(file, 0, Window::new(job.block_bytes, job.depth)?);
    let mut started = Instant::now();
    while reader.next_block().await?.is_some() {
        let ended = Instant::now();
        if !books.record(started, ended) {
            break;
        }
        started = ended;
    }
    Ok(books.close(&opened))
}

async fn write(job: &Job, file: Rc<DirectFile>) -> Result<Outcome> {
    let books = Books::new(job);
    let opened = books.open();
    let mut writer = DirectWriter::new(file, 0, Window::new(job.block_bytes, job.depth)?)?;
    let mut started = Instant::now();
    for number in 0..job.blocks() {
        let block = writer.room().await?;
        // No two blocks are alike, and none is made anew: as fio has it.
        for sector in block.chunks_mut(SECTOR_BYTES) {
            sector[..8].copy_from_slice(&number.to_ne_bytes());
        }
        let count = block.len();
        writer.fill(count);
        let ended = Instant::now();
        if !books.record(started, ended) {
            break;
        }
        started = ended;
    }
    writer.flush().await?;
    Ok(books.close(&opened))
}

async fn lines(job: &Job, file: Rc<DirectFile>) -> Result<Outcome> {
    let (books, offsets) = (Rc::new(Books::new(job)), Rc::new(Offsets::new(job)));
    let mut opened = (!job.operation.is_random()).then(|| books.open());
    let tasks: Vec<_> = (0..job.depth)
        .map(|_| {
            let (file, books) = (Rc::clone(&file), Rc::clone(&books));
            task::spawn(line(job.clone(), file, books, Rc::clone(&offsets)))
        })
        .collect();
    let mut outcome = None;
    if opened.is_none() {
        time::sleep(job.warmup).await;
        let window = books.open();
        time::sleep(job.window()).await;
        outcome = Some(books.close(&window));
    }
    for task in tasks {
        task.await??;
    }
    if let Some(opened) = opened.take() {
        outcome = Some(books.close(&opened));
    }
    Ok(outcome.expect("every job has a window"))
}

async fn line(
    job: Job,
    file: Rc<DirectFile>,
    books: Rc<Books>,
    offsets: Rc<Offsets>,
) -> Result<()> {
    let mut block = PooledBuffer::new(job.block_bytes);
    block.extend_from_slice(&vec![0xa5; job.block_bytes]);
    let mut payload = Payload::from(block);
    let mut started = Instant::now();
    while let Some(offset) = offsets.next() {
        if !job.operation.is_write() {
            let read = file.read_at(offset, job.block_bytes).await?;
            if read.len() != job.block_bytes {
                return Err(Error::config("the file is shorter than it was made"));
            }
        } else if job.durable {
            payload = file.write_durable_at(payload, offset).await?;
        } else {
            payload = file.write_at(payload, offset).await?;
        }
        let ended = Instant::now();
        if !books.record(started, ended) {
            break;
        }
        started = ended;
    }
    Ok(())
}
