//! Operations as futures: what tasks await. Dropping one cancels the operation and leaves it, with
//! all it owns, to the driver.
//!
//! What is dropped finds its own shard, whatever runs on the thread at that moment: another
//! runtime, or none.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::{Shard, context};
use crate::clock::Instant;
use crate::driver::{Driver, SlotKey, Wait};
use crate::error::Errno;
use crate::op::{Event, Op, Outcome};

enum State {
    /// Not yet submitted: a future does nothing until it is polled.
    Idle(Op),
    InFlight(SlotKey, Home),
    /// It was started ahead of its first poll, and could not be.
    Refused(Errno, Op),
    Done,
}

/// A one-shot operation.
#[must_use = "a future does nothing unless awaited"]
pub(crate) struct Completion {
    state: State,
}

impl Completion {
    pub(crate) fn new(op: Op) -> Self {
        Self { state: State::Idle(op) }
    }

    /// Submits it now, before anybody awaits it.
    pub(crate) fn start(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(op) => {
                context::with(|shard| match shard.driver.borrow_mut().submit(op, shard.now()) {
                    Ok(key) => State::InFlight(key, Home(Rc::downgrade(shard))),
                    Err((errno, op)) => State::Refused(errno, op),
                })
            }
            begun => begun,
        };
    }

    /// Takes the operation back if it has not been submitted and is what `is_it` looks for.
    pub(crate) fn take_unless_begun(&mut self, is_it: impl FnOnce(&Op) -> bool) -> Option<Op> {
        match &self.state {
            State::Idle(op) if is_it(op) => {}
            _ => return None,
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(op) => Some(op),
            _ => unreachable!("matched above"),
        }
    }
}

impl Future for Completion {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        context::with(|shard| {
            let mut driver = shard.driver.borrow_mut();
            let (key, home) = match std::mem::replace(&mut self.state, State::Done) {
                State::Idle(op) => match driver.submit(op, shard.now()) {
                    Ok(key) => (key, None),
                    Err((errno, op)) => return Poll::Ready(Outcome { result: Err(errno), op }),
                },
                State::InFlight(key, home) => {
                    home.assert_current(shard);
                    (key, Some(home))
                }
                State::Refused(errno, op) => {
                    return Poll::Ready(Outcome { result: Err(errno), op });
                }
                State::Done => panic!("an operation is not polled after its outcome"),
            };
            if home.is_none() && driver.is_ready(key) && shard.has_had_its_share() {
                // It was complete at once, as many before it. The outcome stays in its slot while
                // others have their turn.
                self.state = State::InFlight(key, Home(Rc::downgrade(shard)));
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let poll = driver.poll(key, context);
            if poll.is_pending() {
                let home = home.unwrap_or_else(|| Home(Rc::downgrade(shard)));
                self.state = State::InFlight(key, home);
            }
            poll
        })
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let State::InFlight(key, home) = &self.state {
            home.with_driver(|driver, _| driver.abandon(*key));
        }
    }
}

/// Starts an operation that nobody waits for. Without a shard it is dropped.
pub(crate) fn detach(op: Op) {
    let mut op = Some(op);
    context::try_with(|shard| {
        if let Some(op) = op.take() {
            shard.driver.borrow_mut().submit_detached(op, shard.now());
        }
    });
}

/// The shard that something belongs to. Not `Send`, as nothing is that belongs to a shard.
pub(crate) struct Home(Weak<Shard>);

impl Home {
    /// The shard of the calling thread.
    ///
    /// # Panics
    /// Outside a runtime.
    pub(crate) fn here() -> Self {
        context::with(|shard| Self(Rc::downgrade(shard)))
    }

    /// What is polled here must belong to the shard of the calling thread.
    ///
    /// # Panics
    /// If it does not.
    #[inline]
    pub(crate) fn assert_here(&self) {
        context::with(|shard| self.assert_current(shard));
    }

    /// What belongs to one shard cannot be polled on another.
    #[inline]
    fn assert_current(&self, shard: &Rc<Shard>) {
        assert!(std::ptr::eq(self.0.as_ptr(), Rc::as_ptr(shard)), "{}", context::OF_ANOTHER_SHARD);
    }

    /// Gives something up to the shard's driver. Once that has been shut down, `give` is dropped.
    fn with_driver(&self, give: impl FnOnce(&mut Driver, Instant)) {
        let Some(shard) = self.0.upgrade() else { return };
        let mut driver = shard.driver.borrow_mut();
        give(&mut driver, shard.now());
        if !context::is_current(&shard) {
            // Its loop does not run now. An error is for the loop, which will meet it again.
            let _ = driver.park(Wait::No);
            drop(driver);
            shard.tell_if_busy();
        }
    }

    /// Forgets a descriptor, which leaves the shard open.
    pub(crate) fn release(&self, descriptor: RawFd) {
        self.with_driver(|driver, _| driver.release(descriptor));
    }

    /// Starts an operation that nobody waits for. Once the shard is gone it is dropped.
    pub(crate) fn detach(&self, op: Op) {
        self.with_driver(|driver, now| driver.submit_detached(op, now));
    }
}

/// A multishot operation: an endless supply of events, in order.
pub(crate) struct Stream {
    key: SlotKey,
    home: Home,
}

impl Stream {
    /// Starts the operation on the calling thread's shard.
    pub(crate) fn open(op: Op) -> Result<Self, Errno> {
        context::with(|shard| {
            let key = shard.driver.borrow_mut().open_stream(op, shard.now())?;
            Ok(Self { key, home: Home(Rc::downgrade(shard)) })
        })
    }

    /// The next event. Cancel-safe: an event that is not taken stays.
    #[inline]
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Event> {
        context::with(|shard| {
            self.home.assert_current(shard);
            shard.driver.borrow_mut().poll_event(self.key, context)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.home.with_driver(|driver, _| driver.abandon(self.key));
    }
}
