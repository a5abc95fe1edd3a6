//! The end of a runtime: at once, or after its tasks have had their time.
//!
//! In phases, each with a deadline: drain, wait for tasks and connections (only if asked to),
//! cancel tasks, cancel operations and reap every last completion. Nothing is freed that the kernel
//! may still write to.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::thread;
use std::time::Duration;

use super::Runtime;
use crate::clock;
use crate::driver::{InFlight, Wait};
use crate::error::{Error, Result};
use crate::shard::{Shard, context};

/// How a runtime ended.
#[derive(Clone, Debug, Default)]
pub struct ShutdownReport {
    /// Tasks, and threads of connections, that had not ended and were dropped where they stood.
    pub cancelled: usize,
    /// Operations that the kernel did not give back in time. Their memory is leaked on purpose.
    pub leaked: Vec<InFlight>,
}

impl Runtime {
    /// Ends the runtime: cancels all tasks, then all operations, and waits for the kernel to be
    /// done with them until the teardown deadline. Dropping a runtime does the same without the
    /// report.
    pub fn shut_down(self) -> ShutdownReport {
        self.end()
    }

    /// Ends the runtime in order: drains it ([`Handle::drain`](super::Handle::drain)), so that
    /// listeners and receives end, and turns until every task and every connection has come to its
    /// end, at most for `limit`. Then [`Runtime::shut_down`]: what has not ended is cancelled. A
    /// task that would go on for ever should ask [`shard::is_draining`](crate::shard::is_draining),
    /// or be aborted before.
    ///
    /// Inside another runtime, which it may not hold up, it waits for nothing.
    pub fn shut_down_within(self, limit: Duration) -> ShutdownReport {
        self.wait_for_tasks(limit);
        self.end()
    }

    /// [`Runtime::shut_down`] for a runtime that is shared: what needs it afterwards fails with
    /// `is_closed`. Closing again does nothing.
    ///
    /// # Errors
    /// `is_already_running` while its loop runs or it is entered: it cannot be closed from within.
    pub fn close(&self) -> Result<ShutdownReport> {
        self.check_left()?;
        Ok(self.end())
    }

    /// [`Runtime::shut_down_within`] for a runtime that is shared, as [`Runtime::close`].
    ///
    /// # Errors
    /// As [`Runtime::close`].
    pub fn close_within(&self, limit: Duration) -> Result<ShutdownReport> {
        self.check_left()?;
        self.wait_for_tasks(limit);
        Ok(self.end())
    }

    fn check_left(&self) -> Result<()> {
        if self.is_running() {
            return Err(Error::running(
                "the runtime cannot be closed from within its loop; have block_on return, or \
                 run_forever by Handle::stop, and close it then",
            ));
        }
        if self.guards.get() > 0 {
            return Err(Error::running(
                "the runtime cannot be closed while it is entered; drop the guard of \
                 Runtime::enter first",
            ));
        }
        Ok(())
    }

    fn wait_for_tasks(&self, limit: Duration) {
        let waited = self.run(|shard| {
            self.handle().drain();
            self.shared.begin_to_end();
            let deadline = clock::now() + limit;
            while !self.is_idle(shard) && clock::now() < deadline {
                // Its sleep comes first, so that none follows the end of the last task.
                if let Err(errno) = shard.turn_waiting_first(Wait::Until(deadline)) {
                    tracing::error!(%errno, "the driver failed; its tasks are not waited for");
                    break;
                }
            }
        });
        if let Err(error) = waited {
            tracing::debug!(%error, "the end waits for no task");
        }
    }

    fn is_idle(&self, shard: &Shard) -> bool {
        shard.executor.count() == 0 && !shard.has_messages() && self.shared.are_others_idle()
    }

    /// What every way to end comes to. Does nothing the second time.
    pub(super) fn end(&self) -> ShutdownReport {
        // Deadlines of the end are real ones, also inside a runtime whose clock stands still.
        let _real = clock::real_for_now();
        let mut leaked = Vec::new();
        self.shared.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.borrow().iter() {
            thread.thread().unpark();
        }
        for remote in self.shared.remotes.get().iter().flat_map(|remotes| remotes.iter()) {
            remote.nudge();
        }
        self.end_connection_threads();
        let home = self.home.take();
        if let Some(home) = home {
            {
                // Another runtime may run on this thread while this one is dropped.
                let _entered = context::enter_instead(&home);
                home.cancel_tasks();
            }
            leaked.extend(home.shut_down(clock::now() + self.teardown).operations);
        }
        for thread in self.threads.take() {
            match thread.join() {
                Ok(left) => leaked.extend(left.operations),
                Err(_) => tracing::error!("a shard's thread had panicked"),
            }
        }
        self.shared.pools.end(clock::now() + self.teardown);
        drop(self.affinity.take());
        // A hook may hold a handle of the very runtime that holds it.
        drop(self.shared.hooks.set_panic_hook(None));
        report_leaked(&leaked);
        ShutdownReport { cancelled: self.shared.cancelled(), leaked }
    }

    /// Has connections' own threads drop their tasks, and waits for them, up to the deadline.
    fn end_connection_threads(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        let deadline = clock::now() + self.teardown;
        loop {
            let left: Vec<Waker> =
                self.shared.connection_threads().iter().map(|(_, waker)| waker.clone()).collect();
            if left.is_empty() {
                return;
            }
            if clock::now() >= deadline {
                tracing::error!(left = left.len(), "threads of connections did not end in time");
                return;
            }
            left.iter().for_each(Waker::wake_by_ref);
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn report_leaked(leaked: &[InFlight]) {
    for operation in leaked {
        tracing::error!(
            operation = operation.operation,
            descriptor = operation.descriptor,
            age_ms = operation.age_ns / 1_000_000,
            "the kernel did not give an operation back in time; its memory is leaked"
        );
    }
}
