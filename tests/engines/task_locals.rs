//! Task-locals: copied at the spawn, seen and changed by their own task alone.
//!
//! | row | test |
//! |---|---|
//! | A20 | a_task_local_is_copied_at_the_spawn, a_callback_sees_the_locals_of_who_registered_it |

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;

use annulus::shard::{ShardId, shard};
use annulus::{Engine, task, task_local};

use crate::harness::{OnDrop, builder, run, turns};

on_every_engine!(
    a_task_local_is_copied_at_the_spawn,
    a_callback_sees_the_locals_of_who_registered_it,
    the_first_local_of_all_stays_with_its_task,
    what_is_dropped_sees_the_locals_of_its_task,
    a_message_has_no_locals_and_each_run_starts_afresh,
);

task_local! {
    static NUMBER: u32;
    static WORD: &'static str;
}

fn a_task_local_is_copied_at_the_spawn(engine: Engine) {
    run(engine, async {
        assert_eq!(NUMBER.get(), None);
        NUMBER.set(1);
        WORD.set("main");
        let child = task::spawn(async {
            assert_eq!((NUMBER.get(), WORD.get()), (Some(1), Some("main")));
            NUMBER.set(2);
            task::yield_now().await;
            let grandchild = task::spawn(async { NUMBER.get() }).await.unwrap();
            (NUMBER.get(), grandchild)
        });
        // Set after the spawn: not the child's.
        NUMBER.set(3);
        assert_eq!(child.await.unwrap(), (Some(2), Some(2)));
        assert_eq!(NUMBER.get(), Some(3));
        assert_eq!(NUMBER.clear().as_deref(), Some(&3));
        assert_eq!((NUMBER.get(), WORD.get()), (None, Some("main")));
        let bare = task::spawn(async { (NUMBER.get(), WORD.get()) });
        assert_eq!(bare.await.unwrap(), (None, Some("main")));
    });
}

fn a_callback_sees_the_locals_of_who_registered_it(engine: Engine) {
    run(engine, async {
        NUMBER.set(1);
        let task = task::spawn(async { NUMBER.set(2) });
        let seen = Rc::new(Cell::new(None));
        let place = Rc::clone(&seen);
        task.on_complete(move |_| place.set(NUMBER.get()));
        task.await.unwrap();
        assert_eq!(seen.get(), Some(1));
        assert_eq!(NUMBER.get(), Some(1));
    });
}

fn the_first_local_of_all_stays_with_its_task(engine: Engine) {
    run(engine, async {
        let task = task::spawn(async {
            NUMBER.set(7);
            task::yield_now().await;
            NUMBER.get()
        });
        assert_eq!(task.await.unwrap(), Some(7));
        assert_eq!(NUMBER.get(), None);
    });
}

fn what_is_dropped_sees_the_locals_of_its_task(engine: Engine) {
    run(engine, async {
        NUMBER.set(1);
        let seen = Rc::new(Cell::new(None));
        let place = Rc::clone(&seen);
        let guard = OnDrop(move || {
            place.set(NUMBER.get());
            NUMBER.set(99);
        });
        let task = task::spawn(async move {
            NUMBER.set(2);
            pending::<()>().await;
            drop(guard);
        });
        turns(1).await;
        task.abort();
        assert!(task.await.is_err());
        assert_eq!((seen.get(), NUMBER.get()), (Some(2), Some(1)));
    });
}

fn a_message_has_no_locals_and_each_run_starts_afresh(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    runtime.block_on(async {
        NUMBER.set(1);
        let own = shard(ShardId(0));
        let swapped = || NUMBER.set(2).map(|value| *value);
        assert_eq!(own.call(swapped).await.unwrap(), None);
        assert_eq!(own.call(swapped).await.unwrap(), None);
        assert_eq!(NUMBER.get(), Some(1));
    });
    assert_eq!(runtime.block_on(async { NUMBER.get() }), None);
}
