//! "hello" after one unit, "world" after two more: three in all.
//!
//! Answers the `say_after` program of asyncio's documentation: awaited directly, the two follow
//! each other.
//!
//! `cargo run --example say_after`

mod trace;

use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

async fn say_after(delay: u32, what: &str, trace: &Trace) {
    time::sleep(UNIT * delay).await;
    trace.say(what);
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        trace.say(format_args!("started at {}", units_since(start)));
        say_after(1, "hello", &trace).await;
        say_after(2, "world", &trace).await;
        trace.say(format_args!("finished at {}", units_since(start)));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
