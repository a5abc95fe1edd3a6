//! Changes of keys: arbitrary bytes are refused without a panic, and what decodes comes back from
//! its encoding, can be made, and from there comes back through a snapshot's bytes.
#![no_main]

use annulus::store::{Change, Partition, PartitionId, SlotMap};
use libfuzzer_sys::fuzz_target;

fn partition() -> Partition {
    Partition::new(SlotMap::new(1).slots(PartitionId(0)))
}

fn decode(mut input: &[u8]) -> Vec<Change<'_>> {
    let mut changes = Vec::new();
    while let Ok(Some(change)) = Change::decode(&mut input) {
        changes.push(change);
    }
    changes
}

/// All that a partition holds, as changes one behind the other.
fn content(partition: &mut Partition) -> Vec<u8> {
    partition.begin_capture();
    while !partition.walk_capture(usize::MAX, usize::MAX).expect("it has begun") {}
    let content = partition.capture().expect("it has begun").take();
    partition.end_capture();
    content
}

/// Such a write takes memory by right, and more of it than there is to fuzz with.
fn is_far(change: &Change<'_>) -> bool {
    matches!(change, Change::Write { offset, .. } if *offset > 1 << 20)
}

fuzz_target!(|input: &[u8]| {
    let (changes, mut bytes) = (decode(input), Vec::new());
    changes.iter().for_each(|change| change.encode(&mut bytes));
    // A number may have been spelled longer than need be.
    assert!(bytes.len() <= input.len());
    assert_eq!(decode(&bytes), changes);

    if changes.iter().any(is_far) {
        return;
    }

    let (mut made, mut again) = (partition(), partition());
    for change in &changes {
        made.replay(change);
    }
    let (content, mut other) = (content(&mut made), Vec::new());
    let mut keys = decode(&content);
    for change in &keys {
        assert!(again.replay(change));
    }
    other.extend(self::content(&mut again));
    let mut others = decode(&other);
    let key = |change: &Change<'_>| (change.db(), change.key().map(<[u8]>::to_vec));
    keys.sort_by_key(key);
    others.sort_by_key(key);
    assert_eq!(keys, others);
});
