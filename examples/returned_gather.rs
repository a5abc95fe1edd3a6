//! A function that returns what it gathered: the caller gets the list of results.
//!
//! Answers `async def main(): return await asyncio.gather(...)` and `asyncio.run(main())`. A
//! function need not even be async: it may return the future itself.
//!
//! `cargo run --example returned_gather`

mod trace;

use std::pin::Pin;

use annulus::task::{self, Gather};
use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

type Hello = Pin<Box<dyn Future<Output = u32>>>;

async fn hello(name: &'static str, units: u32, value: u32, trace: Trace) -> u32 {
    trace.say(format_args!("hello {name} begin"));
    time::sleep(UNIT * units).await;
    trace.say(format_args!("hello {name} end"));
    value
}

fn hellos(trace: &Trace) -> [Hello; 3] {
    [
        Box::pin(hello("01", 3, 10 + 5, trace.clone())),
        Box::pin(hello("02", 2, 10 - 5, trace.clone())),
        Box::pin(hello("03", 4, 10 * 5, trace.clone())),
    ]
}

/// The tasks run from here on; whoever gets the future awaits them.
fn program(trace: &Trace) -> Gather<u32> {
    task::gather(hellos(trace))
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let gathered = program(&trace);
        trace.say("gathered");
        let results: Vec<u32> = gathered.await.into_iter().flatten().collect();
        trace.say(format_args!("results: {results:?}"));
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
