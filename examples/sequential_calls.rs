//! Functions that await each other run in sequence, whatever they are called: five units.
//!
//! Answers the program in which `hello3` awaits `hello2`, then `hello1`: begin 03, begin 02, end
//! 02, begin 01, end 01, end 03. For concurrency there must be tasks, or one `join`.
//!
//! `cargo run --example sequential_calls`

mod trace;

use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

async fn hello1(trace: &Trace) {
    trace.say("hello 01 begin");
    time::sleep(UNIT * 3).await;
    trace.say("hello 01 end");
}

async fn hello2(trace: &Trace) {
    trace.say("hello 02 begin");
    time::sleep(UNIT * 2).await;
    trace.say("hello 02 end");
}

async fn hello3(trace: &Trace) {
    trace.say("hello 03 begin");
    hello2(trace).await;
    hello1(trace).await;
    trace.say("hello 03 end");
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        hello3(&trace).await;
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
