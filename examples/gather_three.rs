//! Three computations gathered: ends 02, 01, 03, results in the order of the list, four units.
//!
//! Answers `results = await asyncio.gather(hello1(10, 5), hello2(10, 5), hello3(10, 5))`: 15, 5 and
//! 50 after three, two and four units; awaited one after the other it takes nine.
//!
//! `cargo run --example gather_three`

mod trace;

use std::pin::Pin;

use annulus::{Runtime, task, time};
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

async fn program(trace: &Trace) {
    let results = task::gather(hellos(trace)).await;
    let results: Vec<u32> = results.into_iter().flatten().collect();
    trace.say(format_args!("results: {results:?}"));
}

/// The control: each is awaited before the next is begun.
async fn one_by_one(trace: &Trace) {
    let mut results = Vec::new();
    for hello in hellos(trace) {
        results.push(hello.await);
    }
    trace.say(format_args!("results: {results:?}"));
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        program(&trace).await;
        trace.say(units_since(start));
        let start = time::now();
        one_by_one(&trace).await;
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
