//! Tests of who waits for what, and who is told when. Run by `cargo test`.
//!
//! Invariant: no writer runs; the tests say themselves what has come about.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Wake};

use super::*;

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Somebody who waits.
struct Waiter<'a> {
    future: Pin<Box<dyn Future<Output = Result<(), LogFailed>> + 'a>>,
    woken: Arc<Woken>,
}

impl<'a> Waiter<'a> {
    /// Begins to wait, and has to.
    #[track_caller]
    fn new(future: impl Future<Output = Result<(), LogFailed>> + 'a) -> Self {
        let mut waiter = Self { future: Box::pin(future), woken: Arc::default() };
        assert_eq!(waiter.poll(), Poll::Pending);
        waiter
    }

    fn poll(&mut self) -> Poll<Result<(), LogFailed>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// What it finds out if it was woken since it last looked.
    fn told(&mut self) -> Poll<Result<(), LogFailed>> {
        if self.woken.0.swap(false, Ordering::SeqCst) { self.poll() } else { Poll::Pending }
    }
}

const TOLD: Poll<Result<(), LogFailed>> = Poll::Ready(Ok(()));

fn log(policy: Policy) -> Log {
    Log::new(1, Lsn::NONE, policy, Duration::from_millis(50))
}

#[test]
fn everyone_is_told_of_a_record_when_it_is_durable_and_of_none_before() {
    let log = log(Policy::Always);
    let mut waiters: Vec<_> = [1, 1, 2, 2].map(|lsn| Waiter::new(log.durable(Lsn(lsn)))).into();
    let told = |waiters: &mut Vec<Waiter<'_>>| -> Vec<bool> {
        waiters.iter_mut().map(|waiter| waiter.told() == TOLD).collect()
    };
    log.set_written(Lsn(2));
    assert_eq!(told(&mut waiters), [false; 4], "written is not durable");
    log.set_durable(Lsn(1));
    assert_eq!(told(&mut waiters), [true, true, false, false]);
    waiters.drain(..2);
    log.set_durable(Lsn(2));
    assert_eq!(told(&mut waiters), [true, true]);
    assert_eq!(Waiter::new(log.durable(Lsn(3))).poll(), Poll::Pending);
}

#[test]
fn a_failure_is_told_to_all_and_nothing_becomes_durable_or_is_taken_after_it() {
    let log = log(Policy::Always);
    log.hold_writers(true);
    let mut waiters = [
        Waiter::new(log.durable(Lsn(1))),
        Waiter::new(log.durable(Lsn(1))),
        Waiter::new(log.made_durable(Lsn(2))),
        Waiter::new(log.ended()),
    ];
    let mut stalled = Waiter::new(log.admitted());
    let failed = log.fail("the disk is gone".to_owned());
    for waiter in &mut waiters {
        assert_eq!(waiter.told(), Poll::Ready(Err(failed.clone())));
    }
    assert_eq!(stalled.told(), TOLD, "refused is not stalled");
    assert_eq!(log.admission(), Admission::Refused("the disk is gone".into()));
    let mut late = Waiter { future: Box::pin(log.durable(Lsn(1))), woken: Arc::default() };
    assert_eq!(late.poll(), Poll::Ready(Err(failed)));
}

#[test]
fn stalled_writers_go_on_when_what_stalled_them_is_over() {
    let log = log(Policy::Never);
    log.hold_writers(true);
    assert_eq!(log.admission(), Admission::Stalled);
    let mut waiters = [Waiter::new(log.admitted()), Waiter::new(log.admitted())];
    log.hold_writers(false);
    assert!(waiters.iter_mut().all(|waiter| waiter.told() == TOLD));
    // Too much waits for the disk.
    log.append(0, &vec![0; limits::LOG_PENDING_BYTES_MAX + 1]);
    assert_eq!(log.admission(), Admission::Stalled);
    let mut waiter = Waiter::new(log.admitted());
    log.gather(Lsn(1));
    log.set_written(Lsn(1));
    assert_eq!(waiter.told(), TOLD);
    // There is no room: writes are refused until all who found none have found some.
    log.hold_writers(true);
    let mut waiter = Waiter::new(log.admitted());
    log.refuse("full".to_owned());
    log.refuse("full".to_owned());
    assert_eq!(waiter.told(), TOLD, "refused is not stalled");
    log.welcome();
    assert_eq!(log.admission(), Admission::Refused("full".into()));
    log.welcome();
    log.hold_writers(false);
    assert_eq!(log.admission(), Admission::Open);
    // Nobody would write it any more.
    log.close();
    assert_eq!(log.admission(), Admission::Stalled);
}

#[test]
fn under_an_interval_writers_wait_for_what_is_older_than_it_wherever_it_is() {
    let log = log(Policy::Interval);
    let now = clock::now();
    let long_ago = Instant::from_nanos(1);
    log.set_undurable_since(Some(now + Duration::from_secs(60)));
    assert_eq!(log.admission(), Admission::Open);
    // In a record that was written, but not synced.
    log.set_undurable_since(Some(long_ago));
    assert_eq!(log.admission(), Admission::Stalled);
    let mut waiter = Waiter::new(log.admitted());
    log.set_undurable_since(None);
    log.set_durable(Lsn(1));
    assert_eq!(waiter.told(), TOLD);
    // In a lane.
    log.append(0, b"change");
    log.restart_waiting(long_ago);
    assert_eq!(log.admission(), Admission::Stalled);
    log.set_policy(Policy::Never);
    assert_eq!(log.admission(), Admission::Open, "nothing was promised");
}

#[test]
fn the_writer_is_called_for_what_is_to_be_durable_whatever_the_policy() {
    let log = log(Policy::Never);
    let mut calls = log.calls();
    let mut is_called = || std::mem::replace(&mut calls, log.calls()) != calls;
    let is_due = || log.sync_due(clock::now()).is_some();
    log.append(0, b"change");
    log.set_written(Lsn(1));
    assert!(!is_due());
    let _waiter = Waiter::new(log.durable(Lsn(1)));
    assert!(is_due(), "somebody waits for it");
    assert!(is_called());
    log.set_durable(Lsn(1));
    assert!(!is_due());
    let _waiter = Waiter::new(log.made_durable(Lsn(2)));
    assert!(is_due());
    assert!(is_called());
    log.set_policy(Policy::Always);
    assert!(is_called());
    log.set_interval(Duration::from_secs(1));
    assert!(is_called());
    log.trim(Lsn(1));
    assert!(is_called());
    log.close();
    assert!(is_called());
}
