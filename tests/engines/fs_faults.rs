//! Files on a disk that fails: short transfers, interruptions, and errors that must come through.
//!
//! Runs on a FUSE file system of its own; without `/dev/fuse` the tests are skipped with a word.

use std::fs;
use std::os::fd::AsRawFd;

use annulus::fs::{DirectFile, DirectReader, File, OpenOptions, Window};
use annulus::{Engine, Errno};

use crate::faults::{Call, Effect, FailingDisk, Rule};
use crate::harness::{pattern, run};

on_every_engine!(
    short_writes_are_continued_until_everything_is_written,
    a_short_read_gives_what_came_and_the_next_one_the_rest,
    short_direct_reads_are_no_end_of_the_file,
    interrupted_reads_writes_and_syncs_are_done_again,
    only_the_ring_tries_again_what_would_wait,
    a_durable_write_fails_with_its_sync,
    a_short_durable_write_is_continued_durably,
    an_error_of_the_disk_is_returned_by_who_met_it,
    a_failed_sync_is_returned_and_not_tried_again,
    a_full_disk_is_named_and_has_taken_a_prefix,
    a_quota_and_a_disk_that_became_read_only_are_named,
    a_held_sync_holds_up_nothing_else,
);

const WRITABLE: fn() -> OpenOptions = || OpenOptions::new().read(true).write(true).create(true);

fn short_writes_are_continued_until_everything_is_written(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        disk.add(Rule::new(Call::Write, Effect::Shorten).times(5));
        file.write_at(pattern(0, 100_000), 7).await.unwrap();
        assert_eq!(disk.hits(), 5);
        assert!(fs::read(disk.healthy().join("data")).unwrap()[7..] == pattern(0, 100_000));
    });
}

fn a_short_read_gives_what_came_and_the_next_one_the_rest(engine: Engine) {
    if engine == Engine::Uring {
        // The ring reads on by itself after a short read, and on FUSE at the wrong place: there the
        // kernel does not advance the position of a read that may complete later (`fuse_direct_IO`
        // in fs/fuse/file.c, 6.18). Disks do.
        return;
    }
    let Some(disk) = FailingDisk::new() else { return };
    fs::write(disk.healthy().join("data"), pattern(0, 10_000)).unwrap();
    run(engine, async {
        let file = File::open(disk.path().join("data")).await.unwrap();
        disk.add(Rule::new(Call::Read, Effect::Shorten).times(1));
        let first = file.read_at(Vec::with_capacity(10_000), 0).await.unwrap();
        assert!(first[..] == pattern(0, 5_000), "{} bytes", first.len());
        let rest = file.read_at(Vec::with_capacity(10_000), 5_000).await.unwrap();
        assert!(rest[..] == pattern(5_000, 5_000), "{} bytes", rest.len());
    });
}

fn short_direct_reads_are_no_end_of_the_file(engine: Engine) {
    if engine == Engine::Uring {
        // As above: what the ring reads on by itself comes from the wrong place.
        return;
    }
    let Some(disk) = FailingDisk::new() else { return };
    let mut expected = pattern(0, 30_001);
    fs::write(disk.healthy().join("data"), &expected).unwrap();
    run(engine, async {
        let path = disk.path().join("data");
        let file = WRITABLE().open_direct(&path).await.unwrap();
        assert!(file.is_direct());
        for times in [1, 2, u64::MAX] {
            disk.add(Rule::new(Call::Read, Effect::Shorten).times(times));
            let read = file.read_at(1, 40_000).await.unwrap();
            assert!(read[..] == expected[1..], "{} bytes", read.len());
            let file = DirectFile::open(&path).await.unwrap();
            let mut reader = DirectReader::new(file, 0, Window::new(12_288, 2).unwrap());
            let mut read = Vec::new();
            while let Some(block) = reader.next_block().await.unwrap() {
                read.extend_from_slice(&block);
            }
            assert!(read == expected, "{} bytes in order", read.len());
            disk.heal();
        }
        disk.add(Rule::new(Call::Read, Effect::Shorten));
        file.write_at(b"within", 5_000).await.unwrap();
        expected[5_000..5_006].copy_from_slice(b"within");
        assert!(fs::read(disk.healthy().join("data")).unwrap() == expected);
    });
}

/// Each call meets this error once and succeeds nevertheless.
fn each_call_survives_one(engine: Engine, errno: i32) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        for call in [Call::Write, Call::Sync, Call::Read] {
            disk.add(Rule::new(call, Effect::Fail(errno)).times(1));
        }
        file.write_at(pattern(0, 5_000), 0).await.unwrap();
        file.sync_data().await.unwrap();
        let read = file.read_at(Vec::with_capacity(5_000), 0).await.unwrap();
        assert_eq!(read[..], pattern(0, 5_000));
        assert_eq!(disk.hits(), 3);
    });
}

fn interrupted_reads_writes_and_syncs_are_done_again(engine: Engine) {
    each_call_survives_one(engine, libc::EINTR);
}

fn only_the_ring_tries_again_what_would_wait(engine: Engine) {
    if engine == Engine::Uring {
        each_call_survives_one(engine, libc::EAGAIN);
        return;
    }
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        disk.add(Rule::new(Call::Write, Effect::Fail(libc::EAGAIN)).times(1));
        let error = file.write_at(pattern(0, 5_000), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EAGAIN)), "{error}");
    });
}

