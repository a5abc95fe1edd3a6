//! Locks, events, conditions, semaphores, barriers and promises between tasks.
//!
//! Rows:
//! - A13 → `a_promise_is_kept_later_or_told_that_it_will_not_be`
//! - C1 → `two_tasks_take_turns_and_the_second_finds_what_the_first_left`
//! - C2 → `one_set_releases_everybody_and_a_clear_holds_the_next`,
//!   `ten_thousand_wait_for_one_event`
//! - C3 → `a_condition_wakes_one_or_all_and_each_has_the_lock_again`
//! - C4 → `no_more_than_the_permits_run_at_a_time`
//! - C5 → `a_release_too_many_is_an_error_and_a_cancel_takes_no_permit`
//! - C6 → `updates_across_an_await_are_lost_without_a_lock_and_exact_with_it`

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use annulus::sync::{
    Barrier, BoundedSemaphore, Broken, Condvar, Event, Mutex, OnceCell, Promise, RwLock, Semaphore,
};
use annulus::{Engine, task, time};

use crate::harness::{run, turns, turns_until};

on_every_engine!(
    a_promise_is_kept_later_or_told_that_it_will_not_be,
    two_tasks_take_turns_and_the_second_finds_what_the_first_left,
    one_set_releases_everybody_and_a_clear_holds_the_next,
    ten_thousand_wait_for_one_event,
    a_condition_wakes_one_or_all_and_each_has_the_lock_again,
    no_more_than_the_permits_run_at_a_time,
    a_release_too_many_is_an_error_and_a_cancel_takes_no_permit,
    updates_across_an_await_are_lost_without_a_lock_and_exact_with_it,
    an_aborted_holder_hands_the_lock_on,
    a_task_is_aborted_at_each_step_of_its_way_to_the_lock,
    readers_share_and_a_writer_is_not_starved,
    all_meet_at_the_barrier_each_round,
    a_value_is_made_once_though_its_first_maker_is_aborted,
);

type Trace = Rc<RefCell<Vec<&'static str>>>;

fn a_promise_is_kept_later_or_told_that_it_will_not_be(engine: Engine) {
    const U: Duration = Duration::from_millis(20);
    run(engine, async {
        let (promise, promised) = Promise::<&str, &str>::pair();
        let setter = task::spawn(async move {
            time::sleep(2 * U).await;
            assert!(!promise.is_set());
            assert_eq!(promise.set("666"), Ok(()));
            // The second set is refused and gives its value back.
            assert_eq!(promise.set("667").unwrap_err().0, "667");
            assert_eq!(promise.fail("late").unwrap_err().0, "late");
        });
        assert_eq!(promised.await, Ok("666"));
        setter.await.unwrap();

        let (promise, promised) = Promise::<&str, &str>::pair();
        promise.fail("broken").unwrap();
        assert_eq!(promised.await, Err(Broken::Failed("broken")));

        let (promise, promised) = Promise::<&str, &str>::pair();
        let waiter = task::spawn(promised);
        turns(2).await;
        drop(promise);
        assert_eq!(waiter.await.unwrap(), Err(Broken::Canceled));

        let (_never, mut promised) = Promise::<&str, &str>::pair();
        assert!(time::timeout(2 * U, &mut promised).await.is_err(), "it is never set");
    });
}

