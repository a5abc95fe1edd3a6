//! annulus: one shard, the engine that it chooses by itself, and its own primitives for one shard.

use ::annulus::future::join_all;
use ::annulus::sync::channel::{self, Receiver, Sender};
use ::annulus::sync::{Mutex, MutexGuard, oneshot};
use ::annulus::task::JoinHandle;
use ::annulus::{Runtime, task, time};

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
    channel::bounded(bound)
}

async fn send(sender: &Sender<u64>, item: u64) {
    assert!(sender.send(item).await.is_ok(), "the receiver waits");
}

fn next(receiver: &mut Receiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}

fn unbounded() -> (Sender<u64>, Receiver<u64>) {
    channel::unbounded()
}

fn push(sender: &Sender<u64>, item: u64) {
    assert!(sender.try_send(item).is_ok(), "the receiver waits");
}

fn next_pushed(receiver: &mut Receiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}
