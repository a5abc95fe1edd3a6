//! What crosses threads, between two shards and on one: nothing is lost or doubled on the way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use annulus::shard::{ShardId, shard};
use annulus::stream::StreamExt;
use annulus::sync::shared::{
    Barrier, Event, Mutex, OnceCell, RwLock, Semaphore, channel, notify, oneshot, spsc,
};
use annulus::{Engine, task, time};
use futures_util::join;

use super::{at_every_await, later, small, within};
use crate::harness::{run_with, turns};

on_every_engine!(
    alone: rings_between_shards,
    rings_on_one_shard,
    single_values_and_events,
    channels_and_notifications,
    locks,
);

const ITEMS: u32 = 40;

/// The other side is on another shard, and now and then slower.
fn rings_between_shards(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("spsc::Receiver::recv", async |cut| {
            let (mut sender, mut receiver) = spsc::channel(4);
            let there = shard(ShardId(1)).spawn(move || async move {
                for item in 0..ITEMS {
                    if item % 8 == 5 {
                        time::sleep(Duration::from_micros(100)).await;
                    }
                    sender.send(item).await.unwrap();
                }
            });
            let mut all = Vec::new();
            // Given up in the middle of many receives.
            let receiving = async {
                while let Some(item) = receiver.recv().await {
                    all.push(item);
                }
            };
            let ended = cut.until(receiving).await;
            if ended.is_none() {
                while let Some(item) = within("recv", receiver.recv()).await {
                    all.push(item);
                }
            }
            assert_eq!(all, (0..ITEMS).collect::<Vec<_>>());
            there.await.unwrap();
        })
        .await;
        at_every_await("spsc::Sender::send", async |cut| {
            let (mut sender, mut receiver) = spsc::channel(2);
            let there = shard(ShardId(1)).spawn(move || async move {
                let mut all = Vec::new();
                while let Some(item) = receiver.recv().await {
                    if item % 8 == 5 {
                        time::sleep(Duration::from_micros(100)).await;
                    }
                    all.push(item);
                }
                all
            });
            let mut sent = 0;
            let sending = async {
                while sent < ITEMS {
                    sender.send(sent).await.unwrap();
                    sent += 1;
                }
            };
            let ended = cut.until(sending).await;
            if ended.is_none() {
                // A send that was dropped has sent nothing.
                for item in sent..ITEMS {
                    within("send", sender.send(item)).await.unwrap();
                }
            }
            drop(sender);
            assert_eq!(within("the end", there).await.unwrap(), (0..ITEMS).collect::<Vec<_>>());
        })
        .await;
    });
}

fn rings_on_one_shard(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("spsc::Receiver::recv, from here", async |cut| {
            let (mut sender, mut receiver) = spsc::channel(4);
            let sending = later(move || [1, 2].map(|item| sender.try_send(item).unwrap()));
            let first = match cut.until(receiver.recv()).await {
                Some(first) => first,
                None => within("recv", receiver.recv()).await,
            };
            assert_eq!((first, receiver.recv().await), (Some(1), Some(2)));
            sending.await.unwrap();
        })
        .await;
        at_every_await("spsc::Receiver as a stream", async |cut| {
            let (mut sender, mut receiver) = spsc::channel(4);
            let sending = later(move || sender.try_send(1).unwrap());
            let first = match cut.until(receiver.next()).await {
                Some(first) => first,
                None => within("next", receiver.next()).await,
            };
            assert_eq!((first, receiver.next().await), (Some(1), None));
            sending.await.unwrap();
        })
        .await;
        at_every_await("spsc::Sender::send, to here", async |cut| {
            let (mut sender, mut receiver) = spsc::channel(1);
            sender.try_send(0).unwrap();
            let receiving = later(move || {
                assert_eq!(receiver.try_recv(), Ok(0));
                receiver
            });
            let sent = cut.until(sender.send(1)).await.is_some();
            let mut receiver = receiving.await.unwrap();
            within("send", async {
                if sent {
                    assert_eq!(receiver.recv().await, Some(1));
                }
                sender.send(2).await.unwrap();
                assert_eq!(receiver.recv().await, Some(2));
            })
            .await;
        })
        .await;
    });
}

