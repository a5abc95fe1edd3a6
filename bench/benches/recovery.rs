//! Recovery: changes a second, and changes per second of processor time, from a directory in the
//! page cache.
//!
//! `cargo bench -p annulus-bench --bench recovery`. The directory is made below the folder for
//! temporary files and removed at the end.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use annulus::log::record::{HEADER_BYTES, Head, padded_bytes, seal, section_header};
use annulus::log::{Link, Lsn, SegmentHeader, Slots, SnapshotHeader, StoreId, name};
use annulus::store::directory::{DataDirectory, Missing};
use annulus::store::{Change, SlotMap, recovery};
use rustix::time::{ClockId, clock_gettime};

const ID: StoreId = StoreId(*b"a store to bench");
const ALL: Slots = Slots { from: 0, until: 16384 };
const VALUE: [u8; 64] = [b'v'; 64];
const ROUNDS_COUNT: usize = 5;

/// What a directory holds.
struct Case {
    name: &'static str,
    changes: u64,
    keys: u64,
    per_record: u64,
    in_snapshot: bool,
}

const CASES: [Case; 4] = [
    Case {
        name: "new keys, 100 a record",
        changes: 2_000_000,
        keys: 2_000_000,
        per_record: 100,
        in_snapshot: false,
    },
    Case {
        name: "100,000 keys again and again",
        changes: 4_000_000,
        keys: 100_000,
        per_record: 100,
        in_snapshot: false,
    },
    Case {
        name: "one change a record",
        changes: 100_000,
        keys: 100_000,
        per_record: 1,
        in_snapshot: false,
    },
    Case {
        name: "snapshot",
        changes: 2_000_000,
        keys: 2_000_000,
        per_record: 8_000,
        in_snapshot: true,
    },
];

fn write_record(
    file: &mut impl Write,
    link: Link,
    payload: &[u8],
    end: bool,
) -> std::io::Result<Link> {
    let mut room = vec![0; padded_bytes(payload.len())];
    room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let head = Head { end, ..Head::new(link, Lsn::NONE, 1) };
    let next = seal(&mut room, payload.len(), &head, ID.seed());
    file.write_all(&room)?;
    Ok(next)
}

fn write_changes(file: &mut impl Write, case: &Case) -> std::io::Result<Link> {
    let (mut link, mut content) = (Link::FIRST, Vec::new());
    for number in 1..=case.changes {
        // A stride that meets every key, out of order.
        let key = format!("key:{:012}", number.wrapping_mul(7_919) % case.keys);
        let change = Change::Set { db: 0, key: key.as_bytes(), value: &VALUE, deadline: None };
        change.encode(&mut content);
        if number % case.per_record == 0 {
            let payload = [&section_header(ALL, content.len())[..], &content].concat();
            link = write_record(file, link, &payload, false)?;
            content.clear();
        }
    }
    Ok(link)
}

fn write_directory(path: &Path, case: &Case) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path)?;
    fs::write(path.join("FORMAT"), format!("annulus store\nversion 1\nid {ID}\n"))?;
    let first = Link { lsn: Lsn(1 + u64::from(case.in_snapshot)), chain: 0 };
    let header = SegmentHeader { id: ID, sequence: 1, first, durable: Lsn::NONE }.encode();
    let mut segment = BufWriter::new(File::create(path.join(name::segment(1)))?);
    segment.write_all(&header)?;
    if case.in_snapshot {
        let mut file = BufWriter::new(File::create(path.join(name::snapshot(ALL, Lsn(1))))?);
        let header = SnapshotHeader { id: ID, lsn: Lsn(1), slots: ALL, unix_ms: 1 };
        file.write_all(&header.encode())?;
        let link = write_changes(&mut file, case)?;
        write_record(&mut file, link, &case.keys.to_le_bytes(), true)?;
        file.flush()?;
    } else {
        write_changes(&mut segment, case)?;
    }
    segment.flush()
}

/// Seconds of processor time that this process has used.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() {
    let path = std::env::temp_dir().join(format!("annulus-recovery-{}", std::process::id()));
    println!("medians of {ROUNDS_COUNT}; rates in changes a second");
    println!("{:<30} {:>10} {:>12} {:>16}", "", "partitions", "rate", "rate per core");
    for case in CASES {
        write_directory(&path, &case).expect("a writable folder for temporary files");
        for partitions in [1, 2] {
            let mut rates: Vec<(f64, f64)> = Vec::new();
            for _ in 0..ROUNDS_COUNT {
                let directory = DataDirectory::open(&path, Missing::Refuse).expect("a store");
                let listing = directory.list().expect("readable");
                let (started, cpu) = (Instant::now(), cpu_seconds());
                let recovered = recovery::load(&directory, &listing, SlotMap::new(partitions));
                let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
                assert_eq!(recovered.expect("not damaged").figures.keys, case.keys);
                rates.push((case.changes as f64 / wall, case.changes as f64 / cpu));
            }
            rates.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (rate, per_core) = rates[ROUNDS_COUNT / 2];
            println!("{:<30} {partitions:>10} {rate:>12.0} {per_core:>16.0}", case.name);
        }
    }
    let _ = fs::remove_dir_all(&path);
}
