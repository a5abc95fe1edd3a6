//! Names of files: a change has happened or not, and no temporary name is left.

use std::path::Path;

use annulus::Engine;
use annulus::fs::{self, RenameOptions, TemporaryFile};

use super::{at_every_await, small, within};
use crate::harness::{Scratch, eventually_here, run_with};

on_every_engine!(
    alone: renaming_and_removing,
    making,
    looking,
    whole_files,
    temporary_files,
);

fn names(place: &Path) -> Vec<String> {
    let names = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn renaming_and_removing(engine: Engine) {
    let scratch = Scratch::new();
    let (one, two) = (scratch.file("one"), scratch.file("two"));
    run_with(small(engine), async {
        let renames = [RenameOptions::new(), RenameOptions::new().no_replace(true)];
        for options in renames {
            at_every_await("RenameOptions::rename", async |cut| {
                std::fs::write(&one, "content").unwrap();
                let renamed = cut.until(options.rename(&one, &two)).await;
                assert!(renamed.is_none_or(|renamed| renamed.is_ok()));
                // It may go on, but there is one file throughout.
                eventually_here("one file", || names(&scratch.0).len() == 1).await;
                within("removed", fs::rename(&one, &two)).await.ok();
                assert_eq!(std::fs::read(&two).unwrap(), b"content");
                std::fs::remove_file(&two).unwrap();
            })
            .await;
        }
        at_every_await("remove_file", async |cut| {
            std::fs::write(&one, "content").unwrap();
            let removed = cut.until(fs::remove_file(&one)).await;
            assert!(removed.is_none_or(|removed| removed.is_ok() && !one.exists()));
        })
        .await;
        let directory = scratch.file("directory");
        at_every_await("remove_dir", async |cut| {
            let _ = std::fs::create_dir(&directory);
            let removed = cut.until(fs::remove_dir(&directory)).await;
            assert!(removed.is_none_or(|removed| removed.is_ok() && !directory.exists()));
        })
        .await;
    });
}

fn making(engine: Engine) {
    let scratch = Scratch::new();
    let place = scratch.file("place");
    std::fs::write(scratch.file("data"), "").unwrap();
    run_with(small(engine), async {
        at_every_await("create_dir_all", async |cut| {
            let _ = std::fs::remove_dir_all(&place);
            let made = cut.until(fs::create_dir_all(place.join("a/b"))).await;
            assert!(made.is_none_or(|made| made.is_ok() && place.join("a/b").is_dir()));
        })
        .await;
        at_every_await("create_dir", async |cut| {
            let _ = std::fs::remove_dir(place.join("directory"));
            cut.past(fs::create_dir(place.join("directory"))).await;
        })
        .await;
        at_every_await("hard_link", async |cut| {
            let _ = std::fs::remove_file(place.join("hard"));
            cut.past(fs::hard_link(scratch.file("data"), place.join("hard"))).await;
        })
        .await;
        at_every_await("symlink", async |cut| {
            let _ = std::fs::remove_file(place.join("soft"));
            cut.past(fs::symlink("data", place.join("soft"))).await;
        })
        .await;
    });
}

fn looking(engine: Engine) {
    let scratch = Scratch::new();
    let (data, link) = (scratch.file("data"), scratch.file("link"));
    std::fs::write(&data, "content").unwrap();
    std::os::unix::fs::symlink("data", &link).unwrap();
    run_with(small(engine), async {
        at_every_await("read_link", async |cut| {
            let said = cut.until(fs::read_link(&link)).await;
            assert!(said.is_none_or(|said| said.unwrap() == Path::new("data")));
        })
        .await;
        at_every_await("metadata and others", async |cut| {
            let all = async {
                let length = fs::metadata(&link).await.unwrap().len();
                let is_link = fs::symlink_metadata(&link).await.unwrap().is_symlink();
                (length, is_link, fs::exists(&link).await.unwrap())
            };
            assert!(cut.until(all).await.is_none_or(|seen| seen == (7, true, true)));
        })
        .await;
        at_every_await("read_dir", async |cut| {
            let list = cut.until(fs::read_dir(&scratch.0)).await;
            assert!(list.is_none_or(|list| list.unwrap().len() == 2));
        })
        .await;
    });
}

fn whole_files(engine: Engine) {
    let scratch = Scratch::new();
    let data = scratch.file("data");
    run_with(small(engine), async {
        at_every_await("write", async |cut| {
            let written = cut.until(fs::write(&data, b"content")).await;
            let content = std::fs::read(&data).unwrap_or_default();
            assert!(content.is_empty() || content == b"content");
            assert!(written.is_none() || !content.is_empty());
        })
        .await;
        at_every_await("read and read_to_string", async |cut| {
            let all = async {
                fs::read(&data).await.unwrap()
                    == fs::read_to_string(&data).await.unwrap().as_bytes()
            };
            assert!(cut.until(all).await.is_none_or(|same| same));
        })
        .await;
        at_every_await("write_durably", async |cut| {
            std::fs::write(&data, "old").unwrap();
            cut.past(fs::write_durably(data.clone(), b"new")).await;
            let is_whole = || {
                let content = std::fs::read(&data).unwrap();
                content == b"old" || content == b"new"
            };
            assert!(is_whole());
            // What was begun is finished, and leaves no name behind.
            eventually_here("one name", || is_whole() && names(&scratch.0) == ["data"]).await;
        })
        .await;
    });
}

fn temporary_files(engine: Engine) {
    let scratch = Scratch::new();
    let data = scratch.file("data");
    std::fs::write(&data, "old").unwrap();
    run_with(small(engine), async {
        at_every_await("TemporaryFile::create_in", async |cut| {
            let file = cut.until(TemporaryFile::create_in(&scratch.0)).await;
            assert!(file.is_none_or(|file| file.is_ok()));
            eventually_here("it is gone", || names(&scratch.0) == ["data"]).await;
        })
        .await;
        for durably in [false, true] {
            at_every_await("TemporaryFile::persist and persist_durably", async |cut| {
                let file = TemporaryFile::create_in(&scratch.0).await.unwrap();
                file.write_at(b"new", 0).await.unwrap();
                if durably {
                    cut.past(file.persist_durably(&data)).await;
                } else {
                    cut.past(file.persist(&data)).await;
                }
                eventually_here("one name", || names(&scratch.0) == ["data"]).await;
            })
            .await;
        }
        assert_eq!(std::fs::read(&data).unwrap(), b"new");
    });
}
