//! Tests of recovery, from files in memory and from real directories. Run by `cargo test`.
//!
//! Invariant: each test forges the files that it is about.

use std::collections::BTreeMap;
use std::fs;

use super::super::directory::Missing;
use super::super::directory::tests::Folder;
use super::super::slots::slot_of;
use super::super::{Change, Value};
use super::*;
use crate::log::Link;
use crate::log::header::SnapshotHeader;
use crate::log::reader::forge::{Forge, ID};
use crate::log::record::{HEADER_BYTES, Head, padded_bytes, seal, section_header};

pub(in crate::store) const ALL: Slots = Slots { from: 0, until: 16384 };
pub(in crate::store) const LOW: Slots = Slots { from: 0, until: 8192 };
const HIGH: Slots = Slots { from: 8192, until: 16384 };
/// The present, as these tests have it.
const NOW_MS: u64 = 1_000_000;

/// The keys of every database: number, key, value, deadline.
pub(in crate::store) type Content = BTreeMap<(usize, Vec<u8>), (Vec<u8>, Option<u64>)>;

/// The files of a directory, in memory.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Memory {
    pub(in crate::store) files: BTreeMap<String, Vec<u8>>,
}

impl<'a> Files for &'a Memory {
    type File = &'a [u8];

    fn open(&self, name: &str) -> io::Result<&'a [u8]> {
        self.files.get(name).map(Vec::as_slice).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Memory {
    pub(in crate::store) fn of(forge: &Forge) -> Self {
        let named = |(sequence, file): (&u64, &Vec<u8>)| (name::segment(*sequence), file.clone());
        Self { files: forge.files.iter().map(named).collect() }
    }

    pub(in crate::store) fn with_snapshot(
        mut self,
        slots: Slots,
        lsn: u64,
        keys: &[(&str, &str)],
    ) -> Self {
        let mut payload = Vec::new();
        for (key, value) in keys {
            set(key, value).encode(&mut payload);
        }
        let payload = section(slots, &payload);
        self.files.insert(
            name::snapshot(slots, Lsn(lsn)),
            snapshot(slots, Lsn(lsn), &payload, keys.len() as u64),
        );
        self
    }

    pub(in crate::store) fn listing(&self) -> Listing {
        let names = || self.files.keys();
        Listing {
            segments: names().filter_map(|name| name::parse_segment(name)).collect(),
            snapshots: names().filter_map(|name| name::parse_snapshot(name)).collect(),
            unfinished: Vec::new(),
        }
    }

    pub(in crate::store) fn recover(&self, partitions: usize) -> Result<Recovered, Damage> {
        let map = SlotMap::new(partitions);
        match load_files(&self, &self.listing(), ID, map, NOW_MS) {
            Ok(recovered) => Ok(recovered),
            Err(ReadError::Damaged(damage)) => Err(*damage),
            Err(ReadError::Io { file, error }) => panic!("{file}: {error}"),
        }
    }

    #[track_caller]
    fn content(&self, partitions: usize) -> Content {
        content(&self.recover(partitions).expect("not damaged"))
    }

    #[track_caller]
    fn damaged(&self) -> Damaged {
        self.recover(2).map(|_| ()).expect_err("damaged").what
    }
}

fn snapshot(slots: Slots, lsn: Lsn, payload: &[u8], count: u64) -> Vec<u8> {
    let mut file = SnapshotHeader { id: ID, lsn, slots, unix_ms: 1 }.encode().to_vec();
    let mut link = Link::FIRST;
    for (payload, end) in [(payload, false), (&count.to_le_bytes()[..], true)] {
        let mut room = vec![0; padded_bytes(payload.len())];
        room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let head = Head { end, ..Head::new(link, Lsn::NONE, 1) };
        link = seal(&mut room, payload.len(), &head, ID.seed());
        file.extend_from_slice(&room);
    }
    file
}

pub(in crate::store) fn section(slots: Slots, content: &[u8]) -> Vec<u8> {
    [&section_header(slots, content.len())[..], content].concat()
}

/// The payload of a record with these changes, as one partition writes it.
pub(in crate::store) fn payload(changes: &[Change<'_>]) -> Vec<u8> {
    let mut content = Vec::new();
    for change in changes {
        change.encode(&mut content);
    }
    section(ALL, &content)
}

pub(in crate::store) fn set<'a>(key: &'a str, value: &'a str) -> Change<'a> {
    Change::Set { db: 0, key: key.as_bytes(), value: value.as_bytes(), deadline: None }
}

pub(in crate::store) fn append<'a>(key: &'a str, tail: &'a str) -> Change<'a> {
    Change::Append { db: 0, key: key.as_bytes(), tail: tail.as_bytes() }
}

pub(in crate::store) fn content(recovered: &Recovered) -> Content {
    let mut content = Content::new();
    for partition in &recovered.partitions {
        for (db, keyspace) in partition.keyspaces().iter().enumerate() {
            let mut names = Vec::new();
            keyspace.scan(0, usize::MAX, 0, |key, value| {
                let Value::String(text) = value;
                names.push((key.to_vec(), text.as_slice().to_vec()));
            });
            for (key, value) in names {
                let slot = slot_of(&key);
                let (from, until) = partition.slots();
                assert!((from..until).contains(&slot), "a key is in another's partition");
                let found = keyspace.lookup(keyspace.hash(&key), &key).expect("just seen");
                content.insert((db, key), (value, keyspace.deadline(found)));
            }
        }
    }
    content
}

pub(in crate::store) fn keys(expected: &[(&str, &str)]) -> Content {
    let entry = |(key, value): &(&str, &str)| {
        ((0, key.as_bytes().to_vec()), (value.as_bytes().to_vec(), None))
    };
    expected.iter().map(entry).collect()
}

#[test]
fn every_kind_of_change_comes_back_in_any_number_of_partitions() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1"), set("b", "2"), append("a", "x")]));
    forge.record(&payload(&[
        Change::Write { db: 0, key: b"a", offset: 4, piece: b"!" },
        Change::Delete { db: 0, key: b"b" },
        Change::Set { db: 3, key: b"c", value: b"3", deadline: Some(NOW_MS + 5) },
        Change::Set { db: 4, key: b"flushed", value: b"", deadline: None },
    ]));
    forge.record(&payload(&[
        Change::Flush { db: 4, slots: (0, 16384) },
        Change::Deadline { db: 0, key: b"a", deadline: Some(NOW_MS + 9) },
        Change::Deadline { db: 3, key: b"c", deadline: None },
    ]));
    let memory = Memory::of(&forge);
    let mut expected = Content::new();
    expected.insert((0, b"a".to_vec()), (b"1x\0\0!".to_vec(), Some(NOW_MS + 9)));
    expected.insert((3, b"c".to_vec()), (b"3".to_vec(), None));
    for partitions in [1, 2, 3, 64] {
        assert_eq!(memory.content(partitions), expected, "{partitions}");
    }
    let recovered = memory.recover(2).expect("clean");
    assert_eq!((recovered.start.next, recovered.start.sequence), (forge.link, 2));
    let kept = Kept { sequence: 1, last: Lsn(3), bytes: 16_384 };
    assert_eq!(recovered.start.kept, [kept]);
    let figures = recovered.figures;
    assert_eq!((figures.keys, figures.records, figures.first), (2, 3, Some(Lsn(1))));
    // The flush concerns both partitions.
    assert_eq!(figures.changes, 11);
    assert_eq!(recovered.torn, None);
}

#[test]
fn what_expired_does_not_come_back_but_is_replayed() {
    let mut forge = Forge::new();
    let past = Some(NOW_MS);
    forge.record(&payload(&[
        Change::Set { db: 0, key: b"gone", value: b"", deadline: past },
        Change::Set { db: 0, key: b"kept", value: b"1", deadline: past },
    ]));
    forge.record(&payload(&[
        append("kept", "2"),
        Change::Deadline { db: 0, key: b"kept", deadline: None },
    ]));
    assert_eq!(Memory::of(&forge).content(1), keys(&[("kept", "12")]));
}

#[test]
fn the_log_adds_to_a_snapshot_what_it_does_not_hold() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1"), set("b", "1")]));
    forge.record_and_rotate(&payload(&[append("a", "2"), append("b", "2")]), Vec::new());
    forge.record(&payload(&[append("a", "3"), append("b", "3")]));
    forge.record(&payload(&[append("a", "4"), append("b", "4")]));
    // Record 3 is read, since it lies in front of what is needed, and makes no change.
    let memory = Memory::of(&forge).with_snapshot(ALL, 3, &[("a", "123"), ("b", "123")]);
    for partitions in [1, 2, 5] {
        assert_eq!(memory.content(partitions), keys(&[("a", "1234"), ("b", "1234")]));
    }
    let recovered = memory.recover(1).expect("clean");
    assert_eq!(recovered.figures.first, Some(Lsn(3)));
    let last = |kept: &Kept| (kept.sequence, kept.last);
    let kept: Vec<_> = recovered.start.kept.iter().map(last).collect();
    // Of a segment that is passed over it is known that it ends in front of what is needed.
    assert_eq!(kept, [(1, Lsn(3)), (2, Lsn(4))]);
    assert_eq!(recovered.snapshots, [(ALL, Lsn(3))]);
    // What the snapshot holds is no longer needed.
    let mut trimmed = memory.clone();
    trimmed.files.remove("log-000000000001.seg");
    assert_eq!(trimmed.content(2), memory.content(2));
}

