//! For the model checker: a thread that sleeps until it is woken. The checker's own parking keeps
//! no token.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct Sleep {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Wake for Sleep {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().expect("no poison") = true;
        self.woken.notify_one();
    }
}

/// Drives a future to its end; a lost wake is a deadlock, which the checker reports.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let sleep = Arc::new(Sleep::default());
    let waker = Waker::from(Arc::clone(&sleep));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut is_woken = sleep.is_woken.lock().expect("no poison");
        while !std::mem::take(&mut *is_woken) {
            is_woken = sleep.woken.wait(is_woken).expect("no poison");
        }
    }
}
