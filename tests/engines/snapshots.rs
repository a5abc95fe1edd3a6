//! Snapshots of a store in use: what comes back from them and from the log behind them, when they
//! are made, and which files they make needless.

mod power;

use std::collections::BTreeMap;
use std::fs as std_fs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use annulus::log::writer::Settings;
use annulus::log::{Admission, Log, Lsn, Policy, SEGMENT_BYTES_MIN, Slots, Writer, name};
use annulus::shard::{ShardId, shard};
use annulus::store::access::LockedStore;
use annulus::store::directory::{DataDirectory, Missing};
use annulus::store::recovery::recover;
use annulus::store::saving::{Saved, Saving, Schedule};
use annulus::store::snapshot::{Keeping, keep};
use annulus::store::{Change, Expiry, Partition, PartitionId, SlotMap, Store};
use annulus::{Engine, clock, task, time};

use crate::harness::{Scratch, builder, eventually_here, run_with};

on_every_engine!(
    snapshots_and_the_log_behind_them_give_back_the_content,
    a_save_holds_what_was_there_when_everything_is_emptied_meanwhile,
    a_save_cut_short_leaves_a_draft_and_a_log_that_holds_all,
    old_segments_and_snapshots_go,
    snapshots_of_another_layout_stay_until_all_their_slots_are_saved,
    a_failed_save_leaves_nothing_and_the_next_may_succeed,
    a_store_that_nobody_wrote_to_is_not_saved_again,
    a_save_has_the_log_made_durable_whatever_the_policy,
    saving_keeps_to_its_rate,
    a_save_is_due_when_the_log_has_grown,
    a_save_is_due_when_time_is_up_and_something_was_written,
);

type Content = BTreeMap<(usize, Vec<u8>), (Vec<u8>, Option<u64>)>;

const UNLIMITED: Schedule = Schedule { log_bytes: 0, every: Duration::ZERO, rate_bytes: 0 };

/// A store at work.
struct Running {
    directory: DataDirectory,
    log: Arc<Log>,
    saving: Arc<Saving>,
    store: Store,
}

fn map_of(engine: Engine) -> SlotMap {
    SlotMap::new(if engine == Engine::Threads { 4 } else { 2 })
}

fn directory(scratch: &Scratch) -> DataDirectory {
    DataDirectory::open(&scratch.0, Missing::Create).unwrap()
}

fn run<F: Future>(engine: Engine, future: F) -> F::Output {
    let shards = if engine == Engine::Threads { 1 } else { 2 };
    run_with(builder(engine).shards(shards), future)
}

fn paused<F: Future>(engine: Engine, future: F) -> F::Output {
    run_with(builder(engine).paused_clock(true), future)
}

/// Opens the store, and has its log written and its snapshots made.
async fn open(engine: Engine, map: SlotMap, scratch: &Scratch, schedule: Schedule) -> Running {
    let directory = directory(scratch);
    let recovered = recover(&directory, map).unwrap();
    let last = Lsn(recovered.start.next.lsn.0 - 1);
    let log = Arc::new(Log::new(map.count(), last, Policy::Interval, Duration::from_millis(100)));
    let keeping = Keeping::of(&recovered);
    let lanes = map.partitions().map(|id| {
        let (from, until) = map.slots(id);
        Slots { from, until }
    });
    let settings = Settings { segment_bytes: SEGMENT_BYTES_MIN, lanes: lanes.collect() };
    let writer = Writer::begin(recovered.start, Arc::clone(&log), settings).await.unwrap();
    task::spawn(async move { writer.run().await.unwrap() }).detach();
    install(engine, map, recovered.partitions, &log).await;
    let store = Store::here().unwrap();
    let saving = Arc::new(Saving::new(schedule, None));
    task::spawn(keep(store.clone(), Arc::clone(&saving), keeping)).detach();
    Running { directory, log, saving, store }
}

/// Gives each shard its partition, or all to the calling thread.
async fn install(engine: Engine, map: SlotMap, partitions: Vec<Partition>, log: &Arc<Log>) {
    if engine == Engine::Threads {
        LockedStore::holding(map, partitions, Some(Arc::clone(log))).open().install();
        return;
    }
    for (number, partition) in (0..).zip(partitions) {
        let log = Arc::clone(log);
        let own = move || {
            let id = PartitionId(number);
            Store::owning_partition(map, id, partition, Some(log)).install();
        };
        shard(ShardId(number)).call(own).await.unwrap();
    }
}

