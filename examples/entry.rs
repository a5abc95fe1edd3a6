//! The way in: a runtime, one future, its value; then the runtime is gone with all that it ran.
//!
//! Answers `asyncio.run(main())` with a main that sleeps a tenth of a unit. A task that main leaves
//! behind is not waited for: it is dropped with the runtime, and its guards run.
//!
//! `cargo run --example entry`

mod trace;

use annulus::{Builder, Runtime, task, time};
use trace::{Trace, UNIT, units_since};

struct Guard(Trace);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.say("what main left behind is dropped");
    }
}

async fn program(trace: Trace) -> u32 {
    let start = time::now();
    trace.say("hello");
    let guard = Guard(trace.clone());
    task::spawn(async move {
        time::sleep(UNIT * 1000).await;
        guard.0.say("this is never said");
    })
    .detach();
    time::sleep(UNIT / 10).await;
    trace.say(format_args!("world after {}", units_since(start)));
    666
}

/// Runs the program twice, each time in a runtime of its own, and gives what it printed.
pub(crate) fn run(builder: Builder) -> annulus::Result<Vec<String>> {
    let trace = Trace::default();
    for _ in 0..2 {
        let runtime = builder.clone().build()?;
        trace.say(runtime.block_on(program(trace.clone())));
    }
    Ok(trace.lines())
}

fn main() -> annulus::Result<()> {
    run(Runtime::builder().shards(1)).map(drop)
}
