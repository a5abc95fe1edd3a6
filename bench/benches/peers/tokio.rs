//! tokio on one thread, in its three forms: plain, with a `LocalSet`, and as a `LocalRuntime`.
//!
//! The same primitives serve all three; the table shows the fastest form of each line.

/// What the three forms share.
mod shared {
    use std::future::Future;
    use std::time::Duration;

    use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender};
    use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};

    pub(super) use futures_util::future::join_all;
    pub(super) use tokio::sync::oneshot::Sender as OneshotSender;
    pub(super) use tokio::sync::oneshot::channel as oneshot;
    pub(super) use tokio::task::{JoinHandle, unconstrained, yield_now};
    pub(super) use tokio::time::sleep;

    pub(super) async fn timeout<F: Future>(length: Duration, future: F) -> bool {
        tokio::time::timeout(length, future).await.is_ok()
    }

    pub(super) fn answer<T>(sender: OneshotSender<T>, value: T) {
        let _ = sender.send(value);
    }

    pub(super) async fn receive<T>(receiver: oneshot::Receiver<T>) -> Option<T> {
        receiver.await.ok()
    }

    pub(super) fn new_lock() -> Mutex<u64> {
        Mutex::new(0)
    }

    pub(super) fn acquire(lock: &Mutex<u64>) -> impl Future<Output = MutexGuard<'_, u64>> {
        lock.lock()
    }

    pub(super) fn bounded(bound: usize) -> (Sender<u64>, Receiver<u64>) {
        mpsc::channel(bound)
    }

    pub(super) async fn send(sender: &Sender<u64>, item: u64) {
        assert!(sender.send(item).await.is_ok(), "the receiver waits");
    }

    pub(super) fn next(receiver: &mut Receiver<u64>) -> impl Future<Output = Option<u64>> {
        receiver.recv()
    }

    pub(super) fn unbounded() -> (UnboundedSender<u64>, UnboundedReceiver<u64>) {
        mpsc::unbounded_channel()
    }

    pub(super) fn push(sender: &UnboundedSender<u64>, item: u64) {
        assert!(sender.send(item).is_ok(), "the receiver waits");
    }

    pub(super) fn next_pushed(
        receiver: &mut UnboundedReceiver<u64>,
    ) -> impl Future<Output = Option<u64>> {
        receiver.recv()
    }
}

/// `current_thread` and `tokio::spawn`: futures must be `Send`.
pub(crate) mod plain {
    use super::shared::*;
    use tokio::runtime::{Builder, Runtime};

    crate::workloads::contender!("tokio", "plain");

    pub(crate) struct World(Runtime);

    impl World {
        fn build() -> Self {
            let built = Builder::new_current_thread().enable_all().build();
            World(built.unwrap_or_else(|error| panic!("no tokio on this host: {error}")))
        }

        fn run<F>(&mut self, work: F) -> F::Output
        where
            F: Future<Output: Send> + Send + 'static,
        {
            let joined = self.0.block_on(async { tokio::spawn(work).await });
            joined.unwrap_or_else(|error| panic!("{error}"))
        }
    }

    fn spawn<F: Future<Output: Send> + Send + 'static>(future: F) -> JoinHandle<F::Output> {
        tokio::spawn(future)
    }
}

/// `current_thread` with a `LocalSet` and `spawn_local`.
pub(crate) mod local_set {
    use super::shared::*;
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::{LocalSet, spawn_local};

    crate::workloads::contender!("tokio", "LocalSet");

    pub(crate) struct World(Runtime, LocalSet);

    impl World {
        fn build() -> Self {
            let built = Builder::new_current_thread().enable_all().build();
            let runtime = built.unwrap_or_else(|error| panic!("no tokio on this host: {error}"));
            World(runtime, LocalSet::new())
        }

        fn run<F: Future + 'static>(&mut self, work: F) -> F::Output {
            let joined = self.1.block_on(&self.0, async { spawn_local(work).await });
            joined.unwrap_or_else(|error| panic!("{error}"))
        }
    }

    fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
        spawn_local(future)
    }
}

/// `LocalRuntime`: `spawn_local` without a `LocalSet`.
pub(crate) mod local_runtime {
    use super::shared::*;
    use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
    use tokio::task::spawn_local;

    crate::workloads::contender!("tokio", "LocalRuntime");

    pub(crate) struct World(LocalRuntime);

    impl World {
        fn build() -> Self {
            let built =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            World(built.unwrap_or_else(|error| panic!("no tokio on this host: {error}")))
        }

        fn run<F: Future + 'static>(&mut self, work: F) -> F::Output {
            let joined = self.0.block_on(async { spawn_local(work).await });
            joined.unwrap_or_else(|error| panic!("{error}"))
        }
    }

    fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
        spawn_local(future)
    }
}
