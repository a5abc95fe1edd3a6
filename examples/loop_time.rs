//! The runtime's own clock: monotonic, read once a turn, and never less than what was slept.
//!
//! Answers `t1 = loop.time()`, a sleep of three units, `t2 = loop.time()` and their difference.
//!
//! `cargo run --example loop_time`

mod trace;

use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let t1 = time::now();
        time::sleep(UNIT * 3).await;
        let t2 = time::now();
        assert!(t2.since(t1) >= UNIT * 3, "a sleep is never short");
        trace.say(format_args!("t2 - t1 = {}", units_since(t1)));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
