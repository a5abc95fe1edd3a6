//! What tasks and threads share, signal and hand each other.
//!
//! What stands here is for the tasks of one shard: it needs no atomics, is not `Sync`, and is
//! shared by `Rc`. What crosses threads is in [`shared`]. Rules that hold for all of it:
//!
//! - Who waits is served in the order in which it began to wait; nobody overtakes. A receiver that
//!   is polled as a stream takes no place in line, since it may never come back: it is shown what
//!   nobody waits for.
//! - Every wait is cancel safe: dropping it leaves no permit, place, item or turn behind. A waiter
//!   that is dropped after it was chosen passes its turn on.
//! - A wake never runs the woken task: it is queued and runs in the next turn.
//! - Once a primitive is closed, whoever waits is told.
//! - A lock or a permit that a panic or an abort takes away from its holder goes to the next.
//!
//! The compiler keeps what is for one shard from leaving it:
//!
//! ```compile_fail
//! fn may_move<T: Send>() {}
//! may_move::<annulus::sync::channel::Sender<u32>>();
//! ```
//!
//! ```compile_fail
//! fn may_share<T: Sync>() {}
//! may_share::<annulus::sync::Mutex<u32>>();
//! ```

mod barrier;
mod bounded_semaphore;
pub mod broadcast;
pub mod channel;
mod condvar;
mod error;
mod event;
#[cfg(test)]
mod lock_tests;
mod mutex;
mod notify;
mod once;
pub mod oneshot;
mod promise;
#[cfg(test)]
mod puppet;
pub mod queue;
mod rw_lock;
mod semaphore;
pub mod shared;
mod wait_list;
pub mod watch;

pub use self::barrier::{Barrier, BarrierWait, Meeting};
pub use self::bounded_semaphore::{BoundedSemaphore, OverRelease};
pub use self::condvar::Condvar;
pub use self::error::{
    AcquireError, Canceled, SendError, TryAcquireError, TryRecvError, TrySendError,
};
pub use self::event::{Event, EventWait};
pub use self::mutex::{Lock, Mutex, MutexGuard};
pub use self::notify::{Notified, Notify};
pub use self::once::OnceCell;
pub use self::promise::{AlreadySet, Broken, Promise, Promised};
pub use self::rw_lock::{Read, ReadGuard, RwLock, Write, WriteGuard};
pub use self::semaphore::{Acquire, OwnedPermit, Permit, Semaphore};
