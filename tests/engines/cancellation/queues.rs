//! Queues of one shard: every item comes once, in order, whoever was given up.

use std::rc::Rc;

use annulus::stream::StreamExt;
use annulus::sync::queue::{Fifo, Lifo, Priority, Queue, Store};
use annulus::sync::{Promise, broadcast, channel, oneshot, watch};
use annulus::{Engine, Error};
use futures_util::join;

use super::{at_every_await, later, small, within};
use crate::harness::{run_with, turns};

on_every_engine!(alone: channels, queues, broadcasts, watches, single_values);

fn channels(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("channel::Sender::send", async |cut| {
            let (sender, receiver) = channel::bounded(1);
            sender.send(0).await.unwrap();
            let sending = async {
                let sent = cut.until(sender.send(1)).await.is_some();
                within("send", sender.send(2)).await.unwrap();
                drop(sender);
                sent
            };
            let receiving = async {
                turns(3).await;
                let mut all = Vec::new();
                while let Some(item) = receiver.recv().await {
                    all.push(item);
                }
                all
            };
            let (sent, all) = join!(sending, receiving);
            assert_eq!(all, if sent { vec![0, 1, 2] } else { vec![0, 2] });
        })
        .await;
        at_every_await("channel::Sender::send, others behind", async |cut| {
            let (sender, receiver) = channel::bounded(1);
            sender.send(0).await.unwrap();
            let behind = async {
                turns(1).await;
                within("send behind", sender.send(2)).await.unwrap();
            };
            let receiving = async {
                turns(3).await;
                assert_eq!(receiver.recv().await, Some(0));
                turns(20).await;
                receiver.recv().await.unwrap()
            };
            let first = async { cut.until(sender.send(1)).await.is_some() };
            let receiving_all = async {
                let one = receiving.await;
                if one == 2 { vec![2] } else { vec![one, receiver.recv().await.unwrap()] }
            };
            let (sent, (), all) = join!(first, behind, receiving_all);
            assert_eq!(all, if sent { vec![1, 2] } else { vec![2] });
        })
        .await;
        at_every_await("channel::Receiver::recv", async |cut| {
            let (sender, receiver) = channel::unbounded();
            let sending = later(move || [1, 2].map(|item| sender.try_send(item).unwrap()));
            let first = cut.until(receiver.recv()).await;
            let first = match first {
                Some(first) => first,
                None => within("recv", receiver.recv()).await,
            };
            assert_eq!((first, receiver.recv().await), (Some(1), Some(2)));
            assert_eq!(receiver.recv().await, None);
            sending.await.unwrap();
        })
        .await;
        at_every_await("channel::Receiver::recv, others behind", async |cut| {
            let (sender, receiver) = channel::unbounded();
            let other = receiver.clone();
            let behind = async {
                turns(1).await;
                within("recv behind", other.recv()).await
            };
            let sending = async {
                turns(3).await;
                sender.try_send(1).unwrap();
                turns(20).await;
                sender.try_send(2).unwrap();
            };
            let (first, behind, ()) = join!(cut.until(receiver.recv()), behind, sending);
            match first {
                Some(first) => assert_eq!((first, behind), (Some(1), Some(2))),
                None => assert_eq!((behind, receiver.try_recv()), (Some(1), Ok(2))),
            }
        })
        .await;
        at_every_await("channel::Receiver as a stream", async |cut| {
            let (sender, mut receiver) = channel::unbounded();
            let sending = later(move || sender.try_send(1).unwrap());
            let first = match cut.until(receiver.next()).await {
                Some(first) => first,
                None => within("next", receiver.next()).await,
            };
            assert_eq!((first, receiver.next().await), (Some(1), None));
            sending.await.unwrap();
        })
        .await;
    });
}

