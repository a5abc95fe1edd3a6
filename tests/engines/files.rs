//! Files: open, read and write at offsets, sync, status, and the directory that is not left.

use std::fs;
use std::os::unix::fs::symlink;

use annulus::buffer::AlignedBuffer;
use annulus::fs::{Directory, File, OpenOptions};
use annulus::{Engine, task};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    what_is_written_at_an_offset_is_read_there,
    reads_append_within_the_capacity_and_stop_at_the_end,
    a_missing_file_is_named,
    options_create_truncate_and_refuse,
    direct_reads_fill_aligned_memory,
    a_files_status_tells_its_size_and_kind,
    many_files_are_read_at_once,
    nothing_outside_of_a_directory_is_opened,
    a_payload_longer_than_one_write_can_move_is_written_whole,
);

fn what_is_written_at_an_offset_is_read_there(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let options = OpenOptions::new().read(true).write(true).create_new(true);
        let file = options.open(&path).await.unwrap();
        file.write_at(pattern(0, 100_000), 50).await.unwrap();
        file.write_at(b"start", 0).await.unwrap();
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        let read = file.read_at(Vec::with_capacity(5), 0).await.unwrap();
        assert_eq!(&read[..], b"start");
        let read = file.read_at(Vec::with_capacity(1000), 50 + 777).await.unwrap();
        assert_eq!(read[..], pattern(777, 1000));
        drop(file);
        assert_eq!(fs::read(&path).unwrap()[50..], pattern(0, 100_000));
    });
}

fn reads_append_within_the_capacity_and_stop_at_the_end(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, b"0123456789").unwrap();
        let file = File::open(&path).await.unwrap();
        let mut buffer = Vec::with_capacity(8);
        buffer.extend_from_slice(b"ab");
        let buffer = file.read_at(buffer, 3).await.unwrap().into_vec();
        assert_eq!(buffer, b"ab345678");
        let buffer = file.read_at(buffer, 0).await.unwrap().into_vec();
        assert_eq!(buffer, b"ab345678", "there is no room");
        let end = file.read_at(Vec::with_capacity(8), 10).await.unwrap();
        assert!(end.is_empty());
        let tail = file.read_at(Vec::with_capacity(8), 7).await.unwrap();
        assert_eq!(&tail[..], b"789");
    });
}

fn a_missing_file_is_named(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("none");
        let error = File::open(&path).await.unwrap_err();
        assert!(error.is_not_found());
        let text = format!("opening {}: No such file or directory (os error 2)", path.display());
        assert_eq!(error.to_string(), text);
        fs::write(&path, b"").unwrap();
        let file = File::open(&path).await.unwrap();
        let error = file.write_at(b"x", 0).await.unwrap_err();
        assert_eq!(error.to_string(), "writing a file: Bad file descriptor (os error 9)");
        let error = File::open("a\0b").await.unwrap_err();
        assert_eq!(error.errno(), Some(annulus::Errno(libc::EINVAL)));
    });
}

fn options_create_truncate_and_refuse(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600);
        new.open(&path).await.unwrap().write_at(b"text", 0).await.unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = new.open(&path).await.unwrap_err();
        assert_eq!(error.errno(), Some(annulus::Errno(libc::EEXIST)));
        OpenOptions::new().write(true).create(true).open(&path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        OpenOptions::new().write(true).truncate(true).open(&path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    });
}

fn direct_reads_fill_aligned_memory(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 64 * 1024)).unwrap();
        let Ok(file) = OpenOptions::new().read(true).direct(true).open(&path).await else {
            println!("skipped: this file system has no direct I/O");
            return;
        };
        let buffer = AlignedBuffer::new(16 * 1024, 4096);
        let buffer = file.read_at(buffer, 32 * 1024).await.unwrap();
        assert!(buffer[..] == pattern(32 * 1024, 16 * 1024), "the bytes differ");
    });
}

fn a_files_status_tells_its_size_and_kind(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, [0; 12_345]).unwrap();
        let status = File::open(&path).await.unwrap().metadata().await.unwrap();
        assert_eq!((status.len(), status.is_file(), status.is_dir()), (12_345, true, false));
        assert!(!status.is_empty());
        use std::os::unix::fs::MetadataExt;
        let expected = fs::metadata(&path).unwrap();
        assert_eq!(status.inode(), expected.ino());
        assert_eq!(status.modified(), expected.modified().unwrap());
        let status = File::open(&scratch.0).await.unwrap().metadata().await.unwrap();
        assert!(status.is_dir());
    });
}

fn many_files_are_read_at_once(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let tasks: Vec<_> = (0..60)
            .map(|number| {
                let path = scratch.file(&number.to_string());
                fs::write(&path, pattern(number, 20_000)).unwrap();
                task::spawn(async move {
                    let file = File::open(&path).await.unwrap();
                    let read = file.read_at(Vec::with_capacity(30_000), 0).await.unwrap();
                    assert!(read[..] == pattern(number, 20_000), "the bytes differ");
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn nothing_outside_of_a_directory_is_opened(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        fs::create_dir_all(scratch.file("root/inner")).unwrap();
        fs::write(scratch.file("secret"), b"secret").unwrap();
        fs::write(scratch.file("root/inner/page"), b"page").unwrap();
        symlink("../secret", scratch.file("root/link")).unwrap();
        let root = Directory::open(scratch.file("root")).await.unwrap();
        let page = root.open_file("inner/page").await.unwrap();
        assert_eq!(&page.read_at(Vec::with_capacity(10), 0).await.unwrap()[..], b"page");
        assert!(root.open_file("inner/../inner/page").await.is_ok());
        let absolute = scratch.file("secret");
        for path in ["../secret", "inner/../../secret", "link", absolute.to_str().unwrap()] {
            let error = root.open_file(path).await.unwrap_err();
            let errno = error.errno().unwrap().0;
            assert!([libc::EXDEV, libc::ELOOP].contains(&errno), "{path}: {error}");
        }
        assert!(root.open_file("none").await.unwrap_err().is_not_found());
        assert!(Directory::open(scratch.file("secret")).await.is_err());
    });
}

fn a_payload_longer_than_one_write_can_move_is_written_whole(engine: Engine) {
    run(engine, async {
        // The null device takes everything at once, and zeroed memory takes no pages.
        let options = OpenOptions::new().write(true);
        let file = options.open("/dev/null").await.unwrap();
        let length = (4 << 30) + 5;
        let payload = file.write_at(vec![0; length], 0).await.unwrap();
        assert_eq!(payload.len(), length);
    });
}