fn a_durable_write_fails_with_its_sync(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        file.write_durable_at(pattern(0, 5_000), 0).await.unwrap();
        assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (1, 1));
        disk.add(Rule::new(Call::Sync, Effect::Fail(libc::EIO)).times(1));
        let error = file.write_durable_at(pattern(0, 5_000), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EIO)), "{error}");
        assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (2, 2));
    });
}

fn a_short_durable_write_is_continued_durably(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        disk.add(Rule::new(Call::Write, Effect::Shorten).times(2));
        file.write_durable_at(pattern(0, 8_000), 0).await.unwrap();
        assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (3, 3));
        assert!(fs::read(disk.healthy().join("data")).unwrap() == pattern(0, 8_000));
    });
}

fn an_error_of_the_disk_is_returned_by_who_met_it(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        file.write_at(pattern(0, 5_000), 0).await.unwrap();
        disk.add(Rule::new(Call::Write, Effect::Fail(libc::EIO)).times(1));
        disk.add(Rule::new(Call::Read, Effect::Fail(libc::EIO)).times(1));
        let error = file.write_at(pattern(0, 10), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EIO)), "{error}");
        let error = file.read_at(Vec::with_capacity(10), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EIO)), "{error}");
        let read = file.read_at(Vec::with_capacity(5_000), 0).await.unwrap();
        assert_eq!(read[..], pattern(0, 5_000));
    });
}

fn a_failed_sync_is_returned_and_not_tried_again(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        file.write_at(pattern(0, 5_000), 0).await.unwrap();
        disk.add(Rule::new(Call::Sync, Effect::Fail(libc::EIO)).after(1).times(2));
        file.sync_data().await.unwrap();
        for sync in 2..=3 {
            let result = if sync == 2 { file.sync_data().await } else { file.sync_all().await };
            let error = result.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(libc::EIO)), "{error}");
            assert_eq!(disk.count(Call::Sync), sync);
        }
    });
}

fn a_full_disk_is_named_and_has_taken_a_prefix(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        disk.leave_room(3_000);
        let error = file.write_at(pattern(0, 5_000), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ENOSPC)), "{error}");
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert!(fs::read(disk.healthy().join("data")).unwrap() == pattern(0, 3_000));
        disk.heal();
        file.write_at(pattern(0, 5_000), 0).await.unwrap();
        assert!(fs::read(disk.healthy().join("data")).unwrap() == pattern(0, 5_000));
    });
}

fn a_quota_and_a_disk_that_became_read_only_are_named(engine: Engine) {
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        for (errno, name) in [(libc::EDQUOT, "quota"), (libc::EROFS, "Read-only file system")] {
            disk.add(Rule::new(Call::Write, Effect::Fail(errno)).times(1));
            disk.add(Rule::new(Call::Create, Effect::Fail(errno)).times(1));
            let error = file.write_at(pattern(0, 10), 0).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(errno)), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            let error = WRITABLE().open(disk.path().join("new")).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(errno)), "{error}");
        }
    });
}

fn a_held_sync_holds_up_nothing_else(engine: Engine) {
    if engine == Engine::Threads {
        // This engine syncs in place.
        return;
    }
    let Some(disk) = FailingDisk::new() else { return };
    run(engine, async {
        let file = WRITABLE().open(disk.path().join("data")).await.unwrap();
        file.write_at(pattern(0, 5_000), 0).await.unwrap();
        disk.add(Rule::new(Call::Sync, Effect::Hold).times(1));
        let path = disk.path().join("data");
        let sync = annulus::task::spawn(async move {
            WRITABLE().open(path).await.unwrap().sync_data().await.unwrap();
        });
        crate::harness::eventually_here("the sync is held", || disk.held() == 1).await;
        let read = file.read_at(Vec::with_capacity(5_000), 0).await.unwrap();
        assert_eq!(read[..], pattern(0, 5_000));
        assert_eq!(disk.held(), 1);
        disk.heal();
        sync.await.unwrap();
    });
}

/// Not on the engines: what the kernel makes of a write that is to be durable at once.
#[test]
fn a_durable_write_arrives_as_a_write_and_a_sync() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let Some(disk) = FailingDisk::new() else { return };
    let mut options = fs::File::options();
    options.write(true).create(true).custom_flags(libc::O_DSYNC);
    let file = options.open(disk.path().join("data")).unwrap();
    file.write_all_at(b"durable", 0).unwrap();
    assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (1, 1));
    let plain = fs::File::options().write(true).open(disk.path().join("data")).unwrap();
    plain.write_all_at(b"later", 0).unwrap();
    assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (2, 1));
    let piece = libc::iovec { iov_base: b"now".as_ptr().cast_mut().cast(), iov_len: 3 };
    // SAFETY: one piece of three bytes that outlive the call; pwritev2(2) only reads them.
    let written = unsafe { libc::pwritev2(plain.as_raw_fd(), &piece, 1, 0, libc::RWF_DSYNC) };
    assert_eq!(written, 3);
    assert_eq!((disk.count(Call::Write), disk.count(Call::Sync)), (3, 2));
    disk.add(Rule::new(Call::Sync, Effect::Fail(libc::EIO)));
    let error = file.write_all_at(b"durable", 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}
