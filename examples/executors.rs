//! A call that blocks, on the default pool, on a pool of one's own, and in another process.
//!
//! Answers `loop.run_in_executor` with `None`, with a `ThreadPoolExecutor` and with a
//! `ProcessPoolExecutor`: two units each, and the loop goes on meanwhile. A closure cannot travel
//! to another process: there a job is bytes for a function with a name.
//!
//! `cargo run --example executors`

mod trace;

use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, ThreadId};

use annulus::process::pool::{self, Function, Worker};
use annulus::task::JoinHandle;
use annulus::{Error, Result, Runtime, blocking, task};
use trace::{Trace, UNIT};

/// What a worker process can do.
pub(crate) const FUNCTIONS: [(&str, Function); 1] = [("func1", func1_elsewhere)];

/// Blocks its thread for two units, and begins once the loop was seen to go on.
fn func1(begin: &Receiver<()>) -> (&'static str, ThreadId) {
    let _ = begin.recv();
    thread::sleep(UNIT * 2);
    ("result", thread::current().id())
}

fn func1_elsewhere(name: &[u8]) -> Vec<u8> {
    thread::sleep(UNIT * 2);
    [name, b"'s result, from process ", std::process::id().to_string().as_bytes()].concat()
}

/// A task that says that it runs.
fn others(trace: &Trace) -> (JoinHandle<()>, Receiver<()>) {
    let (sender, receiver) = channel();
    let trace = trace.clone();
    let task = task::spawn(async move {
        trace.say("the loop goes on");
        let _ = sender.send(());
    });
    (task, receiver)
}

async fn default_pool(trace: &Trace) -> Result<()> {
    let (others, begin) = others(trace);
    let (result, home) = blocking::run(move || func1(&begin)).await?;
    let here = home == thread::current().id();
    trace.say(format_args!("default thread pool: {result}, from this thread: {here}"));
    drop(others.await);
    Ok(())
}

async fn own_pool(trace: &Trace) -> Result<()> {
    let pool = blocking::Pool::builder().threads(2).name("own").build()?;
    let (others, begin) = others(trace);
    let job = pool.submit(move || (func1(&begin).0, thread::current().name().map(str::to_owned)));
    let (result, name) = job.await.map_err(Error::from)?;
    trace.say(format_args!("own thread pool: {result}, from thread {name:?}"));
    drop(others.await);
    Ok(())
}

async fn process_pool(processes: pool::Builder, trace: &Trace) -> Result<()> {
    let pool = processes.workers(2).build()?;
    let (others, _) = others(trace);
    let answer = pool.call("func1", "Shiyanlou").await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (text, process) = answer.rsplit_once(' ').unwrap_or((&answer, ""));
    let here = process == std::process::id().to_string();
    trace.say(format_args!("process pool: {text}, this one: {here}"));
    drop(others.await);
    Ok(())
}

/// Runs the three forms and gives what they printed.
pub(crate) fn run(runtime: &Runtime, processes: pool::Builder) -> Result<Vec<String>> {
    let trace = Trace::default();
    runtime.block_on(async {
        default_pool(&trace).await?;
        own_pool(&trace).await?;
        process_pool(processes, &trace).await
    })?;
    Ok(trace.lines())
}

fn main() -> Result<()> {
    // In a worker this does not return.
    Worker::serve_if_asked(&FUNCTIONS);
    run(&Runtime::builder().shards(1).build()?, pool::Pool::builder()).map(drop)
}
