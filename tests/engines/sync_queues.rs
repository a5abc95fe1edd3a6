//! Queues and hand-overs between tasks, shards and threads.
//!
//! Rows:
//! - D1 → `the_third_send_into_a_channel_of_two_waits`, `a_closed_channel_drains_and_then_ends`,
//!   `a_million_items_keep_their_order`, `workers_share_a_queue_and_report_what_they_have_done`,
//!   `a_timed_out_next_leaves_the_item_to_the_same_receiver`,
//!   `a_stream_that_is_not_read_on_starves_nobody`
//! - D2 → `a_million_items_go_from_shard_to_shard_in_order`, `a_sleeping_shard_wakes_for_an_item`,
//!   `a_queue_between_shards_ends_with_either_side`, and the models in `src/sync/shared`

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use annulus::shard::ShardId;
use annulus::stream::StreamExt;
use annulus::sync::queue::Queue;
use annulus::sync::shared::{self, spsc};
use annulus::sync::{SendError, TryRecvError, TrySendError, broadcast, channel, oneshot, watch};
use annulus::{Engine, task, time};
use futures_core::Stream;

use crate::harness::{builder, run, run_with, turns, turns_until};

on_every_engine!(
    the_third_send_into_a_channel_of_two_waits,
    a_closed_channel_drains_and_then_ends,
    a_channel_ends_when_a_side_is_gone,
    a_million_items_keep_their_order,
    workers_share_a_queue_and_report_what_they_have_done,
    an_aborted_worker_loses_no_item,
    a_oneshot_carries_one_value_or_its_loss,
    a_million_items_go_from_shard_to_shard_in_order,
    a_sleeping_shard_wakes_for_an_item,
    a_queue_between_shards_ends_with_either_side,
    threads_and_tasks_share_what_is_thread_safe,
    a_broadcast_reaches_all_and_tells_who_was_too_slow,
    followers_see_the_latest_value_and_the_end,
    receivers_are_streams,
    a_timed_out_next_leaves_the_item_to_the_same_receiver,
    a_stream_that_is_not_read_on_starves_nobody,
    a_stream_that_is_read_on_misses_nothing_beside_an_idle_one,
);

fn the_third_send_into_a_channel_of_two_waits(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = channel::bounded(2);
        let sent = Rc::new(Cell::new(0));
        let producer = {
            let sent = Rc::clone(&sent);
            task::spawn(async move {
                for item in 1..=5 {
                    sender.send(item).await.unwrap();
                    sent.set(item);
                }
            })
        };
        turns_until(|| sent.get() == 2).await;
        turns(5).await;
        assert_eq!(sent.get(), 2);
        assert_eq!(receiver.recv().await, Some(1));
        turns_until(|| sent.get() == 3).await;
        turns(5).await;
        assert_eq!((sent.get(), receiver.len()), (3, 2));
        let mut rest = Vec::new();
        while let Some(item) = receiver.recv().await {
            rest.push(item);
        }
        assert_eq!(rest, [2, 3, 4, 5]);
        producer.await.unwrap();
    });
}

fn a_closed_channel_drains_and_then_ends(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = channel::bounded(2);
        sender.send(1).await.unwrap();
        sender.send(2).await.unwrap();
        let waiting = {
            let sender = sender.clone();
            task::spawn(async move { sender.send(3).await })
        };
        turns(2).await;
        receiver.close();
        assert_eq!(waiting.await.unwrap(), Err(SendError(3)));
        assert_eq!(sender.send(4).await, Err(SendError(4)));
        assert_eq!(sender.try_send(5), Err(TrySendError::Closed(5)));
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
        assert_eq!((receiver.recv().await, receiver.recv().await), (None, None));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    });
}

fn a_channel_ends_when_a_side_is_gone(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = channel::unbounded::<Rc<()>>();
        let waiting = task::spawn(async move { receiver.recv().await });
        turns(2).await;
        let other = sender.clone();
        drop(sender);
        turns(2).await;
        assert!(!waiting.is_finished(), "one sender is left");
        drop(other);
        assert_eq!(waiting.await.unwrap(), None);

        let (sender, receiver) = channel::bounded(1);
        let item = Rc::new(());
        sender.send(Rc::clone(&item)).await.unwrap();
        let other = receiver.clone();
        drop(receiver);
        assert!(!sender.is_closed(), "one receiver is left");
        drop(other);
        assert_eq!(Rc::strong_count(&item), 1, "what nobody will receive is dropped");
        assert!(sender.send(item).await.is_err());
    });
}