fn single_values_and_events(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("shared::oneshot::Receiver", async |cut| {
            let (sender, mut receiver) = oneshot::channel();
            let there = shard(ShardId(1)).call(move || sender.send(1).is_ok());
            let there = task::spawn(there);
            let value = match cut.until(&mut receiver).await {
                Some(value) => value,
                None => within("a value", receiver).await,
            };
            assert_eq!(value.ok(), Some(1));
            assert!(there.await.unwrap().unwrap());
        })
        .await;
        at_every_await("shared::Event::wait", async |cut| {
            let event = Arc::new(Event::new());
            let setting = {
                let event = Arc::clone(&event);
                task::spawn(shard(ShardId(1)).call(move || event.set()))
            };
            cut.past(event.wait()).await;
            within("an event", event.wait()).await;
            setting.await.unwrap().unwrap();
        })
        .await;
    });
}

fn channels_and_notifications(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("shared::channel, recv", async |cut| {
            let (sender, receiver) = channel::bounded(2);
            let there = task::spawn(shard(ShardId(1)).submit(move || async move {
                for item in 1..6 {
                    sender.send(item).await.unwrap();
                }
            }));
            let mut all = Vec::new();
            let first = cut.until(receiver.recv()).await;
            all.extend(first.map(Result::unwrap));
            while let Ok(item) = within("recv", receiver.recv()).await {
                all.push(item);
            }
            assert_eq!(all, [1, 2, 3, 4, 5]);
            there.await.unwrap().unwrap();
        })
        .await;
        at_every_await("shared::channel, send", async |cut| {
            let (sender, receiver) = channel::bounded(1);
            sender.send(0).await.unwrap();
            let receiving = {
                let receiver = receiver.clone();
                later(move || assert_eq!(receiver.try_recv(), Ok(0)))
            };
            let sent = cut.until(sender.send(1)).await.is_some();
            receiving.await.unwrap();
            assert_eq!(receiver.len(), usize::from(sent));
            assert_eq!(receiver.try_recv().is_ok(), sent);
            within("send", sender.send(2)).await.unwrap();
            assert_eq!(receiver.recv().await, Ok(2));
        })
        .await;
        at_every_await("shared::notify", async |cut| {
            let event = Arc::new(notify::Event::new());
            let listener = event.listen();
            let behind = event.listen();
            let notifying = {
                let event = Arc::clone(&event);
                later(move || event.notify(1))
            };
            let came = cut.until(listener).await.is_some();
            notifying.await.unwrap();
            if came {
                event.notify(1);
            }
            within("a notification", behind).await;
        })
        .await;
    });
}

/// One holds it, the cut future waits, another behind it, and that one must come.
macro_rules! line {
    ($cut:expr, $held:expr, $first:expr, $behind:expr) => {{
        let held = $held;
        let rest = async {
            turns(1).await;
            let mut behind = pin!($behind);
            assert!(futures_util::poll!(behind.as_mut()).is_pending());
            drop(held);
            drop(within("who is behind", behind).await);
        };
        join!($cut.past($first), rest);
    }};
}

fn locks(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("shared::Mutex::lock", async |cut| {
            let lock = Mutex::new(());
            line!(cut, lock.lock().await, lock.lock(), lock.lock());
            assert!(lock.try_lock().is_some());
        })
        .await;
        at_every_await("shared::RwLock::read", async |cut| {
            let lock = RwLock::new(());
            line!(cut, lock.write().await, lock.read(), lock.write());
            assert!(lock.try_write().is_some());
        })
        .await;
        at_every_await("shared::RwLock::write", async |cut| {
            let lock = RwLock::new(());
            line!(cut, lock.read().await, lock.write(), lock.write());
            assert!(lock.try_write().is_some());
        })
        .await;
        at_every_await("shared::Semaphore::acquire", async |cut| {
            let permits = Semaphore::new(1);
            line!(cut, permits.acquire().await, permits.acquire(), permits.acquire());
            assert!(permits.try_acquire().is_some());
        })
        .await;
        at_every_await("shared::OnceCell::get_or_init", async |cut| {
            let cell = OnceCell::new();
            let make = async |value| {
                turns(2).await;
                value
            };
            let behind = async {
                turns(1).await;
                *within("get_or_init", cell.get_or_init(|| make(2))).await
            };
            let first = async { cut.until(cell.get_or_init(|| make(1))).await.copied() };
            let (first, behind) = join!(first, behind);
            assert!(first.is_none_or(|first| first == behind), "{first:?} {behind}");
        })
        .await;
        at_every_await("shared::Barrier::wait", async |cut| {
            let barrier = Arc::new(Barrier::new(1));
            assert!(cut.until(barrier.wait()).await.is_none_or(|met| met.is_leader()));
        })
        .await;
    });
}
