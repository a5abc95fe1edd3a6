//! `annulus verify` and `annulus repair`, run as a user runs them, on directories made here.
//!
//! Invariant: each test has a folder of its own, removed at its end.
#![cfg(feature = "daemon")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use annulus::log::record::{HEADER_BYTES, Head, padded_bytes, seal, section_header};
use annulus::log::{Link, Lsn, SegmentHeader, Slots, StoreId, name};
use annulus::store::Change;

const ID: StoreId = StoreId(*b"the store's id .");

/// A store's directory, removed on drop.
struct Folder(PathBuf);

impl Folder {
    /// A store with a log of two segments: "key" is set to 1 and 2, then, in the second, to 3.
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("annulus-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder for the test");
        let format = format!("annulus store\nversion 1\nid {ID}\n");
        fs::write(path.join("FORMAT"), format).expect("written");
        let mut link = Link::FIRST;
        for (sequence, values) in [(1, &["1", "2"][..]), (2, &["3"])] {
            let header = SegmentHeader { id: ID, sequence, first: link, durable: Lsn::NONE };
            let mut file = header.encode().to_vec();
            for (index, value) in values.iter().enumerate() {
                let mut head = Head::new(link, Lsn(link.lsn.0 - 1), 1);
                head.sealed = sequence == 1 && index == 1;
                let (record, next) = record(value, &head);
                file.extend_from_slice(&record);
                link = next;
            }
            fs::write(path.join(name::segment(sequence)), file).expect("written");
        }
        Self(path)
    }

    /// Inverts a byte.
    fn damage(&self, sequence: u64, at: usize) {
        let path = self.0.join(name::segment(sequence));
        let mut file = fs::read(&path).expect("there");
        file[at] ^= 0xff;
        fs::write(path, file).expect("written");
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("there");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("read").file_name().into_string().expect("text")
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Runs `annulus` on the folder, which is called DIR in what it says: the exit code, standard
    /// output, standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_annulus"))
            .args(arguments)
            .arg(&self.0)
            .stdin(Stdio::null())
            .output()
            .expect("annulus runs");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("text");
            text.replace(&self.0.display().to_string(), "DIR")
        };
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(value: &str, head: &Head) -> (Vec<u8>, Link) {
    let mut content = Vec::new();
    let change = Change::Set { db: 0, key: b"key", value: value.as_bytes(), deadline: None };
    change.encode(&mut content);
    let slots = Slots { from: 0, until: 16384 };
    let payload = [&section_header(slots, content.len())[..], &content].concat();
    let mut room = vec![0; padded_bytes(payload.len())];
    room[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(&payload);
    let next = seal(&mut room, payload.len(), head, ID.seed());
    (room, next)
}

#[test]
fn verify_reports_a_clean_store() {
    let folder = Folder::new("verify-clean");
    let (code, out, err) = folder.run(&["verify"]);
    assert_eq!(
        out,
        "directory  DIR\nsnapshots  none\nlog        2 segment(s), 20480 bytes\nrecords    1 to \
         3\nkeys       1\nending     clean\n"
    );
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn verify_tells_a_torn_tail_and_leaves_it() {
    let folder = Folder::new("verify-torn");
    folder.damage(2, 4096 + HEADER_BYTES);
    fs::write(folder.0.join("snapshot.tmp"), b"unfinished").expect("written");
    let before = fs::read(folder.0.join(name::segment(2))).expect("there");
    let (code, out, err) = folder.run(&["verify"]);
    let end = "ending     torn: the log ends at byte 4096 of log-000000000002.seg: the 4096 bytes \
               behind were record 3, which was not wholly written; the next start cuts them off\n\
               left over  1 file(s) that the next start removes\n";
    assert!(out.ends_with(end), "{out}");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(fs::read(folder.0.join(name::segment(2))).expect("there"), before);
    assert!(folder.0.join("snapshot.tmp").exists());
}

#[test]
fn verify_refuses_damage_with_file_offset_and_remedy() {
    let folder = Folder::new("verify-damage");
    folder.damage(1, 4096 + HEADER_BYTES);
    let (code, out, err) = folder.run(&["verify"]);
    assert_eq!(
        err,
        "annulus: DIR/log-000000000001.seg is damaged at byte 4096, where record 1 should be: the \
         checksum of record 1 is wrong; it was there, for record 2 was written after it; bring \
         the directory back from a backup, or let `annulus repair DIR` set aside what comes behind \
         the damage\n"
    );
    assert_eq!((code, out.as_str()), (Some(1), ""));
}

#[test]
fn what_is_no_store_is_refused() {
    let folder = Folder::new("no-store");
    fs::remove_file(folder.0.join("FORMAT")).expect("there");
    for verb in ["verify", "repair"] {
        let (code, _, err) = folder.run(&[verb]);
        assert!(err.contains("its FORMAT file is missing"), "{err}");
        assert_eq!(code, Some(1));
    }
    fs::remove_file(folder.0.join(name::segment(1))).expect("there");
    fs::remove_file(folder.0.join(name::segment(2))).expect("there");
    let (_, _, err) = folder.run(&["verify"]);
    assert_eq!(
        err,
        "annulus: DIR holds no store; name the directory that annulus was started with\n"
    );
    assert!(folder.names().is_empty(), "something was put into it");
}

#[test]
fn repair_asks_first_and_keeps_what_it_cuts() {
    let folder = Folder::new("repair");
    folder.damage(1, 8192 + HEADER_BYTES);
    let (code, out, err) = folder.run(&["repair"]);
    let plan = "repair     end the log at byte 8192 of log-000000000001.seg, and set aside the \
                4096 bytes behind it, and set aside log-000000000002.seg; the records 2 to 3 are \
                lost\n";
    assert!(out.ends_with(plan), "{out}");
    assert_eq!(
        err,
        "annulus: nothing was changed: nobody is there to be asked; agree with --yes\n"
    );
    assert_eq!(code, Some(1));
    assert_eq!(folder.run(&["verify"]).0, Some(1), "it was changed");

    let (code, out, err) = folder.run(&["repair", "--yes"]);
    assert!(
        out.ends_with(
            "kept       cut-log-000000000001.seg-8192.bin\nkept       \
             cut-log-000000000002.seg-0.bin\ndirectory  DIR\nsnapshots  none\nlog        1 \
             segment(s), 8192 bytes\nrecords    1 to 1\nkeys       1\nending     clean\n"
        ),
        "{out}"
    );
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        folder.names(),
        [
            "FORMAT",
            "LOCK",
            "cut-log-000000000001.seg-8192.bin",
            "cut-log-000000000002.seg-0.bin",
            "log-000000000001.seg"
        ]
    );
    assert_eq!(folder.run(&["verify"]).0, Some(0));
    // Nothing is left to do.
    let (code, out, _) = folder.run(&["repair"]);
    assert!(out.starts_with("directory  DIR\n"), "{out}");
    assert_eq!(code, Some(0));
}
