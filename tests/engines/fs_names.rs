//! Names: files and directories made, moved, linked, removed, listed and looked at by path.

use std::ffi::OsStr;
use std::fs as std_fs;
use std::os::unix::fs::MetadataExt;

use annulus::fs::{self, Directory, File, FileKind, RenameOptions};
use annulus::{Engine, Errno};
use futures_util::TryStreamExt;

use crate::harness::{Scratch, run};

on_every_engine!(
    a_file_is_renamed_over_another,
    renames_refuse_and_exchange,
    files_and_directories_are_removed,
    directories_are_made,
    links_are_made_and_read,
    a_directory_is_listed,
    a_large_directory_is_listed_whole,
    the_status_of_paths_is_read,
    a_path_that_the_kernel_cannot_take_is_an_error,
);

fn names(entries: Vec<fs::Entry>) -> Vec<String> {
    let mut names: Vec<_> =
        entries.into_iter().map(|entry| entry.into_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn a_file_is_renamed_over_another(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (from, to) = (scratch.file("from"), scratch.file("to"));
        std_fs::write(&from, "new").unwrap();
        std_fs::write(&to, "old").unwrap();
        fs::rename(&from, &to).await.unwrap();
        assert_eq!(std_fs::read(&to).unwrap(), b"new");
        assert!(!from.exists());
        Directory::open(&scratch.0).await.unwrap().sync().await.unwrap();
        let error = fs::rename(&from, &to).await.unwrap_err();
        assert!(error.is_not_found());
        let text = format!(
            "renaming {} to {}: No such file or directory (os error 2)",
            from.display(),
            to.display()
        );
        assert_eq!(error.to_string(), text);
    });
}

fn renames_refuse_and_exchange(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (one, two) = (scratch.file("one"), scratch.file("two"));
        std_fs::write(&one, "1").unwrap();
        std_fs::write(&two, "2").unwrap();
        let error = RenameOptions::new().no_replace(true).rename(&one, &two).await.unwrap_err();
        assert!(error.is_already_exists());
        RenameOptions::new().exchange(true).rename(&one, &two).await.unwrap();
        assert_eq!(
            (std_fs::read(&one).unwrap(), std_fs::read(&two).unwrap()),
            (b"2".to_vec(), b"1".to_vec())
        );
        let three = scratch.file("three");
        RenameOptions::new().no_replace(true).rename(&one, &three).await.unwrap();
        assert_eq!(std_fs::read(&three).unwrap(), b"2");
        let back = RenameOptions::new().exchange(true).exchange(false);
        back.rename(&three, &one).await.unwrap();
        assert!(!three.exists());
    });
}

fn files_and_directories_are_removed(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (file, directory) = (scratch.file("file"), scratch.file("directory"));
        std_fs::write(&file, "x").unwrap();
        std_fs::create_dir(&directory).unwrap();
        let error = fs::remove_file(&directory).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EISDIR)));
        assert!(fs::remove_dir(&file).await.unwrap_err().is_not_a_directory());
        std_fs::write(directory.join("inside"), "x").unwrap();
        assert!(fs::remove_dir(&directory).await.unwrap_err().is_directory_not_empty());
        fs::remove_file(directory.join("inside")).await.unwrap();
        fs::remove_dir(&directory).await.unwrap();
        fs::remove_file(&file).await.unwrap();
        assert_eq!(std_fs::read_dir(&scratch.0).unwrap().count(), 0);
        assert!(fs::remove_file(&file).await.unwrap_err().is_not_found());
    });
}

fn directories_are_made(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let one = scratch.file("one");
        fs::create_dir(&one).await.unwrap();
        assert!(one.is_dir());
        assert!(fs::create_dir(&one).await.unwrap_err().is_already_exists());
        fs::create_dir_all(&one).await.unwrap();
        let deep = one.join("two/three/four");
        assert!(fs::create_dir(&deep).await.unwrap_err().is_not_found());
        fs::create_dir_all(&deep).await.unwrap();
        assert!(deep.is_dir());
        std_fs::write(one.join("file"), "x").unwrap();
        assert!(fs::create_dir_all(one.join("file")).await.unwrap_err().is_already_exists());
        assert!(fs::create_dir_all(one.join("file/x")).await.unwrap_err().is_not_a_directory());
    });
}

fn links_are_made_and_read(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (file, hard, soft) = (scratch.file("file"), scratch.file("hard"), scratch.file("soft"));
        std_fs::write(&file, "x").unwrap();
        fs::hard_link(&file, &hard).await.unwrap();
        fs::symlink("file", &soft).await.unwrap();
        assert_eq!(std_fs::metadata(&hard).unwrap().nlink(), 2);
        assert_eq!(std_fs::read_link(&soft).unwrap().as_os_str(), "file");
        assert_eq!(fs::read_link(&soft).await.unwrap().as_os_str(), "file");
        let long = "a/".repeat(2047);
        fs::symlink(&long, scratch.file("long")).await.unwrap();
        assert_eq!(fs::read_link(scratch.file("long")).await.unwrap().as_os_str(), long.as_str());
        let error = fs::read_link(&file).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EINVAL)));
        assert!(fs::symlink("x", &soft).await.unwrap_err().is_already_exists());
        assert!(fs::hard_link(&file, &hard).await.unwrap_err().is_already_exists());
        // The link itself is linked, not what it says.
        fs::hard_link(&soft, scratch.file("again")).await.unwrap();
        assert!(fs::symlink_metadata(scratch.file("again")).await.unwrap().is_symlink());
    });
}

