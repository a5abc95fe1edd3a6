//! Tests of what a database tells the log. Run by `cargo test`.
//!
//! Invariant: each test names every change that it expects, and no other is kept.

use super::super::{Keeping, Partition};
use super::*;
use crate::log::Lsn;

const NOW_MS: u64 = 1000;

/// A partition with a log that has seen these keys: `plain` without a deadline, `late` with one.
fn partition() -> Partition {
    let mut partition = Partition::new((0, 16384));
    partition.keep(Keeping::Changes);
    partition.tick(NOW_MS);
    partition.database(3).set_string(b"plain", b"value", Expiry::Never);
    partition.database(3).set_string(b"late", b"value", Expiry::At(NOW_MS + 50));
    partition.changes_handed_over(Lsn(1));
    partition
}

/// What is kept, once it is handed over as record 2.
fn kept(partition: &mut Partition) -> Vec<String> {
    let (mut kept, mut changes) = (Vec::new(), partition.changes());
    while let Some(change) = Change::decode(&mut changes).expect("changes") {
        assert_eq!(change.db(), 3);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        kept.push(match change {
            Change::Set { key, value, deadline, .. } => {
                format!("set {} {} {deadline:?}", text(key), text(value))
            }
            Change::Delete { key, .. } => format!("delete {}", text(key)),
            Change::Deadline { key, deadline, .. } => {
                format!("deadline {} {deadline:?}", text(key))
            }
            Change::Append { key, tail, .. } => format!("append {} {}", text(key), text(tail)),
            Change::Write { key, offset, piece, .. } => {
                format!("write {} {offset} {}", text(key), text(piece))
            }
            Change::Flush { slots, .. } => format!("flush {slots:?}"),
        });
    }
    partition.changes_handed_over(Lsn(2));
    kept
}

#[track_caller]
fn keeps(expected: &[&str], change: impl FnOnce(&mut Partition)) {
    let mut partition = partition();
    change(&mut partition);
    assert_eq!(kept(&mut partition), expected);
}

/// Changes a key that is there.
#[track_caller]
fn keeps_of(key: &[u8], expected: &str, change: impl FnOnce(&mut Database<'_>, Found)) {
    keeps(&[expected], |partition| {
        let found = partition.find(3, key, NOW_MS).expect("it is there");
        change(&mut partition.database(3), found);
    });
}

#[test]
fn setting_keeps_the_value_and_the_deadline_that_it_comes_to_have() {
    for (key, expiry, expected) in [
        (&b"new"[..], Expiry::Never, "set new v None"),
        (b"new", Expiry::At(5000), "set new v Some(5000)"),
        (b"new", Expiry::Keep, "set new v None"),
        (b"late", Expiry::Never, "set late v None"),
        (b"late", Expiry::At(5000), "set late v Some(5000)"),
        (b"late", Expiry::Keep, "set late v Some(1050)"),
    ] {
        keeps(&[expected], |partition| partition.database(3).set_string(key, b"v", expiry));
        let value = || Value::String(Text::new(b"v"));
        keeps(&[expected], |partition| partition.database(3).set(key, value(), expiry));
    }
    keeps_of(b"late", "set late v Some(1050)", |it, found| it.assign_string(found, b"v"));
    keeps_of(b"plain", "set plain v None", |it, found| it.assign_string(found, b"v"));
}

#[test]
fn every_other_change_is_kept_as_what_it_does() {
    keeps_of(b"plain", "append plain tail", |it, found| {
        assert_eq!(it.append(found, b"tail"), Ok(9));
    });
    keeps_of(b"plain", "write plain 7 piece", |it, found| {
        assert_eq!(it.write_at(found, 7, b"piece"), Ok(12));
    });
    keeps_of(b"plain", "deadline plain Some(7)", |it, found| it.set_deadline(found, Some(7)));
    keeps_of(b"late", "deadline late None", |it, found| it.set_deadline(found, None));
    keeps_of(b"plain", "delete plain", |it, found| drop(it.remove(found)));
    keeps_of(b"plain", "delete plain", |it, found| {
        it.evict(found);
        assert_eq!(it.stats.evicted, 1);
    });
    keeps(&["flush (0, 16384)"], |partition| partition.flush(3));
}

#[test]
fn a_key_that_expires_is_a_change_when_it_is_removed() {
    let late = NOW_MS + 50;
    keeps(&["delete late"], |partition| assert!(partition.find(3, b"late", late).is_none()));
    keeps(&[], |partition| assert!(partition.peek(3, b"late", late).is_none()));
    keeps(&["delete late"], |partition| assert_eq!(partition.expire_some(late, 100), 1));
    keeps(&[], |partition| assert_eq!(partition.expire_some(late - 1, 100), 0));
}

#[test]
fn whoever_looks_at_a_key_or_misses_it_waits_for_its_last_change() {
    let saw = |partition: &mut Partition, key: &[u8]| {
        assert_eq!(partition.take_seen(), Lsn::NONE);
        let is_there = partition.peek(3, key, NOW_MS).is_some();
        (is_there, partition.take_seen())
    };
    let mut partition = partition();
    let found = partition.find(3, b"plain", NOW_MS).expect("it is there");
    assert_eq!(partition.take_seen(), Lsn(1));
    partition.database(3).remove(found);
    partition.changes_handed_over(Lsn(2));
    assert_eq!(saw(&mut partition, b"plain"), (false, Lsn(2)), "its absence is news");
    let (is_there, lsn) = saw(&mut partition, b"late");
    // Now and then two keys share a place in the journal.
    assert!(is_there && [Lsn(1), Lsn(2)].contains(&lsn), "{lsn}");
    partition.flush(3);
    partition.changes_handed_over(Lsn(3));
    assert_eq!(saw(&mut partition, b"late"), (false, Lsn(3)));
    assert_eq!(saw(&mut partition, b"never"), (false, Lsn(3)));
}
