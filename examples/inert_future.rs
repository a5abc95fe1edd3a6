//! Calling an async function runs nothing of it.
//!
//! Answers the program that calls a coroutine function and gets a coroutine object: the body runs
//! once something drives it. A future that is dropped unpolled has never begun.
//!
//! `cargo run --example inert_future`

mod trace;

use annulus::Runtime;
use trace::Trace;

async fn func(trace: Trace) -> u32 {
    trace.say("inside the function");
    15
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let never = func(trace.clone());
    let later = func(trace.clone());
    trace.say("called twice, nothing has run");
    drop(never);
    trace.say("one is dropped");
    let value = runtime.block_on(later);
    trace.say(format_args!("the other gave {value}"));
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
