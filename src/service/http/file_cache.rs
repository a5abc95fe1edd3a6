//! Files kept open, or in memory when small, so that a hot file costs no system call.
//!
//! One per shard, used by the connection loop. Invariant: what is served was the content of the
//! path within the last `valid`, or is looked at again just now by one connection, while the others
//! are served. A change of a file can thus go unseen for a while, as with other servers' open-file
//! caches.

use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::clock::Instant;

use super::files::{Description, Identity};

/// Where the content of a file comes from.
#[derive(Debug)]
pub(super) enum Content<F> {
    /// All of it.
    Memory(Box<[u8]>),
    /// The open file.
    Open(F),
}

/// A file with all that replies need.
#[derive(Debug)]
pub(super) struct CachedFile<F> {
    pub(super) description: Description,
    pub(super) content: Content<F>,
}

#[derive(Debug)]
struct Slot<F> {
    file: Rc<CachedFile<F>>,
    checked: Instant,
    used: u64,
}

/// Files by the path as it stands in the request, still encoded. `F` is an open file.
#[derive(Debug)]
pub(super) struct FileCache<F> {
    slots: HashMap<Box<[u8]>, Slot<F>>,
    count_max: usize,
    valid: Duration,
    uses: u64,
}

impl<F> FileCache<F> {
    pub(super) fn new(count_max: usize, valid: Duration) -> Self {
        Self { slots: HashMap::new(), count_max, valid, uses: 0 }
    }

    /// The file, if it was looked at recently enough.
    #[inline]
    pub(super) fn get(&mut self, path: &[u8], now: Instant) -> Option<&Rc<CachedFile<F>>> {
        let slot = self.slots.get_mut(path)?;
        if now.since(slot.checked) >= self.valid {
            return None;
        }
        self.uses += 1;
        slot.used = self.uses;
        Some(&slot.file)
    }

    /// As [`FileCache::get`], but when it is time to look again the caller is the one to do so: for
    /// those who come after it, the file counts as looked at.
    pub(super) fn get_or_look(&mut self, path: &[u8], now: Instant) -> Option<Rc<CachedFile<F>>> {
        if let Some(file) = self.get(path, now) {
            return Some(Rc::clone(file));
        }
        if let Some(slot) = self.slots.get_mut(path) {
            slot.checked = now;
        }
        None
    }

    /// The file as it was, if the path still names the same content; it is then good for another
    /// while. Otherwise forgets it.
    pub(super) fn renew(
        &mut self,
        path: &[u8],
        identity: &Identity,
        now: Instant,
    ) -> Option<Rc<CachedFile<F>>> {
        let slot = self.slots.get_mut(path)?;
        if slot.file.description.identity != *identity {
            self.slots.remove(path);
            return None;
        }
        slot.checked = now;
        Some(Rc::clone(&slot.file))
    }

    /// Forgets a path that names no file any more.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.slots.remove(path);
    }

    /// Keeps a file, in place of the one used longest ago when there is no room.
    pub(super) fn insert(
        &mut self,
        path: &[u8],
        file: CachedFile<F>,
        now: Instant,
    ) -> Rc<CachedFile<F>> {
        let file = Rc::new(file);
        if self.count_max == 0 {
            return file;
        }
        if self.slots.len() >= self.count_max && !self.slots.contains_key(path) {
            // A pass over all slots, on a path that has just opened and read a file.
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.slots.remove(&oldest);
            }
        }
        self.uses += 1;
        let slot = Slot { file: Rc::clone(&file), checked: now, used: self.uses };
        self.slots.insert(path.into(), slot);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_nanos(100);

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn identity(size: u64) -> Identity {
        Identity { inode: 1, size, modified_s: 1, modified_ns: 0 }
    }

    fn file(size: u64) -> CachedFile<()> {
        let description = Description::new(b"a", identity(size));
        CachedFile { description, content: Content::Open(()) }
    }

    #[test]
    fn a_file_is_given_out_while_it_is_valid() {
        let mut cache = FileCache::new(4, VALID);
        cache.insert(b"a", file(1), at(1000));
        assert!(cache.get(b"a", at(1099)).is_some());
        assert!(cache.get(b"a", at(1100)).is_none());
        assert!(cache.get(b"b", at(1000)).is_none());
    }

    #[test]
    fn only_one_looks_again_while_the_others_are_served() {
        let mut cache = FileCache::new(4, VALID);
        cache.insert(b"a", file(1), at(0));
        assert!(cache.get(b"a", at(100)).is_none());
        assert!(cache.get_or_look(b"a", at(100)).is_none());
        assert!(cache.get_or_look(b"a", at(101)).is_some());
        assert!(cache.get(b"a", at(199)).is_some());
        assert!(cache.get_or_look(b"a", at(200)).is_none());
    }

    #[test]
    fn an_unchanged_file_is_renewed_and_a_changed_one_forgotten() {
        let mut cache = FileCache::new(4, VALID);
        let before = cache.insert(b"a", file(1), at(0));
        let renewed = cache.renew(b"a", &identity(1), at(500)).unwrap();
        assert!(Rc::ptr_eq(&before, &renewed));
        assert!(cache.get(b"a", at(599)).is_some());
        assert!(cache.renew(b"a", &identity(2), at(600)).is_none());
        assert!(cache.get(b"a", at(600)).is_none());
    }

    #[test]
    fn the_file_used_longest_ago_makes_room() {
        let mut cache = FileCache::new(2, VALID);
        cache.insert(b"a", file(1), at(0));
        cache.insert(b"b", file(1), at(0));
        assert!(cache.get(b"a", at(0)).is_some());
        cache.insert(b"c", file(1), at(0));
        assert!(cache.get(b"a", at(0)).is_some());
        assert!(cache.get(b"b", at(0)).is_none());
        cache.insert(b"c", file(2), at(0));
        assert!(cache.get(b"a", at(0)).is_some());
        cache.forget(b"a");
        assert!(cache.get(b"a", at(0)).is_none());
    }

    #[test]
    fn no_room_at_all_keeps_nothing() {
        let mut cache = FileCache::new(0, VALID);
        cache.insert(b"a", file(1), at(0));
        assert!(cache.get(b"a", at(0)).is_none());
    }
}
