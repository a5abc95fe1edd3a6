//! Giving way once: the task goes to the end of its class's queue and waits for the next cohort.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Ready at its second poll.
#[derive(Debug, Default)]
#[must_use = "a future does nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
