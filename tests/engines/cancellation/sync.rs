//! Locks, permits and signals of one shard: who is given up, before or after its turn has come,
//! passes that on, and whoever waits behind it is served.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use annulus::sync::{
    Barrier, BoundedSemaphore, Condvar, Event, Mutex, Notify, OnceCell, RwLock, Semaphore,
};
use annulus::{Engine, task};
use futures_util::join;

use super::{at_every_await, later, small, within};
use crate::harness::{run_with, turns};

on_every_engine!(
    alone: locks,
    permits,
    bounded_permits,
    cells_that_are_filled_once,
    notifications,
    conditions,
    barriers,
);

/// A story of a line: somebody holds what `$first` awaits, the cut future waits for it, `$behind`
/// waits after it, the holder lets go. Whatever becomes of the cut, the one behind is served.
macro_rules! line {
    ($what:expr, $cut:expr, $held:expr, $first:expr, $behind:expr) => {{
        let held = $held;
        let rest = async {
            turns(1).await;
            let mut behind = pin!($behind);
            assert!(futures_util::poll!(behind.as_mut()).is_pending());
            turns(1).await;
            drop(held);
            let _served = within($what, behind).await;
        };
        let first = $cut.past($first);
        join!(first, rest);
    }};
}

fn locks(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Mutex::lock", async |cut| {
            let lock = Mutex::new(());
            line!("lock", cut, lock.lock().await, lock.lock(), lock.lock());
            assert!(lock.try_lock().is_some());
        })
        .await;
        at_every_await("RwLock::read", async |cut| {
            let lock = RwLock::new(());
            line!("read", cut, lock.write().await, lock.read(), lock.write());
            assert!(lock.try_write().is_some());
        })
        .await;
        at_every_await("RwLock::write", async |cut| {
            let lock = RwLock::new(());
            // The reader behind waits for the writer before it, and only as long as that waits.
            let held = lock.read().await;
            let rest = async {
                turns(1).await;
                let behind = within("read behind a write", lock.read());
                let release = async {
                    turns(2).await;
                    drop(held);
                };
                drop(join!(behind, release));
            };
            join!(cut.past(lock.write()), rest);
            assert!(lock.try_write().is_some());
        })
        .await;
    });
}

fn permits(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Semaphore::acquire", async |cut| {
            let permits = Semaphore::new(1);
            let held = permits.acquire().await.unwrap();
            line!("acquire", cut, held, permits.acquire(), permits.acquire());
            assert_eq!(permits.available_permits(), 1);
        })
        .await;
        at_every_await("Semaphore::acquire_many", async |cut| {
            let permits = Semaphore::new(3);
            let held = permits.acquire_many(3).await.unwrap();
            line!("acquire_many", cut, held, permits.acquire_many(2), permits.acquire_many(3));
            assert_eq!(permits.available_permits(), 3);
        })
        .await;
        at_every_await("Semaphore::acquire_owned", async |cut| {
            let permits = Rc::new(Semaphore::new(1));
            let held = Rc::clone(&permits).acquire_owned().await.unwrap();
            let next = || Rc::clone(&permits).acquire_owned();
            line!("acquire_owned", cut, held, next(), next());
            assert_eq!(permits.available_permits(), 1);
        })
        .await;
        at_every_await("Semaphore::acquire_many_owned", async |cut| {
            let permits = Rc::new(Semaphore::new(3));
            let held = Rc::clone(&permits).acquire_many_owned(2).await.unwrap();
            let next = || Rc::clone(&permits).acquire_many_owned(2);
            line!("acquire_many_owned", cut, held, next(), next());
            assert_eq!(permits.available_permits(), 3);
        })
        .await;
    });
}

fn bounded_permits(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("BoundedSemaphore::acquire", async |cut| {
            let permits = BoundedSemaphore::new(1);
            let held = permits.acquire().await.unwrap();
            line!("acquire", cut, held, permits.acquire(), permits.acquire());
            assert!(permits.release().is_err(), "a permit is lost");
        })
        .await;
        at_every_await("BoundedSemaphore::acquire_many", async |cut| {
            let permits = BoundedSemaphore::new(2);
            let held = permits.acquire_many(2).await.unwrap();
            line!("acquire_many", cut, held, permits.acquire_many(2), permits.acquire());
            assert!(permits.release().is_err(), "a permit is lost");
        })
        .await;
        at_every_await("BoundedSemaphore::acquire_owned", async |cut| {
            let permits = BoundedSemaphore::new(1);
            let held = permits.acquire_owned().await.unwrap();
            line!("acquire_owned", cut, held, permits.acquire_owned(), permits.acquire_owned());
            assert!(permits.release().is_err(), "a permit is lost");
        })
        .await;
    });
}

