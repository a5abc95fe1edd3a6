//! What is durable stays, whenever the power goes: a disk that keeps nothing but what was synced.
//!
//! Work is done on a FUSE file system that keeps a diary; afterwards what a power cut would have
//! left is laid out for many moments, and must hold all that was said to be durable by then.
//! Without `/dev/fuse` the tests are skipped with a word.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annulus::fs::{DirectFile, DirectWriter, OpenOptions, TemporaryFile, Window, write_durably};
use annulus::log::reader::{FolderFiles, Reader, Step};
use annulus::log::writer::{Settings, Writer};
use annulus::log::{Link, Log, Lsn, Policy, SEGMENT_BYTES_MIN, Slots, Start, StoreId, name};
use annulus::{Engine, buffer::PooledBuffer, task, time};

use crate::faults::FailingDisk;
use crate::faults::diary::Deed;
use crate::faults::remains::Remains;
use crate::harness::{Scratch, pattern, run, turns_until};

on_every_engine!(
    a_log_keeps_what_it_called_durable_whatever_the_policy,
    a_file_replaced_durably_is_the_old_one_or_the_new_one,
    what_a_direct_file_calls_durable_stays,
);

/// The numbers of Marsaglia's xorshift, for luck.
fn luck(seed: usize) -> impl FnMut(usize) -> usize {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    }
}

/// At every moment: all is lost that was not synced, or some of it.
const FORTUNES: usize = 4;

/// A folder where syncs cost nothing, since nothing is to outlast it.
fn in_memory() -> Scratch {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Scratch(root.join(format!("annulus-left-{}-{number}", std::process::id())))
}

/// Cuts the power at about `count` moments of a diary, some times each. Hands `check` what is left,
/// the last word said before, and the moment.
pub(crate) fn cut_power(deeds: &[Deed], count: usize, mut check: impl FnMut(&Path, u64, &str)) {
    // A write that is not durable changes nothing that the next sync does not show.
    let is_moment = |deed: &Deed| !matches!(deed, Deed::Wrote { durable: false, .. });
    let moments = deeds.iter().filter(|deed| is_moment(deed)).count();
    let step = (moments / count).max(1);
    let (mut remains, mut said, mut moment) = (Remains::default(), 0, 0);
    for (index, deed) in deeds.iter().enumerate() {
        remains.go_on(deed);
        if let Deed::Said(word) = deed {
            said = *word;
        }
        moment += usize::from(is_moment(deed));
        let is_last = index + 1 == deeds.len();
        if !is_last && (!is_moment(deed) || !moment.is_multiple_of(step)) {
            continue;
        }
        for fortune in 0..FORTUNES {
            let scratch = in_memory();
            let what = format!("after deed {index}, with luck of kind {fortune}");
            remains.lay_out(&scratch.0, &mut (fortune > 0).then(|| luck(index + fortune)));
            check(&scratch.0, said, &what);
        }
    }
}

const ID: StoreId = StoreId(*b"a log that lasts");

fn segments(folder: &Path) -> Vec<u64> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|file| name::parse_segment(file.to_str().unwrap())).collect()
}

/// How many records are in the log; each holds what it should.
fn records(folder: &Path, what: &str) -> u64 {
    let reader = Reader::new(FolderFiles(folder.to_owned()), segments(folder), ID, Lsn(1));
    let mut reader = reader.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut count = 0;
    loop {
        match reader.next().unwrap_or_else(|error| panic!("{what}: {error:?}")) {
            Step::Record(record) => {
                count += 1;
                let number = record.head.link.lsn.0;
                assert!(record.payload[8..] == content(number), "{what}: record {number}");
            }
            Step::End(_) => return count,
        }
    }
}

/// What is appended for a record.
fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(5_000 + number as usize % 7 * 700)
}

