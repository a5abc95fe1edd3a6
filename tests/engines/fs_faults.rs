//! Files on a disk that fails: short transfers, interruptions, and errors that must come through.
//!
//! Runs on a FUSE file system of its own; without `/dev/fuse` the tests are skipped with a word.

use annulus::fs::{File, OpenOptions};
use annulus::{Engine, Errno};

use crate::faults::{Call, Effect, FailingDisk, Rule};
use crate::harness::{pattern, run};

on_every_engine!(
    short_writes_are_continued_until_everything_is_written,
);

fn short_writes_are_continued_until_everything_is_written(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let path = disk.path().join("data");
        let options = OpenOptions::new().read(true).write(true).create_new(true);
        let file = options.open(&path).await.unwrap();
        disk.add(Rule::new(Call::Write, Effect::Shorten).times(5));
        file.write_at(pattern(0, 100_000), 7).await.unwrap();
        assert_eq!(disk.hits(), 5);
        assert!(std::fs::read(disk.healthy().join("data")).unwrap()[7..] == pattern(0, 100_000));
        let _ = (File::open(&path).await, Errno(libc::EIO));
    });
}