impl Running {
    /// Runs `work` on every shard that has partitions, with the store there.
    async fn everywhere<R, Fut>(
        &self,
        work: impl Fn(Store) -> Fut + Clone + Send + 'static,
    ) -> Vec<R>
    where
        R: Send + 'static,
        Fut: Future<Output = R> + 'static,
    {
        let mut works = Vec::new();
        for id in self.store.map().partitions().filter(|id| self.is_home_of(*id)) {
            let work = work.clone();
            let there = move || async move { work(Store::here().unwrap()).await };
            works.push(task::spawn(shard(ShardId(id.0)).submit(there)));
        }
        let mut results = Vec::new();
        for work in works {
            results.push(work.await.unwrap().unwrap());
        }
        results
    }

    /// Whether a thread has partition `id` as its first.
    fn is_home_of(&self, id: PartitionId) -> bool {
        self.store.gate().is_some() || id == PartitionId(0)
    }

    /// Waits until all that was written is in the log; the last record. Every partition is there.
    async fn settle(&self) -> Lsn {
        let line = |id: PartitionId| self.log.draw_line(id.index());
        let last = self.store.map().partitions().map(line).max().unwrap();
        self.log.durable(last).await.unwrap();
        last
    }

    async fn save(&self) -> Saved {
        self.saving.request().finished().await.unwrap()
    }

    /// What is in the store, when nobody changes it.
    async fn content(&self) -> Content {
        let parts = self.everywhere(|store| async move {
            let mut content = Content::new();
            for id in store.map().partitions().filter(|id| store.reaches(*id)) {
                content.extend(store.visit(|home| home.with(id, content_of)).0);
            }
            content
        });
        parts.await.into_iter().flatten().collect()
    }

    /// Sets `count` keys of db 0 to values of `bytes`.
    async fn fill(&self, count: usize, bytes: usize) {
        let fill = move |store: Store| async move {
            for number in 0..count {
                let key = format!("filled-{number}");
                let id = store.map().partition_of(key.as_bytes());
                if store.reaches(id) {
                    set(&store, id, key.as_bytes(), &vec![number as u8; bytes]);
                }
                if number % 64 == 0 {
                    task::yield_now().await;
                }
            }
        };
        self.everywhere(fill).await;
    }