fn a_million_items_keep_their_order(engine: Engine) {
    const COUNT: u32 = 1_000_000;
    run(engine, async {
        let (sender, receiver) = channel::bounded(1024);
        let producer = task::spawn(async move {
            for item in 0..COUNT {
                sender.send(item).await.unwrap();
            }
        });
        let mut expected = 0;
        while let Some(item) = receiver.recv().await {
            assert_eq!(item, expected);
            expected += 1;
        }
        assert_eq!(expected, COUNT);
        producer.await.unwrap();
    });
}

fn workers_share_a_queue_and_report_what_they_have_done(engine: Engine) {
    run(engine, async {
        let (queue, done) = (Rc::new(Queue::<u32>::bounded(3)), Rc::new(RefCell::new(Vec::new())));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, done) = (Rc::clone(&queue), Rc::clone(&done));
                task::spawn(async move {
                    while let Some(item) = queue.get().await {
                        turns(1 + item as usize % 3).await;
                        done.borrow_mut().push(item);
                        queue.task_done();
                    }
                })
            })
            .collect();
        for item in 0..20 {
            queue.put(item).await.unwrap();
        }
        queue.join().await;
        let mut sorted = done.take();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_eq!(queue.unfinished(), 0);
        queue.close();
        for worker in workers {
            worker.await.unwrap();
        }
    });
}

fn an_aborted_worker_loses_no_item(engine: Engine) {
    run(engine, async {
        let queue = Rc::new(Queue::<u32>::unbounded());
        let worker = || {
            let queue = Rc::clone(&queue);
            task::spawn(async move { queue.get().await })
        };
        let (first, second) = (worker(), worker());
        turns(2).await;
        queue.try_put(7).unwrap();
        assert!(first.abort(), "it has been woken for the item and has not seen it");
        assert_eq!(second.await.unwrap(), Some(7));
        assert!(first.await.is_err());
    });
}

fn a_oneshot_carries_one_value_or_its_loss(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = oneshot::channel();
        let waiting = task::spawn(receiver);
        turns(2).await;
        sender.send("value").unwrap();
        assert_eq!(waiting.await.unwrap(), Ok("value"));
        let (sender, receiver) = oneshot::channel::<()>();
        let waiting = task::spawn(receiver);
        turns(2).await;
        drop(sender);
        assert!(waiting.await.unwrap().is_err());
        let (mut sender, receiver) = oneshot::channel();
        let waiting = task::spawn(receiver);
        turns(2).await;
        assert!(waiting.abort());
        sender.closed().await;
        assert_eq!(sender.send(5), Err(SendError(5)));
        assert!(waiting.await.is_err());
    });
}

fn a_million_items_go_from_shard_to_shard_in_order(engine: Engine) {
    const COUNT: u32 = 1_000_000;
    run_with(builder(engine).shards(2), async {
        let (mut sender, mut receiver) = spsc::channel(1024);
        let producer = task::spawn(annulus::shard::shard(ShardId(1)).submit(move || async move {
            for item in 0..COUNT {
                sender.send(item).await.unwrap();
            }
        }));
        let mut expected = 0;
        while let Some(item) = receiver.recv().await {
            assert_eq!(item, expected);
            expected += 1;
        }
        assert_eq!(expected, COUNT);
        producer.await.unwrap().unwrap();
    });
}

fn a_sleeping_shard_wakes_for_an_item(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        // Back and forth over queues of one: each item finds the other side waiting.
        let (mut ping, mut pinged) = spsc::channel::<u32>(1);
        let (mut pong, mut ponged) = spsc::channel::<u32>(1);
        let echo = task::spawn(annulus::shard::shard(ShardId(1)).submit(move || async move {
            while let Some(item) = pinged.recv().await {
                pong.send(item).await.unwrap();
            }
        }));
        for item in 0..2000 {
            ping.send(item).await.unwrap();
            assert_eq!(ponged.recv().await, Some(item));
        }
        drop(ping);
        assert_eq!(ponged.recv().await, None);
        echo.await.unwrap().unwrap();
    });
}

fn a_queue_between_shards_ends_with_either_side(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let other = || annulus::shard::shard(ShardId(1));
        let (mut sender, mut receiver) = spsc::channel(4);
        sender.send(1).await.unwrap();
        other().call(move || drop(sender)).await.unwrap();
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), None));
        let (mut sender, receiver) = spsc::channel(1);
        sender.send(1).await.unwrap();
        let waiting = task::spawn(async move { sender.send(2).await });
        turns(2).await;
        other().call(move || drop(receiver)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Err(SendError(2)));
    });
}

