//! Many tasks, one thread: each says which thread it runs on, and it is always the same.
//!
//! Answers the program that prints `threading.currentThread()` in each coroutine: three tasks of
//! three, two and one units end in the order 03, 02, 01, after three units, on the thread of main.
//!
//! `cargo run --example same_thread`

mod trace;

use std::thread::{self, ThreadId};

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT, units_since};

async fn hello(name: &'static str, units: u32, home: ThreadId, trace: Trace) {
    let thread = || if thread::current().id() == home { "main's thread" } else { "another thread" };
    trace.say(format_args!("hello {name} begins on {}", thread()));
    time::sleep(UNIT * units).await;
    trace.say(format_args!("hello {name} ends on {}", thread()));
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let home = thread::current().id();
    runtime.block_on(async {
        let start = time::now();
        let tasks = [("01", 3), ("02", 2), ("03", 1)];
        task::gather(tasks.map(|(name, units)| hello(name, units, home, trace.clone()))).await;
        trace.say(units_since(start));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
