//! Tests of the data directory. Run by `cargo test`.
//!
//! Invariant: each test has a folder of its own, removed at its end.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder for one test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let unique = format!("annulus-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.0.join(name), content).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn refusal(path: &Path, missing: Missing) -> String {
    let refusal = DataDirectory::open(path, missing).expect_err("refused").to_string();
    refusal.replace(&path.display().to_string(), "DIR")
}

#[test]
fn a_directory_is_made_and_keeps_its_id() {
    let folder = Folder::new("made");
    let path = folder.0.join("a/b");
    let made = DataDirectory::open(&path, Missing::Create).expect("made");
    let (id, listing) = (made.id(), made.list().expect("listed"));
    assert_eq!(listing, Listing::default());
    drop(made);
    let text = fs::read_to_string(path.join("FORMAT")).expect("written");
    assert_eq!(text, format!("annulus store\nversion 1\nid {id}\n"));
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may look in");
    assert_eq!(DataDirectory::open(&path, Missing::Refuse).expect("there").id(), id);
    let other = DataDirectory::open(&folder.0.join("c"), Missing::Create).expect("made");
    assert_ne!(other.id(), id);
}

#[test]
fn every_directory_on_the_way_is_made_durable() {
    let folder = Folder::new("nested");
    let path = folder.0.join("a/b");
    assert_eq!(parents_of_missing(&path), [&folder.0.join("a"), &folder.0]);
    assert_eq!(parents_of_missing(&folder.0.join("a")), [&folder.0]);
    assert_eq!(parents_of_missing(&folder.0), [""; 0].map(Path::new));
    let relative = Path::new("no such directory/below");
    let parents = ["no such directory", "."].map(Path::new);
    assert_eq!(parents_of_missing(relative), parents);
}

#[test]
fn a_directory_in_use_names_the_process() {
    let folder = Folder::new("in-use");
    let first = DataDirectory::open(&folder.0, Missing::Create).expect("made");
    let expected = format!(
        "DIR is in use by process {}; stop that process first, or name another directory",
        std::process::id()
    );
    assert_eq!(refusal(&folder.0, Missing::Create), expected);
    assert_eq!(refusal(&folder.0, Missing::Refuse), expected);
    drop(first);
    DataDirectory::open(&folder.0, Missing::Create).expect("free again");
}

#[test]
fn the_directory_of_something_else_is_left_alone() {
    let folder = Folder::new("foreign");
    folder.write("holiday.jpg", b"");
    let expected = "DIR is no store of annulus: it holds holiday.jpg, and no FORMAT file; name \
                    another directory, or an empty one";
    assert_eq!(refusal(&folder.0, Missing::Create), expected);
    assert_eq!(fs::read_dir(&folder.0).expect("there").count(), 1, "something was put into it");
}

#[test]
fn a_store_without_its_format_is_refused() {
    let folder = Folder::new("no-format");
    folder.write("log-000000000001.seg", b"");
    let expected = "DIR holds log-000000000001.seg, but its FORMAT file is missing; bring it back \
                    from a backup of the directory";
    assert_eq!(refusal(&folder.0, Missing::Create), expected);
}

#[test]
fn an_empty_directory_is_a_store_only_if_it_may_be_made_one() {
    let folder = Folder::new("empty");
    fs::create_dir(folder.0.join("lost+found")).expect("made");
    let expected = "DIR holds no store; name the directory that annulus was started with";
    assert_eq!(refusal(&folder.0, Missing::Refuse), expected);
    // What a crash leaves while a directory is made does not matter.
    folder.write("FORMAT.tmp", b"annulus st");
    folder.write("LOCK", b"");
    DataDirectory::open(&folder.0, Missing::Create).expect("made");
}

#[test]
fn newer_and_garbled_formats_are_refused() {
    let folder = Folder::new("formats");
    folder.write("FORMAT", b"annulus store\nversion 2\nwhatever\n");
    let expected = "DIR has version 2 of the format, and this annulus reads version 1; start it \
                    with the annulus that wrote it, or a newer one";
    assert_eq!(refusal(&folder.0, Missing::Create), expected);
    for text in [
        "",
        "something else\n",
        "annulus store\nversion 0\n",
        "annulus store\nversion 1\nid 12\n",
        "annulus store\nversion 1\nid 0001feff343536373839616263646566\nmore\n",
    ] {
        folder.write("FORMAT", text.as_bytes());
        assert!(refusal(&folder.0, Missing::Create).starts_with("DIR/FORMAT is not"), "{text}");
    }
}

#[test]
fn errors_of_the_system_say_what_to_do() {
    let folder = Folder::new("errors");
    folder.write("file", b"");
    let path = folder.0.join("file");
    assert_eq!(
        refusal(&path, Missing::Create),
        "creating DIR: File exists (os error 17); name a directory, not a file"
    );
    let missing = folder.0.join("missing");
    assert_eq!(
        refusal(&missing, Missing::Refuse),
        "reading DIR: No such file or directory (os error 2)"
    );
    let denied = DirectoryError::Io {
        verb: "opening",
        path: "/x/LOCK".into(),
        error: io::Error::from_raw_os_error(13),
    };
    assert_eq!(
        denied.to_string(),
        "opening /x/LOCK: Permission denied (os error 13); make the directory and its files this \
         user's (chown), or name another directory"
    );
}

#[test]
fn what_lies_in_it_is_listed_in_order() {
    let folder = Folder::new("listed");
    let directory = DataDirectory::open(&folder.0, Missing::Create).expect("made");
    let slots = Slots { from: 0, until: 16384 };
    for name in [
        "log-000000000010.seg",
        "log-000000000009.seg",
        "log-9.seg",
        "cut-log-000000000001.seg-4096.bin",
        "snapshot-00000-16384-00000000000000000007.snap",
        "snapshot.tmp",
    ] {
        folder.write(name, b"");
    }
    let expected = Listing {
        segments: vec![9, 10],
        snapshots: vec![(slots, Lsn(7))],
        unfinished: vec!["snapshot.tmp".to_owned()],
    };
    assert_eq!(directory.list().expect("listed"), expected);
}