fn threads_and_tasks_share_what_is_thread_safe(engine: Engine) {
    use std::sync::Arc;
    const COUNT: u32 = 1000;
    run_with(builder(engine).shards(2), async {
        let (total, go) = (Arc::new(shared::Mutex::new(0)), Arc::new(shared::Event::new()));
        let thread = {
            let (total, go) = (Arc::clone(&total), Arc::clone(&go));
            std::thread::spawn(move || {
                go.wait_blocking();
                for _ in 0..COUNT {
                    *total.lock_blocking() += 1;
                }
            })
        };
        let there = {
            let (total, go) = (Arc::clone(&total), Arc::clone(&go));
            task::spawn(annulus::shard::shard(ShardId(1)).submit(move || async move {
                go.wait().await;
                for _ in 0..COUNT {
                    let mut total = total.lock().await;
                    let read = *total;
                    task::yield_now().await;
                    *total = read + 1;
                }
            }))
        };
        go.set();
        for _ in 0..COUNT {
            *total.lock().await += 1;
        }
        there.await.unwrap().unwrap();
        let (sender, receiver) = shared::oneshot::channel();
        let joined = std::thread::spawn(move || drop(sender.send(thread.join())));
        assert!(receiver.await.unwrap().is_ok());
        joined.join().unwrap();
        assert_eq!(*total.lock().await, 3 * COUNT);
    });
}

fn a_broadcast_reaches_all_and_tells_who_was_too_slow(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = broadcast::channel(4);
        let follow = |mut receiver: broadcast::Receiver<u32>| async move {
            let (mut seen, mut missed) = (Vec::new(), 0);
            loop {
                match receiver.recv().await {
                    Ok(value) => seen.push(value),
                    Err(broadcast::RecvError::Lagged(count)) => missed += count,
                    Err(broadcast::RecvError::Closed) => break (seen, missed),
                }
            }
        };
        let aborted = task::spawn(follow(sender.subscribe()));
        let quick: Vec<_> = (0..3).map(|_| task::spawn(follow(sender.subscribe()))).collect();
        let slow = receiver;
        let handled = Rc::new(Cell::new(0));
        let mut counter = sender.subscribe();
        let count = Rc::clone(&handled);
        let counting = task::spawn(async move {
            while counter.recv().await.is_ok() {
                count.set(count.get() + 1);
            }
        });
        for value in 0..10 {
            assert_eq!(sender.send(value), Ok(if value < 5 { 6 } else { 5 }));
            turns_until(|| handled.get() == value + 1).await;
            // The others were woken before the counter, and have seen it as well.
            turns(3).await;
            if value == 4 {
                assert!(aborted.abort());
                turns_until(|| sender.receivers() == 5).await;
            }
        }
        drop(sender);
        for task in quick {
            let (seen, missed) = task.await.unwrap();
            assert_eq!((seen, missed), ((0..10).collect(), 0));
        }
        assert_eq!(follow(slow).await, (vec![6, 7, 8, 9], 6));
        assert!(aborted.await.is_err());
        counting.await.unwrap();
    });
}

fn followers_see_the_latest_value_and_the_end(engine: Engine) {
    run(engine, async {
        let (sender, receiver) = watch::channel(0);
        let followers: Vec<_> = (0..5)
            .map(|_| {
                let mut receiver = receiver.clone();
                task::spawn(async move {
                    let mut last = receiver.get();
                    while receiver.changed().await.is_ok() {
                        let value = receiver.get();
                        assert!(value > last, "each change is seen once, in order");
                        last = value;
                    }
                    last
                })
            })
            .collect();
        for value in 1..=20 {
            sender.send(value);
            turns(value % 3).await;
        }
        assert!(followers[0].abort());
        drop(sender);
        for (number, follower) in followers.into_iter().enumerate() {
            assert_eq!(follower.await.ok(), (number > 0).then_some(20));
        }
        assert!(receiver.has_changed());
    });
}

