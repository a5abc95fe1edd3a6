//! The runtimes as the measurements see them: annulus on each engine, and tokio.
//!
//! tokio is its `LocalRuntime`, whose tasks need not be `Send` either. Each has its own event;
//! across threads both use tokio's `Notify`, so that only the runtime differs.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use annulus::Engine;
use tokio::sync::Notify;

/// A runtime on one thread.
pub(crate) trait World: Sized {
    /// What many tasks can wait for at once.
    type Event: 'static;

    /// Runs `future` to its end; the world stays usable.
    fn run<F: Future>(&mut self, future: F) -> F::Output;
    /// Spawns a task that nobody joins.
    fn spawn(future: impl Future<Output = ()> + 'static);
    /// Spawns a task and gives what waits for it.
    fn spawn_joined(future: impl Future<Output = ()> + 'static) -> impl Future;
    fn sleep(length: Duration) -> impl Future<Output = ()> + 'static;
    fn yield_now() -> impl Future<Output = ()> + 'static;
    fn event() -> Self::Event;
    fn wait(event: Rc<Self::Event>) -> impl Future<Output = ()> + 'static;
    fn set(event: &Self::Event);
}

pub(crate) struct Annulus(annulus::Runtime);

impl Annulus {
    pub(crate) fn new(engine: Engine) -> Self {
        let built = annulus::Runtime::builder().engine(engine).shards(1).cpu_cores(0).build();
        Annulus(built.unwrap_or_else(|error| panic!("no annulus on this host: {error}")))
    }
}

impl World for Annulus {
    type Event = annulus::sync::Event;

    fn run<F: Future>(&mut self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        annulus::task::spawn(future).detach();
    }

    fn spawn_joined(future: impl Future<Output = ()> + 'static) -> impl Future {
        annulus::task::spawn(future)
    }

    fn sleep(length: Duration) -> impl Future<Output = ()> + 'static {
        annulus::time::sleep(length)
    }

    fn yield_now() -> impl Future<Output = ()> + 'static {
        annulus::task::yield_now()
    }

    fn event() -> annulus::sync::Event {
        annulus::sync::Event::new()
    }

    async fn wait(event: Rc<annulus::sync::Event>) {
        event.wait().await;
    }

    fn set(event: &annulus::sync::Event) {
        event.set();
    }
}

pub(crate) struct Tokio(tokio::runtime::LocalRuntime);

impl Tokio {
    pub(crate) fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let built = builder.enable_all().build_local(tokio::runtime::LocalOptions::default());
        Tokio(built.unwrap_or_else(|error| panic!("no tokio on this host: {error}")))
    }
}

impl World for Tokio {
    type Event = Notify;

    fn run<F: Future>(&mut self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(future));
    }

    fn spawn_joined(future: impl Future<Output = ()> + 'static) -> impl Future {
        tokio::task::spawn_local(future)
    }

    fn sleep(length: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(length)
    }

    fn yield_now() -> impl Future<Output = ()> + 'static {
        tokio::task::yield_now()
    }

    fn event() -> Notify {
        Notify::new()
    }

    async fn wait(event: Rc<Notify>) {
        event.notified().await;
    }

    fn set(event: &Notify) {
        event.notify_waiters();
    }
}
