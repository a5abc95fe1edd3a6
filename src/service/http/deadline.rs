//! Time limits of one connection, on one timer that is hardly ever touched.
//!
//! Used by the connection loop around every wait. A request moves the connection's deadline several
//! times; the timer stays where it is as long as it is not later than the deadline, and looks again
//! when it fires. So the steady path costs a comparison and not an insertion into the wheel.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::time::{self, Instant, Sleep};

/// The time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late;

/// The timer of a connection.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    timer: Option<Sleep>,
}

impl Deadline {
    /// Waits for `future` until `due`. The caller pins it, which keeps one copy of it in the
    /// connection's task instead of two. What is ready at the deadline wins. The timer stays armed
    /// after that: its firing wakes the task for nothing, once in the length of a timeout.
    pub(super) async fn within<F: Future>(
        &mut self,
        due: Instant,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Late> {
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            loop {
                let timer = self.timer.get_or_insert_with(|| time::sleep_until(due));
                if due < timer.deadline() {
                    timer.reset(due);
                }
                if Pin::new(&mut *timer).poll(context).is_pending() {
                    return Poll::Pending;
                }
                // Fired: for this deadline, or for one that has been met long since.
                self.timer = None;
                if time::now() >= due {
                    return Poll::Ready(Err(Late));
                }
            }
        })
        .await
    }
}
