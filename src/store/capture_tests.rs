//! A capture against a plain copy: whatever happens meanwhile, it is the content at the beginning.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::store::{Change, Expiry, Partition};

type Content = BTreeMap<(usize, Vec<u8>), (Vec<u8>, Option<u64>)>;

fn content_of(mut changes: &[u8]) -> Content {
    let mut content = Content::new();
    while let Some(change) = Change::decode(&mut changes).expect("a capture is made of changes") {
        let Change::Set { db, key, value, deadline } = change else { panic!("{change:?}") };
        let before = content.insert((db, key.to_vec()), (value.to_vec(), deadline));
        assert!(before.is_none(), "a key comes out once");
    }
    content
}

fn capture_whole(partition: &mut Partition) -> Content {
    partition.begin_capture();
    assert_eq!(partition.walk_capture(usize::MAX, usize::MAX), Some(true));
    let content = content_of(&partition.capture().expect("begun").take());
    partition.end_capture();
    content
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, u8, Vec<u8>, Option<u64>),
    Append(usize, u8),
    Remove(usize, u8),
    Deadline(usize, u8),
    Flush(usize),
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let db = 0..3usize;
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (db.clone(), any::<u8>(), value, proptest::option::of(1..100u64))
            .prop_map(|(db, key, value, deadline)| Step::Set(db, key, value, deadline)),
        1 => (db.clone(), any::<u8>()).prop_map(|(db, key)| Step::Append(db, key)),
        2 => (db.clone(), any::<u8>()).prop_map(|(db, key)| Step::Remove(db, key)),
        1 => (db.clone(), any::<u8>()).prop_map(|(db, key)| Step::Deadline(db, key)),
        1 => db.prop_map(Step::Flush),
        1 => (1..100u64).prop_map(Step::Expire),
    ]
}

fn run(partition: &mut Partition, step: &Step) {
    match step {
        Step::Set(db, key, value, deadline) => {
            let expiry = deadline.map_or(Expiry::Never, Expiry::At);
            partition.database(*db).set_string(&[*key], value, expiry);
        }
        Step::Append(db, key) => {
            let mut database = partition.database(*db);
            if let Some(found) = database.find(&[*key], 0) {
                database.append(found, b"tail").expect("strings alone");
            }
        }
        Step::Remove(db, key) => {
            let mut database = partition.database(*db);
            if let Some(found) = database.find(&[*key], 0) {
                database.remove(found);
            }
        }
        Step::Deadline(db, key) => {
            let mut database = partition.database(*db);
            if let Some(found) = database.find(&[*key], 0) {
                database.set_deadline(found, Some(77));
            }
        }
        Step::Flush(db) => partition.flush(*db),
        Step::Expire(now_ms) => {
            partition.expire_some(*now_ms, 10);
        }
    }
}

proptest! {
    #[test]
    fn what_happens_meanwhile_does_not_show(
        before in proptest::collection::vec(step(), 0..300),
        during in proptest::collection::vec(step(), 0..300),
        stride in 1..20usize,
    ) {
        let mut partition = Partition::default();
        for step in &before {
            run(&mut partition, step);
        }
        let expected = capture_whole(&mut partition);

        partition.begin_capture();
        let mut changes = Vec::new();
        for step in &during {
            run(&mut partition, step);
            let _done = partition.walk_capture(usize::MAX, stride);
            changes.extend(partition.capture().expect("begun").take());
        }
        while partition.walk_capture(usize::MAX, stride) == Some(false) {}
        changes.extend(partition.capture().expect("begun").take());
        partition.end_capture();
        prop_assert_eq!(content_of(&changes), expected);
    }

    #[test]
    fn a_replayed_journal_leads_to_the_same_content(
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut partition = Partition::new((0, 16384));
        partition.keep(crate::store::Keeping::Changes);
        for step in &steps {
            run(&mut partition, step);
        }
        let mut replica = Partition::new((0, 16384));
        let changes = partition.changes().to_vec();
        let mut rest = changes.as_slice();
        while let Some(change) = Change::decode(&mut rest).expect("a journal is made of changes") {
            prop_assert!(replica.replay(&change), "{:?}", change);
        }
        partition.changes_handed_over(crate::log::Lsn(1));
        prop_assert_eq!(capture_whole(&mut replica), capture_whole(&mut partition));
    }
}

#[test]
fn a_database_emptied_twice_comes_out_as_it_was_before_the_first_time() {
    let mut partition = Partition::default();
    let set = |partition: &mut Partition, value: &[u8]| {
        partition.database(0).set_string(b"k", value, Expiry::Never);
    };
    set(&mut partition, b"first");
    partition.begin_capture();
    partition.flush(0);
    set(&mut partition, b"second");
    partition.flush(0);
    set(&mut partition, b"third");
    assert_eq!(partition.walk_capture(usize::MAX, usize::MAX), Some(true));
    let content = content_of(&partition.capture().expect("begun").take());
    assert_eq!(content, Content::from([((0, b"k".to_vec()), (b"first".to_vec(), None))]));
}
