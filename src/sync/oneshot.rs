//! One value, once, from any thread to any task or thread.
//!
//! Used for the replies of other shards and of the cpu pool. A sender that goes away without
//! sending says so, and whether it was by a panic.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why no value will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The sender was dropped.
    Dropped,
    /// The sender was dropped by a panic.
    Panicked,
}

enum State<T> {
    Empty(Option<Waker>),
    Sent(Result<T, Lost>),
    Taken,
}

struct Channel<T>(Mutex<State<T>>);

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, result: Result<T, Lost>) {
        let before = std::mem::replace(&mut *self.lock(), State::Sent(result));
        if let State::Empty(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// Sends the value.
pub(crate) struct Sender<T>(Option<Arc<Channel<T>>>);

/// Waits for the value.
#[must_use = "a future does nothing unless awaited"]
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel(Mutex::new(State::Empty(None))));
    (Sender(Some(Arc::clone(&channel))), Receiver(channel))
}

impl<T> Sender<T> {
    pub(crate) fn send(mut self, value: T) {
        if let Some(channel) = self.0.take() {
            channel.send(Ok(value));
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(channel) = self.0.take() {
            let panicked = std::thread::panicking();
            channel.send(Err(if panicked { Lost::Panicked } else { Lost::Dropped }));
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Sent(result) => Poll::Ready(result),
            State::Empty(_) => {
                *state = State::Empty(Some(context.waker().clone()));
                Poll::Pending
            }
            State::Taken => panic!("a oneshot is not polled after its value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(receiver: &mut Receiver<T>) -> Poll<Result<T, Lost>> {
        Pin::new(receiver).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_value_arrives_once() {
        let (sender, mut receiver) = channel();
        assert!(poll(&mut receiver).is_pending());
        sender.send(5);
        assert_eq!(poll(&mut receiver), Poll::Ready(Ok(5)));
    }

    #[test]
    fn a_lost_sender_says_why() {
        let (sender, mut receiver) = channel::<()>();
        drop(sender);
        assert_eq!(poll(&mut receiver), Poll::Ready(Err(Lost::Dropped)));
        let (sender, mut receiver) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let _sender = sender;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(poll(&mut receiver), Poll::Ready(Err(Lost::Panicked)));
    }
}
