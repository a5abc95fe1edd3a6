//! The log's writer: what it calls durable is in the files, in order, through rotations, policies
//! and its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annulus::log::reader::{FolderFiles, Reader, Step};
use annulus::log::writer::{Settings, Writer};
use annulus::log::{Admission, Head, Link, Log, Lsn, Policy, Slots, Start, StoreId, name, record};
use annulus::{Engine, task, time};

use crate::faults::{Call, Effect, FailingDisk, Rule};
use crate::harness::{Scratch, run, turns_until};

on_every_engine!(
    what_is_durable_is_in_the_files,
    a_log_goes_on_in_the_next_segment,
    commits_of_many_tasks_share_records,
    changes_of_several_partitions_are_in_one_record,
    an_interval_makes_durable_what_nobody_waits_for,
    without_a_policy_the_end_makes_durable,
    a_policy_changes_while_the_log_is_written,
    old_segments_go_when_they_are_needed_no_more,
    a_segment_stays_for_its_last_record,
    a_record_says_whether_it_seals_and_what_was_durable_before_it,
    a_segment_that_is_gone_already_keeps_no_other,
    a_folder_that_goes_away_ends_the_acknowledgements,
    room_that_earlier_records_lacked_ends_the_acknowledgements,
);

const ID: StoreId = StoreId(*b"writer's own log");
const SEGMENT_BYTES: u64 = 1024 * 1024;

type Writing = task::JoinHandle<Result<(), annulus::log::LogFailed>>;

/// Begins a log in a folder, and a task that writes it.
async fn begin(folder: &Path, policy: Policy, interval: Duration) -> (Arc<Log>, Writing) {
    let lanes = vec![Slots { from: 0, until: 8192 }, Slots { from: 8192, until: 16384 }];
    let log = Arc::new(Log::new(lanes.len(), Lsn::NONE, policy, interval));
    let (path, kept) = (PathBuf::from(folder), Vec::new());
    let start = Start { path, id: ID, next: Link::FIRST, sequence: 1, kept };
    let settings = Settings { segment_bytes: SEGMENT_BYTES, lanes };
    let writer = Writer::begin(start, Arc::clone(&log), settings).await.unwrap();
    (log, task::spawn(writer.run()))
}

/// A log that is being written in a folder of its own.
struct Fixture {
    log: Arc<Log>,
    folder: Scratch,
    writing: Writing,
}

impl Fixture {
    async fn begin(policy: Policy, interval: Duration) -> Self {
        let folder = Scratch::new();
        let (log, writing) = begin(&folder.0, policy, interval).await;
        Self { log, folder, writing }
    }

    async fn always() -> Self {
        Self::begin(Policy::Always, Duration::from_secs(1)).await
    }

    /// Ends the log; answers what its files hold.
    async fn end(self) -> Vec<Vec<(u16, Vec<u8>)>> {
        self.log.close();
        self.log.ended().await.unwrap();
        self.writing.await.unwrap().unwrap();
        records(&self.folder.0)
    }
}

fn segments(folder: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<u64> =
        names.filter_map(|file| name::parse_segment(file.to_str().unwrap())).collect();
    found.sort_unstable();
    found
}

/// The sections of every record in the folder: first slot and content.
fn records(folder: &Path) -> Vec<Vec<(u16, Vec<u8>)>> {
    let files = FolderFiles(PathBuf::from(folder));
    let mut reader = Reader::new(files, segments(folder), ID, Lsn(1)).unwrap();
    let mut all = Vec::new();
    loop {
        match reader.next().unwrap() {
            Step::Record(record) => {
                let sections = record::sections(record.payload).map(|section| {
                    let (slots, content) = section.unwrap();
                    (slots.from, content.to_vec())
                });
                all.push(sections.collect());
            }
            Step::End(end) => {
                assert_eq!(end.torn, None);
                return all;
            }
        }
    }
}

fn what_is_durable_is_in_the_files(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let first = fixture.log.append(0, b"first");
        assert_eq!(first, Lsn(1));
        assert!(fixture.log.durable_lsn() < first);
        fixture.log.durable(first).await.unwrap();
        assert_eq!(records(&fixture.folder.0), [[(0, b"first".to_vec())]]);

        let second = fixture.log.append(1, b"second");
        assert_eq!(second, Lsn(2));
        fixture.log.durable(second).await.unwrap();
        let expected = [[(0, b"first".to_vec())], [(8192, b"second".to_vec())]];
        assert_eq!(records(&fixture.folder.0), expected);
        assert_eq!(fixture.end().await, expected);
    });
}