/// "b" is in the lower half of the slots, "a" in the upper.
#[test]
fn snapshots_of_another_division_count_slot_by_slot() {
    assert!(LOW.contains(slot_of(b"b")) && HIGH.contains(slot_of(b"a")));
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1"), set("b", "1")]));
    forge.record(&payload(&[append("a", "2"), append("b", "2")]));
    forge.record(&payload(&[append("a", "3"), append("b", "3")]));
    let memory = Memory::of(&forge).with_snapshot(ALL, 1, &[("a", "1"), ("b", "1")]).with_snapshot(
        LOW,
        3,
        &[("b", "123")],
    );
    for partitions in [1, 2, 3] {
        assert_eq!(memory.content(partitions), keys(&[("a", "123"), ("b", "123")]));
    }
    // A flush between the two snapshots empties only the slots that do not hold its effect.
    forge.record(&payload(&[Change::Flush { db: 0, slots: (0, 16384) }, set("c", "4")]));
    let memory = Memory::of(&forge).with_snapshot(ALL, 1, &[("a", "1"), ("b", "1")]).with_snapshot(
        LOW,
        4,
        &[("b", "flushed, and set again")],
    );
    let c = if LOW.contains(slot_of(b"c")) { None } else { Some(("c", "4")) };
    let expected: Vec<_> = [("b", "flushed, and set again")].into_iter().chain(c).collect();
    for partitions in [1, 2, 3] {
        assert_eq!(memory.content(partitions), keys(&expected));
    }
}

