//! An async sequence, read by a plain `for` loop outside of the runtime.
//!
//! Answers `iter_over_async(ait, loop)`, which turns an async generator into a generator by running
//! the loop for each value. Here it is `stream::block_on_stream`.
//!
//! `cargo run --example iter_over_async`

mod trace;

use annulus::stream::{self, Stream};
use annulus::{Runtime, time};
use trace::{Trace, UNIT, units_since};

/// One value after each unit of time.
fn numbers() -> impl Stream<Item = u32> {
    let mut numbers = 1..=3;
    stream::from_fn(async move || {
        time::sleep(UNIT).await;
        numbers.next()
    })
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let start = runtime.block_on(async { time::now() });
    match stream::block_on_stream(runtime, numbers()) {
        Ok(numbers) => numbers.for_each(|number| trace.say(number)),
        Err(error) => trace.say(error),
    }
    trace.say(runtime.block_on(async { units_since(start) }));
    // Inside the runtime, blocking would stop the very shard that is waited for.
    let inside = runtime.block_on(async { stream::block_on_stream(runtime, numbers()).is_err() });
    trace.say(format_args!("refused inside the runtime: {inside}"));
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