    /// Writes until there are at least so many segments.
    async fn fill_segments(&self, count: usize) {
        while self.directory.list().unwrap().segments.len() < count {
            self.fill(2000, 1000).await;
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the log; everything written is durable.
    async fn close(self) -> DataDirectory {
        self.log.close();
        self.log.ended().await.unwrap();
        self.directory
    }
}

fn set(store: &Store, id: PartitionId, key: &[u8], value: &[u8]) {
    let set = |partition: &mut Partition| {
        partition.database(0).set_string(key, value, Expiry::Never);
    };
    let _ = store.visit(|home| home.with(id, set));
}

/// Everything in a partition, by way of a capture.
fn content_of(partition: &mut Partition) -> Content {
    partition.begin_capture();
    let mut content = Content::new();
    while let Some(done) = partition.walk_capture(1, usize::MAX) {
        let piece = partition.capture().unwrap().take();
        if done && piece.is_empty() {
            break;
        }
        let mut changes = piece.as_slice();
        while let Some(change) = Change::decode(&mut changes).unwrap() {
            let Change::Set { db, key, value, deadline } = change else { panic!("{change:?}") };
            content.insert((db, key.to_vec()), (value.to_vec(), deadline));
        }
    }
    partition.end_capture();
    content
}

/// What comes back from the directory, divided among so many partitions.
fn content_on_disk(directory: &DataDirectory, partitions: usize) -> Content {
    let mut recovered = recover(directory, SlotMap::new(partitions)).unwrap();
    recovered.partitions.iter_mut().flat_map(content_of).collect()
}

/// Less what has expired, which does not come back.
fn alive(content: Content) -> Content {
    let now_ms = clock::unix_millis();
    let is_alive = |deadline: Option<u64>| deadline.is_none_or(|deadline| deadline > now_ms);
    content.into_iter().filter(|(_, (_, deadline))| is_alive(*deadline)).collect()
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Makes one change of any kind to a key of any database.
fn change_something(store: &Store, random: &mut u64) {
    let (db, kind, number) =
        ((next(random) % 3) as usize, next(random) % 1000, next(random) % 2000);
    let key = format!("key-{number}").into_bytes();
    let id = store.map().partition_of(&key);
    if !store.reaches(id) {
        return;
    }
    let value = vec![number as u8; (next(random) % 400) as usize];
    let now_ms = clock::unix_millis();
    let in_an_hour = now_ms + 3_600_000;
    let _ = store.visit(|home| {
        home.with(id, |partition| {
            let found = partition.find(db, &key, now_ms);
            match (kind, found) {
                (0, _) => partition.flush(db),
                (1..20, _) => drop(partition.expire_some(now_ms, 64)),
                (20..100, Some(found)) => drop(partition.database(db).remove(found)),
                (100..200, Some(found)) => {
                    let _length = partition.database(db).append(found, &value);
                }
                (200..300, Some(found)) => {
                    let _length = partition.database(db).write_at(found, 7, &value);
                }
                (300..350, Some(found)) => {
                    partition.database(db).set_deadline(found, Some(in_an_hour));
                }
                (350..400, _) => {
                    partition.database(db).set_string(&key, &value, Expiry::At(now_ms + 5));
                }
                _ => partition.database(db).set_string(&key, &value, Expiry::Never),
            }
        });
    });
}

/// Changes this and that until told to stop.
async fn change_much(store: Store, seed: u64, stop: Arc<annulus::sync::shared::Event>) {
    let mut random = seed;
    while !stop.is_set() {
        for _ in 0..20 {
            change_something(&store, &mut random);
        }
        task::yield_now().await;
        if store.admission() == Admission::Stalled {
            store.log().unwrap().admitted().await.unwrap();
        }
    }
}

fn snapshots_and_the_log_behind_them_give_back_the_content(engine: Engine) {
    let scratch = Scratch::new();
    let map = map_of(engine);
    for round in 1..4u64 {
        let expected = run(engine, async {
            let running = Rc::new(open(engine, map, &scratch, UNLIMITED).await);
            let stop = Arc::new(annulus::sync::shared::Event::new());
            let (changed, stopped) = (Rc::clone(&running), Arc::clone(&stop));
            let changing = task::spawn(async move {
                let seed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                changed.everywhere(move |store| change_much(store, seed, stopped.clone())).await;
            });
            for _ in 0..3 {
                time::sleep(Duration::from_millis(20)).await;
                running.save().await;
            }
            time::sleep(Duration::from_millis(20)).await;
            stop.set();
            changing.await.unwrap();
            let content = running.content().await;
            assert_eq!(running.saving.report().saves, 3);
            let Ok(running) = Rc::try_unwrap(running) else { panic!("nobody else holds it") };
            running.close().await;
            content
        });
        assert!(expected.len() > 500, "there is something to lose");
        let directory = directory(&scratch);
        assert_eq!(directory.list().unwrap().snapshots.len(), map.count());
        let found = alive(content_on_disk(&directory, map.count()));
        assert!(found == alive(expected), "what came back is not what was there");
    }
    let directory = directory(&scratch);
    let same = content_on_disk(&directory, map.count());
    assert!(content_on_disk(&directory, 3) == same, "another layout gives the same content");
}

const SLOW: Schedule = Schedule { rate_bytes: 64 * 1024, ..UNLIMITED };

/// Waits until a save under way has written something, but is not at its end.
async fn until_under_way(running: &Running) {
    let report = || running.saving.report();
    eventually_here("something is written", || report().bytes_so_far > 0).await;
    assert!(running.saving.is_under_way());
}

fn a_save_holds_what_was_there_when_everything_is_emptied_meanwhile(engine: Engine) {
    let scratch = Scratch::new();
    let map = map_of(engine);
    run(engine, async {
        let running = open(engine, map, &scratch, SLOW).await;
        running.fill(4000, 1000).await;
        let requested = running.saving.request();
        until_under_way(&running).await;
        let store = &running.store;
        // Of the partition that is being saved now.
        let _ = store.visit(|home| home.with(PartitionId(0), |partition| partition.flush(0)));
        let key = (0..1000)
            .map(|n| format!("later-{n}"))
            .find(|key| map.partition_of(key.as_bytes()) == PartitionId(0));
        set(store, PartitionId(0), key.unwrap().as_bytes(), b"there");
        let before = running.saving.report().keys_so_far;
        assert_eq!(before, 0, "the partition is not saved yet");
        running.saving.set_schedule(UNLIMITED);
        assert_eq!(requested.finished().await.unwrap().keys, 4000);
        let content = running.content().await;
        let directory = running.close().await;
        assert!(content.len() < 4000);
        assert!(content_on_disk(&directory, map.count()) == content);
    });
}

fn a_save_cut_short_leaves_a_draft_and_a_log_that_holds_all(engine: Engine) {
    let scratch = Scratch::new();
    let map = map_of(engine);
    run(engine, async {
        let running = open(engine, map, &scratch, SLOW).await;
        running.fill(3000, 1000).await;
        let lines = map.partitions().map(|id| running.log.draw_line(id.index()));
        running.log.made_durable(lines.max().unwrap()).await.unwrap();
        let _requested = running.saving.request();
        until_under_way(&running).await;
    });
    let directory = directory(&scratch);
    let listing = directory.list().unwrap();
    assert_eq!(listing.snapshots, []);
    assert!(listing.unfinished.iter().any(|name| name.starts_with("snapshot-")), "{listing:?}");
    assert_eq!(content_on_disk(&directory, map.count()).len(), 3000);
    assert_eq!(directory.list().unwrap().unfinished, [""; 0]);
}

fn old_segments_and_snapshots_go(engine: Engine) {
    let scratch = Scratch::new();
    let map = map_of(engine);
    let segments = |directory: &DataDirectory| directory.list().unwrap().segments;
    run(engine, async {
        let running = open(engine, map, &scratch, UNLIMITED).await;
        running.fill_segments(3).await;
        running.save().await;
        let few = || segments(&running.directory).len() == 1;
        eventually_here("only the segment at hand stays", few).await;
        running.fill_segments(3).await;
        running.close().await;
    });
    // What was kept before a restart goes as well.
    run(engine, async {
        let running = open(engine, map, &scratch, UNLIMITED).await;
        assert!(segments(&running.directory).len() > 3, "a start begins another");
        running.save().await;
        let few = || segments(&running.directory).len() == 1;
        eventually_here("only the segment at hand stays", few).await;
        assert_eq!(running.directory.list().unwrap().snapshots.len(), map.count());
        let directory = running.close().await;
        assert_eq!(content_on_disk(&directory, map.count()).len(), 2000);
    });
}

fn snapshots_of_another_layout_stay_until_all_their_slots_are_saved(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let running = open(engine, map_of(engine), &scratch, UNLIMITED).await;
        running.fill(1000, 10).await;
        running.save().await;
        running.close().await;
    });
    let other = SlotMap::new(3);
    let shards = if engine == Engine::Threads { 1 } else { 3 };
    run_with(builder(engine).shards(shards), async {
        let running = open(engine, other, &scratch, UNLIMITED).await;
        running.fill(1500, 20).await;
        // The last of the new snapshots cannot be written.
        let (from, until) = other.slots(PartitionId(2));
        let in_the_way = scratch.file(&format!("snapshot-{from:05}-{until:05}.tmp"));
        std_fs::create_dir(&in_the_way).unwrap();
        running.saving.request().finished().await.unwrap_err();
        let snapshots = running.directory.list().unwrap().snapshots;
        let (last, _) = *snapshots.last().unwrap();
        assert!(snapshots.len() > 2, "{snapshots:?}");
        assert_ne!(last.from, from, "one of the old ones still holds the last slots");
        assert_eq!(last.until, 16384);
        std_fs::remove_dir(&in_the_way).unwrap();
        running.save().await;
        let snapshots = running.directory.list().unwrap().snapshots;
        let slots: Vec<_> = snapshots.iter().map(|(slots, _)| (slots.from, slots.until)).collect();
        assert_eq!(slots, [(0, 5462), (5462, 10923), (10923, 16384)]);
        let content = running.content().await;
        let directory = running.close().await;
        assert!(content_on_disk(&directory, 2) == content);
    });
}

fn a_failed_save_leaves_nothing_and_the_next_may_succeed(engine: Engine) {
    let scratch = Scratch::new();
    let map = map_of(engine);
    run(engine, async {
        let running = open(engine, map, &scratch, UNLIMITED).await;
        running.fill(1000, 100).await;
        // No snapshot can take its name: a directory has it.
        let lsn = running.settle().await;
        let (from, until) = map.slots(PartitionId(0));
        let in_the_way = scratch.file(&name::snapshot(Slots { from, until }, lsn));
        std_fs::create_dir(&in_the_way).unwrap();
        let failed = running.saving.request().finished().await.unwrap_err();
        assert!(failed.to_string().starts_with("the snapshot cannot be written: /"), "{failed}");
        assert!(failed.to_string().contains("irectory"), "{failed}");
        let report = running.saving.report();
        assert_eq!((report.saves, report.failures, report.failure), (0, 1, Some(failed)));
        let draft = scratch.file(&format!("snapshot-{from:05}-{until:05}.tmp"));
        assert!(!draft.exists(), "nothing is left");
        running.fill(1000, 200).await;
        std_fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(running.save().await.keys, 1000);
        assert_eq!(running.saving.report().failure, None);
        let content = running.content().await;
        let directory = running.close().await;
        assert!(content_on_disk(&directory, map.count()) == content);
    });
}

fn a_store_that_nobody_wrote_to_is_not_saved_again(engine: Engine) {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let map = map_of(engine);
    let inodes = || -> Vec<u64> {
        let snapshots = directory_entries(&scratch).into_iter();
        let snapshots = snapshots.filter(|name| name.starts_with("snapshot-"));
        snapshots.map(|name| std_fs::metadata(scratch.file(&name)).unwrap().ino()).collect()
    };
    run(engine, async {
        let running = open(engine, map, &scratch, UNLIMITED).await;
        running.fill(100, 10).await;
        running.settle().await;
        let first = running.save().await;
        let files = inodes();
        assert_eq!((first.keys, files.len()), (100, map.count()));
        let again = running.save().await;
        assert_eq!((again.keys, again.bytes), (first.keys, first.bytes));
        assert_eq!(inodes(), files);
        running.fill(100, 20).await;
        running.save().await;
        assert_ne!(inodes(), files);
        running.close().await;
    });
}

fn directory_entries(scratch: &Scratch) -> Vec<String> {
    let entries = std_fs::read_dir(&scratch.0).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn a_save_has_the_log_made_durable_whatever_the_policy(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let running = open(engine, map_of(engine), &scratch, UNLIMITED).await;
        running.log.set_policy(Policy::Never);
        running.fill(100, 10).await;
        running.save().await;
        let snapshots = running.directory.list().unwrap().snapshots;
        let newest = snapshots.iter().map(|(_, lsn)| *lsn).max().unwrap();
        assert!(newest > Lsn::NONE);
        assert!(running.log.durable_lsn() >= newest);
        running.close().await;
    });
}