fn a_log_keeps_what_it_called_durable_whatever_the_policy(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    let diary = disk.keep_diary();
    run(engine, async {
        let lanes = vec![Slots { from: 0, until: 16384 }];
        let log = Log::new(1, Lsn::NONE, Policy::Always, Duration::from_secs(1));
        let (log, path, kept) = (Arc::new(log), disk.path(), Vec::new());
        let start = Start { path, id: ID, next: Link::FIRST, sequence: 1, kept };
        let settings = Settings { segment_bytes: SEGMENT_BYTES_MIN, lanes };
        let writer = Writer::begin(start, Arc::clone(&log), settings).await.unwrap();
        let writing = task::spawn(writer.run());
        let mut number = 0;
        for (policy, count) in [
            (Policy::Always, 30),
            (Policy::Never, 40),
            (Policy::Always, 5),
            (Policy::Interval, 40),
            (Policy::Never, 5),
            (Policy::Always, 5),
        ] {
            log.set_policy(policy);
            for _ in 0..count {
                number += 1;
                let lsn = log.append(0, &content(number));
                assert_eq!(lsn, Lsn(number), "one record each");
                match policy {
                    Policy::Always => log.durable(lsn).await.unwrap(),
                    _ => turns_until(|| log.written_lsn() >= lsn).await,
                }
                diary.say(log.durable_lsn().0);
                // The next segment is prepared meanwhile.
                time::sleep(Duration::from_millis(2)).await;
            }
        }
        log.set_policy(Policy::Never);
        let last = log.append(0, &content(number + 1));
        turns_until(|| log.written_lsn() >= last).await;
        log.close();
        log.ended().await.unwrap();
        diary.say(last.0);
        writing.await.unwrap().unwrap();
        assert!(segments(&disk.path()).len() > 3, "segments have changed");
    });
    let deeds = diary.take();
    cut_power(&deeds, 40, |left, said, what| {
        let found = if segments(left).is_empty() { 0 } else { records(left, what) };
        assert!(found >= said, "{what}: {found} records, {said} were durable");
    });
}

fn a_file_replaced_durably_is_the_old_one_or_the_new_one(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    let diary = disk.keep_diary();
    let text = |round: u64| format!("{round} ").repeat(3000);
    run(engine, async {
        let path = disk.path().join("file");
        for round in 1..=6 {
            if round % 2 == 0 {
                let file = TemporaryFile::create_in(disk.path()).await.unwrap();
                file.write_at(text(round).into_bytes(), 0).await.unwrap();
                file.persist_durably(&path).await.unwrap();
            } else {
                write_durably(&path, text(round).into_bytes()).await.unwrap();
            }
            diary.say(round);
        }
    });
    let deeds = diary.take();
    cut_power(&deeds, 40, |left, said, what| {
        let found = fs::read_to_string(left.join("file")).unwrap_or_default();
        let is_whole = (said.max(1)..=said + 1).any(|round| found == text(round));
        assert!(is_whole || said == 0 && found.is_empty(), "{what}: not all of {said}");
    });
}

fn what_a_direct_file_calls_durable_stays(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    let diary = disk.keep_diary();
    let writable = || OpenOptions::new().read(true).write(true).create(true);
    run(engine, async {
        let path = |name: &str| -> PathBuf { disk.path().join(name) };
        let file = writable().open_direct(path("blocks")).await.unwrap();
        // The names first, so that it is about the content alone.
        fs::File::create(path("stream")).unwrap();
        fs::File::open(disk.path()).unwrap().sync_all().unwrap();
        let mut block = PooledBuffer::new(4096);
        block.extend_from_slice(&pattern(1, 4096));
        file.write_durable_at(block, 0).await.unwrap();
        diary.say(1);
        file.write_durable_at(pattern(2, 5000), 4000).await.unwrap();
        diary.say(2);
        let stream = DirectFile::through_cache(writable().open(path("stream")).await.unwrap());
        let window = Window::new(8192, 2).unwrap();
        let mut writer = DirectWriter::new(stream, 0, window).unwrap();
        for round in 3..6 {
            writer.write(&pattern(round, 20_001)).await.unwrap();
            writer.sync().await.unwrap();
            diary.say(round as u64);
        }
    });
    let deeds = diary.take();
    cut_power(&deeds, 1000, |left, said, what| {
        let blocks = fs::read(left.join("blocks")).unwrap_or_default();
        let stream = fs::read(left.join("stream")).unwrap_or_default();
        if said == 1 {
            assert!(blocks.starts_with(&pattern(1, 4096)[..4000]), "{what}");
        }
        if said >= 2 {
            let both = [&pattern(1, 4096)[..4000], &pattern(2, 5000)].concat();
            assert!(blocks == both, "{what}: {} bytes", blocks.len());
        }
        let written: Vec<u8> = (3..=said as usize).flat_map(|it| pattern(it, 20_001)).collect();
        assert!(stream.starts_with(&written), "{what}: {} bytes of {said}", stream.len());
    });
}