#[test]
fn a_snapshot_that_was_replaced_is_not_looked_at() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1")]));
    forge.record(&payload(&[append("a", "2")]));
    let mut memory = Memory::of(&forge).with_snapshot(ALL, 2, &[("a", "12")]);
    memory.files.insert(name::snapshot(LOW, Lsn(1)), b"garbage".to_vec());
    let recovered = memory.recover(2).expect("clean");
    assert_eq!(content(&recovered), keys(&[("a", "12")]));
    assert_eq!(recovered.superseded, [(LOW, Lsn(1))]);
}

#[test]
fn what_snapshots_and_log_do_not_cover_is_refused() {
    let mut forge = Forge::new();
    forge.record_and_rotate(&payload(&[set("a", "1")]), Vec::new());
    forge.record(&payload(&[set("a", "2")]));
    let memory = Memory::of(&forge).with_snapshot(ALL, 1, &[("a", "1")]);
    let mut without_snapshot = memory.clone();
    without_snapshot.files.remove(&name::snapshot(ALL, Lsn(1)));
    without_snapshot.files.remove(&name::segment(1));
    assert_eq!(without_snapshot.damaged(), Damaged::Begins(Lsn(2)));
    let mut without_log = memory.clone();
    without_log.files.retain(|name, _| name::parse_segment(name).is_none());
    assert_eq!(without_log.damaged(), Damaged::NoLog);
    let later = memory.with_snapshot(ALL, 3, &[("a", "3")]);
    assert_eq!(later.damaged(), Damaged::EndsBefore(Lsn(3)));
}

