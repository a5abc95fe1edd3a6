//! For the tests here: a future that is polled by hand, and knows whether it was woken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Puppet<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    flag: Arc<Flag>,
}

impl<'a, T> Puppet<'a, T> {
    pub(super) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self { future: Box::pin(future), flag: Arc::default() }
    }

    /// Polls it, woken or not; it counts as not woken afterwards.
    pub(super) fn poll(&mut self) -> Poll<T> {
        self.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.flag));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    pub(super) fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::Relaxed)
    }
}

/// Polls a future that must be ready at once.
#[track_caller]
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match Puppet::new(future).poll() {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it is not ready"),
    }
}

/// Polls a future once; it must not be ready.
#[track_caller]
pub(super) fn pending<'a, T>(future: impl Future<Output = T> + 'a) -> Puppet<'a, T> {
    let mut puppet = Puppet::new(future);
    assert!(puppet.poll().is_pending(), "it is ready");
    puppet
}

/// Polls a future that must have been woken and be ready.
#[track_caller]
pub(super) fn woken<T>(mut puppet: Puppet<'_, T>) -> T {
    assert!(puppet.is_woken(), "it was not woken");
    match puppet.poll() {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it was woken for nothing"),
    }
}
