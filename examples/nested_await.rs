//! Two awaits one after the other take the sum of their times: four units.
//!
//! Answers `func`, which awaits `others()` twice. An `.await` is a call, not a task: the second
//! begins when the first has returned.
//!
//! `cargo run --example nested_await`

mod trace;

use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

async fn others(trace: &Trace) -> &'static str {
    trace.say("start");
    time::sleep(UNIT * 2).await;
    trace.say("end");
    "returned"
}

async fn func(trace: &Trace) {
    trace.say("inside the function");
    let first = others(trace).await;
    trace.say(format_args!("first request: {first}"));
    let second = others(trace).await;
    trace.say(format_args!("second request: {second}"));
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        func(&trace).await;
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
