//! Stores on a disk that keeps nothing but what was synced: made, written to, saved, trimmed,
//! recovered and repaired, with the power cut at many moments. See [`crate::power_cuts`].

use std::os::unix::fs::FileExt;
use std::path::Path;

use annulus::log::reader::{FolderFiles, Place, Reader, Step};
use annulus::store::recovery::{RecoveryError, load};
use annulus::store::repair;

use super::*;
use crate::faults::FailingDisk;
use crate::power_cuts::cut_power;

on_every_engine!(a_store_keeps_what_is_durable_through_snapshots_and_trimming);

const KEYS: u64 = 3;

fn key(number: u64) -> Vec<u8> {
    format!("key-{}", number % KEYS).into_bytes()
}

/// What the write of this number sets its key to.
fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(8_000)
}

/// How many writes a store holds; it holds nothing that is not one of them in its place.
fn writes(content: &Content, what: &str) -> u64 {
    let number_of = |value: &[u8]| u64::from_le_bytes(value[..8].try_into().unwrap());
    let last = content.values().map(|(value, _)| number_of(value)).max().unwrap_or(0);
    let expected = (last.saturating_sub(KEYS - 1).max(1)..=last)
        .map(|number| ((0, key(number)), (value(number), None)))
        .collect();
    assert!(*content == expected, "{what}: not the state after {last} writes");
    last
}

/// Opens what a power cut has left; nothing if it was no store yet.
fn opened(left: &Path) -> Option<DataDirectory> {
    DataDirectory::open(left, Missing::Refuse).ok()
}

fn a_store_keeps_what_is_durable_through_snapshots_and_trimming(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    let diary = disk.keep_diary();
    let map = SlotMap::new(1);
    let scratch = Scratch(disk.path().join("a/new/store"));
    run_with(builder(engine), async {
        // A save takes as long as some writes do.
        let schedule = Schedule { rate_bytes: 2 * 1024 * 1024, ..UNLIMITED };
        let running = open(engine, map, &scratch, schedule).await;
        let first = || running.directory.list().unwrap().segments[0];
        let mut saving = None;
        for number in 1..=120 {
            let is_strict = number / 30 % 2 == 0;
            running.log.set_policy(if is_strict { Policy::Always } else { Policy::Never });
            set(&running.store, PartitionId(0), &key(number), &value(number));
            let last = running.log.draw_line(0);
            assert_eq!(last, Lsn(number), "one record each");
            if is_strict {
                running.log.durable(last).await.unwrap();
            } else {
                eventually_here("it is written", || running.log.written_lsn() >= last).await;
            }
            diary.say(running.log.durable_lsn().0);
            // The next segment is prepared meanwhile.
            time::sleep(Duration::from_millis(2)).await;
            if number > 100 {
                // Of what is not durable yet.
                running.saving.set_schedule(UNLIMITED);
                running.save().await;
            } else if number % 20 == 0 {
                saving = Some((running.saving.request(), first()));
            }
            if number % 20 == 15
                && let Some((requested, before)) = saving.take()
            {
                requested.finished().await.unwrap();
                eventually_here("old segments go", || first() > before).await;
            }
        }
        running.close().await;
    });
    cut_power(&diary.take(), 60, |left, said, what| {
        let store = left.join("a/new/store");
        let found = opened(&store).map_or(0, |directory| {
            let recovered = recover(&directory, map);
            let mut recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
            writes(&recovered.partitions.iter_mut().flat_map(content_of).collect(), what)
        });
        assert!(found >= said, "{what}: {found} writes, {said} were durable");
    });
}

/// Writes so many, of which nothing is durable but what changes of segments have made so.
async fn write_loosely(engine: Engine, scratch: &Scratch, count: u64) {
    let running = open(engine, SlotMap::new(1), scratch, UNLIMITED).await;
    running.log.set_policy(Policy::Never);
    for number in 1..=count {
        set(&running.store, PartitionId(0), &key(number), &value(number));
        let last = running.log.draw_line(0);
        eventually_here("it is written", || running.log.written_lsn() >= last).await;
    }
}

/// Writes over a place in a file, and has that synced or not.
fn damage(path: &Path, offset: u64, sync: bool) {
    let file = std_fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[7; 4096], offset).unwrap();
    if sync {
        file.sync_all().unwrap();
    }
}

