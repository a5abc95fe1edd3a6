//! What crosses threads: from shard to shard, and between shards and plain threads.
//!
//! Everything here is `Send` and `Sync` as far as its values are, is shared by `Arc`, and costs
//! atomics; within a shard [`crate::sync`] is cheaper. Locks, barrier and cell are those of the
//! `async-lock` crate, [`channel`] is `async-channel`, [`notify`] is `event-listener`; they wake a
//! task of whichever shard it lives on, and are fair in the long run, not strictly in order.
//! [`spsc`] is the fast way from one shard to another.
//!
//! Names that end in `_blocking` are for plain threads. On a shard they would stop all its tasks;
//! those of [`spsc`], [`oneshot`] and [`Event`] refuse to.
//!
//! ```
//! use annulus::{Runtime, sync::shared::channel};
//!
//! let (sender, receiver) = channel::bounded(8);
//! let thread = std::thread::spawn(move || sender.send_blocking("from a thread"));
//! let received = Runtime::new()?.block_on(async { receiver.recv().await });
//! assert_eq!(received, Ok("from a thread"));
//! thread.join().unwrap().unwrap();
//! # annulus::Result::Ok(())
//! ```

#[cfg(not(loom))]
mod event;
pub mod oneshot;
mod park;
#[cfg(all(test, loom))]
pub(crate) mod sleep;
pub mod spsc;
mod waiter;

#[cfg(any(feature = "daemon", loom))]
pub(crate) use self::waiter::Waiter;
#[cfg(not(loom))]
pub use async_lock::{
    Barrier, BarrierWaitResult, Mutex, MutexGuard, MutexGuardArc, OnceCell, RwLock,
    RwLockReadGuard, RwLockReadGuardArc, RwLockUpgradableReadGuard, RwLockWriteGuard,
    RwLockWriteGuardArc, Semaphore, SemaphoreGuard, SemaphoreGuardArc,
};

#[cfg(not(loom))]
pub use self::event::Event;

/// Queues between any number of threads and tasks: the `async-channel` crate.
#[cfg(not(loom))]
pub mod channel {
    pub use async_channel::{
        Receiver, Recv, RecvError, Send, SendError, Sender, TryRecvError, TrySendError,
        WeakReceiver, WeakSender, bounded, unbounded,
    };
}

/// Notifications between threads, to build other primitives on: the `event-listener` crate.
#[cfg(not(loom))]
pub mod notify {
    pub use event_listener::{Event, EventListener, IntoNotification, Listener, Notification};
}
