//! Keys lent by their partitions to a command that needs them all in one place. Called by
//! transactions over several partitions, while the partitions are locked or gated.
//!
//! Invariant: what is taken is given back by the same set of keys, so a key that the command
//! removed is gone, one that it made is there, and no value is copied on the way. Taking and giving
//! back are no changes: those that the command makes on the way are logged by the transaction.

use super::{Expiry, Partition, Value};

/// A key of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullKey {
    /// The database's number.
    pub db: usize,
    /// The key's name.
    pub name: Vec<u8>,
}

/// A value and its deadline.
type Content = (Value, Option<u64>);

/// Keys of one partition, with what they held.
#[derive(Debug, Default)]
pub struct Loan {
    items: Vec<(FullKey, Option<Content>)>,
}

impl Loan {
    /// Takes `keys` out of `partition`.
    pub fn take(partition: &mut Partition, keys: Vec<FullKey>, now_ms: u64) -> Self {
        partition.tick(now_ms);
        let take = |key: FullKey| {
            let found = partition.find(key.db, &key.name, now_ms);
            let content = found.map(|found| partition.database(key.db).take(found));
            (key, content)
        };
        Self { items: keys.into_iter().map(take).collect() }
    }

    /// Puts the keys into `partition`; answers which they are.
    pub fn put(self, partition: &mut Partition) -> Vec<FullKey> {
        let put = |(key, content): (FullKey, Option<Content>)| {
            if let Some((value, deadline)) = content {
                let expiry = deadline.map_or(Expiry::Never, Expiry::At);
                partition.database(key.db).put(&key.name, value, expiry);
            }
            key
        };
        self.items.into_iter().map(put).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