async fn queue_of<S: Store<u32> + 'static>(what: &str) {
    at_every_await(&format!("Queue::put, {what}"), async |cut| {
        let queue: Queue<u32, S> = Queue::bounded(1);
        queue.put(0).await.unwrap();
        let getting = async {
            turns(3).await;
            assert_eq!(within("get", queue.get()).await, Some(0));
        };
        let (sent, ()) = join!(cut.until(queue.put(1)), getting);
        assert_eq!(queue.len(), usize::from(sent.is_some()));
        if sent.is_none() {
            within("put", queue.put(1)).await.unwrap();
        }
        assert_eq!(queue.get().await, Some(1));
        assert_eq!(queue.unfinished(), 2);
    })
    .await;
    at_every_await(&format!("Queue::get, {what}"), async |cut| {
        let queue: Queue<u32, S> = Queue::bounded(2);
        let behind = async {
            turns(1).await;
            within("get behind", queue.get()).await.unwrap()
        };
        let putting = async {
            turns(3).await;
            queue.put(1).await.unwrap();
            turns(20).await;
            queue.put(2).await.unwrap();
        };
        let (first, behind, ()) = join!(cut.until(queue.get()), behind, putting);
        // Each comes once; in which order is the store's.
        let other = match first {
            Some(first) => first,
            None => within("get", queue.get()).await,
        };
        let other = other.unwrap();
        assert_eq!((behind.min(other), behind.max(other)), (1, 2));
    })
    .await;
    at_every_await(&format!("Queue::join, {what}"), async |cut| {
        let queue: Rc<Queue<u32, S>> = Rc::new(Queue::unbounded());
        queue.put(1).await.unwrap();
        assert_eq!(queue.get().await, Some(1));
        let work = {
            let queue = Rc::clone(&queue);
            later(move || queue.task_done())
        };
        cut.past(queue.join()).await;
        within("join", queue.join()).await;
        work.await.unwrap();
    })
    .await;
}

fn queues(engine: Engine) {
    run_with(small(engine), async {
        queue_of::<Fifo<u32>>("first in, first out").await;
        queue_of::<Lifo<u32>>("last in, first out").await;
        queue_of::<Priority<u32>>("by priority").await;
    });
}

fn broadcasts(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("broadcast::Receiver::recv", async |cut| {
            let (sender, mut receiver) = broadcast::channel(4);
            let mut other = sender.subscribe();
            let sending = later(move || [1, 2].map(|value| sender.send(value).unwrap()));
            let first = match cut.until(receiver.recv()).await {
                Some(first) => first,
                None => within("recv", receiver.recv()).await,
            };
            assert_eq!((first, receiver.recv().await), (Ok(1), Ok(2)));
            assert_eq!((other.recv().await, other.recv().await), (Ok(1), Ok(2)));
            sending.await.unwrap();
        })
        .await;
    });
}

fn watches(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("watch::Receiver::changed", async |cut| {
            let (sender, mut receiver) = watch::channel(0);
            let sending = later(move || {
                sender.send(1);
                sender
            });
            let changed = match cut.until(receiver.changed()).await {
                Some(changed) => changed,
                None => within("changed", receiver.changed()).await,
            };
            assert_eq!((changed.is_ok(), receiver.get()), (true, 1));
            drop(sending.await.unwrap());
            assert!(receiver.changed().await.is_err());
        })
        .await;
        at_every_await("watch::Receiver::wait_for", async |cut| {
            let (sender, mut receiver) = watch::channel(0);
            let sending = async {
                for value in 1..4 {
                    turns(2).await;
                    sender.send(value);
                }
            };
            let waiting = async {
                match cut.until(receiver.wait_for(|value| *value == 3)).await {
                    Some(value) => value,
                    None => within("wait_for", receiver.wait_for(|value| *value == 3)).await,
                }
            };
            let (value, ()) = join!(waiting, sending);
            assert_eq!(value.ok(), Some(3));
        })
        .await;
    });
}

fn single_values(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("oneshot::Receiver", async |cut| {
            let (sender, mut receiver) = oneshot::channel();
            let sending = later(move || sender.send(1).is_ok());
            let value = match cut.until(&mut receiver).await {
                Some(value) => value,
                None => within("a value", receiver).await,
            };
            assert_eq!(value, Ok(1));
            assert!(sending.await.unwrap());
        })
        .await;
        at_every_await("oneshot::Sender::closed", async |cut| {
            let (mut sender, receiver) = oneshot::channel::<u32>();
            let closing = later(move || drop(receiver));
            cut.past(sender.closed()).await;
            within("closed", sender.closed()).await;
            closing.await.unwrap();
        })
        .await;
        at_every_await("Promised", async |cut| {
            let (promise, mut promised) = Promise::<u32, Error>::pair();
            let setting = later(move || promise.set(6).is_ok());
            let value = match cut.until(&mut promised).await {
                Some(value) => value,
                None => within("a promised value", promised).await,
            };
            assert_eq!(value.ok(), Some(6));
            assert!(setting.await.unwrap());
        })
        .await;
    });
}
