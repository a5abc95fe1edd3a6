//! Two futures gathered: the second ends first, the results keep the order of the list.
//!
//! Answers `asyncio.gather(func("ONE", 3), func("TWO", 1))`: three units in all.
//!
//! `cargo run --example gather_two`

mod trace;

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT, units_since};

async fn sleeper(name: &'static str, length: u32, trace: Trace) -> &'static str {
    trace.say(format_args!("start {name}"));
    time::sleep(UNIT * length).await;
    trace.say(format_args!("stop {name}"));
    name
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let list =
            [("ONE", 3), ("TWO", 1)].map(|(name, length)| sleeper(name, length, trace.clone()));
        for result in task::gather(list).await {
            trace.say(format_args!("result {}", result.unwrap_or("none")));
        }
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
