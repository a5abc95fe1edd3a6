//! A flag that tasks of any shard and plain threads wait for.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_listener::{Event as Listeners, listener};

use super::park;

/// A manual-reset event that may be shared between threads: [`crate::sync::Event`] by `Arc`.
///
/// ```
/// use std::sync::Arc;
/// use annulus::{Runtime, sync::shared::Event};
///
/// let ready = Arc::new(Event::new());
/// let waiter = std::thread::spawn({
///     let ready = Arc::clone(&ready);
///     move || ready.wait_blocking()
/// });
/// Runtime::new()?.block_on(async {
///     ready.set();
///     ready.wait().await;
/// });
/// waiter.join().unwrap();
/// # annulus::Result::Ok(())
/// ```
#[derive(Default)]
pub struct Event {
    is_set: AtomicBool,
    listeners: Listeners,
}

impl Event {
    /// An event that is not set.
    pub const fn new() -> Self {
        Self { is_set: AtomicBool::new(false), listeners: Listeners::new() }
    }

    /// Sets it: everybody who waits goes on, and nobody waits until it is cleared. What happened
    /// before is seen by whoever goes on.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.listeners.notify(usize::MAX);
    }

    /// Clears it: whoever comes from now on waits. Who was released before, but has not looked
    /// yet, is not held back.
    pub fn clear(&self) {
        self.is_set.store(false, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Waits until it is set. Cancel safe.
    pub async fn wait(&self) {
        if self.is_set() {
            return;
        }
        listener!(self.listeners => listener);
        // Set between the look and the listening: look again, then nothing is missed.
        if !self.is_set() {
            listener.await;
        }
    }

    /// [`Event::wait`] for a plain thread.
    ///
    /// # Panics
    /// On a shard, whose tasks would all stand still.
    pub fn wait_blocking(&self) {
        park::wait(self.wait());
    }

    /// [`Event::wait_blocking`] for at most `duration`. Whether it was set in time.
    ///
    /// # Panics
    /// As [`Event::wait_blocking`].
    pub fn wait_timeout(&self, duration: Duration) -> bool {
        park::wait_until(self.wait(), Some(crate::clock::now() + duration)).is_some()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::puppet::{now, pending, woken};
    use super::*;

    #[test]
    fn one_set_releases_tasks_and_threads_until_it_is_cleared() {
        let event = Arc::new(Event::new());
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let event = Arc::clone(&event);
                std::thread::spawn(move || event.wait_blocking())
            })
            .collect();
        let (task, gone) = (pending(event.wait()), pending(event.wait()));
        drop(gone);
        event.set();
        woken(task);
        now(event.wait());
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(event.wait_timeout(Duration::ZERO));
        event.clear();
        assert!(!event.wait_timeout(Duration::from_millis(1)));
        drop(pending(event.wait()));
    }
}
