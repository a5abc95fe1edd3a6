//! A function that is called once a task has ended, with an argument of its own.
//!
//! Answers `task.add_done_callback(partial(callback, "Shiyanlou"))` on `three()`. A closure needs
//! no `partial`. It is called on the turn after the end, never inline, and can be taken back.
//!
//! `cargo run --example done_callback`

mod trace;

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT};

async fn three(trace: Trace) -> u32 {
    trace.say("start coroutine");
    time::sleep(UNIT * 3).await;
    trace.say("end coroutine");
    3
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let task = task::spawn(three(trace.clone()));
        let (callback, name) = (trace.clone(), "Shiyanlou");
        task.on_complete(move |result| {
            callback.say(format_args!("callback: hello {name}, {:?}", result.as_ref().ok()));
        });
        let removed = trace.clone();
        let id = task.on_complete(move |_| removed.say("this is never said"));
        trace.say(format_args!("taken back: {}", task.remove_callback(id)));
        trace.say(format_args!("before: {:?}", task.state()));
        time::sleep(UNIT * 4).await;
        trace.say(format_args!("after: {:?}", task.state()));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
