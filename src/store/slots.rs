//! Which partition a key belongs to. Called for every key where there is more than one partition.
//!
//! Invariant: slots are those of Redis Cluster (CRC16, hash tags), and a partition owns a
//! contiguous range of them.
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

/// Slots of the keyspace.
pub const SLOTS_COUNT: usize = 16384;

/// A partition's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The number as an index.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The division of the slots among partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMap {
    partitions: u16,
}

impl SlotMap {
    /// Divides the slots among `partitions`, at least one and at most as many as there are slots.
    pub fn new(partitions: usize) -> Self {
        assert!(partitions >= 1, "a store has at least one partition");
        assert!(partitions <= SLOTS_COUNT, "a partition owns at least one slot");
        Self { partitions: partitions as u16 }
    }

    /// How many partitions there are.
    #[inline]
    pub fn count(self) -> usize {
        usize::from(self.partitions)
    }

    /// Every partition, in ascending order.
    pub fn partitions(self) -> impl Iterator<Item = PartitionId> {
        (0..self.partitions).map(PartitionId)
    }

    /// The slots of partition `id`: the first, and the one behind the last.
    pub fn slots(self, id: PartitionId) -> (u16, u16) {
        let first = |index: usize| (index * SLOTS_COUNT).div_ceil(self.count()) as u16;
        (first(id.index()), first(id.index() + 1))
    }

    /// The partition that owns `key`.
    #[inline]
    pub fn partition_of(self, key: &[u8]) -> PartitionId {
        if self.partitions == 1 {
            return PartitionId(0);
        }
        let slot = usize::from(slot_of(key));
        PartitionId((slot * self.count() / SLOTS_COUNT) as u16)
    }
}

/// The slot of `key`: of the part in braces, where there is one that is not empty.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS_COUNT as u16
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let tail = &key[open + 1..];
    match memchr::memchr(b'}', tail) {
        None | Some(0) => key,
        Some(close) => &tail[..close],
    }
}

/// CRC16 in the XMODEM variant: polynomial 0x1021, initial value 0. Two bytes a step.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        let [high, low] = (crc ^ u16::from_be_bytes([pair[0], pair[1]])).to_be_bytes();
        crc = TABLES[1][usize::from(high)] ^ TABLES[0][usize::from(low)];
    }
    for &byte in pairs.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc
}

/// The remainder of each byte, followed by no zero byte and by one.
static TABLES: [[u16; 256]; 2] = tables();

const fn tables() -> [[u16; 256]; 2] {
    let mut tables = [[0; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 16 {
            if bit == 8 {
                tables[0][byte] = crc;
            }
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[1][byte] = crc;
        byte += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
        assert_eq!(slot_of(b"somekey"), 11058);
    }

    #[test]
    fn only_a_tag_that_is_not_empty_counts() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }

    #[test]
    fn partitions_own_contiguous_even_ranges() {
        for count in [1, 2, 3, 7, 64] {
            let map = SlotMap::new(count);
            let mut owned = vec![0usize; count];
            let mut previous = 0;
            for slot in 0..SLOTS_COUNT {
                let partition = slot * count / SLOTS_COUNT;
                assert!(partition >= previous);
                previous = partition;
                owned[partition] += 1;
                let (first, end) = map.slots(PartitionId(partition as u16));
                assert!((first..end).contains(&(slot as u16)), "{slot} of {count}");
            }
            assert_eq!(map.partitions().count(), count);
            assert!(owned.iter().all(|&slots| slots.abs_diff(SLOTS_COUNT / count) <= 1));
        }
    }
}
