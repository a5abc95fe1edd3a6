//! Whole files: read, written, replaced in one step; and files without a name.

use std::fs as std_fs;
use std::os::unix::fs::{MetadataExt, symlink};

use annulus::fs::{self, TemporaryFile};
use annulus::{Engine, task};

use crate::harness::{Scratch, eventually_here, pattern, run};

on_every_engine!(
    a_whole_file_is_read,
    a_whole_file_is_written,
    a_file_is_replaced_in_one_step,
    a_replacement_that_fails_leaves_the_old_file,
    a_temporary_file_goes_away_unless_it_is_given_a_name,
    a_replacement_that_is_given_up_is_finished,
);

fn names(scratch: &Scratch) -> Vec<String> {
    let names = std_fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn a_whole_file_is_read(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        for length in [0, 1, 8191, 8192, 100_000] {
            std_fs::write(&path, pattern(0, length)).unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), pattern(0, length));
        }
        std_fs::write(&path, "grüße").unwrap();
        assert_eq!(fs::read_to_string(&path).await.unwrap(), "grüße");
        std_fs::write(&path, b"ab\xff").unwrap();
        let error = fs::read_to_string(&path).await.unwrap_err();
        let text = format!(
            "{} is no UTF-8: invalid utf-8 sequence of 1 bytes from index 2",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        // It does not tell its length, and is longer than one page.
        let kept = fs::read("/proc/kallsyms").await.unwrap();
        assert!(kept.len() > 9000 && kept.ends_with(b"\n"), "{} bytes", kept.len());
        assert!(fs::read(scratch.file("none")).await.unwrap_err().is_not_found());
        // A hole takes no space, but would take memory.
        std_fs::File::create(&path).unwrap().set_len((4 << 30) + 1).unwrap();
        let error = fs::read(&path).await.unwrap_err();
        assert!(error.is_limit());
        let text = format!(
            "{} is longer than 4294967296 bytes; read it in parts, by read_at",
            path.display()
        );
        assert_eq!(error.to_string(), text);
    });
}

fn a_whole_file_is_written(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 100_000)).await.unwrap();
        assert_eq!(std_fs::read(&path).unwrap(), pattern(0, 100_000));
        fs::write(&path, b"short").await.unwrap();
        assert_eq!(std_fs::read(&path).unwrap(), b"short");
        fs::write(&path, b"").await.unwrap();
        assert_eq!(std_fs::read(&path).unwrap(), b"");
    });
}

fn a_file_is_replaced_in_one_step(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write_durably(&path, b"one").await.unwrap();
        assert_eq!(std_fs::read(&path).unwrap(), b"one");
        std_fs::hard_link(&path, scratch.file("other")).unwrap();
        fs::write_durably(&path, pattern(0, 100_000)).await.unwrap();
        assert_eq!(std_fs::read(&path).unwrap(), pattern(0, 100_000));
        assert_eq!(std_fs::read(scratch.file("other")).unwrap(), b"one", "it is another file now");
        assert_eq!(names(&scratch), ["data", "other"]);
        // A link is replaced, and what it leads to stays.
        symlink("other", scratch.file("link")).unwrap();
        fs::write_durably(scratch.file("link"), b"two").await.unwrap();
        assert!(!std_fs::symlink_metadata(scratch.file("link")).unwrap().is_symlink());
        assert_eq!(std_fs::read(scratch.file("other")).unwrap(), b"one");
        assert_eq!(names(&scratch), ["data", "link", "other"]);
        // The permissions are those of any new file.
        std_fs::write(scratch.file("new"), b"").unwrap();
        let mode = |name| std_fs::metadata(scratch.file(name)).unwrap().mode();
        assert_eq!(mode("data"), mode("new"));
        // Many at once: the last one wins, whole.
        let tasks: Vec<_> = (1..=9_u8)
            .map(|number| {
                let path = path.clone();
                task::spawn(async move { fs::write_durably(path, vec![number; 9999]).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let last = std_fs::read(&path).unwrap();
        assert!(last.len() == 9999 && last.iter().all(|byte| *byte == last[0]));
        assert_eq!(names(&scratch), ["data", "link", "new", "other"]);
    });
}

fn a_replacement_that_fails_leaves_the_old_file(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let directory = scratch.file("directory");
        std_fs::create_dir(&directory).unwrap();
        let error = fs::write_durably(&directory, b"x").await.unwrap_err();
        assert_eq!(error.errno(), Some(annulus::Errno(libc::EISDIR)), "{error}");
        assert!(directory.is_dir());
        let error = fs::write_durably(scratch.file("none/data"), b"x").await.unwrap_err();
        assert!(error.is_not_found());
        assert!(fs::write_durably("/proc/self/comm", b"x").await.is_err());
        eventually_here("temporary names go", || names(&scratch) == ["directory"]).await;
    });
}

fn a_temporary_file_goes_away_unless_it_is_given_a_name(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = TemporaryFile::create_in(&scratch.0).await.unwrap();
        file.write_at(b"gone", 0).await.unwrap();
        assert_eq!(&file.read_at(Vec::with_capacity(9), 0).await.unwrap()[..], b"gone");
        drop(file);
        eventually_here("it goes", || names(&scratch).is_empty()).await;
        for content in [b"one", b"two"] {
            let file = TemporaryFile::create_in(&scratch.0).await.unwrap();
            file.write_at(content, 0).await.unwrap();
            let file = file.persist(scratch.file("data")).await.unwrap();
            assert_eq!(names(&scratch), ["data"]);
            assert_eq!(std_fs::read(scratch.file("data")).unwrap(), content);
            assert_eq!(file.metadata().await.unwrap().links(), 1);
        }
        let file = TemporaryFile::create_in(&scratch.0).await.unwrap();
        file.persist_durably(scratch.file("data")).await.unwrap();
        assert_eq!(std_fs::read(scratch.file("data")).unwrap(), b"");
        assert!(TemporaryFile::create_in(scratch.file("none")).await.unwrap_err().is_not_found());
        let error = TemporaryFile::create_in(scratch.file("data")).await.unwrap_err();
        assert!(error.is_not_a_directory(), "{error}");
    });
}

fn a_replacement_that_is_given_up_is_finished(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        std_fs::write(&path, "old").unwrap();
        let replacing = Box::pin(fs::write_durably(path.clone(), b"new"));
        drop(futures_util::future::select(replacing, task::yield_now()).await);
        let is_new = || std_fs::read(&path).unwrap() == b"new";
        eventually_here("it is finished", || is_new() && names(&scratch) == ["data"]).await;
    });
}