fn a_log_goes_on_in_the_next_segment(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let mut expected = Vec::new();
        // As many as it takes: a segment grows when the next is not ready.
        while segments(&fixture.folder.0).len() < 4 {
            let content = vec![expected.len() as u8; 60_000];
            let lsn = fixture.log.append(0, &content);
            fixture.log.durable(lsn).await.unwrap();
            expected.push(vec![(0, content)]);
        }
        assert_eq!(fixture.end().await, expected);
    });
}

fn commits_of_many_tasks_share_records(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let mut commits = Vec::new();
        for number in 0..200u32 {
            let log = Arc::clone(&fixture.log);
            commits.push(task::spawn(async move {
                for round in 0..5u32 {
                    let lsn = log.append(0, &(number * 5 + round).to_le_bytes());
                    log.durable(lsn).await.unwrap();
                    assert!(log.durable_lsn() >= lsn);
                }
            }));
        }
        for commit in commits {
            commit.await.unwrap();
        }
        let records = fixture.end().await;
        assert!(records.len() < 500, "{} records for 1000 commits", records.len());
        let content: Vec<u8> = records.into_iter().flatten().flat_map(|(_, bytes)| bytes).collect();
        let mut numbers: Vec<u32> =
            content.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1000));
    });
}

fn changes_of_several_partitions_are_in_one_record(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let one = fixture.log.append(1, b"before ");
        let line = fixture.log.draw_line(1);
        assert_eq!(line, one);
        let both = fixture.log.append_all(&[(0, b"left"), (1, b"right")]);
        assert!(both > one);
        fixture.log.durable(both).await.unwrap();
        let records = fixture.end().await;
        let together = vec![(0, b"left".to_vec()), (8192, b"right".to_vec())];
        assert_eq!(records, [vec![(8192, b"before ".to_vec())], together]);
    });
}

fn an_interval_makes_durable_what_nobody_waits_for(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::begin(Policy::Interval, Duration::from_millis(40)).await;
        let lsn = fixture.log.append(0, b"soon");
        assert_eq!(fixture.log.admission(), Admission::Open);
        turns_until(|| fixture.log.durable_lsn() >= lsn).await;
        // Under load something always waits for the next record, and is no reason to sync late.
        let busy = Arc::clone(&fixture.log);
        let busy = task::spawn(async move {
            loop {
                busy.append(1, b"x");
                task::yield_now().await;
            }
        });
        let lsn = fixture.log.append(0, b"later");
        turns_until(|| fixture.log.durable_lsn() >= lsn).await;
        busy.abort();
        assert!(busy.await.is_err());
        fixture.end().await;
    });
}

fn without_a_policy_the_end_makes_durable(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::begin(Policy::Never, Duration::from_millis(10)).await;
        let lsn = fixture.log.append(0, b"some time");
        turns_until(|| fixture.log.written_lsn() >= lsn).await;
        time::sleep(Duration::from_millis(30)).await;
        assert_eq!(fixture.log.durable_lsn(), Lsn::NONE);
        let log = Arc::clone(&fixture.log);
        assert_eq!(fixture.end().await, [[(0, b"some time".to_vec())]]);
        assert_eq!(log.durable_lsn(), lsn);
    });
}

fn a_policy_changes_while_the_log_is_written(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::begin(Policy::Never, Duration::from_secs(1)).await;
        let first = fixture.log.append(0, b"a");
        turns_until(|| fixture.log.written_lsn() >= first).await;
        fixture.log.set_policy(Policy::Always);
        fixture.log.durable(first).await.unwrap();
        let second = fixture.log.append(0, b"b");
        fixture.log.durable(second).await.unwrap();
        assert_eq!(fixture.end().await.len(), 2);
    });
}

fn old_segments_go_when_they_are_needed_no_more(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let mut last = Lsn::NONE;
        while segments(&fixture.folder.0).len() < 4 {
            last = fixture.log.append(0, &vec![7; 100_000]);
            fixture.log.durable(last).await.unwrap();
        }
        fixture.log.trim(last);
        turns_until(|| segments(&fixture.folder.0).len() == 1).await;
        // It goes on behind them, in a file that had been theirs.
        for _ in 0..30 {
            last = fixture.log.append(0, &vec![8; 100_000]);
            fixture.log.durable(last).await.unwrap();
        }
        let left = segments(&fixture.folder.0);
        let files = FolderFiles(fixture.folder.0.clone());
        let mut reader = Reader::new(files, left, ID, last).unwrap();
        let mut newest = Lsn::NONE;
        while let Step::Record(record) = reader.next().unwrap() {
            newest = record.head.link.lsn;
        }
        assert_eq!(newest, last);
        fixture.log.close();
        fixture.log.ended().await.unwrap();
    });
}

