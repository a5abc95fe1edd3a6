//! How the blocking backend's sleep and a wake from another thread meet, without the system calls.
//!
//! The sleeper says how it will sleep, then looks whether it was rung; who rings leaves word, then
//! looks how the other sleeps. Both exchange the same flag in between, so at least one sees the
//! other. [`super::blocking`] adds the three ways of sleeping. The model
//! checker walks through every interleaving (`scripts/loom`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What the thread does, as whoever rings sees it.
pub(super) const RUNNING: u8 = 0;
pub(super) const PARKED: u8 = 1;
pub(super) const BLOCKED: u8 = 2;
pub(super) const POLLING: u8 = 3;

pub(super) struct Bell {
    state: AtomicU8,
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self { state: AtomicU8::new(RUNNING), rung: AtomicBool::new(false) }
    }

    /// Announces a way of sleeping. False if the bell was rung before: then the caller must not
    /// sleep.
    pub(super) fn begin(&self, how: u8) -> bool {
        self.state.store(how, Ordering::SeqCst);
        if self.rung.swap(false, Ordering::SeqCst) {
            self.state.store(RUNNING, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The sleep is over. The caller looks for messages after this.
    pub(super) fn end(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Rings; the way in which the other sleeps, and must be woken.
    pub(super) fn ring(&self) -> u8 {
        // An exchange on both sides: whichever comes second has read what the first wrote, and so
        // sees what the first did before.
        self.rung.swap(true, Ordering::SeqCst);
        self.state.load(Ordering::SeqCst)
    }

    /// Whether the other still sleeps in a call and has not taken note.
    pub(super) fn is_unheard(&self) -> bool {
        self.rung.load(Ordering::SeqCst) && self.state.load(Ordering::SeqCst) == BLOCKED
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// What thread::park and unpark are: the checker's own keep no token.
    #[derive(Default)]
    struct Parking {
        token: Mutex<bool>,
        given: Condvar,
    }

    impl Parking {
        fn park(&self) {
            let mut token = self.token.lock().unwrap();
            while !std::mem::take(&mut *token) {
                token = self.given.wait(token).unwrap();
            }
        }

        fn unpark(&self) {
            *self.token.lock().unwrap() = true;
            self.given.notify_one();
        }
    }

    /// A sleeper that waits for `messages`, and its senders. A lost wake leaves it parked for ever,
    /// which the checker reports.
    fn sleeper_hears(senders: usize) {
        let bell = Arc::new(Bell::new());
        let messages = Arc::new(AtomicU8::new(0));
        let sleeper = Arc::new(Parking::default());
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let (bell, messages) = (Arc::clone(&bell), Arc::clone(&messages));
                let sleeper = Arc::clone(&sleeper);
                thread::spawn(move || {
                    messages.fetch_add(1, Ordering::SeqCst);
                    if bell.ring() == PARKED {
                        sleeper.unpark();
                    }
                })
            })
            .collect();
        while messages.load(Ordering::SeqCst) < senders as u8 {
            if bell.begin(PARKED) {
                sleeper.park();
            }
            bell.end();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn no_ring_is_lost_to_a_thread_that_falls_asleep() {
        loom::model(|| sleeper_hears(1));
    }

    #[test]
    fn no_ring_is_lost_among_two() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| sleeper_hears(2));
    }
}