fn cells_that_are_filled_once(engine: Engine) {
    run_with(small(engine), async {
        let make = async |value: u32| {
            turns(2).await;
            value
        };
        at_every_await("OnceCell::get_or_init", async |cut| {
            let cell = OnceCell::new();
            let behind = async {
                turns(1).await;
                *within("get_or_init", cell.get_or_init(async || make(2).await)).await
            };
            let first =
                async { cut.until(cell.get_or_init(async || make(1).await)).await.copied() };
            let (first, behind) = join!(first, behind);
            assert!(first.is_none_or(|first| first == behind), "{first:?} {behind}");
        })
        .await;
        at_every_await("OnceCell::get_or_try_init", async |cut| {
            let cell = OnceCell::new();
            let fail = async || {
                turns(2).await;
                Err::<u32, ()>(())
            };
            let behind = async {
                turns(1).await;
                *within("get_or_try_init", cell.get_or_init(async || make(2).await)).await
            };
            let first = async { cut.until(cell.get_or_try_init(fail)).await };
            let (first, behind) = join!(first, behind);
            assert_eq!(behind, 2);
            assert!(
                first.is_none_or(|first| first.is_ok_and(|value| *value == 2) || first.is_err())
            );
        })
        .await;
        at_every_await("OnceCell::get_or_init behind another", async |cut| {
            let cell = OnceCell::new();
            let before = async {
                cell.get_or_try_init(async || {
                    turns(3).await;
                    Err::<u32, ()>(())
                })
                .await
            };
            let first =
                async { cut.until(cell.get_or_init(async || make(1).await)).await.copied() };
            let behind = async {
                turns(1).await;
                *within("get_or_init", cell.get_or_init(async || make(2).await)).await
            };
            let (_, first, behind) = join!(before, first, behind);
            assert!(first.is_none_or(|first| first == behind), "{first:?} {behind}");
        })
        .await;
        at_every_await("OnceCell::wait", async |cut| {
            let cell = OnceCell::new();
            let set = async {
                turns(2).await;
                cell.set(3).unwrap();
                assert_eq!(*within("wait", cell.wait()).await, 3);
            };
            join!(cut.past(cell.wait()), set);
        })
        .await;
    });
}

/// Notifies one for the first in line, and one for whoever is behind.
struct Notifies<'a>(&'a Notify);

impl Drop for Notifies<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
        self.0.notify_one();
    }
}

fn notifications(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Notify::notified", async |cut| {
            let notify = Notify::new();
            let notifying = async {
                turns(2).await;
                notify.notify_one();
            };
            let (came, ()) = join!(cut.until(notify.notified()), notifying);
            // Who is dropped with the notification in hand gives it back.
            if came.is_none() {
                within("a notification", notify.notified()).await;
            }
        })
        .await;
        at_every_await("Notify::notified, others behind", async |cut| {
            let notify = Notify::new();
            line!("notified", cut, Notifies(&notify), notify.notified(), notify.notified());
        })
        .await;
        at_every_await("Event::wait", async |cut| {
            let event = Rc::new(Event::new());
            let setting = {
                let event = Rc::clone(&event);
                later(move || event.set())
            };
            cut.past(event.wait()).await;
            within("an event", event.wait()).await;
            setting.await.unwrap();
            assert_eq!(event.waiting(), 0);
        })
        .await;
    });
}

fn conditions(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Condvar::wait", async |cut| {
            let (lock, changed) = (Mutex::new(0), Condvar::new());
            let (served, behind_waits) = (Cell::new(None), Cell::new(false));
            let first = async {
                let guard = lock.lock().await;
                served.set(Some(cut.until(changed.wait(guard)).await.is_some()));
            };
            let behind = async {
                turns(1).await;
                let guard = lock.lock().await;
                behind_waits.set(true);
                drop(within("a notification passed on", changed.wait(guard)).await);
            };
            let notify = async {
                while !behind_waits.get() {
                    turns(1).await;
                }
                changed.notify_one();
                while served.get().is_none() {
                    turns(1).await;
                }
                if served.get() == Some(true) {
                    changed.notify_one();
                }
            };
            join!(first, behind, notify);
            assert!(lock.try_lock().is_some());
            assert_eq!(changed.waiting(), 0);
        })
        .await;
        at_every_await("Condvar::wait_while", async |cut| {
            let (lock, changed) = (Mutex::new(0), Condvar::new());
            let first = async {
                let guard = lock.lock().await;
                cut.until(changed.wait_while(guard, |count| *count < 3)).await.map(|count| *count)
            };
            let counting = async {
                for _ in 0..3 {
                    turns(2).await;
                    *within("a lock", lock.lock()).await += 1;
                    changed.notify_all();
                }
            };
            let (count, ()) = join!(first, counting);
            assert!(count.is_none_or(|count| count == 3));
            assert!(lock.try_lock().is_some());
        })
        .await;
    });
}

fn barriers(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Barrier::wait", async |cut| {
            let barrier = Rc::new(Barrier::new(2));
            let other = {
                let barrier = Rc::clone(&barrier);
                task::spawn(async move {
                    turns(4).await;
                    barrier.wait().await.is_leader()
                })
            };
            let met = cut.until(barrier.wait()).await;
            // Who was given up before they met does not count.
            if met.is_none() && !other.is_finished() {
                turns(6).await;
                if !other.is_finished() {
                    assert!(within("a barrier", barrier.wait()).await.is_leader());
                }
            }
            let is_leader = within("a barrier", other).await.unwrap();
            assert!(met.is_none_or(|met| met.is_leader() != is_leader));
            assert_eq!(barrier.waiting(), 0);
        })
        .await;
    });
}
