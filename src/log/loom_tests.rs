//! Every interleaving of who appends, who waits, who changes the settings, and the log's writer.
//!
//! The writer here is the one of `writer.rs` without a disk: its steps in the same order.
//! Invariant: a lost wake leaves a thread asleep for ever, which the checker reports.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread::{self, JoinHandle};

use super::handle::Duty;
use super::lanes::Lanes;
use super::{Admission, Log, Lsn, Policy};
use crate::sync::shared::sleep;

/// What a record holds: its number, a lane, the changes.
type Written = (Lsn, usize, Vec<u8>);

/// All interleavings with so few switches where no thread has to wait; those where one has to are
/// free. Two are enough for any two steps to meet in either order.
fn check_with(switches: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(2, model);
}

fn log(policy: Policy) -> Arc<Log> {
    Arc::new(Log::new(2, Lsn::NONE, policy, Duration::from_secs(3600)))
}

fn gather(lanes: &Lanes, lsn: Lsn, written: &mut Vec<Written>) {
    lanes.gather(lsn, |lane, changes| written.push((lsn, lane, changes.to_vec())));
}

/// Writes until the log is closed; answers what it has written.
fn write(log: &Log) -> Vec<Written> {
    let (mut next, mut undurable_since, mut written) = (Lsn(1), None, Vec::new());
    loop {
        let calls = log.calls();
        match log.duty(undurable_since) {
            Duty::Sync => {
                undurable_since = None;
                log.set_durable(log.written_lsn());
            }
            Duty::Record => {
                let (is_strict, since) = (log.is_strict(), log.pending_since());
                gather(&log.lanes, next, &mut written);
                log.set_written(next);
                if is_strict {
                    undurable_since = None;
                    log.set_durable(next);
                } else {
                    undurable_since.get_or_insert(since);
                }
                next = next.next();
            }
            Duty::End => {
                log.set_ended();
                return written;
            }
            Duty::Rest(_) => sleep::wait(log.called(calls)),
        }
    }
}

fn spawn<R: 'static>(
    log: &Arc<Log>,
    work: impl FnOnce(&Log) -> R + Send + 'static,
) -> JoinHandle<R> {
    let log = Arc::clone(log);
    thread::spawn(move || work(&log))
}

#[test]
fn what_is_appended_is_gathered_once_in_the_record_that_was_told() {
    check(|| {
        let lanes = Arc::new(Lanes::new(2, Lsn(1)));
        let other = Arc::clone(&lanes);
        let appending = thread::spawn(move || [other.append(1, b"b"), other.append(1, b"c")]);
        let gathering = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || {
                let mut written = Vec::new();
                gather(&lanes, Lsn(1), &mut written);
                gather(&lanes, Lsn(2), &mut written);
                written
            })
        };
        let (a, _) = lanes.append(0, b"a");
        let [(b, _), (c, _)] = appending.join().unwrap();
        let mut written = gathering.join().unwrap();
        gather(&lanes, Lsn(3), &mut written);
        assert_eq!(lanes.bytes(), 0);
        let told = |lsn: Lsn, lane, byte: u8| {
            let holds = |(number, from, changes): &&Written| {
                (*number, *from) == (lsn, lane) && changes.contains(&byte)
            };
            written.iter().filter(holds).count() == 1
        };
        assert!(told(a, 0, b'a'));
        assert!(told(b, 1, b'b'));
        assert!(told(c, 1, b'c'));
        assert_eq!(written.iter().map(|(.., changes)| changes.len()).sum::<usize>(), 3);
    });
}

#[test]
fn a_record_never_precedes_its_cause() {
    check(|| {
        let lanes = Arc::new(Lanes::new(2, Lsn(1)));
        lanes.append(0, b"snapshot");
        let seen = Arc::new(AtomicU64::new(0));
        let causing = {
            let (lanes, seen) = (Arc::clone(&lanes), Arc::clone(&seen));
            thread::spawn(move || {
                lanes.draw_line(0);
                let (cause, _) = lanes.append(0, b"cause");
                seen.store(cause.0, Ordering::Release);
            })
        };
        let gathering = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || gather(&lanes, Lsn(1), &mut Vec::new()))
        };
        let cause = Lsn(seen.load(Ordering::Acquire));
        let (effect, _) = lanes.append(1, b"effect");
        assert!(effect >= cause, "{effect} holds the effect of {cause}");
        causing.join().unwrap();
        gathering.join().unwrap();
    });
}

#[test]
fn a_line_parts_exactly_whoever_gathers_and_appends_elsewhere() {
    check(|| {
        let lanes = Arc::new(Lanes::new(2, Lsn(1)));
        let gathering = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || gather(&lanes, Lsn(1), &mut Vec::new()))
        };
        let elsewhere = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || lanes.append(1, b"other"))
        };
        let (before, _) = lanes.append(0, b"before");
        let line = lanes.draw_line(0);
        let (after, _) = lanes.append(0, b"after");
        assert!(before <= line);
        assert!(line < after);
        gathering.join().unwrap();
        elsewhere.join().unwrap();
    });
}