fn two_tasks_take_turns_and_the_second_finds_what_the_first_left(engine: Engine) {
    async fn visit(
        lines: [&'static str; 3],
        found: Rc<Mutex<Vec<char>>>,
        go_on: Rc<Event>,
        trace: Trace,
    ) {
        let [start, end, ok] = lines;
        let log = |line| trace.borrow_mut().push(line);
        log("lala");
        {
            let mut found = found.lock().await;
            log(start);
            if !found.contains(&'x') {
                go_on.wait().await;
                found.push('x');
                log(end);
            }
        }
        log(ok);
    }
    run(engine, async {
        let trace = Trace::default();
        let (found, go_on) = (Rc::new(Mutex::new(Vec::new())), Rc::new(Event::new()));
        let task = |lines| {
            task::spawn(visit(lines, Rc::clone(&found), Rc::clone(&go_on), Rc::clone(&trace)))
        };
        let one = task(["one start", "one end", "one ok"]);
        let two = task(["two start", "two end", "two ok"]);
        turns_until(|| trace.borrow().len() == 3).await;
        turns(3).await;
        trace.borrow_mut().push("----");
        go_on.set();
        one.await.unwrap();
        two.await.unwrap();
        let expected =
            ["lala", "one start", "lala", "----", "one end", "one ok", "two start", "two ok"];
        assert_eq!(*trace.borrow(), expected);
        assert_eq!(*found.lock().await, ['x']);
    });
}

fn one_set_releases_everybody_and_a_clear_holds_the_next(engine: Engine) {
    run(engine, async {
        let (event, released) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
        let waiter = || {
            let (event, released) = (Rc::clone(&event), Rc::clone(&released));
            task::spawn(async move {
                event.wait().await;
                released.set(released.get() + 1);
            })
        };
        let first: Vec<_> = (0..10).map(|_| waiter()).collect();
        turns_until(|| event.waiting() == 10).await;
        assert_eq!(released.get(), 0);
        event.set();
        event.clear(); // Too late to hold them.
        for task in first {
            task.await.unwrap();
        }
        assert_eq!(released.get(), 10);
        let next = waiter();
        turns(3).await;
        assert_eq!((released.get(), event.is_set()), (10, false));
        event.set();
        next.await.unwrap();
        event.wait().await;
        assert_eq!(released.get(), 11);
    });
}

fn ten_thousand_wait_for_one_event(engine: Engine) {
    const COUNT: usize = 10_000;
    run(engine, async {
        let (event, order) = (Rc::new(Event::new()), Rc::new(RefCell::new(Vec::new())));
        let tasks: Vec<_> = (0..COUNT)
            .map(|number| {
                let (event, order) = (Rc::clone(&event), Rc::clone(&order));
                task::spawn(async move {
                    event.wait().await;
                    order.borrow_mut().push(number);
                })
            })
            .collect();
        turns_until(|| event.waiting() == COUNT).await;
        // Every third goes away; nobody else is held up by it.
        for task in tasks.iter().step_by(3) {
            assert!(task.abort());
        }
        event.set();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.is_ok(), number % 3 != 0);
        }
        let expected: Vec<usize> = (0..COUNT).filter(|number| number % 3 != 0).collect();
        assert!(*order.borrow() == expected, "not all, or not in order");
    });
}

fn a_condition_wakes_one_or_all_and_each_has_the_lock_again(engine: Engine) {
    run(engine, async {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let (inside, woken) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (shared, inside) = (Rc::clone(&shared), Rc::clone(&inside));
                let woken = Rc::clone(&woken);
                task::spawn(async move {
                    let (mutex, changed) = &*shared;
                    let mut count = changed.wait(mutex.lock().await).await;
                    // Alone, because it has the lock.
                    assert_eq!(inside.replace(1), 0);
                    task::yield_now().await;
                    *count += 1;
                    woken.set(woken.get() + 1);
                    inside.set(0);
                })
            })
            .collect();
        let (mutex, changed) = &*shared;
        turns_until(|| changed.waiting() == 5).await;
        turns(3).await;
        assert_eq!(woken.get(), 0);
        changed.notify_one();
        turns_until(|| woken.get() == 1).await;
        turns(3).await;
        assert_eq!((changed.waiting(), woken.get()), (4, 1));
        changed.notify_all();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((changed.waiting(), *mutex.lock().await), (0, 5));
    });
}

