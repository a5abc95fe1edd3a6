//! What was done to the failing file system, in order, to tell what a power cut would have left.
//!
//! Kept once a test asks for it, and replayed by [`super::remains`]. Invariant: a deed stands in
//! the diary before its call is answered, and a write, a sync or a name that failed does not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file or folder of the diary, by the order in which they were made; the root is 0.
pub(crate) type Number = u64;

/// What the host knows a file by, until it is removed.
pub(super) type Identity = (u64, u64);

/// A folder, and a name in it.
pub(crate) type Name = (Number, String);

/// Something done.
#[derive(Debug)]
pub(crate) enum Deed {
    Made {
        name: Name,
        file: Number,
        is_folder: bool,
    },
    Linked {
        name: Name,
        file: Number,
    },
    Renamed {
        from: Name,
        to: Name,
    },
    Removed {
        name: Name,
    },
    /// Bytes written at an offset; whether they were durable when that was answered.
    Wrote {
        file: Number,
        offset: u64,
        bytes: Vec<u8>,
        durable: bool,
    },
    /// The file is this long.
    Resized {
        file: Number,
        bytes: u64,
    },
    Synced {
        file: Number,
    },
    SyncedFolder {
        folder: Number,
    },
    /// A word of the test.
    Said(u64),
}

#[derive(Default)]
struct State {
    is_kept: bool,
    deeds: Vec<Deed>,
    numbers: HashMap<Identity, Number>,
    next: Number,
}

impl State {
    fn named(&self, folder: Identity, name: &str) -> Option<Name> {
        Some((*self.numbers.get(&folder)?, name.to_owned()))
    }
}

#[derive(Default)]
pub(crate) struct Diary {
    state: Mutex<State>,
}

impl Diary {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep the diary of a file system that is empty, with this root.
    pub(super) fn begin(&self, root: Identity) {
        let numbers = HashMap::from([(root, 0)]);
        *self.state() = State { is_kept: true, deeds: Vec::new(), numbers, next: 1 };
    }

    /// Puts a word of the test in.
    pub(crate) fn say(&self, word: u64) {
        self.state().deeds.push(Deed::Said(word));
    }

    /// Ends it: what was done.
    pub(crate) fn take(&self) -> Vec<Deed> {
        std::mem::take(&mut *self.state()).deeds
    }

    /// Enters what `deed` makes of the state, unless it is about files that are not known.
    fn enter(&self, deed: impl FnOnce(&mut State) -> Option<Deed>) {
        let mut state = self.state();
        if state.is_kept
            && let Some(deed) = deed(&mut state)
        {
            state.deeds.push(deed);
        }
    }

    pub(super) fn made(&self, folder: Identity, name: &str, file: Identity, is_folder: bool) {
        self.enter(|state| {
            let name = state.named(folder, name)?;
            // The host may give a new file the identity of one that is gone.
            let number = state.next;
            state.next += 1;
            state.numbers.insert(file, number);
            Some(Deed::Made { name, file: number, is_folder })
        });
    }

    pub(super) fn linked(&self, folder: Identity, name: &str, file: Identity) {
        self.enter(|state| {
            let file = *state.numbers.get(&file)?;
            Some(Deed::Linked { name: state.named(folder, name)?, file })
        });
    }

    pub(super) fn renamed(&self, from: (Identity, &str), to: (Identity, &str)) {
        self.enter(|state| {
            let (from, to) = (state.named(from.0, from.1)?, state.named(to.0, to.1)?);
            Some(Deed::Renamed { from, to })
        });
    }

    pub(super) fn removed(&self, folder: Identity, name: &str) {
        self.enter(|state| Some(Deed::Removed { name: state.named(folder, name)? }));
    }

    pub(super) fn wrote(&self, file: Identity, offset: u64, bytes: &[u8], durable: bool) {
        self.enter(|state| {
            let file = *state.numbers.get(&file)?;
            Some(Deed::Wrote { file, offset, bytes: bytes.to_vec(), durable })
        });
    }

    pub(super) fn resized(&self, file: Identity, bytes: u64) {
        self.enter(|state| Some(Deed::Resized { file: *state.numbers.get(&file)?, bytes }));
    }

    pub(super) fn synced(&self, file: Identity) {
        self.enter(|state| Some(Deed::Synced { file: *state.numbers.get(&file)? }));
    }

    pub(super) fn synced_folder(&self, folder: Identity) {
        self.enter(|state| Some(Deed::SyncedFolder { folder: *state.numbers.get(&folder)? }));
    }
}
