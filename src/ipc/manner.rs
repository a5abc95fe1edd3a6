//! Whether descriptors that were taken from elsewhere blocked, so that they do again in the end.
//!
//! O_NONBLOCK belongs to the open file, which others share: a terminal is three descriptors of a
//! program, and its shell's after it. Called by `pipe`. Invariant: the flag is taken back with the
//! last end of a file, since one that is used on must not block its shard.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::driver;
use crate::error::{Errno, Error, Result};

/// Device, inode and access mode: two descriptors of one open file have them in common.
type Identity = (u64, u64, i32);

/// How many ends there are, and whether the file blocked before the first.
struct Taken {
    ends: usize,
    was_blocking: bool,
}

static FILES: Mutex<BTreeMap<Identity, Taken>> = Mutex::new(BTreeMap::new());

fn files() -> MutexGuard<'static, BTreeMap<Identity, Taken>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of a file from elsewhere.
pub(super) struct Manner {
    /// `None` once given back.
    identity: Option<Identity>,
}

impl Manner {
    /// Notes how the file is, before the driver changes it. `place` is its device and inode.
    pub(super) fn note(descriptor: &OwnedFd, place: (u64, u64)) -> Result<Self> {
        let flags = driver::status_flags(descriptor.as_raw_fd());
        let flags = flags.map_err(|errno: Errno| Error::io("looking at a descriptor", errno))?;
        let identity = (place.0, place.1, flags & libc::O_ACCMODE);
        let was_blocking = flags & libc::O_NONBLOCK == 0;
        let mut files = files();
        let taken = files.entry(identity).or_insert(Taken { ends: 0, was_blocking });
        taken.ends += 1;
        Ok(Self { identity: Some(identity) })
    }

    /// Nothing is in flight for the descriptor any more: it blocks again if it did and no other end
    /// is left.
    pub(super) fn give_back(mut self, descriptor: &OwnedFd) {
        self.leave(|| {
            // It fails for what is no open file any more.
            let _ = driver::set_blocking(descriptor.as_raw_fd());
        });
    }

    /// Calls `block` for the last end of a file that blocked, before another can be taken.
    fn leave(&mut self, block: impl FnOnce()) {
        let Some(identity) = self.identity.take() else { return };
        let mut files = files();
        let Some(taken) = files.get_mut(&identity) else { return };
        taken.ends -= 1;
        if taken.ends == 0 {
            if taken.was_blocking {
                block();
            }
            files.remove(&identity);
        }
    }
}

impl Drop for Manner {
    fn drop(&mut self) {
        self.leave(|| {});
    }
}