fn a_segment_stays_for_its_last_record(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        while segments(&fixture.folder.0).len() < 4 {
            let lsn = fixture.log.append(0, &vec![7; 100_000]);
            fixture.log.durable(lsn).await.unwrap();
        }
        let heads = heads(&fixture.folder.0);
        let first = segments(&fixture.folder.0)[0];
        let last = heads.iter().find(|head| head.sealed).unwrap().link.lsn;
        // What is needless is looked after with every record.
        let trim_and_write = async |needless| {
            fixture.log.trim(needless);
            for _ in 0..3 {
                let lsn = fixture.log.append(0, b"more");
                fixture.log.durable(lsn).await.unwrap();
            }
            segments(&fixture.folder.0)[0]
        };
        assert_eq!(trim_and_write(Lsn(last.0 - 1)).await, first);
        assert_eq!(trim_and_write(last).await, first + 1);
        fixture.log.close();
        fixture.log.ended().await.unwrap();
    });
}

/// What the records in the folder say.
fn heads(folder: &Path) -> Vec<Head> {
    let files = FolderFiles(PathBuf::from(folder));
    let mut reader = Reader::new(files, segments(folder), ID, Lsn(1)).unwrap();
    let mut heads = Vec::new();
    while let Step::Record(record) = reader.next().unwrap() {
        heads.push(record.head);
    }
    heads
}

/// Without the first a missing segment would not be missed; the second tells damage from a tail
/// that nobody was told is durable.
fn a_record_says_whether_it_seals_and_what_was_durable_before_it(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        for _ in 0..5 {
            let lsn = fixture.log.append(0, b"durable");
            fixture.log.durable(lsn).await.unwrap();
        }
        fixture.log.set_policy(Policy::Never);
        for _ in 0..5 {
            let lsn = fixture.log.append(0, b"not durable");
            turns_until(|| fixture.log.written_lsn() >= lsn).await;
        }
        let durable: Vec<u64> =
            heads(&fixture.folder.0).iter().map(|head| head.durable.0).collect();
        assert_eq!(durable, [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]);
        while segments(&fixture.folder.0).len() < 3 {
            let lsn = fixture.log.append(0, &vec![7; 100_000]);
            turns_until(|| fixture.log.written_lsn() >= lsn).await;
        }
        let sealed = heads(&fixture.folder.0).iter().filter(|head| head.sealed).count();
        assert_eq!(sealed, 2);
        fixture.log.close();
        fixture.log.ended().await.unwrap();
    });
}

fn a_segment_that_is_gone_already_keeps_no_other(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        let mut last = Lsn::NONE;
        while segments(&fixture.folder.0).len() < 4 {
            last = fixture.log.append(0, &vec![7; 100_000]);
            fixture.log.durable(last).await.unwrap();
        }
        std::fs::remove_file(fixture.folder.0.join(name::segment(1))).unwrap();
        fixture.log.trim(last);
        turns_until(|| segments(&fixture.folder.0) == [4]).await;
        fixture.log.close();
        fixture.log.ended().await.unwrap();
    });
}

fn a_folder_that_goes_away_ends_the_acknowledgements(engine: Engine) {
    run(engine, async {
        let fixture = Fixture::always().await;
        std::fs::remove_dir_all(&fixture.folder.0).unwrap();
        // The file at hand still takes records; the next one cannot be made.
        let failed = loop {
            let lsn = fixture.log.append(0, &vec![7; 100_000]);
            match fixture.log.durable(lsn).await {
                Ok(()) => {}
                Err(failed) => break failed,
            }
        };
        assert!(failed.to_string().contains("cannot be made durable"), "{failed}");
        // Nothing is wrong with the segment at hand.
        let told = format!("{}: opening", fixture.folder.0.display());
        assert!(failed.to_string().contains(&told), "{failed}");
        assert_eq!(fixture.log.failure(), Some(failed.clone()));
        assert!(matches!(fixture.log.admission(), Admission::Refused(_)));
        assert_eq!(fixture.log.admitted().await, Ok(()), "refused is not stalled");
        assert_eq!(fixture.writing.await.unwrap(), Err(failed));
    });
}

/// As it is where the records went to a cache: the next sync would succeed.
fn room_that_earlier_records_lacked_ends_the_acknowledgements(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let (log, writing) = begin(&disk.path(), Policy::Never, Duration::from_secs(1)).await;
        disk.add(Rule::new(Call::Sync, Effect::Fail(libc::ENOSPC)).named("log-").times(1));
        // The change of segments is what syncs.
        while log.failure().is_none() {
            assert_eq!(segments(&disk.healthy()), [1], "it was believed");
            let lsn = log.append(0, &vec![7; 60_000]);
            turns_until(|| log.written_lsn() >= lsn || log.failure().is_some()).await;
        }
        assert_eq!(log.durable_lsn(), Lsn::NONE);
        let failed = writing.await.unwrap().unwrap_err().to_string();
        assert!(failed.contains("log-000000000001.seg: "), "{failed}");
    });
}
