//! Keeps commands out of a partition while a transaction over several partitions is at work.
//! Called by the services before they touch a partition of their shard.
//!
//! Invariant: whoever closes several gates closes them in ascending order of partition, and waits
//! for nothing else meanwhile; so no two transactions wait for each other. Whoever has closed one
//! holds an [`super::whole::Unfinished`] until all are open again, so none stays closed: what
//! breaks off in between ends the process.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The gate of one partition, used by the one thread that owns it.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    /// Whether a transaction is at work.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Waits until the gate is open. It may be dropped at any time.
    pub async fn opened(&self) {
        poll_fn(|context| {
            if !self.is_closed() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until the gate is open, then closes it. Whoever gets this far must have
    /// [`Gate::open`] called. Dropped before, it has done nothing.
    pub async fn close(&self) {
        self.opened().await;
        let was_closed = self.closed.replace(true);
        assert!(!was_closed, "a gate is closed by one transaction at a time");
    }

    /// Opens the gate again and lets everyone who waits try.
    pub fn open(&self) {
        let was_closed = self.closed.replace(false);
        assert!(was_closed, "only a closed gate is opened");
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn an_open_gate_lets_pass() {
        let gate = Gate::default();
        assert!(poll(pin!(gate.opened())));
    }

    #[test]
    fn a_closed_gate_holds_back_until_it_opens() {
        let gate = Gate::default();
        assert!(poll(pin!(gate.close())));
        let mut passer = pin!(gate.opened());
        let mut closer = pin!(gate.close());
        assert!(!poll(passer.as_mut()));
        assert!(!poll(closer.as_mut()));
        gate.open();
        assert!(poll(closer));
        assert!(!poll(passer.as_mut()));
        gate.open();
        assert!(poll(passer));
    }
}
