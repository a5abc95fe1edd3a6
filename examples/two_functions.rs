//! Two functions that sleep side by side: 1, 3, 2, 4 after two units, in both forms.
//!
//! Answers `func1` and `func2` under `ensure_future` and `wait`, once as decorated generators and
//! once as `async def`. Here the two forms are tasks, which run by themselves, and plain futures,
//! which one `join` polls in turn.
//!
//! `cargo run --example two_functions`

mod trace;

use annulus::{Runtime, future, task, time};
use trace::{Trace, UNIT, units_since};

async fn func1(trace: Trace) {
    trace.say(1);
    time::sleep(UNIT * 2).await;
    trace.say(2);
}

async fn func2(trace: Trace) {
    trace.say(3);
    time::sleep(UNIT * 2).await;
    trace.say(4);
}

/// Both as tasks.
pub(crate) fn run_tasks(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let tasks = [task::spawn(func1(trace.clone())), task::spawn(func2(trace.clone()))];
        let ended = future::join_all(tasks).await;
        assert!(ended.iter().all(Result::is_ok), "neither panics");
        trace.say(units_since(start));
    });
    trace.lines()
}

/// Both as futures of one task.
pub(crate) fn run_futures(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        future::join!(func1(trace.clone()), func2(trace.clone()));
        trace.say(units_since(start));
    });
    trace.lines()
}

/// Runs both forms and gives what they printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    [run_tasks(runtime), run_futures(runtime)].concat()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
