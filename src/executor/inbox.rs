//! How other threads reach an executor: an inbox of woken tasks, and the two-phase sleep.
//!
//! A sender pushes, then looks whether the owner sleeps; the owner announces its sleep, then looks
//! whether something was pushed. Both sides put a sequentially consistent fence in between, so at
//! least one sees the other: no wake is lost, and only a sender that finds the owner asleep pays
//! for a system call. `tests::loom` explores every interleaving.

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};

use std::sync::{Arc, PoisonError};

use super::Ready;

/// Whether a thread sleeps, and how to end its sleep.
pub(crate) struct Sleeper {
    asleep: AtomicBool,
    unpark: Box<dyn Fn() + Send + Sync>,
}

impl Sleeper {
    pub(crate) fn new(unpark: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { asleep: AtomicBool::new(false), unpark }
    }

    /// Announces that the caller is about to sleep. It must look for messages after this, and not
    /// sleep if there are any.
    pub(crate) fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Ends the owner's sleep if it sleeps. Call it after the message is where the owner looks.
    /// Returns whether it did.
    pub(crate) fn wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let woken =
            self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel);
        if woken {
            (self.unpark)();
        }
        woken
    }
}

/// Tasks that other threads have woken. Generic over what it carries so that the model checker can
/// carry numbers.
pub(crate) struct Inbox<T = Ready> {
    /// `None` once closed.
    messages: Mutex<Option<Vec<T>>>,
    /// Whether there may be messages; read without the lock.
    pending: AtomicBool,
    sleeper: Arc<Sleeper>,
}

impl<T> Inbox<T> {
    pub(crate) fn new(sleeper: Arc<Sleeper>) -> Arc<Self> {
        Arc::new(Self {
            messages: Mutex::new(Some(Vec::new())),
            pending: AtomicBool::new(false),
            sleeper,
        })
    }

    /// Delivers a message from any thread; gives it back once the owner has closed the inbox.
    pub(crate) fn push(&self, message: T) -> Result<(), T> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = messages.as_mut() else { return Err(message) };
        open.push(message);
        self.pending.store(true, Ordering::Relaxed);
        drop(messages);
        self.sleeper.wake();
        Ok(())
    }

    /// Whether there may be messages.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// Swaps the messages, in order, with an empty vector of the owner's.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        assert!(into.is_empty(), "messages taken before have been handled");
        if !self.is_pending() {
            return;
        }
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        self.pending.store(false, Ordering::Relaxed);
        if let Some(open) = messages.as_mut() {
            std::mem::swap(open, into);
        }
    }

    /// Takes what is left; later messages are refused.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.take().unwrap_or_default()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn inbox() -> (Arc<Inbox<u32>>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let unpark = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        (Inbox::new(Arc::new(Sleeper::new(Box::new(unpark)))), wakes)
    }

    #[test]
    fn only_the_first_message_to_a_sleeper_pays_for_a_wake() {
        let (inbox, wakes) = inbox();
        inbox.push(1).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        inbox.sleeper.announce();
        inbox.push(2).unwrap();
        inbox.push(3).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken, [1, 2, 3]);
    }

    #[test]
    fn a_closed_inbox_gives_back_what_was_left() {
        let (inbox, _) = inbox();
        inbox.push(1).unwrap();
        assert_eq!(inbox.close(), [1]);
        assert_eq!(inbox.push(2), Err(2));
        assert_eq!(inbox.close(), Vec::<u32>::new());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::AtomicUsize;

    #[test]
    fn no_message_is_lost_to_a_sleeper() {
        loom::model(|| {
            let wakes = loom::sync::Arc::new(AtomicUsize::new(0));
            let count = wakes.clone();
            let sleeper = Sleeper::new(Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed)));
            let inbox = Inbox::new(Arc::new(sleeper));
            let sender = {
                let inbox = Arc::clone(&inbox);
                loom::thread::spawn(move || inbox.push(7u32).unwrap())
            };
            inbox.sleeper.announce();
            let seen = inbox.is_pending();
            sender.join().unwrap();
            // Either the owner saw the message before sleeping, or the sender woke it.
            assert!(seen || wakes.load(Ordering::Relaxed) == 1);
        });
    }

    #[test]
    fn a_message_that_meets_the_close_is_given_back_by_one_side() {
        loom::model(|| {
            let inbox = Inbox::new(Arc::new(Sleeper::new(Box::new(|| ()))));
            let sender = {
                let inbox = Arc::clone(&inbox);
                loom::thread::spawn(move || inbox.push(7u32).is_ok())
            };
            let left = inbox.close();
            let is_taken = sender.join().unwrap();
            assert_eq!(left.len(), usize::from(is_taken));
        });
    }

    #[test]
    fn what_two_threads_send_is_taken_whole() {
        loom::model(|| {
            let inbox = Inbox::new(Arc::new(Sleeper::new(Box::new(|| ()))));
            let senders: Vec<_> = [1u32, 2]
                .map(|message| {
                    let inbox = Arc::clone(&inbox);
                    loom::thread::spawn(move || inbox.push(message).unwrap())
                })
                .into();
            let mut all = Vec::new();
            let mut taken = Vec::new();
            inbox.take(&mut taken);
            all.append(&mut taken);
            for sender in senders {
                sender.join().unwrap();
            }
            inbox.take(&mut taken);
            all.append(&mut taken);
            all.sort_unstable();
            assert_eq!(all, [1, 2]);
        });
    }
}
