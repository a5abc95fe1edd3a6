//! Tests of a keyspace: literal cases, then random operations against a plain map.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::store::Partition;
use crate::store::bytes::Text;

/// Database 0 of a partition of its own: how commands see a keyspace.
#[derive(Default)]
struct Fixture(Partition);

impl Fixture {
    fn db(&mut self) -> crate::store::Database<'_> {
        self.0.database(0)
    }
}

fn content(keyspace: &Keyspace, found: Found) -> Vec<u8> {
    let Value::String(text) = keyspace.value(found);
    text.as_slice().to_vec()
}

fn get(keyspace: &mut Fixture, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
    let mut database = keyspace.db();
    let found = database.find(key, now_ms)?;
    Some(content(&database, found))
}

#[test]
fn a_key_lives_until_its_deadline() {
    let mut keyspace = Fixture::default();
    keyspace.db().set_string(b"k", b"v", Expiry::At(100));
    assert_eq!(get(&mut keyspace, b"k", 99), Some(b"v".to_vec()));
    assert_eq!(get(&mut keyspace, b"k", 100), None);
    assert_eq!(keyspace.db().len(), 0);
    assert_eq!(keyspace.db().deadlines_len(), 0);
}

#[test]
fn replacing_a_value_treats_the_deadline_as_told() {
    let mut keyspace = Fixture::default();
    keyspace.db().set_string(b"k", b"1", Expiry::At(100));
    keyspace.db().set_string(b"k", b"2", Expiry::Keep);
    assert_eq!(get(&mut keyspace, b"k", 100), None);
    keyspace.db().set_string(b"k", b"1", Expiry::At(100));
    keyspace.db().set_string(b"k", b"3", Expiry::Never);
    assert_eq!(get(&mut keyspace, b"k", 100), Some(b"3".to_vec()));
}

#[test]
fn memory_is_accounted_to_the_byte_and_given_back() {
    let mut keyspace = Fixture::default();
    keyspace.db().set_string(b"short", b"short", Expiry::Never);
    let empty = keyspace.db().bytes() - keyspace.db().spare_bytes() - size_of::<Entry>();
    let used = |keyspace: &mut Fixture| keyspace.db().bytes() - keyspace.db().spare_bytes() - empty;
    keyspace.db().set_string(b"short", &[0; 1000], Expiry::Never);
    assert_eq!(used(&mut keyspace), size_of::<Entry>() + 1008);
    keyspace.db().set_string(&[1; 100], b"", Expiry::Never);
    assert_eq!(used(&mut keyspace), 2 * size_of::<Entry>() + 1008 + 112);
    keyspace.db().set_string(b"short", b"v", Expiry::At(1));
    let deadlines = used(&mut keyspace) - 2 * size_of::<Entry>() - 112;
    assert_eq!(deadlines, allocated(4 * size_of::<Deadline>()), "the least that a vector takes");
    assert_eq!(get(&mut keyspace, b"short", 1), None);
    let found = keyspace.db().find(&[1; 100], 1);
    keyspace.db().remove(found.expect("just set"));
    let left = allocated(2 * size_of::<Deadline>());
    assert_eq!(used(&mut keyspace), left, "room for deadlines to come");
}

#[test]
fn a_scan_returns_what_is_there_throughout_exactly_once() {
    let mut keyspace = Fixture::default();
    let stays = |number: u32| number.is_multiple_of(2);
    for number in 0..500u32 {
        keyspace.db().set_string(&number.to_be_bytes(), b"v", Expiry::Never);
    }
    let mut seen = Vec::new();
    let mut cursor = Some(0);
    let mut added = 500u32;
    while let Some(at) = cursor {
        cursor = keyspace.db().scan(at, 7, 0, |key, _| seen.push(key.to_vec()));
        // While the scan goes on, keys come and go, and the index grows.
        for number in (at..at + 7).filter(|&number| !stays(number)) {
            if let Some(found) = keyspace.db().find(&number.to_be_bytes(), 0) {
                keyspace.db().remove(found);
            }
        }
        if added < 5000 {
            for _ in 0..40 {
                keyspace.db().set_string(&added.to_be_bytes(), b"v", Expiry::Never);
                added += 1;
            }
        }
    }
    for number in (0..500u32).filter(|&number| stays(number)) {
        let key = number.to_be_bytes();
        assert_eq!(seen.iter().filter(|&other| *other == key).count(), 1, "{number}");
    }
}

