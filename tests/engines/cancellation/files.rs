//! Open files and directories: their descriptors are closed, and what was begun stays in the file.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;

use annulus::Engine;
use annulus::buffer::AlignedBuffer;
use annulus::fs::{Advice, Directory, File, OpenOptions, Space};
use futures_util::StreamExt;

use super::{at_every_await, small, within};
use crate::harness::{Scratch, pattern, run_with};

on_every_engine!(
    alone: opening,
    reading_and_writing,
    writing_in_other_ways,
    space_and_status,
    listing,
);

fn opening(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 9000)).unwrap();
    run_with(small(engine), async {
        at_every_await("File::open", async |cut| {
            assert!(cut.until(File::open(&path)).await.is_none_or(|file| file.is_ok()));
        })
        .await;
        at_every_await("File::create", async |cut| {
            let made = cut.until(File::create(scratch.file("created"))).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        at_every_await("OpenOptions::open", async |cut| {
            let options = OpenOptions::new().write(true).create(true);
            let made = cut.until(options.open(scratch.file("made"))).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        at_every_await("Directory::open", async |cut| {
            assert!(cut.until(Directory::open(&scratch.0)).await.is_none_or(|made| made.is_ok()));
        })
        .await;
        // Its directory is closed behind it, and not before the kernel has looked it up.
        at_every_await("OpenOptions::open_in", async |cut| {
            let directory = Directory::open(&scratch.0).await.unwrap();
            let options = OpenOptions::new().append(true).create(true);
            let made = cut.until(options.open_in(&directory, "below")).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        let directory = Directory::open(&scratch.0).await.unwrap();
        at_every_await("Directory::open_file", async |cut| {
            assert!(cut.until(directory.open_file("data")).await.is_none_or(|file| file.is_ok()));
        })
        .await;
        at_every_await("Directory::sync and metadata", async |cut| {
            let all = async {
                directory.sync().await.unwrap();
                directory.metadata().await.unwrap().is_dir()
            };
            assert!(cut.until(all).await.is_none_or(|is_dir| is_dir));
        })
        .await;
    });
}

fn reading_and_writing(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 9000)).unwrap();
    run_with(small(engine), async {
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        at_every_await("File::read_at", async |cut| {
            let read = cut.until(file.read_at(Vec::with_capacity(9000), 0)).await;
            assert!(read.is_none_or(|read| read.unwrap().into_vec() == pattern(0, 9000)));
        })
        .await;
        at_every_await("File::read_at, aligned", async |cut| {
            cut.past(file.read_at(AlignedBuffer::new(4096, 4096), 0)).await;
        })
        .await;
        at_every_await("File::read_vectored_at", async |cut| {
            let buffers =
                vec![Vec::with_capacity(99).into(), AlignedBuffer::new(4096, 4096).into()];
            let read = cut.until(file.read_vectored_at(buffers, 0)).await;
            assert!(read.is_none_or(|read| read.unwrap()[1][..] == pattern(99, 4096)));
        })
        .await;
        at_every_await("File::write_at", async |cut| {
            let written = cut.until(file.write_at(pattern(0, 9000), 0)).await;
            assert!(written.is_none_or(|written| written.is_ok()));
        })
        .await;
        at_every_await("File::write_durable_at", async |cut| {
            let written = cut.until(file.write_durable_at(pattern(0, 9000), 0)).await;
            assert!(written.is_none_or(|written| written.is_ok()));
        })
        .await;
        at_every_await("File::write_vectored_at", async |cut| {
            let payloads = vec![pattern(0, 99).into(), pattern(99, 8901).into()];
            let written = cut.until(file.write_vectored_at(payloads, 0)).await;
            assert!(written.is_none_or(|written| written.is_ok()));
        })
        .await;
        at_every_await("File::sync_all and others", async |cut| {
            let all = async {
                file.sync_all().await.unwrap();
                file.sync_data().await.unwrap();
                file.metadata().await.unwrap().len()
            };
            assert!(cut.until(all).await.is_none_or(|length| length == 9000));
        })
        .await;
        assert_eq!(std::fs::read(&path).unwrap(), pattern(0, 9000));
    });
}

fn writing_in_other_ways(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    run_with(small(engine), async {
        at_every_await("File::append", async |cut| {
            std::fs::write(&path, b"begun ").unwrap();
            let file = OpenOptions::new().write(true).open(&path).await.unwrap();
            let written = cut.until(file.append(b"and done")).await;
            let content = std::fs::read(&path).unwrap();
            assert!(b"begun and done".starts_with(&content) && content.len() >= 6);
            assert!(written.is_none() || content.len() == 14);
        })
        .await;
    });
}

fn space_and_status(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 9000)).unwrap();
    run_with(small(engine), async {
        // What is given up is over before the file is closed, so no other file is cut instead.
        at_every_await("File::set_len, and the file dropped at once", async |cut| {
            let file = OpenOptions::new().write(true).open(&path).await.unwrap();
            cut.past(async move { file.set_len(9000).await.unwrap() }).await;
            let other = File::create(scratch.file("other")).await.unwrap();
            within("another file", other.write_at(b"other", 0)).await.unwrap();
            assert_eq!(std::fs::read(scratch.file("other")).unwrap(), b"other");
        })
        .await;
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        at_every_await("File::allocate", async |cut| {
            cut.past(file.allocate(0, 9000)).await;
        })
        .await;
        at_every_await("File::allocate_as", async |cut| {
            cut.past(file.allocate_as(Space::ReserveKeepLength, 9000, 9000)).await;
        })
        .await;
        at_every_await("File::advise", async |cut| {
            cut.past(file.advise(0, 0, Advice::WillNeed)).await;
        })
        .await;
        at_every_await("File::advise, of more than an entry has room for", async |cut| {
            cut.past(file.advise(0, 1 << 40, Advice::DontNeed)).await;
        })
        .await;
        assert_eq!(std::fs::read(&path).unwrap(), pattern(0, 9000));
    });
}

fn listing(engine: Engine) {
    let scratch = Scratch::new();
    let expected: BTreeSet<OsString> = (0..9).map(|number| number.to_string().into()).collect();
    for name in &expected {
        std::fs::write(scratch.0.join(name), "").unwrap();
    }
    run_with(small(engine), async {
        let directory = Directory::open(&scratch.0).await.unwrap();
        at_every_await("Directory::entries", async |cut| {
            assert!(cut.until(directory.entries()).await.is_none_or(|entries| entries.is_ok()));
        })
        .await;
        at_every_await("Entries::next_entry", async |cut| {
            let mut entries = directory.entries().await.unwrap();
            let found = RefCell::new(BTreeSet::new());
            let all = async {
                while let Some(entry) = entries.next_entry().await.unwrap() {
                    found.borrow_mut().insert(entry.into_name());
                }
            };
            cut.past(all).await;
            // Who asks again gets the rest.
            while let Some(entry) = within("the rest", entries.next_entry()).await.unwrap() {
                found.borrow_mut().insert(entry.into_name());
            }
            assert_eq!(found.into_inner(), expected);
        })
        .await;
        at_every_await("Entries as a stream", async |cut| {
            let entries = directory.entries().await.unwrap();
            let count = cut.until(entries.count()).await;
            assert!(count.is_none_or(|count| count == 9));
        })
        .await;
    });
}