/// Where the last record of a store's log lies.
fn last_record(directory: &DataDirectory) -> Place {
    let files = FolderFiles(directory.path().to_owned());
    let segments = directory.list().unwrap().segments;
    let mut reader = Reader::new(files, segments, directory.id(), Lsn(1)).unwrap();
    while let Step::Record(_) = reader.next().unwrap() {}
    reader.place()
}

/// A process that ends leaves in the cache what it wrote, and the next one builds on that.
#[test]
fn what_a_recovery_has_found_is_durable() {
    let Some(disk) = FailingDisk::new() else { return };
    let diary = disk.keep_diary();
    let scratch = Scratch(disk.path().join("store"));
    // So many end in the middle of a segment.
    run_with(builder(Engine::Epoll), write_loosely(Engine::Epoll, &scratch, 25));
    let directory = directory(&scratch);
    let Place { sequence, offset } = last_record(&directory);
    damage(&scratch.file(&name::segment(sequence)), offset + 4096, false);
    let recovered = recover(&directory, SlotMap::new(1)).unwrap();
    assert!(recovered.torn.is_some());
    assert_eq!(recovered.start.next.lsn, Lsn(25));
    diary.say(1);
    drop(directory);
    run_with(builder(Engine::Epoll), write_loosely(Engine::Epoll, &scratch, 0));
    let mut checked = 0;
    cut_power(&diary.take(), 40, |left, said, what| {
        let Some(directory) = opened(&left.join("store")) else { return };
        let recovered = recover(&directory, SlotMap::new(1));
        let mut recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
        let content = recovered.partitions.iter_mut().flat_map(content_of).collect();
        let found = writes(&content, what);
        if said == 1 {
            assert_eq!(found, 24, "{what}");
            checked += 1;
        }
    });
    assert!(checked > 4, "{checked} moments");
}

/// Repairs until nothing is damaged; how often that was necessary, and what is there then.
fn repaired(directory: &DataDirectory, what: &str) -> (u64, Content) {
    for count in 0..5 {
        let listing = directory.list().unwrap();
        let damage = match load(directory, &listing, SlotMap::new(1)) {
            Ok(mut loaded) => {
                return (count, loaded.partitions.iter_mut().flat_map(content_of).collect());
            }
            Err(RecoveryError::Damaged { damage, .. }) => damage,
            Err(error) => panic!("{what}: {error}"),
        };
        let plan = repair::plan(directory, &listing, &damage);
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
        plan.carry_out(directory).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    panic!("{what}: there is no end of repairs");
}

/// Whenever the power goes during a repair, another one comes to the same end, and what it has cut
/// off is there.
#[test]
fn a_repair_goes_on_after_a_power_cut() {
    for (segment, place) in [(1, 4096), (2, 0)] {
        let Some(disk) = FailingDisk::new() else { return };
        let diary = disk.keep_diary();
        let scratch = Scratch(disk.path().join("store"));
        run_with(builder(Engine::Epoll), async {
            let running = open(Engine::Epoll, SlotMap::new(1), &scratch, UNLIMITED).await;
            for number in 1.. {
                set(&running.store, PartitionId(0), &key(number), &value(number));
                running.settle().await;
                if running.directory.list().unwrap().segments.len() > 3 {
                    break;
                }
            }
            running.close().await;
        });
        let directory = directory(&scratch);
        let segments = directory.list().unwrap().segments;
        damage(&scratch.file(&name::segment(segments[segment])), place, true);
        let damaged: Vec<Vec<u8>> = (segments[segment..].iter())
            .map(|sequence| std_fs::read(scratch.file(&name::segment(*sequence))).unwrap())
            .collect();
        diary.say(1);
        let (_, expected) = repaired(&directory, "the first repair");
        assert!(writes(&expected, "the first repair") > 3);
        diary.say(2);
        cut_power(&diary.take(), 40, |left, said, what| {
            if said == 0 {
                return;
            }
            let directory = opened(&left.join("store")).unwrap_or_else(|| panic!("{what}"));
            let (count, content) = repaired(&directory, what);
            assert!(content == expected, "{what}");
            assert!(said == 1 || count == 0, "{what}: the repair is undone");
            for (index, bytes) in damaged.iter().enumerate() {
                let from = if index == 0 { place } else { 0 };
                let cut = name::cut(&name::segment(segments[segment + index]), from);
                let kept = std_fs::read(directory.path().join(&cut)).unwrap();
                // How much room was prepared need not last.
                let (whole, _) = bytes[from as usize..].split_at(kept.len());
                assert!(kept == whole, "{what}: {cut}");
                assert!(kept.len() > 300_000, "{what}: {cut}");
            }
        });
    }
}