#[test]
fn contents_that_make_no_sense_are_refused_with_their_place() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1")]));
    let good = Memory::of(&forge);
    let mut bad = forge.clone();
    bad.record(&section(ALL, b"\x09\x00"));
    bad.record(&payload(&[set("a", "2")]));
    let damage = Memory::of(&bad).recover(2).map(|_| ()).expect_err("malformed");
    assert_eq!((damage.file.as_deref(), damage.offset), (Some("log-000000000001.seg"), 8192));
    assert_eq!((damage.lsn, damage.what), (Some(Lsn(2)), Damaged::Change("it is cut off")));
    forge.record(b"no section");
    assert!(matches!(Memory::of(&forge).damaged(), Damaged::Section(_)));
    let counted = good.clone().with_snapshot(ALL, 1, &[("a", "1"), ("a", "1")]);
    assert_eq!(counted.content(1), keys(&[("a", "1")]));
    let mut miscounted = good;
    let one = payload(&[set("a", "1")]);
    miscounted.files.insert(name::snapshot(ALL, Lsn(1)), snapshot(ALL, Lsn(1), &one, 2));
    assert_eq!(miscounted.damaged(), Damaged::Count { found: 1, expected: 2 });
    let not_a_key = payload(&[append("a", "1")]);
    miscounted.files.insert(name::snapshot(ALL, Lsn(1)), snapshot(ALL, Lsn(1), &not_a_key, 1));
    assert_eq!(miscounted.damaged(), Damaged::Change("a snapshot holds whole keys"));
}

/// Many keys, so that several batches go to several threads.
#[test]
fn a_long_log_comes_back_whole() {
    let mut forge = Forge::new();
    let mut expected = Content::new();
    for record in 0..40_u32 {
        let value = vec![record as u8; 200];
        let names: Vec<_> = (0..100).map(|key| format!("key-{}", record * 50 + key)).collect();
        let changes: Vec<_> = (names.iter())
            .map(|key| Change::Set { db: 0, key: key.as_bytes(), value: &value, deadline: None })
            .collect();
        forge.record(&payload(&changes));
        for name in names {
            expected.insert((0, name.into_bytes()), (value.clone(), None));
        }
    }
    for partitions in [1, 3] {
        assert_eq!(Memory::of(&forge).content(partitions), expected);
    }
}

/// A directory with these files, whose id is that of forged logs.
pub(in crate::store) fn folder(name: &str, memory: &Memory) -> (Folder, DataDirectory) {
    let folder = Folder::new(name);
    folder.write("FORMAT", format!("annulus store\nversion 1\nid {ID}\n").as_bytes());
    for (name, content) in &memory.files {
        folder.write(name, content);
    }
    let directory = DataDirectory::open(&folder.0, Missing::Create).expect("opened");
    (folder, directory)
}