fn saving_keeps_to_its_rate(engine: Engine) {
    let scratch = Scratch::new();
    paused(engine, async {
        let schedule = Schedule { rate_bytes: 256 * 1024, ..UNLIMITED };
        let running = open(engine, SlotMap::new(1), &scratch, schedule).await;
        running.fill(1000, 1000).await;
        let saved = running.save().await;
        assert!(saved.bytes > 1_000_000, "{saved:?}");
        // But for the first and the last block, which are not counted.
        let seconds = saved.duration.as_secs_f64() * schedule.rate_bytes as f64;
        assert!((seconds - saved.bytes as f64).abs() < 3.0 * 8192.0, "{saved:?}");
        running.saving.set_schedule(UNLIMITED);
        running.fill(1000, 1000).await;
        let saved = running.save().await;
        assert!(saved.duration < Duration::from_secs(1), "{saved:?}");
        running.close().await;
    });
}

fn a_save_is_due_when_the_log_has_grown(engine: Engine) {
    let scratch = Scratch::new();
    paused(engine, async {
        let schedule = Schedule { log_bytes: 200 * 1024, ..UNLIMITED };
        let running = open(engine, SlotMap::new(1), &scratch, schedule).await;
        let saves = || running.saving.report().saves;
        running.fill(100, 1000).await;
        time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(saves(), 0, "it is half of it");
        running.fill(100, 1100).await;
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(saves(), 1);
        time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(saves(), 1, "nothing was written");
        running.fill(1000, 1000).await;
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(saves(), 2);
        running.fill(500, 1000).await;
        time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(saves(), 2, "the log is half as long as the snapshot");
        running.close().await;
    });
}

fn a_save_is_due_when_time_is_up_and_something_was_written(engine: Engine) {
    let scratch = Scratch::new();
    paused(engine, async {
        let schedule = Schedule { every: Duration::from_secs(60), ..UNLIMITED };
        let running = open(engine, SlotMap::new(1), &scratch, schedule).await;
        let saves = || running.saving.report().saves;
        time::sleep(Duration::from_secs(100)).await;
        assert_eq!(saves(), 0, "nothing was written");
        running.fill(1, 10).await;
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(saves(), 1);
        running.fill(1, 10).await;
        time::sleep(Duration::from_secs(50)).await;
        assert_eq!(saves(), 1);
        time::sleep(Duration::from_secs(12)).await;
        assert_eq!(saves(), 2);
        running.close().await;
    });
}