fn no_more_than_the_permits_run_at_a_time(engine: Engine) {
    run(engine, async {
        for permits in [1, 3, 10] {
            let semaphore = Rc::new(Semaphore::new(permits));
            let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let tasks: Vec<_> = (0..10)
                .map(|_| {
                    let semaphore = Rc::clone(&semaphore);
                    let (running, most) = (Rc::clone(&running), Rc::clone(&most));
                    task::spawn(async move {
                        let _permit = semaphore.acquire().await.unwrap();
                        running.set(running.get() + 1);
                        most.set(most.get().max(running.get()));
                        time::sleep(Duration::from_millis(1)).await;
                        running.set(running.get() - 1);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!((most.get(), semaphore.available_permits()), (permits, permits));
        }
    });
}

fn a_release_too_many_is_an_error_and_a_cancel_takes_no_permit(engine: Engine) {
    run(engine, async {
        let semaphore = Rc::new(BoundedSemaphore::new(1));
        assert!(semaphore.release().is_err());
        let held = semaphore.acquire_owned().await.unwrap();
        let waiter = {
            let semaphore = Rc::clone(&semaphore);
            task::spawn(async move { semaphore.acquire().await.unwrap().forget() })
        };
        turns(2).await;
        drop(held); // The permit is on its way to the waiter, which goes away instead.
        assert!(waiter.abort());
        assert!(waiter.await.is_err());
        assert_eq!(semaphore.available_permits(), 1);
        semaphore.acquire().await.unwrap().forget();
        assert_eq!(semaphore.release(), Ok(()));
        assert!(semaphore.release().is_err());
        semaphore.close();
        assert!(semaphore.acquire().await.is_err());
    });
}

fn updates_across_an_await_are_lost_without_a_lock_and_exact_with_it(engine: Engine) {
    run(engine, async {
        let (bare, locked) = (Rc::new(Cell::new(0)), Rc::new(Mutex::new(0)));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (bare, locked) = (Rc::clone(&bare), Rc::clone(&locked));
                task::spawn(async move {
                    for _ in 0..10 {
                        let read = bare.get();
                        task::yield_now().await;
                        bare.set(read + 1);
                        let mut guard = locked.lock().await;
                        let read = *guard;
                        task::yield_now().await;
                        *guard = read + 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(bare.get() < 100, "nothing was lost: {}", bare.get());
        assert_eq!(*locked.lock().await, 100);
    });
}

fn an_aborted_holder_hands_the_lock_on(engine: Engine) {
    run(engine, async {
        let mutex = Rc::new(Mutex::new(()));
        let hold = |mutex: Rc<Mutex<()>>| async move {
            let _guard = mutex.lock().await;
            std::future::pending::<()>().await;
        };
        let holder = task::spawn(hold(Rc::clone(&mutex)));
        turns_until(|| mutex.is_locked()).await;
        assert!(mutex.try_lock().is_none());
        assert!(holder.abort());
        drop(mutex.lock().await);
        let panics = {
            let mutex = Rc::clone(&mutex);
            task::spawn(async move {
                let _guard = mutex.lock().await;
                panic!("on purpose");
            })
        };
        assert!(panics.await.unwrap_err().is_panic());
        drop(mutex.lock().await);
        assert!(!mutex.is_locked());
    });
}

fn a_task_is_aborted_at_each_step_of_its_way_to_the_lock(engine: Engine) {
    run(engine, async {
        // Not begun, in line, chosen but not polled, holding.
        for step in 0..4 {
            let mutex = Rc::new(Mutex::new(()));
            let held = mutex.lock().await;
            let task = {
                let mutex = Rc::clone(&mutex);
                task::spawn(async move {
                    let _guard = mutex.lock().await;
                    std::future::pending::<()>().await;
                })
            };
            let next = {
                let mutex = Rc::clone(&mutex);
                task::spawn(async move { drop(mutex.lock().await) })
            };
            if step > 0 {
                turns(2).await;
            }
            if step > 1 {
                drop(held);
                if step > 2 {
                    turns(2).await;
                }
                assert!(task.abort());
            } else {
                assert!(task.abort());
                drop(held);
            }
            assert!(task.await.unwrap_err().is_cancelled());
            next.await.unwrap();
            assert!(!mutex.is_locked());
        }
    });
}

fn readers_share_and_a_writer_is_not_starved(engine: Engine) {
    run(engine, async {
        let (lock, trace) = (Rc::new(RwLock::new(0)), Trace::default());
        let first = lock.read().await;
        let second = lock.try_read().unwrap();
        let writer = {
            let (lock, trace) = (Rc::clone(&lock), Rc::clone(&trace));
            task::spawn(async move {
                *lock.write().await += 1;
                trace.borrow_mut().push("write");
            })
        };
        turns_until(|| lock.try_read().is_none()).await;
        let reader = {
            let (lock, trace) = (Rc::clone(&lock), Rc::clone(&trace));
            task::spawn(async move {
                assert_eq!(*lock.read().await, 1);
                trace.borrow_mut().push("read");
            })
        };
        turns(2).await;
        assert!(lock.try_read().is_none(), "the writer is first in line");
        drop((first, second));
        writer.await.unwrap();
        reader.await.unwrap();
        assert_eq!(*trace.borrow(), ["write", "read"]);
    });
}

fn all_meet_at_the_barrier_each_round(engine: Engine) {
    const PARTIES: usize = 5;
    run(engine, async {
        let (barrier, arrived) = (Rc::new(Barrier::new(PARTIES)), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..PARTIES)
            .map(|number| {
                let (barrier, arrived) = (Rc::clone(&barrier), Rc::clone(&arrived));
                task::spawn(async move {
                    let mut led = 0;
                    for round in 0..3 {
                        turns(number).await;
                        arrived.set(arrived.get() + 1);
                        let meeting = barrier.wait().await;
                        assert!(arrived.get() >= (round + 1) * PARTIES, "not all have come");
                        assert_eq!(meeting.generation(), round as u64);
                        led += usize::from(meeting.is_leader());
                    }
                    led
                })
            })
            .collect();
        let mut led = 0;
        for task in tasks {
            led += task.await.unwrap();
        }
        assert_eq!(led, 3);
    });
}

fn a_value_is_made_once_though_its_first_maker_is_aborted(engine: Engine) {
    run(engine, async {
        let (cell, begun) = (Rc::new(OnceCell::new()), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..10)
            .map(|number| {
                let (cell, begun) = (Rc::clone(&cell), Rc::clone(&begun));
                task::spawn(async move {
                    let make = async || {
                        begun.set(begun.get() + 1);
                        turns(3).await;
                        number
                    };
                    *cell.get_or_init(make).await
                })
            })
            .collect();
        turns_until(|| begun.get() == 1).await;
        assert!(tasks[0].abort());
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.ok(), (number > 0).then_some(1));
        }
        assert_eq!(begun.get(), 2);
    });
}
