//! Two tasks that hand the turn to each other by hand: 1, 3, 2, 4.
//!
//! Answers the greenlet program in which `func1` and `func2` `switch()` to each other. Here the
//! switch is `yield_now`: the other ready task runs, then this one goes on.
//!
//! `cargo run --example greenlet_switch`

mod trace;

use annulus::{Runtime, future, task};
use trace::Trace;

async fn first(trace: Trace) {
    trace.say(1);
    task::yield_now().await;
    trace.say(2);
}

async fn second(trace: Trace) {
    trace.say(3);
    task::yield_now().await;
    trace.say(4);
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let first = task::spawn(first(trace.clone()));
        let second = task::spawn(second(trace.clone()));
        let (first, second) = future::join!(first, second);
        assert!(first.is_ok() && second.is_ok(), "neither panics");
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