#[test]
fn several_lanes_change_in_one_record_or_in_none() {
    check(|| {
        let lanes = Arc::new(Lanes::new(2, Lsn(1)));
        let both = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || lanes.append_all(&[(0, b"a"), (1, b"a")]).0)
        };
        let one = {
            let lanes = Arc::clone(&lanes);
            thread::spawn(move || lanes.append(1, b"b").0)
        };
        let mut written = Vec::new();
        gather(&lanes, Lsn(1), &mut written);
        let (both, one) = (both.join().unwrap(), one.join().unwrap());
        gather(&lanes, Lsn(2), &mut written);
        gather(&lanes, Lsn(3), &mut written);
        let with = |byte: u8| {
            let holds = |(.., changes): &&Written| changes.contains(&byte);
            written.iter().filter(holds).map(|(lsn, lane, _)| (*lsn, *lane)).collect::<Vec<_>>()
        };
        assert_eq!(with(b'a'), [(both, 0), (both, 1)]);
        assert_eq!(with(b'b'), [(one, 1)]);
    });
}

/// A write that waits for durability while the log goes on.
fn a_wait_ends(log: &Arc<Log>) {
    let lsn = log.append(0, b"a");
    assert_eq!(sleep::wait(log.durable(lsn)), Ok(()));
    assert!(log.durable_lsn() >= lsn);
    log.close();
}

#[test]
fn who_waits_for_durability_is_woken_under_every_policy() {
    for policy in [Policy::Always, Policy::Interval, Policy::Never] {
        check(move || {
            let log = log(policy);
            let writing = spawn(&log, write);
            a_wait_ends(&log);
            assert_eq!(writing.join().unwrap(), [(Lsn(1), 0, b"a".to_vec())]);
        });
    }
}

#[test]
fn who_waits_for_durability_is_woken_when_the_policy_changes() {
    for (from, to) in [(Policy::Always, Policy::Never), (Policy::Never, Policy::Always)] {
        // Three threads meet: one switch, in seconds.
        check_with(1, move || {
            let log = log(from);
            let writing = spawn(&log, write);
            let changing = spawn(&log, move |log| log.set_policy(to));
            a_wait_ends(&log);
            changing.join().unwrap();
            writing.join().unwrap();
        });
    }
}

#[test]
fn who_waits_for_durability_is_told_that_the_log_has_failed() {
    check(|| {
        let log = log(Policy::Always);
        let failing = spawn(&log, |log| log.fail("no disk".into()));
        let lsn = log.append(0, b"a");
        let told = sleep::wait(log.durable(lsn));
        assert_eq!(told, Err(failing.join().unwrap()));
        assert_eq!(log.admission(), Admission::Refused("no disk".into()));
    });
}

#[test]
fn an_append_that_meets_the_close_is_written_or_refused() {
    check_with(1, || {
        let log = log(Policy::Always);
        let writing = spawn(&log, write);
        let closing = spawn(&log, Log::close);
        let lsn = log.append(0, b"a");
        let is_durable = sleep::wait(log.durable(lsn)).is_ok();
        closing.join().unwrap();
        assert_eq!(!writing.join().unwrap().is_empty(), is_durable);
    });
}

#[test]
fn what_was_appended_before_the_close_is_durable_at_the_end() {
    for policy in [Policy::Always, Policy::Never] {
        check(move || {
            let log = log(policy);
            let writing = spawn(&log, write);
            let lsn = log.append(0, b"a");
            log.close();
            assert_eq!(sleep::wait(log.ended()), Ok(()));
            assert!(log.durable_lsn() >= lsn);
            assert_eq!(writing.join().unwrap().len(), 1);
        });
    }
}

#[test]
fn who_waits_for_admission_is_let_in_when_nothing_holds_writes_any_more() {
    check(|| {
        let log = log(Policy::Never);
        log.hold_writers(true);
        let letting = spawn(&log, |log| log.hold_writers(false));
        let other = spawn(&log, |log| sleep::wait(log.admitted()));
        assert_eq!(sleep::wait(log.admitted()), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        letting.join().unwrap();
        assert_eq!(log.admission(), Admission::Open);
    });
}

#[test]
fn who_waits_for_admission_is_told_of_a_refusal() {
    check(|| {
        let log = log(Policy::Never);
        log.hold_writers(true);
        let refusing = spawn(&log, |log| log.refuse("no room".into()));
        assert_eq!(sleep::wait(log.admitted()), Ok(()));
        assert_eq!(log.admission(), Admission::Refused("no room".into()));
        refusing.join().unwrap();
    });
}
