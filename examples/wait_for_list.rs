//! A list of futures, run and waited for without a main function around them: two units.
//!
//! Answers `asyncio.run(asyncio.wait([func(), func()]))`. The set makes tasks of them once the
//! runtime runs; `wait` gives what has ended and how many have not.
//!
//! `cargo run --example wait_for_list`

mod trace;

use annulus::task::{self, JoinSet, WaitFor};
use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

async fn func(trace: Trace) -> &'static str {
    trace.say(1);
    time::sleep(UNIT * 2).await;
    trace.say(2);
    "returned"
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let list = [func(trace.clone()), func(trace.clone())];
    let start = runtime.block_on(async { time::now() });
    let (done, pending) = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for future in list {
            tasks.spawn(future);
        }
        task::wait(&mut tasks, WaitFor::All, None).await
    });
    trace.say(format_args!("{} done, {pending} pending", done.len()));
    trace.say(runtime.block_on(async { units_since(start) }));
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
