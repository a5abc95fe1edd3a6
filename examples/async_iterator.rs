//! A type of one's own that is read with `next().await`: the numbers from 1 to 99.
//!
//! Answers `class Reader` with `__aiter__` and `__anext__`. A `Stream` is that protocol; its `None`
//! is StopAsyncIteration.
//!
//! `cargo run --example async_iterator`

mod trace;

use std::pin::Pin;
use std::task::{Context, Poll};

use annulus::Runtime;
use annulus::stream::{Stream, StreamExt};
use trace::Trace;

#[derive(Default)]
struct Reader {
    count: u32,
}

impl Stream for Reader {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
        if self.count == 99 {
            return Poll::Ready(None);
        }
        self.count += 1;
        Poll::Ready(Some(self.count))
    }
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let mut reader = Reader::default();
        while let Some(number) = reader.next().await {
            trace.say(number);
        }
        trace.say(format_args!("and then: {:?}", reader.next().await));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
