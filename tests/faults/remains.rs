//! What a power cut leaves of a file system whose diary was kept.
//!
//! It is the worst disk that POSIX allows. Of a file, what was written since its last sync may be
//! lost, each block by itself; a name made, given or taken away may be as before until its folder
//! is synced, whatever became of other names. Invariant: what is not lost is what was synced, and
//! some of the rest if luck has it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::diary::{Deed, Name, Number};

/// What is torn from what at a power cut.
const BLOCK_BYTES: usize = 4096;

#[derive(Clone, Copy)]
enum Change<'a> {
    /// An offset and bytes, and whether they were durable at once.
    Write(u64, &'a [u8], bool),
    Length(u64),
}

#[derive(Default)]
struct Content<'a> {
    lasting: Vec<u8>,
    /// What came since, in order.
    loose: Vec<Change<'a>>,
}

type Names<'a> = BTreeMap<&'a str, Number>;

/// Names that change together, and the file that is concerned.
struct Renaming<'a> {
    file: Option<Number>,
    changes: Vec<(&'a str, Option<Number>)>,
}

#[derive(Default)]
struct Folder<'a> {
    lasting: Names<'a>,
    now: Names<'a>,
    /// What has changed since, in order.
    loose: Vec<Renaming<'a>>,
}

/// A file system, and what of it would be there after a power cut.
#[derive(Default)]
pub(crate) struct Remains<'a> {
    files: HashMap<Number, Content<'a>>,
    folders: HashMap<Number, Folder<'a>>,
}

impl Content<'_> {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.loose) {
            change.make(&mut self.lasting, || true);
        }
    }
}

impl Change<'_> {
    /// Makes the change; of a write that was not durable only the blocks that `stays` is for.
    fn make(self, content: &mut Vec<u8>, mut stays: impl FnMut() -> bool) {
        match self {
            Self::Length(bytes) => content.resize(bytes as usize, 0),
            Self::Write(offset, bytes, durable) => {
                for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
                    if durable || stays() {
                        let start = offset as usize + index * BLOCK_BYTES;
                        let end = start + block.len();
                        content.resize(content.len().max(end), 0);
                        content[start..end].copy_from_slice(block);
                    }
                }
            }
        }
    }
}

impl<'a> Renaming<'a> {
    fn make(&self, names: &mut Names<'a>) {
        for (name, file) in &self.changes {
            match file {
                Some(file) => names.insert(name, *file),
                None => names.remove(name),
            };
        }
    }

    /// Whether this cannot stay unless `earlier` does.
    fn follows(&self, earlier: &Self) -> bool {
        let is_there = |(name, _): &(&str, _)| earlier.changes.iter().any(|it| it.0 == *name);
        self.file == earlier.file || self.changes.iter().any(is_there)
    }
}

impl<'a> Folder<'a> {
    fn after_a_power_cut(&self, luck: &mut Option<impl FnMut(usize) -> usize>) -> Names<'a> {
        let mut names = self.lasting.clone();
        let Some(luck) = luck else { return names };
        let mut stays: Vec<_> = self.loose.iter().map(|_| luck(2) == 0).collect();
        for later in (0..stays.len()).rev() {
            for earlier in 0..later {
                stays[earlier] |= stays[later] && self.loose[later].follows(&self.loose[earlier]);
            }
        }
        for (renaming, stays) in self.loose.iter().zip(stays) {
            if stays {
                renaming.make(&mut names);
            }
        }
        names
    }
}

impl<'a> Remains<'a> {
    fn rename(&mut self, folder: Number, changes: Vec<(&'a str, Option<Number>)>) {
        let folder = self.folders.entry(folder).or_default();
        let (name, number) = changes[0];
        let file = number.or_else(|| folder.now.get(name).copied());
        let renaming = Renaming { file, changes };
        renaming.make(&mut folder.now);
        folder.loose.push(renaming);
    }

    fn add(&mut self, (folder, name): &'a Name, file: Number) {
        self.rename(*folder, vec![(name, Some(file))]);
    }

    /// Something more is done.
    pub(crate) fn go_on(&mut self, deed: &'a Deed) {
        match deed {
            Deed::Made { name, file, is_folder: true } => {
                self.folders.insert(*file, Folder::default());
                self.add(name, *file);
            }
            Deed::Made { name, file, is_folder: false } | Deed::Linked { name, file } => {
                self.files.entry(*file).or_default();
                self.add(name, *file);
            }
            Deed::Renamed { from, to } => {
                assert_eq!(from.0, to.0, "nothing is moved to another folder");
                let file = self.folders.get(&from.0).and_then(|it| it.now.get(&*from.1)).copied();
                self.rename(from.0, vec![(&*from.1, None), (&*to.1, file)]);
            }
            Deed::Removed { name: (folder, name) } => self.rename(*folder, vec![(&**name, None)]),
            Deed::Wrote { file, offset, bytes, durable } => {
                let content = self.files.entry(*file).or_default();
                let write = Change::Write(*offset, bytes, *durable);
                // These bytes, and the length that it takes to read them; nothing else.
                write.make(&mut content.lasting, || false);
                content.loose.push(write);
            }
            Deed::Resized { file, bytes } => {
                self.files.entry(*file).or_default().loose.push(Change::Length(*bytes));
            }
            Deed::Synced { file } => self.files.entry(*file).or_default().sync(),
            Deed::SyncedFolder { folder } => {
                let folder = self.folders.entry(*folder).or_default();
                folder.lasting.clone_from(&folder.now);
                folder.loose.clear();
            }
            Deed::Said(_) => {}
        }
    }

    /// Puts into `target` what a power cut here leaves. `luck` draws a number below another;
    /// without it all is lost that was not synced.
    pub(crate) fn lay_out(&self, target: &Path, luck: &mut Option<impl FnMut(usize) -> usize>) {
        self.lay_out_folder(0, target, luck);
    }

    fn lay_out_folder(
        &self,
        number: Number,
        target: &Path,
        luck: &mut Option<impl FnMut(usize) -> usize>,
    ) {
        fs::create_dir_all(target).expect("a folder");
        let Some(folder) = self.folders.get(&number) else { return };
        for (name, number) in &folder.after_a_power_cut(luck) {
            let path = target.join(name);
            if self.folders.contains_key(number) {
                self.lay_out_folder(*number, &path, luck);
            } else {
                lay_out_file(&self.files[number], &path, luck);
            }
        }
    }
}

fn lay_out_file(content: &Content<'_>, path: &Path, luck: &mut Option<impl FnMut(usize) -> usize>) {
    let mut bytes = content.lasting.clone();
    if let Some(luck) = luck {
        // All, nothing, or here and there a block.
        let fate = luck(3);
        for change in &content.loose {
            if matches!(change, Change::Write(..)) || luck(2) == 0 {
                change.make(&mut bytes, || fate == 0 || fate == 1 && luck(2) == 0);
            }
        }
    }
    let file = File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("a length");
    let zeros = [0; BLOCK_BYTES];
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        if block != &zeros[..block.len()] {
            file.write_all_at(block, (index * BLOCK_BYTES) as u64).expect("written");
        }
    }
}