fn a_directory_is_listed(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        assert_eq!(fs::read_dir(&scratch.0).await.unwrap(), []);
        std_fs::write(scratch.file("file"), "x").unwrap();
        std_fs::create_dir(scratch.file("directory")).unwrap();
        std::os::unix::fs::symlink("file", scratch.file("link")).unwrap();
        let mut entries = fs::read_dir(&scratch.0).await.unwrap();
        entries.sort_by(|one, two| one.name().cmp(two.name()));
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.name(), entry.kind())).collect();
        assert_eq!(
            kinds,
            [
                (OsStr::new("directory"), FileKind::Directory),
                (OsStr::new("file"), FileKind::File),
                (OsStr::new("link"), FileKind::Symlink),
            ]
        );
        assert_eq!(entries[1].inode(), std_fs::metadata(scratch.file("file")).unwrap().ino());
        // Each reader begins at the beginning, and one does not move another.
        let directory = Directory::open(&scratch.0).await.unwrap();
        let (mut one, two) =
            (directory.entries().await.unwrap(), directory.entries().await.unwrap());
        one.next_entry().await.unwrap().unwrap();
        let all: Vec<_> = two.try_collect().await.unwrap();
        assert_eq!(names(all), ["directory", "file", "link"]);
        assert!(fs::read_dir(scratch.file("none")).await.unwrap_err().is_not_found());
        assert!(fs::read_dir(scratch.file("file")).await.unwrap_err().is_not_a_directory());
    });
}

fn a_large_directory_is_listed_whole(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let mut expected: Vec<_> = (0..1500).map(|n| format!("{n}-{}", "x".repeat(99))).collect();
        for name in &expected {
            std_fs::write(scratch.file(name), "").unwrap();
        }
        expected.sort();
        assert_eq!(names(fs::read_dir(&scratch.0).await.unwrap()), expected);
        let removed = scratch.file("removed");
        std_fs::create_dir(&removed).unwrap();
        let mut entries = Directory::open(&removed).await.unwrap().entries().await.unwrap();
        std_fs::remove_dir(&removed).unwrap();
        assert_eq!(entries.next_entry().await.unwrap(), None);
        assert_eq!(entries.next_entry().await.unwrap(), None);
    });
}

fn the_status_of_paths_is_read(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let (file, link) = (scratch.file("file"), scratch.file("link"));
        std_fs::write(&file, vec![1; 5000]).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let status = fs::metadata(&link).await.unwrap();
        let expected = std_fs::metadata(&file).unwrap();
        assert_eq!((status.kind(), status.len()), (FileKind::File, 5000));
        assert_eq!(
            (status.mode(), status.permissions()),
            (expected.mode(), expected.mode() & 0o7777)
        );
        assert_eq!((status.uid(), status.gid()), (expected.uid(), expected.gid()));
        assert_eq!((status.links(), status.inode()), (1, expected.ino()));
        assert_eq!(u64::from(status.block_size()), expected.blksize());
        assert_eq!(status.blocks(), expected.blocks());
        let (major, minor) = status.device();
        assert_eq!(libc::makedev(major, minor), expected.dev());
        assert_eq!(status.modified(), expected.modified().unwrap());
        assert_eq!(status.accessed(), expected.accessed().unwrap());
        assert_eq!(status.created(), expected.created().ok());
        let changed =
            std::time::Duration::new(expected.ctime() as u64, expected.ctime_nsec() as u32);
        assert_eq!(status.changed(), std::time::SystemTime::UNIX_EPOCH + changed);
        assert_eq!(fs::symlink_metadata(&link).await.unwrap().kind(), FileKind::Symlink);
        assert!(fs::exists(&link).await.unwrap());
        std_fs::remove_file(&file).unwrap();
        assert!(!fs::exists(&link).await.unwrap());
        assert!(!fs::exists(link.join("x")).await.unwrap());
        assert!(fs::symlink_metadata(&link).await.is_ok());
        let null = fs::metadata("/dev/null").await.unwrap();
        assert_eq!((null.kind(), null.device_of()), (FileKind::CharacterDevice, (1, 3)));
        assert_eq!(null.direct_alignment(), None);
        assert!(File::open("/dev/null").await.unwrap().metadata().await.unwrap().is_empty());
    });
}

fn a_path_that_the_kernel_cannot_take_is_an_error(engine: Engine) {
    run(engine, async {
        let bad = "a\0b";
        let expected = Some(Errno(libc::EINVAL));
        assert_eq!(fs::rename(bad, "x").await.unwrap_err().errno(), expected);
        assert_eq!(fs::rename("x", bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::remove_file(bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::create_dir(bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::create_dir_all(bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::symlink(bad, "x").await.unwrap_err().errno(), expected);
        assert_eq!(fs::hard_link("x", bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::metadata(bad).await.unwrap_err().errno(), expected);
        assert_eq!(fs::read_dir(bad).await.unwrap_err().errno(), expected);
        let long = "x".repeat(300);
        let error = fs::create_dir(&long).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ENAMETOOLONG)));
    });
}
