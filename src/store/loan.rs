//! Keys lent by their partitions to a command that needs them all in one place. Called by
//! transactions over several partitions, while the partitions are locked or gated.
//!
//! Invariant: what is taken is given back by the same set of keys, so a key that the command
//! removed is gone, one that it made is there, and no value is copied on the way. When a key was
//! used, or how often, stays with it. Taking and giving back are no uses and no changes: those that
//! the command makes on the way are logged by the transaction. Keys that cannot be given back,
//! because the command panics, end the process: see [`super::whole`].

use super::Partition;
use super::database::Taken;

/// A key of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullKey {
    /// The database's number.
    pub db: usize,
    /// The key's name.
    pub name: Vec<u8>,
}

/// Keys of one partition, with what they held.
#[derive(Debug, Default)]
pub struct Loan {
    items: Vec<(FullKey, Option<Taken>)>,
    /// Whether uses of these keys are counted, rather than dated.
    counts_uses: bool,
}

impl Loan {
    /// Takes `keys` out of `partition`.
    pub fn take(partition: &mut Partition, keys: Vec<FullKey>, now_ms: u64) -> Self {
        partition.tick(now_ms);
        let take = |key: FullKey| {
            let found = partition.peek(key.db, &key.name, now_ms);
            let taken = found.map(|found| partition.database(key.db).take(found));
            (key, taken)
        };
        let items = keys.into_iter().map(take).collect();
        Self { items, counts_uses: partition.counts_uses() }
    }

    /// Puts the keys into `partition`, which notes uses from now on as the one does that they come
    /// from; answers which they are.
    pub fn put(self, partition: &mut Partition) -> Vec<FullKey> {
        partition.count_uses(self.counts_uses);
        let put = |(key, taken): (FullKey, Option<Taken>)| {
            if let Some(taken) = taken {
                partition.database(key.db).put_back(&key.name, taken);
            }
            key
        };
        self.items.into_iter().map(put).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expiry;

    #[test]
    fn keys_come_back_as_they_were_left() {
        let (mut home, mut scratch) = (Partition::default(), Partition::default());
        home.database(2).set_string(b"a", b"1", Expiry::At(90));
        home.database(2).set_string(b"b", b"2", Expiry::Never);
        let key = |name: &[u8]| FullKey { db: 2, name: name.to_vec() };
        let loan = Loan::take(&mut home, vec![key(b"a"), key(b"b"), key(b"c")], 10);
        assert!(home.keyspace(2).is_empty());

        let keys = loan.put(&mut scratch);
        let found = scratch.find(2, b"b", 10).expect("lent");
        scratch.database(2).remove(found);
        scratch.database(2).set_string(b"c", b"3", Expiry::Never);
        Loan::take(&mut scratch, keys, 10).put(&mut home);

        let a = home.find(2, b"a", 10).expect("given back");
        assert_eq!(home.keyspace(2).deadline(a), Some(90));
        assert!(home.find(2, b"b", 10).is_none());
        assert!(home.find(2, b"c", 10).is_some());
    }

    /// Lends key `k` to a partition where `work` is done with it, and takes it back.
    fn lend(home: &mut Partition, now_ms: u64, work: impl FnOnce(&mut Partition)) {
        let mut scratch = Partition::default();
        scratch.tick(now_ms);
        let key = FullKey { db: 0, name: b"k".to_vec() };
        let keys = Loan::take(home, vec![key], now_ms).put(&mut scratch);
        work(&mut scratch);
        Loan::take(&mut scratch, keys, now_ms).put(home);
    }

    #[test]
    fn a_loan_is_no_use_of_a_key() {
        const HOUR_MS: u64 = 3_600_000;
        let mut home = Partition::default();
        home.tick(HOUR_MS);
        home.database(0).set_string(b"k", b"v", Expiry::Never);
        lend(&mut home, 2 * HOUR_MS, |scratch| {
            let found = scratch.peek(0, b"k", 2 * HOUR_MS).expect("lent");
            assert_eq!(scratch.idle_ms(0, found), Some(HOUR_MS));
        });
        let found = home.peek(0, b"k", 2 * HOUR_MS).expect("given back");
        assert_eq!(home.idle_ms(0, found), Some(HOUR_MS));
        lend(&mut home, 3 * HOUR_MS, |scratch| {
            scratch.find(0, b"k", 3 * HOUR_MS).expect("lent");
        });
        let found = home.peek(0, b"k", 3 * HOUR_MS).expect("given back");
        assert_eq!(home.idle_ms(0, found), Some(0), "the borrower has used it");
    }

    #[test]
    fn a_key_that_is_lent_keeps_the_count_of_its_uses() {
        let mut home = Partition::default();
        home.count_uses(true);
        home.tick(1);
        home.database(0).set_string(b"k", b"v", Expiry::Never);
        for _ in 0..1000 {
            home.find(0, b"k", 1);
        }
        let count = |partition: &mut Partition| {
            let found = partition.peek(0, b"k", 1).expect("it is there");
            partition.frequency(0, found).expect("uses are counted")
        };
        let before = count(&mut home);
        assert!(before > 10, "{before}");
        lend(&mut home, 1, |scratch| assert_eq!(count(scratch), before));
        assert_eq!(count(&mut home), before);
        lend(&mut home, 1, |scratch| {
            let found = scratch.find(0, b"k", 1).expect("lent");
            scratch.database(0).remove(found);
            scratch.database(0).set_string(b"k", b"v", Expiry::Never);
        });
        assert_eq!(count(&mut home), 5, "a new key begins anew");
    }
}
