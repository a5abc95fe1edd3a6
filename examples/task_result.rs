//! The result of a task: not there yet, 15 after three units, or why there is none.
//!
//! Answers `task.result()` of `hello1(10, 5)`: its value, InvalidStateError before it is done,
//! CancelledError after a cancel, and the exception that it ended with.
//!
//! `cargo run --example task_result`

mod trace;

use std::future::pending;

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT, units_since};

async fn hello1(a: u32, b: u32, trace: Trace) -> u32 {
    trace.say("hello world 01 begin");
    time::sleep(UNIT * 3).await;
    trace.say("hello again 01 end");
    a + b
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let mut task = task::spawn(hello1(10, 5, trace.clone()));
        trace.say(format_args!("at once: {:?}", task.try_join().and_then(Result::ok)));
        trace.say(format_args!("awaited: {:?}, {}", task.await.ok(), units_since(start)));

        let cancelled = task::spawn(pending::<u32>());
        cancelled.abort();
        let why = cancelled.await.map_err(|error| error.to_string());
        trace.say(format_args!("aborted: {why:?}"));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
