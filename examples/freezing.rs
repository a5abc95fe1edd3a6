//! A window that runs the loop in its own thread freezes for as long as the computation takes.
//!
//! Answers the program whose button awaits a result for three units, then prints 30: what happens
//! to the window meanwhile is seen to afterwards. `background_loop` is the remedy.
//!
//! `cargo run --example freezing`

mod trace;

use std::collections::VecDeque;

use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

async fn calculate(a: u32, b: u32) -> u32 {
    time::sleep(UNIT * 3).await;
    a + b
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let mut events = VecDeque::from(["click", "repaint"]);
    while let Some(event) = events.pop_front() {
        trace.say(event);
        if event == "click" {
            let (sum, took) = runtime.block_on(async {
                let start = time::now();
                (calculate(10, 20).await, units_since(start))
            });
            trace.say(sum);
            trace.say(format_args!("the window stood still for {took}"));
        }
    }
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
