//! Two named tasks that run side by side while main waits for both: two units, not four.
//!
//! Answers `create_task(func(), name="n1")` twice and `asyncio.wait`. A spawned task does not begin
//! before its spawner gives way: main's lines come first.
//!
//! `cargo run --example create_and_wait`

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

async fn program(trace: &Trace) {
    trace.say("main starts");
    let mut tasks = JoinSet::new();
    for name in ["n1", "n2"] {
        tasks.spawn_on(task::Builder::new().name(name), func(trace.clone()));
    }
    let names: Vec<String> = task::all().iter().map(|task| task.name().to_owned()).collect();
    trace.say(format_args!("tasks: {}", names.join(", ")));
    trace.say("main ends");
    let (done, pending) = task::wait(&mut tasks, WaitFor::All, None).await;
    for result in done {
        trace.say(result.unwrap_or("panicked"));
    }
    trace.say(format_args!("{pending} pending"));
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
