//! glommio: one local executor, its local channels, its semaphore as the lock, its timer.
//!
//! It has no oneshot; a local channel of one stands for it, as its documentation would have it.

use ::glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use ::glommio::sync::{Permit, Semaphore};
use ::glommio::timer::Timer;
use ::glommio::{LocalExecutor, LocalExecutorBuilder, Placement, Task};
use futures_util::future::join_all;

crate::workloads::contender!("glommio", "");

/// Locked memory for its buffers: the smallest that it accepts without falling back.
const IO_MEMORY_BYTES: usize = 1024 * 1024;

pub(crate) struct World(LocalExecutor);

impl World {
    fn build() -> Self {
        let built = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_BYTES).make();
        World(built.unwrap_or_else(|error| panic!("no glommio on this host: {error}")))
    }

    fn run<F: Future + 'static>(&mut self, work: F) -> F::Output {
        self.0.run(async { ::glommio::spawn_local(work).await })
    }
}

fn spawn<F: Future + 'static>(future: F) -> Task<F::Output> {
    ::glommio::spawn_local(future)
}

async fn yield_now() {
    ::glommio::executor().yield_now().await;
}

async fn sleep(length: Duration) {
    Timer::new(length).await;
}

async fn timeout<F: Future>(length: Duration, future: F) -> bool {
    let timely = async { Ok(future.await) };
    ::glommio::timer::timeout(length, timely).await.is_ok()
}

fn unconstrained<F: Future>(future: F) -> F {
    future
}

type OneshotSender<T> = LocalSender<T>;

fn oneshot<T>() -> (LocalSender<T>, LocalReceiver<T>) {
    local_channel::new_bounded(1)
}

fn answer<T>(sender: LocalSender<T>, value: T) {
    let _ = sender.try_send(value);
}

async fn receive<T>(receiver: LocalReceiver<T>) -> Option<T> {
    receiver.recv().await
}

fn new_lock() -> Semaphore {
    Semaphore::new(1)
}

async fn acquire(lock: &Semaphore) -> Permit<'_> {
    lock.acquire_permit(1).await.unwrap_or_else(|error| panic!("{error}"))
}

fn bounded(bound: usize) -> (LocalSender<u64>, LocalReceiver<u64>) {
    local_channel::new_bounded(bound)
}

async fn send(sender: &LocalSender<u64>, item: u64) {
    assert!(sender.send(item).await.is_ok(), "the receiver waits");
}

fn next(receiver: &mut LocalReceiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}

fn unbounded() -> (LocalSender<u64>, LocalReceiver<u64>) {
    local_channel::new_unbounded()
}

fn push(sender: &LocalSender<u64>, item: u64) {
    assert!(sender.try_send(item).is_ok(), "the receiver waits");
}

fn next_pushed(receiver: &mut LocalReceiver<u64>) -> impl Future<Output = Option<u64>> {
    receiver.recv()
}
