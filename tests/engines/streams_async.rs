//! Streams of values, and the way from them to code that is not async.
//!
//! A16 → a_reader_yields_one_to_ninety_nine, the_end_of_a_stream_is_final.
//! A18 → a_stream_is_read_by_code_that_is_not_async,
//! a_blocking_reader_is_refused_inside_a_runtime.
//! A22 → streams_and_iterators_chain_in_place.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use annulus::stream::{self, FusedStream, Stream, StreamExt};
use annulus::{Engine, task, time};

use crate::harness::{builder, run, turns};

on_every_engine!(
    a_reader_yields_one_to_ninety_nine,
    the_end_of_a_stream_is_final,
    a_stream_that_is_dropped_drops_its_state,
    streams_and_iterators_chain_in_place,
    a_stream_is_read_by_code_that_is_not_async,
    a_blocking_reader_is_refused_inside_a_runtime,
);

/// An async iterator written by hand.
struct Reader(u32);

impl Stream for Reader {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u32>> {
        if self.0.is_multiple_of(2) {
            self.0 += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.0 += 2;
        Poll::Ready(Some(self.0 / 2).filter(|value| *value < 100))
    }
}

/// The same with an async closure.
fn reader() -> impl FusedStream<Item = u32> {
    let mut count = 0;
    stream::from_fn(async move || {
        task::yield_now().await;
        count += 1;
        (count < 100).then_some(count)
    })
}

fn a_reader_yields_one_to_ninety_nine(engine: Engine) {
    run(engine, async {
        let expected: Vec<u32> = (1..=99).collect();
        assert_eq!(reader().collect::<Vec<_>>().await, expected);
        let by_hand: Vec<u32> =
            Reader(0).take_while(|v| std::future::ready(*v < 100)).collect().await;
        assert_eq!(by_hand, expected);
        let mut read = Vec::new();
        let mut stream = pin!(reader());
        while let Some(value) = stream.next().await {
            read.push(value);
        }
        assert_eq!(read, expected);
    });
}

fn the_end_of_a_stream_is_final(engine: Engine) {
    run(engine, async {
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let mut from_fn = pin!(stream::from_fn(async move || {
            counted.set(counted.get() + 1);
            (counted.get() != 2).then_some(())
        }));
        assert_eq!(from_fn.next().await, Some(()));
        for _ in 0..3 {
            assert_eq!(from_fn.next().await, None);
        }
        assert!(from_fn.is_terminated());
        assert_eq!(calls.get(), 2, "past its end it is not asked");

        let mut unfold = pin!(stream::unfold(2, async |left| (left > 0).then(|| (left, left - 1))));
        assert_eq!(unfold.next().await, Some(2));
        assert_eq!(unfold.next().await, Some(1));
        assert_eq!((unfold.next().await, unfold.next().await), (None, None));

        // An iterator that goes on after its end.
        let mut wavers = [Some(1), None, Some(2)].into_iter();
        let mut iter = stream::iter(std::iter::from_fn(move || wavers.next().flatten()));
        assert_eq!(iter.next().await, Some(1));
        assert_eq!((iter.next().await, iter.next().await), (None, None));
    });
}

fn a_stream_that_is_dropped_drops_its_state(engine: Engine) {
    run(engine, async {
        let state = Rc::new(());
        let held = Rc::clone(&state);
        let stuck = stream::unfold(held, async |held| {
            std::future::pending::<()>().await;
            Some(((), held))
        });
        let task = task::spawn(async move { pin!(stuck).next().await });
        turns(2).await;
        assert_eq!(Rc::strong_count(&state), 2);
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(Rc::strong_count(&state), 1);
    });
}

fn streams_and_iterators_chain_in_place(engine: Engine) {
    run(engine, async {
        let iterator = std::iter::once(1).chain([3, 4]).chain([2]);
        assert_eq!(iterator.collect::<Vec<_>>(), [1, 3, 4, 2]);
        let inner = stream::iter([3, 4]).then(async |value| {
            task::yield_now().await;
            value
        });
        let chained = stream::iter([1]).chain(inner).chain(stream::iter([2]));
        assert_eq!(chained.collect::<Vec<_>>().await, [1, 3, 4, 2]);
    });
}

fn a_stream_is_read_by_code_that_is_not_async(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let slow = stream::unfold(0, async |count: u32| {
        time::sleep(Duration::from_millis(1)).await;
        (count < 5).then_some((count, count + 1))
    });
    let mut numbers = stream::block_on_stream(&runtime, slow).unwrap();
    assert_eq!(numbers.by_ref().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!((numbers.next(), numbers.next()), (None, None));

    // Dropped half read, outside of the runtime, and in its middle.
    let state = Rc::new(());
    let held = Rc::clone(&state);
    let endless = stream::unfold(held, async |held| {
        time::sleep(Duration::from_millis(1)).await;
        Some(((), held))
    });
    assert_eq!(stream::block_on_stream(&runtime, endless).unwrap().take(2).count(), 2);
    assert_eq!(Rc::strong_count(&state), 1);
    assert!(runtime.shut_down().leaked.is_empty());
}

fn a_blocking_reader_is_refused_inside_a_runtime(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let mut before = stream::block_on_stream(&runtime, stream::iter([1, 2])).unwrap();
    runtime.block_on(async {
        let error = stream::block_on_stream(&runtime, stream::iter([1])).unwrap_err();
        assert!(error.is_already_running());
        let panic = catch_unwind(AssertUnwindSafe(|| before.next())).unwrap_err();
        let message = panic.downcast::<String>().unwrap();
        assert!(message.contains("a runtime already runs on this thread"), "{message}");
    });
    assert_eq!(before.next(), Some(1));
}
