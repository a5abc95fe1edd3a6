//! Recovery of a whole directory: records and snapshots of arbitrary content, under right
//! checksums, and arbitrary edits behind that. It comes back, and then twice the same; or it is
//! refused, and left as it was.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use annulus::log::header::{SegmentHeader, SnapshotHeader};
use annulus::log::record::{HEADER_BYTES, Head, padded_bytes, seal, section_header, sections};
use annulus::log::{Link, Lsn, Slots, StoreId, name};
use annulus::store::directory::{DataDirectory, Missing};
use annulus::store::recovery::recover;
use annulus::store::{Change, SlotMap};
use libfuzzer_sys::fuzz_target;

const ALL: Slots = Slots { from: 0, until: 16384 };
const HALVES: [Slots; 2] = [Slots { from: 0, until: 8000 }, Slots { from: 8000, until: 16384 }];

/// What is put into the directory.
struct Forge {
    id: StoreId,
    files: BTreeMap<String, Vec<u8>>,
    link: Link,
    sequence: u64,
}

fn record(id: StoreId, payload: &[u8], head: &Head) -> (Vec<u8>, Link) {
    let mut room = vec![0; padded_bytes(payload.len())];
    room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let next = seal(&mut room, payload.len(), head, id.seed());
    (room, next)
}

fn section(slots: Slots, changes: &[u8]) -> Vec<u8> {
    [&section_header(slots, changes.len()), changes].concat()
}

/// Whether anything in here, itself or in sections, takes much memory by right.
fn has_far_write(content: &[u8]) -> bool {
    let is_far = |mut changes: &[u8]| {
        while let Ok(Some(change)) = Change::decode(&mut changes) {
            if matches!(change, Change::Write { offset, .. } if offset > 1 << 20) {
                return true;
            }
        }
        false
    };
    is_far(content) || sections(content).map_while(Result::ok).any(|(_, changes)| is_far(changes))
}

impl Forge {
    fn new(id: StoreId) -> Self {
        let mut forge = Self { id, files: BTreeMap::new(), link: Link::FIRST, sequence: 0 };
        forge.begin();
        forge
    }

    fn begin(&mut self) {
        self.sequence += 1;
        let header = SegmentHeader { id: self.id, sequence: self.sequence, first: self.link };
        self.files.insert(name::segment(self.sequence), header.encode().to_vec());
    }

    fn write(&mut self, payload: &[u8], sealed: bool) {
        let durable = Lsn(self.link.lsn.0 - 1);
        let head = Head { sealed, ..Head::new(self.link, durable, 0) };
        let (bytes, next) = record(self.id, payload, &head);
        self.files.entry(name::segment(self.sequence)).or_default().extend(bytes);
        self.link = next;
    }

    fn snapshot(&mut self, slots: Slots, changes: &[u8], keys: u64) {
        let lsn = Lsn(self.link.lsn.0 - 1);
        let header = SnapshotHeader { id: self.id, lsn, slots, unix_ms: 0 };
        let mut file = header.encode().to_vec();
        let head = Head::new(Link::FIRST, Lsn::NONE, 0);
        let (bytes, next) = record(self.id, &section(slots, changes), &head);
        file.extend(bytes);
        let head = Head { end: true, ..Head::new(next, Lsn::NONE, 0) };
        file.extend(record(self.id, &keys.to_le_bytes(), &head).0);
        self.files.insert(name::snapshot(slots, lsn), file);
    }

    /// Does one thing: `what`, on `content`.
    fn step(&mut self, what: u8, content: &[u8]) {
        let (first, rest) = content.split_first().unwrap_or((&0, &[]));
        if has_far_write(content) || has_far_write(rest) {
            return;
        }
        let place = usize::from(*first) * 64 + usize::from(*rest.first().unwrap_or(&0));
        match what % 12 {
            0..=2 => self.write(&section(ALL, content), false),
            3 => self.write(&[section(HALVES[0], rest), section(HALVES[1], rest)].concat(), false),
            4 => self.write(content, false),
            5 => {
                self.write(&section(ALL, content), true);
                self.begin();
            }
            6 => self.begin(),
            7 => self.snapshot(ALL, rest, u64::from(*first)),
            8 => self.snapshot(HALVES[usize::from(first % 2)], rest, u64::from(first / 2)),
            9 => drop(self.files.remove(&name::segment(u64::from(*first)))),
            // The others damage what is at hand.
            what => {
                let file = self.files.entry(name::segment(self.sequence)).or_default();
                match what {
                    10 => file.resize(place, 0),
                    _ => file.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= first | 1),
                }
            }
        }
    }
}

fn directory() -> &'static DataDirectory {
    static DIRECTORY: OnceLock<DataDirectory> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        let place = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let place = place.join(format!("annulus-fuzz-{}", std::process::id()));
        DataDirectory::open(&place, Missing::Create).expect("a new directory")
    })
}

fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).expect("it is there").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().into_string().expect("ours"), entry.path()));
    named.map(|(name, path)| (name, fs::read(path).expect("a file"))).collect()
}

fuzz_target!(|input: &[u8]| {
    let directory = directory();
    let mut forge = Forge::new(directory.id());
    let mut rest = input;
    while let Some((&[what, length], behind)) = rest.split_first_chunk() {
        let (content, behind) = behind.split_at(usize::from(length).min(behind.len()));
        forge.step(what, content);
        rest = behind;
    }
    for (name, bytes) in &forge.files {
        fs::write(directory.path().join(name), bytes).expect("room for a file");
    }
    let before = files(directory.path());
    let map = SlotMap::new(2);
    match recover(directory, map) {
        Err(_) => assert_eq!(files(directory.path()), before, "refused, and changed"),
        Ok(first) => {
            let again = recover(directory, map).expect("what came back comes back");
            assert_eq!(again.start.next, first.start.next);
            assert_eq!(again.figures.keys, first.figures.keys);
            assert_eq!(again.torn, None);
        }
    }
    for name in files(directory.path()).keys().filter(|name| *name != "FORMAT") {
        let _lock = fs::remove_file(directory.path().join(name));
    }
});
