//! A function that returns what it waited for: the caller gets what is done, and the rest.
//!
//! Answers `async def main(): return await asyncio.wait(...)` and `done, pending =
//! asyncio.run(main())`. The set comes along, as it holds the tasks that have not ended.
//!
//! `cargo run --example returned_wait`

mod trace;

use std::pin::Pin;

use annulus::task::{self, JoinError, JoinSet, WaitFor};
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

type Waited = (Vec<Result<u32, JoinError>>, JoinSet<u32>);

async fn program(trace: &Trace) -> Waited {
    let mut tasks = JoinSet::new();
    for hello in hellos(trace) {
        tasks.spawn(hello);
    }
    let (done, _) = task::wait(&mut tasks, WaitFor::First, None).await;
    (done, tasks)
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let (done, mut pending) = program(&trace).await;
        let done: Vec<u32> = done.into_iter().flatten().collect();
        trace.say(format_args!(
            "done: {done:?}, pending: {}, {}",
            pending.len(),
            units_since(start)
        ));
        while let Some(result) = pending.join_next().await {
            trace.say(format_args!("later: {:?}", result.ok()));
        }
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
