//! One connection's place: a task of its shard, or a thread of its own under the `threads` engine.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::thread;

use super::Shared;
use super::threads::new_shard;
use crate::clock;
use crate::driver::Choice;
use crate::error::{Errno, Error, Result};
use crate::shard::{ShardId, context};

/// Runs what `start` makes for one connection: as a task of this shard, or, under the `threads`
/// engine, on a thread of the connection's own.
///
/// # Errors
/// If the connection's thread cannot be started.
#[track_caller]
pub(crate) fn spawn_connection<F, Fut>(name: &'static str, start: F) -> Result<()>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (shared, id) = context::with(|shard| (Arc::clone(&shard.shared), shard.id()));
    // A paused clock is that of one thread, so its connections stay there.
    if !matches!(shared.choice, Choice::Blocking) || shared.has_paused_clock() {
        crate::task::Builder::new().name(name).spawn(start()).detach();
        return Ok(());
    }
    let running = ConnectionThread::new(&shared);
    let body = move || {
        let served = new_shard(&running.shared, id, false).and_then(|shard| {
            let entered = context::enter(&shard)?;
            let serve = AssertUnwindSafe(|| shard.drive(running.until_stopped(start())));
            if let Err(panic) = catch_unwind(serve) {
                shard.executor.hooks().panicked(None, &*panic);
            }
            shard.cancel_tasks();
            drop(entered);
            shard.shut_down(clock::now());
            Ok(())
        });
        if let Err(error) = served {
            tracing::error!(%error, "a connection could not be served");
        }
    };
    let spawned = thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|error| {
        Error::io("starting a connection's thread (raise `ulimit -u`)", Errno::from_io(&error))
    })
}

/// A connection's thread in the list of those that run.
struct ConnectionThread {
    shared: Arc<Shared>,
    place: usize,
}

impl ConnectionThread {
    fn new(shared: &Arc<Shared>) -> Self {
        let place = shared.connection_threads().insert(Waker::noop().clone());
        Self { shared: Arc::clone(shared), place }
    }

    /// Runs `serve` until it ends, or drops it where it stands once the runtime stops.
    async fn until_stopped(&self, serve: impl Future<Output = ()>) {
        let mut serve = pin!(serve);
        let mut is_listed = false;
        poll_fn(|context| {
            if !is_listed {
                is_listed = true; // The thread has one waker only.
                self.shared.connection_threads()[self.place].clone_from(context.waker());
            }
            // Looked at after the waker has been left, so that a stop is not missed.
            if self.shared.stopping.load(Ordering::SeqCst) {
                self.shared.count_cancelled(1);
                return Poll::Ready(());
            }
            serve.as_mut().poll(context)
        })
        .await;
    }
}

impl Drop for ConnectionThread {
    fn drop(&mut self) {
        drop(self.shared.connection_threads().remove(self.place));
        // Left before this is asked, so that an end that begins now does not find it there.
        if self.shared.is_ending() {
            self.shared.remote(ShardId(0)).nudge();
        }
    }
}