fn receivers_are_streams(engine: Engine) {
    async fn collect(mut stream: impl Stream<Item = u32> + Unpin) -> Vec<u32> {
        let mut items = Vec::new();
        while let Some(item) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
            items.push(item);
        }
        items
    }
    run(engine, async {
        let (sender, receiver) = channel::bounded(1);
        let other = receiver.clone();
        let collecting = task::spawn(collect(receiver));
        for item in 0..5 {
            sender.send(item).await.unwrap();
        }
        drop(sender);
        assert_eq!(collecting.await.unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(other.recv().await, None);
        let (mut sender, receiver) = spsc::channel(1);
        let thread = std::thread::spawn(move || {
            for item in 0..5 {
                sender.send_blocking(item).unwrap();
            }
        });
        assert_eq!(collect(receiver).await, [0, 1, 2, 3, 4]);
        thread.join().unwrap();
        // A stream that goes away while it waits takes no item with it.
        let (sender, receiver) = channel::bounded(1);
        let other = receiver.clone();
        let collecting = task::spawn(collect(receiver));
        turns(3).await;
        assert_eq!(sender.try_send(7), Ok(()));
        assert!(collecting.abort());
        assert!(collecting.await.is_err());
        assert_eq!(other.recv().await, Some(7));
    });
}

/// Gives up on the next item after a while, with the stream still there.
async fn give_up<S: Stream<Item = u32> + Unpin>(stream: &mut S) {
    assert!(time::timeout(Duration::from_millis(1), stream.next()).await.is_err());
}

fn a_timed_out_next_leaves_the_item_to_the_same_receiver(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let (sender, mut receiver) = channel::unbounded();
        give_up(&mut receiver).await;
        sender.try_send(1).unwrap();
        assert_eq!((receiver.len(), receiver.try_recv()), (1, Ok(1)));
        give_up(&mut receiver).await;
        sender.try_send(2).unwrap();
        assert_eq!(receiver.recv().await, Some(2));
        give_up(&mut receiver).await;
        sender.try_send(3).unwrap();
        assert_eq!(receiver.next().await, Some(3));
        give_up(&mut receiver).await;
        let sending = task::spawn(async move { sender.send(4).await });
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(4), None));
        assert_eq!(sending.await.unwrap(), Ok(()));
        // Across threads as well.
        let (sender, receiver) = shared::channel::unbounded();
        let mut receiver = Box::pin(receiver);
        give_up(&mut receiver).await;
        sender.try_send(1).unwrap();
        assert_eq!(receiver.recv().await, Ok(1));
        let (mut sender, mut receiver) = spsc::channel(1);
        give_up(&mut receiver).await;
        sender.try_send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
        give_up(&mut receiver).await;
        let sending = task::spawn(async move { sender.send(2).await });
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(2), None));
        assert_eq!(sending.await.unwrap(), Ok(()));
    });
}

fn a_stream_that_is_not_read_on_starves_nobody(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let (sender, mut idle) = channel::bounded(1);
        let live = idle.clone();
        give_up(&mut idle).await;
        let receiving = task::spawn(async move { (live.recv().await, live) });
        turns(3).await;
        sender.try_send(1).unwrap();
        let (item, live) = receiving.await.unwrap();
        assert_eq!(item, Some(1));
        // An item that is there when the live one comes, and the room that it makes.
        sender.try_send(2).unwrap();
        let sending = task::spawn(async move { sender.send(3).await });
        turns(3).await;
        assert_eq!((live.recv().await, live.recv().await), (Some(2), Some(3)));
        assert_eq!((sending.await.unwrap(), live.recv().await), (Ok(()), None));
        drop(idle);
        let (sender, live) = shared::channel::unbounded();
        let mut idle = Box::pin(live.clone());
        give_up(&mut idle).await;
        let receiving = task::spawn(async move { live.recv().await });
        turns(3).await;
        sender.try_send(1).unwrap();
        assert_eq!(receiving.await.unwrap(), Ok(1));
    });
}

fn a_stream_that_is_read_on_misses_nothing_beside_an_idle_one(engine: Engine) {
    run_with(builder(engine).paused_clock(true), async {
        let (sender, mut idle) = channel::bounded(1);
        let live = idle.clone();
        give_up(&mut idle).await;
        let collecting = task::spawn(live.collect::<Vec<u32>>());
        for item in 0..5 {
            turns(3).await;
            sender.send(item).await.unwrap();
        }
        // A receive that is dropped when it was promised an item leaves it to the stream.
        let other = idle.clone();
        let receiving = task::spawn(async move { other.recv().await });
        turns(3).await;
        sender.try_send(5).unwrap();
        assert!(receiving.abort());
        assert!(receiving.await.is_err());
        drop(sender);
        assert_eq!(collecting.await.unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(idle.next().await, None);
    });
}
