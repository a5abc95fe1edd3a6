//! annulus: one shard, the engine that it chooses by itself.
//!
//! Locks and channels are tokio's thread-safe ones as long as annulus has none of its own.

use ::annulus::task::JoinHandle;
use ::annulus::{Runtime, task, time};
use futures_util::future::join_all;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};

crate::workloads::contender!("annulus", "");

pub(crate) struct World(Runtime);

impl World {
    fn build() -> Self {
        let built = Runtime::builder().shards(1).cpu_cores(0).build();
        World(built.unwrap_or_else(|error| panic!("no annulus on this host: {error}")))
    }

    fn run<F: Future + 'static>(&mut self, work: F) -> F::Output {
        let joined = self.0.block_on(async { task::spawn(work).await });
        joined.unwrap_or_else(|error| panic!("{error}"))
    }
}

fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    task::spawn(future)
}

fn yield_now() -> impl Future<Output = ()> {
    task::yield_now()
}

fn sleep(length: Duration) -> impl Future<Output = ()> {
    time::sleep(length)
}

async fn timeout<F: Future>(length: Duration, future: F) -> bool {
    time::timeout(length, future).await.is_ok()
}

fn unconstrained<F: Future>(future: F) -> F {
    future
}

type OneshotSender<T> = oneshot::Sender<T>;

fn oneshot<T>() -> (oneshot::Sender<T>, oneshot::Receiver<T>) {
    oneshot::channel()
}

fn answer<T>(sender: oneshot::Sender<T>, value: T) {
    let _ = sender.send(value);
}

async fn receive<T>(receiver: oneshot::Receiver<T>) -> Option<T> {
    receiver.await.ok()
}

fn new_lock() -> Mutex<u64> {
    Mutex::new(0)
}

fn acquire(lock: &Mutex<u64>) -> impl Future<Output = MutexGuard<'_, u64>> {
    lock.lock()
}

fn bounded(bound: usize) -> (Sender<u64>, Receiver<u64>) {
    mpsc::channel(bound)
}

async fn send(sender: &Sender<u64>, item: u64) {
    assert!(sender.send(item).await.is_ok(), "the receiver waits");
}

fn next(receiver: &mut Receiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}

fn unbounded() -> (UnboundedSender<u64>, UnboundedReceiver<u64>) {
    mpsc::unbounded_channel()
}

fn push(sender: &UnboundedSender<u64>, item: u64) {
    assert!(sender.send(item).is_ok(), "the receiver waits");
}

fn next_pushed(receiver: &mut UnboundedReceiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}