#[test]
fn a_random_key_is_one_that_has_not_expired() {
    let mut keyspace = Fixture::default();
    assert_eq!(keyspace.db().random(7, 0), None);
    keyspace.db().set_string(b"old", b"v", Expiry::At(10));
    keyspace.db().set_string(b"new", b"v", Expiry::Never);
    for random in 0..10 {
        assert_eq!(keyspace.db().random(random, 10), Some(b"new".as_slice()));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Vec<u8>, Option<u64>),
    Replace(u8),
    Append(u8),
    Remove(u8),
    Persist(u8),
    Wait(u64),
    Expire(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let deadline = prop::option::of(0..200u64);
    let step = prop_oneof![
        4 => (0..40u8, value, deadline).prop_map(|(key, value, at)| Step::Set(key, value, at)),
        1 => (0..40u8).prop_map(Step::Replace),
        1 => (0..40u8).prop_map(Step::Append),
        2 => (0..40u8).prop_map(Step::Remove),
        1 => (0..40u8).prop_map(Step::Persist),
        1 => (0..20u64).prop_map(Step::Wait),
        1 => (0..10usize).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn a_keyspace_behaves_like_a_map_with_deadlines(steps in steps()) {
        let mut keyspace = Fixture::default();
        let mut model: BTreeMap<u8, (Vec<u8>, Option<u64>)> = BTreeMap::new();
        let mut now = 0;
        for step in steps {
            model.retain(|_, (_, at)| at.is_none_or(|at| at > now));
            match step {
                Step::Set(key, value, at) => {
                    keyspace.db().set_string(&[key], &value, at.map_or(Expiry::Never, Expiry::At));
                    model.insert(key, (value, at));
                }
                Step::Replace(key) => {
                    let old = keyspace.db().find(&[key], now);
                    prop_assert_eq!(old.is_some(), model.contains_key(&key));
                    keyspace.db().set(&[key], Value::String(Text::new(b"new")), Expiry::Keep);
                    model.entry(key).or_default().0 = b"new".to_vec();
                }
                Step::Append(key) => {
                    if let Some(found) = keyspace.db().find(&[key], now) {
                        keyspace.db().append(found, b"x").expect("a string");
                        model.entry(key).or_default().0.push(b'x');
                    }
                }
                Step::Remove(key) => {
                    let removed = keyspace.db().find(&[key], now);
                    let removed = removed.map(|found| keyspace.db().remove(found).1);
                    prop_assert_eq!(removed, model.remove(&key).map(|(_, at)| at));
                }
                Step::Persist(key) => {
                    if let Some(found) = keyspace.db().find(&[key], now) {
                        keyspace.db().set_deadline(found, None);
                        model.entry(key).or_default().1 = None;
                    }
                }
                Step::Wait(time) => now += time,
                Step::Expire(budget) => {
                    keyspace.db().expire_some(now, budget);
                }
            }
        }
        model.retain(|_, (_, at)| at.is_none_or(|at| at > now));
        let mut scanned = BTreeSet::new();
        keyspace.db().scan(0, usize::MAX, now, |key, _| { scanned.insert(key[0]); });
        prop_assert!(scanned.iter().eq(model.keys()));
        for (key, (value, at)) in &model {
            let found = keyspace.db().find(&[*key], now);
            let found = found.expect("in the model");
            prop_assert_eq!(&content(&keyspace.db(), found), value);
            prop_assert_eq!(keyspace.db().deadline(found), *at);
        }
        // The first call may begin in the middle of a pass; the second makes a whole one.
        keyspace.db().expire_some(now, usize::MAX);
        keyspace.db().expire_some(now, usize::MAX);
        prop_assert_eq!(keyspace.db().len(), model.len());
        let in_model = model.values().filter(|(_, at)| at.is_some()).count();
        prop_assert_eq!(keyspace.db().deadlines_len(), in_model);
    }
}
