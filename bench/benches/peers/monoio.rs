//! monoio on its io_uring driver with timers; locks and channels from local-sync.
//!
//! monoio has neither: local-sync, by the same author and without atomics, is what goes with it.
//! local-sync has no mutex either; a semaphore of one permit stands for it. `yield` is the future
//! of futures-lite.

use ::monoio::task::JoinHandle;
use ::monoio::time::TimeDriver;
use ::monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use futures_util::future::join_all;
use local_sync::mpsc::{bounded as bounded_queue, unbounded as unbounded_queue};
use local_sync::oneshot;
use local_sync::semaphore::{Semaphore, SemaphorePermit};

crate::workloads::contender!("monoio", "");

pub(crate) struct World(Runtime<TimeDriver<IoUringDriver>>);

impl World {
    fn build() -> Self {
        let built = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
        World(built.unwrap_or_else(|error| panic!("no monoio on this host: {error}")))
    }

    fn run<F: Future + 'static>(&mut self, work: F) -> F::Output {
        self.0.block_on(async { ::monoio::spawn(work).await })
    }
}

fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    ::monoio::spawn(future)
}

fn yield_now() -> impl Future<Output = ()> {
    futures_lite::future::yield_now()
}

fn sleep(length: Duration) -> impl Future<Output = ()> {
    ::monoio::time::sleep(length)
}

async fn timeout<F: Future>(length: Duration, future: F) -> bool {
    ::monoio::time::timeout(length, future).await.is_ok()
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

fn new_lock() -> Semaphore {
    Semaphore::new(1)
}

async fn acquire(lock: &Semaphore) -> SemaphorePermit<'_> {
    lock.acquire().await.unwrap_or_else(|error| panic!("{error}"))
}

fn bounded(bound: usize) -> (bounded_queue::Tx<u64>, bounded_queue::Rx<u64>) {
    bounded_queue::channel(bound)
}

async fn send(sender: &bounded_queue::Tx<u64>, item: u64) {
    assert!(sender.send(item).await.is_ok(), "the receiver waits");
}

fn next(receiver: &mut bounded_queue::Rx<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}

fn unbounded() -> (unbounded_queue::Tx<u64>, unbounded_queue::Rx<u64>) {
    unbounded_queue::channel()
}

fn push(sender: &unbounded_queue::Tx<u64>, item: u64) {
    assert!(sender.send(item).is_ok(), "the receiver waits");
}

fn next_pushed(receiver: &mut unbounded_queue::Rx<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}
