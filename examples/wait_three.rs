//! Three tasks waited for: `wait` gives those that have ended and counts those that have not.
//!
//! Answers `done, pending = await asyncio.wait(...)`, with and without a timeout. Results come in
//! the order in which the tasks ended; a wait that is over cancels nobody.
//!
//! `cargo run --example wait_three`

mod trace;

use std::pin::Pin;

use annulus::task::{self, JoinSet, WaitFor};
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

async fn program(trace: &Trace) {
    let mut tasks = JoinSet::new();
    for hello in hellos(trace) {
        tasks.spawn(hello);
    }
    let mut limit = Some(UNIT * 5 / 2);
    loop {
        let (done, pending) = task::wait(&mut tasks, WaitFor::All, limit.take()).await;
        let results: Vec<u32> = done.into_iter().flatten().collect();
        trace.say(format_args!("done: {results:?}, pending: {pending}"));
        if pending == 0 {
            return;
        }
    }
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        program(&trace).await;
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
