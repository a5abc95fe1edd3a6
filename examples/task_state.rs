//! What a task is about, from its handle: pending, running, finished; or cancelled.
//!
//! Answers the program that prints `task._state` before and after the loop ran: PENDING, FINISHED.
//!
//! `cargo run --example task_state`

mod trace;

use std::future::pending;

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT};

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let inside = trace.clone();
    runtime.block_on(async {
        let task = task::spawn(async move {
            for running in task::dump() {
                inside.say(format_args!("inside: {:?}", running.state));
            }
            time::sleep(UNIT).await;
        });
        trace.say(format_args!("spawned: {:?}", task.state()));
        task::yield_now().await;
        trace.say(format_args!("asleep: {:?}", task.state()));
        time::sleep(UNIT * 2).await;
        trace.say(format_args!("afterwards: {:?}", task.state()));
        let cancelled = task::spawn(pending::<()>());
        cancelled.abort();
        task::yield_now().await;
        trace.say(format_args!("aborted: {:?}", cancelled.state()));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
