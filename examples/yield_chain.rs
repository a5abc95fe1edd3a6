//! A generator that yields from another in the middle: 1, 3, 4, 2.
//!
//! Answers the program in which `f1` yields 1, then `yield from f2()`, then yields 2. In Rust the
//! outer sequence chains the inner one: of values that are there, an iterator; of values that are
//! awaited, a stream.
//!
//! `cargo run --example yield_chain`

mod trace;

use std::iter;
use std::pin::pin;

use annulus::stream::{self, Stream, StreamExt};
use annulus::{Runtime, task};
use trace::Trace;

fn inner() -> impl Iterator<Item = u32> {
    [3, 4].into_iter()
}

fn outer() -> impl Iterator<Item = u32> {
    iter::once(1).chain(inner()).chain(iter::once(2))
}

/// The same, each value only after others had their turn.
fn awaited(values: impl Iterator<Item = u32>) -> impl Stream<Item = u32> {
    stream::iter(values).then(async |value| {
        task::yield_now().await;
        value
    })
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    outer().for_each(|value| trace.say(value));
    runtime.block_on(async {
        let outer = awaited(iter::once(1)).chain(awaited(inner())).chain(awaited(iter::once(2)));
        let mut outer = pin!(outer);
        while let Some(value) = outer.next().await {
            trace.say(format_args!("awaited {value}"));
        }
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
