//! The names of the files in a data directory. Called by whoever creates, lists or removes them.
//!
//! Invariant: a name parses to what it was made from, and no other spelling parses to the same.

use super::{Lsn, Slots};

/// What the names of files still being written end in. They mean nothing and are removed at start.
pub const UNFINISHED_SUFFIX: &str = ".tmp";

/// Digits of a segment's number in its name.
const SEQUENCE_DIGITS: usize = 12;
/// Digits of a slot.
const SLOT_DIGITS: usize = 5;
/// Digits of an Lsn: any of 64 bits.
const LSN_DIGITS: usize = 20;

/// Highest number of a segment. Segments of 64 MiB would have filled 64 EiB before.
pub const SEQUENCE_COUNT_MAX: u64 = 10_u64.pow(SEQUENCE_DIGITS as u32) - 1;

/// The name of segment `sequence`, counted from 1.
///
/// # Panics
/// Past [`SEQUENCE_COUNT_MAX`].
pub fn segment(sequence: u64) -> String {
    assert!(sequence <= SEQUENCE_COUNT_MAX, "segment numbers have {SEQUENCE_DIGITS} digits");
    format!("log-{sequence:012}.seg")
}

/// The number of the segment of this name.
pub fn parse_segment(name: &str) -> Option<u64> {
    let sequence = number(name.strip_prefix("log-")?.strip_suffix(".seg")?, SEQUENCE_DIGITS);
    sequence.filter(|sequence| *sequence > 0)
}

/// The name of the snapshot of `slots` as they were after record `lsn`.
pub fn snapshot(slots: Slots, lsn: Lsn) -> String {
    format!("snapshot-{:05}-{:05}-{:020}.snap", slots.from, slots.until, lsn.0)
}

/// What the snapshot of this name holds, and as of when.
pub fn parse_snapshot(name: &str) -> Option<(Slots, Lsn)> {
    let mut parts = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?.split('-');
    let mut slot = || u16::try_from(number(parts.next()?, SLOT_DIGITS)?).ok();
    let slots = Slots { from: slot()?, until: slot()? };
    let lsn = Lsn(number(parts.next()?, LSN_DIGITS)?);
    parts.next().is_none().then_some((slots, lsn))
}

/// The name under which a repair keeps what it cut off the file `name` from `offset` on.
pub fn cut(name: &str, offset: u64) -> String {
    format!("cut-{name}-{offset}.bin")
}

fn number(digits: &str, length: usize) -> Option<u64> {
    let is_plain = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        assert_eq!(segment(1), "log-000000000001.seg");
        let slots = Slots { from: 0, until: 8192 };
        assert_eq!(snapshot(slots, Lsn(42)), "snapshot-00000-08192-00000000000000000042.snap");
        assert_eq!(cut("log-000000000001.seg", 8192), "cut-log-000000000001.seg-8192.bin");
    }

    #[test]
    fn names_parse_to_what_they_were_made_from() {
        for sequence in [1, 7, SEQUENCE_COUNT_MAX] {
            assert_eq!(parse_segment(&segment(sequence)), Some(sequence));
        }
        let slots = Slots { from: 8192, until: 16384 };
        for lsn in [Lsn(1), Lsn(u64::MAX)] {
            assert_eq!(parse_snapshot(&snapshot(slots, lsn)), Some((slots, lsn)));
        }
    }

    #[test]
    fn other_spellings_are_no_names() {
        for name in [
            "log-1.seg",
            "log-+00000000001.seg",
            "log-000000000000.seg",
            "log-0000000000001.seg",
            "log-000000000001.seg.tmp",
            "LOCK",
        ] {
            assert_eq!(parse_segment(name), None, "{name}");
        }
        for name in [
            "snapshot-00000-08192-42.snap",
            "snapshot-00000-99999-00000000000000000042.snap",
            "snapshot-00000-08192-00000000000000000042-1.snap",
            "snapshot-00000-08192-99999999999999999999.snap",
        ] {
            assert_eq!(parse_snapshot(name), None, "{name}");
        }
    }
}