#[test]
fn a_torn_tail_is_cut_off_and_told() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1")]));
    forge.record(&payload(&[set("a", "2")]));
    forge.durable = Some(Lsn(2));
    forge.record(&payload(&[set("a", "3")]));
    forge.record(&payload(&[set("a", "4")]));
    forge.resize(65_536);
    forge.prepare_successor();
    let third = forge.written[2].clone();
    forge.files.get_mut(&1).expect("there")[third.offset + 60] ^= 1;
    let memory = Memory::of(&forge).with_snapshot(LOW, 1, &[]).with_snapshot(ALL, 2, &[("a", "2")]);
    let (folder, directory) = folder("torn", &memory);
    folder.write("snapshot.tmp", b"unfinished");
    let recovered = recover(&directory, SlotMap::new(1)).expect("recovered");
    assert_eq!(content(&recovered), keys(&[("a", "2")]));
    let torn = recovered.torn.expect("torn");
    assert_eq!(
        torn.to_string(),
        "the log ends at byte 12288 of log-000000000001.seg: the 8192 bytes behind were records 3 \
         to 4, which were not wholly written and not durable"
    );
    let mut left: Vec<_> = fs::read_dir(&folder.0)
        .expect("there")
        .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
        .collect();
    left.sort();
    assert_eq!(left, ["FORMAT", "LOCK", "log-000000000001.seg", &name::snapshot(ALL, Lsn(2))]);
    let segment = folder.0.join("log-000000000001.seg");
    assert_eq!(fs::metadata(segment).expect("there").len(), 12_288);
    // The next start finds a clean end at the same place.
    let again = recover(&directory, SlotMap::new(3)).expect("recovered");
    assert_eq!((again.torn, again.start.next), (None, recovered.start.next));
    assert_eq!(again.start.sequence, 2);
}

#[test]
fn one_torn_record_is_told_by_its_number() {
    let torn = |newest| TornTail {
        file: name::segment(1),
        offset: 8192,
        bytes: 4096,
        first: Lsn(5),
        newest,
    };
    let expected = "the log ends at byte 8192 of log-000000000001.seg: the 4096 bytes behind were \
                    record 5, which was not wholly written";
    assert_eq!(torn(None).to_string(), expected);
    assert_eq!(torn(Some(Lsn(5))).to_string(), expected);
}

#[test]
fn damage_in_the_middle_refuses_and_changes_nothing() {
    let mut forge = Forge::new();
    for value in ["1", "2", "3"] {
        forge.record(&payload(&[set("a", value)]));
    }
    forge.files.get_mut(&1).expect("there")[8192 + 60] ^= 1;
    let (folder, directory) = folder("damaged", &Memory::of(&forge));
    folder.write("snapshot.tmp", b"unfinished");
    let refused = recover(&directory, SlotMap::new(1)).map(|_| ()).expect_err("damaged");
    assert_eq!(
        refused.to_string().replace(&folder.0.display().to_string(), "DIR"),
        "DIR/log-000000000001.seg is damaged at byte 8192, where record 2 should be: the checksum \
         of record 2 is wrong; it was there, for record 3 was written after it; bring the \
         directory back from a backup, or let `annulus repair DIR` set aside what comes behind \
         the damage"
    );
    let segment = fs::read(folder.0.join("log-000000000001.seg")).expect("there");
    assert_eq!(segment, forge.files[&1]);
    assert!(folder.0.join("snapshot.tmp").exists());
}

#[test]
fn an_empty_directory_is_an_empty_store() {
    let (_folder, directory) = folder("empty-store", &Memory::default());
    let recovered = recover(&directory, SlotMap::new(2)).expect("recovered");
    assert_eq!(recovered.partitions.len(), 2);
    assert_eq!((recovered.start.next, recovered.start.sequence), (Link::FIRST, 1));
    assert_eq!(recovered.figures.keys, 0);
}

#[test]
fn of_a_snapshot_only_slots_come_back_that_no_newer_one_holds() {
    let mut forge = Forge::new();
    forge.record(&payload(&[set("a", "1"), set("b", "1")]));
    forge.record(&payload(&[Change::Delete { db: 0, key: b"b" }]));
    let memory = Memory::of(&forge).with_snapshot(ALL, 1, &[("a", "1"), ("b", "1")]).with_snapshot(
        LOW,
        2,
        &[],
    );
    for partitions in [1, 2, 3] {
        assert_eq!(memory.content(partitions), keys(&[("a", "1")]), "{partitions}");
    }
}
