//! Tasks that end with the block that owns them, resources that are closed whatever happens, and
//! cancellation by consent.
//!
//! A8 (token) → a_task_that_ignores_its_token_runs_on, a_cancel_from_another_thread_arrives.
//! A17 → a_bracket_closes_after_its_body, a_bracket_closes_after_an_error,
//! a_bracket_closes_when_it_is_aborted, a_close_is_not_cut_short_by_an_abort.

use std::cell::Cell;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::thread;

use annulus::future::FutureExt;
use annulus::task::{CancellationToken, OnError, Scope, ScopeError, TaskError};
use annulus::{Engine, task, time};

use crate::harness::{builder, eventually_here, run, turns};
use crate::script::{Script, U, Watch, run_timed};

on_every_engine!(
    a_scope_ends_when_its_children_have,
    a_childs_value_goes_to_its_handle,
    a_body_borrows_from_its_caller,
    a_childs_error_cancels_the_rest,
    a_bodys_error_cancels_the_children,
    a_patient_scope_lets_all_come_to_their_ends,
    a_childs_panic_is_listed,
    a_bodys_panic_goes_on_when_the_children_have_ended,
    a_scope_that_is_aborted_aborts_its_children,
    children_spawn_children,
    an_error_of_a_childs_child_is_seen_at_once,
    a_scope_that_ends_takes_no_children,
    children_that_serve_are_aborted_without_failure,
    a_child_that_is_aborted_is_no_failure,
    scopes_nest,
    a_scope_error_names_all_failures,
    a_bracket_closes_after_its_body,
    a_bracket_closes_after_an_error,
    a_bracket_closes_when_it_is_aborted,
    a_close_is_not_cut_short_by_an_abort,
    a_bracket_closes_when_its_body_panics,
    a_bracket_outside_of_a_runtime_drops_its_resource,
    a_token_ends_what_listens_to_it,
    a_task_that_ignores_its_token_runs_on,
    a_cancel_from_another_thread_arrives,
    a_childs_cancel_leaves_its_parent_alone,
    a_guard_cancels_its_token_unless_disarmed,
);

type Failed<T> = Result<T, ScopeError<&'static str>>;

fn a_scope_ends_when_its_children_have(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let value: Failed<u32> = task::scope(|scope| {
            let script = script.clone();
            async move {
                for (name, units) in [("two", 2), ("one", 1)] {
                    scope.spawn(script.clone().act(name, units, Ok(())));
                }
                assert_eq!(scope.children(), 2);
                script.note("body ends");
                Ok(5)
            }
        })
        .await;
        assert_eq!(value.unwrap(), 5);
        watch.assert_units(2);
        let expected = "body ends,two begins,one begins,one ends,two ends";
        assert_eq!(script.text(), expected);
    });
}

fn a_childs_value_goes_to_its_handle(engine: Engine) {
    run(engine, async {
        let sum: Failed<u32> = task::scope(async |scope| {
            let builder = task::Builder::new().name("two");
            let (one, two) =
                (scope.spawn(async { Ok(1) }), scope.spawn_on(builder, async { Ok(2) }));
            Ok(one.await.unwrap() + two.await.unwrap())
        })
        .await;
        assert_eq!(sum.unwrap(), 3);
    });
}

fn a_body_borrows_from_its_caller(engine: Engine) {
    run(engine, async {
        let mut sum = 0;
        let done: Failed<()> = task::scope(async |scope| {
            for number in 1..=3 {
                sum += scope.spawn(async move { Ok(number) }).await.unwrap();
            }
            Ok(())
        })
        .await;
        done.unwrap();
        assert_eq!(sum, 6);
    });
}

/// A child that never ends by itself and notes its end.
fn spawn_endless(scope: &Scope<&'static str>, script: &Script, name: &'static str) {
    let guard = script.on_drop(name);
    scope.spawn(async move {
        let _guard = guard;
        pending::<Result<(), _>>().await
    });
}

fn a_childs_error_cancels_the_rest(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let result: Failed<()> = task::scope(async |scope| {
            let _guard = noted.on_drop("body");
            spawn_endless(&scope, &noted, "endless");
            let fails = scope.spawn(async {
                turns(3).await;
                Err::<u32, _>("failed")
            });
            // The body does not see the failure: it is dropped at this await.
            fails.await.expect("it never comes to this");
            Ok(())
        })
        .await;
        assert_eq!(script.text(), "body,endless", "all have ended when the scope has");
        let failures = result.unwrap_err().into_failures();
        assert!(matches!(failures[..], [TaskError::Failed("failed")]), "{failures:?}");
    });
}

fn a_bodys_error_cancels_the_children(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let result: Failed<()> = task::scope(async |scope| {
            spawn_endless(&scope, &script, "endless");
            turns(2).await;
            Err("failed")
        })
        .await;
        assert_eq!(script.text(), "endless");
        assert_eq!(result.unwrap_err().first_error(), Some("failed"));
    });
}

fn a_patient_scope_lets_all_come_to_their_ends(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let result: Failed<()> = task::scope_with(OnError::AwaitRest, async |scope| {
            for (name, count) in [("fails first", 1), ("fails last", 9)] {
                let script = script.clone();
                scope.spawn(async move {
                    turns(count).await;
                    script.note(name);
                    Err::<(), _>(name)
                });
            }
            let missing = scope.spawn(async { Err::<u32, _>("fails at once") });
            assert_eq!(missing.await, None);
            turns(4).await;
            script.note("body ends");
            Ok(())
        })
        .await;
        assert_eq!(script.text(), "fails first,body ends,fails last");
        let error = result.unwrap_err();
        let failed: Vec<_> =
            error.failures().iter().map(|failure| *failure.failed().unwrap()).collect();
        assert_eq!(failed, ["fails at once", "fails first", "fails last"]);
    });
}

fn a_childs_panic_is_listed(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let result: Failed<()> = task::scope(async |scope| {
            spawn_endless(&scope, &script, "endless");
            scope.spawn::<(), _>(async { panic!("on purpose") });
            pending().await
        })
        .await;
        let failures = result.unwrap_err().into_failures();
        let [TaskError::Join(error)] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        assert_eq!(script.text(), "endless");
    });
}

fn a_bodys_panic_goes_on_when_the_children_have_ended(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let scope = task::scope(async |scope| -> Result<(), &'static str> {
            spawn_endless(&scope, &noted, "endless");
            turns(2).await;
            panic!("on purpose")
        });
        let panic = AssertUnwindSafe(scope).catch_unwind().await.unwrap_err();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "on purpose");
        assert_eq!(script.text(), "endless");
    });
}

fn a_scope_that_is_aborted_aborts_its_children(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let outer = task::spawn(async move {
            let ended: Failed<()> = task::scope(async |scope| {
                let _guard = noted.on_drop("body");
                spawn_endless(&scope, &noted, "one");
                spawn_endless(&scope, &noted, "two");
                pending().await
            })
            .await;
            drop(ended);
        });
        turns(3).await;
        outer.abort();
        assert!(outer.await.unwrap_err().is_cancelled());
        turns(2).await;
        let text = script.text();
        assert!(["body,one,two", "body,two,one"].contains(&text.as_str()), "{text}");
    });
}

fn children_spawn_children(engine: Engine) {
    async fn spread(
        scope: Scope<&'static str>,
        ended: Rc<Cell<u32>>,
        depth: u32,
    ) -> Result<(), &'static str> {
        turns(1).await;
        if depth > 0 {
            for _ in 0..2 {
                let child: LocalBox = Box::pin(spread(scope.clone(), Rc::clone(&ended), depth - 1));
                scope.spawn(child);
            }
        }
        ended.set(ended.get() + 1);
        Ok(())
    }
    type LocalBox = std::pin::Pin<Box<dyn Future<Output = Result<(), &'static str>>>>;
    run(engine, async {
        let ended = Rc::new(Cell::new(0));
        let result: Failed<()> = task::scope(async |scope| {
            scope.spawn(spread(scope.clone(), Rc::clone(&ended), 5));
            Ok(())
        })
        .await;
        result.unwrap();
        assert_eq!(ended.get(), 63);
        assert_eq!(Rc::strong_count(&ended), 1);
    });
}

fn an_error_of_a_childs_child_is_seen_at_once(engine: Engine) {
    run(engine, async {
        let result: Failed<()> = task::scope(async |scope| {
            let own = scope.clone();
            scope.spawn(async move {
                turns(2).await;
                own.spawn(async { Err::<(), _>("failed") });
                pending::<Result<(), _>>().await
            });
            pending().await
        })
        .await;
        assert_eq!(result.unwrap_err().first_error(), Some("failed"));
    });
}

fn a_scope_that_ends_takes_no_children(engine: Engine) {
    run(engine, async {
        let kept: Rc<Cell<Option<Scope<&'static str>>>> = Rc::default();
        let result: Failed<()> = task::scope(async |scope| {
            kept.set(Some(scope.clone()));
            Ok(())
        })
        .await;
        result.unwrap();
        let scope = kept.take().unwrap();
        let late = scope.spawn(async { Ok(1) });
        assert_eq!((late.id(), late.abort()), (None, false));
        assert_eq!(late.await, None);
        assert_eq!(scope.children(), 0);

        // One that is being cancelled takes none either, and its end is not held up.
        let result: Failed<()> = task::scope(async |scope| {
            let late = scope.clone();
            let guard = Spawns(late);
            scope.spawn(async move {
                let _guard = guard;
                pending::<Result<(), _>>().await
            });
            turns(2).await;
            Err("failed")
        })
        .await;
        assert_eq!(result.unwrap_err().failures().len(), 1);
    });
}

struct Spawns(Scope<&'static str>);

impl Drop for Spawns {
    fn drop(&mut self) {
        self.0.spawn(pending::<Result<(), _>>());
    }
}

fn children_that_serve_are_aborted_without_failure(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let result: Failed<u32> = task::scope(async |scope| {
            spawn_endless(&scope, &script, "served");
            turns(2).await;
            scope.abort_children();
            Ok(5)
        })
        .await;
        assert_eq!(result.unwrap(), 5);
        assert_eq!(script.text(), "served");
    });
}

fn a_child_that_is_aborted_is_no_failure(engine: Engine) {
    run(engine, async {
        let result: Failed<u32> = task::scope(async |scope| {
            let child = scope.spawn(pending::<Result<u32, _>>());
            assert!(child.id().is_some());
            assert!(child.abort());
            assert_eq!(child.await, None);
            Ok(5)
        })
        .await;
        assert_eq!(result.unwrap(), 5);
    });
}

fn scopes_nest(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let result: Failed<()> = task::scope(async |outer| {
            let inner = async move {
                let ended: Failed<()> = task::scope(async |inner| {
                    spawn_endless(&inner, &noted, "grandchild");
                    pending().await
                })
                .await;
                ended.map_err(|_| "inner")
            };
            outer.spawn(inner);
            turns(3).await;
            Err("failed")
        })
        .await;
        assert!(result.is_err());
        turns(2).await;
        assert_eq!(script.text(), "grandchild");
    });
}

fn a_scope_error_names_all_failures(engine: Engine) {
    run(engine, async {
        let result: Failed<()> = task::scope_with(OnError::AwaitRest, async |scope| {
            scope.spawn(async { Err::<(), _>("no bread") });
            scope.spawn::<(), _>(async { panic!("on purpose") });
            Err("no wine")
        })
        .await;
        let text = result.unwrap_err().to_string();
        let expected = "3 failed in the scope: no wine; no bread; the task panicked: on purpose";
        assert_eq!(text, expected);
    });
}

/// Enter and exit of a unit each, around a resource.
async fn use_666(
    script: Script,
    body: impl AsyncFnOnce(&mut u32) -> Result<u32, &'static str>,
) -> Result<u32, &'static str> {
    let exit = script.clone();
    let resource = script.clone().act("enter", 1, 666).await;
    task::bracket(resource, body, async move |value| {
        assert_eq!(value, 666);
        exit.act("exit", 1, ()).await;
    })
    .await
}

const WHOLE: &str = "enter begins,enter ends,body,exit begins,exit ends";

fn a_bracket_closes_after_its_body(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let watch = Watch::start();
        let value = use_666(script.clone(), async |value| {
            script.note("body");
            Ok(*value)
        });
        assert_eq!(value.await, Ok(666));
        watch.assert_units(2);
        assert_eq!(script.text(), WHOLE);
    });
}

fn a_bracket_closes_after_an_error(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let value = use_666(script.clone(), async |_| {
            script.note("body");
            Err("failed")?;
            Ok(1)
        });
        assert_eq!(value.await, Err("failed"));
        assert_eq!(script.text(), WHOLE);
    });
}

fn a_bracket_closes_when_it_is_aborted(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let user = task::spawn(use_666(script.clone(), async move |_| {
            noted.note("body");
            pending().await
        }));
        let waits = script.clone();
        eventually_here("the body runs", move || waits.text().ends_with("body")).await;
        user.abort();
        assert!(user.await.unwrap_err().is_cancelled());
        eventually_here("it was closed", || script.text() == WHOLE).await;
    });
}

fn a_close_is_not_cut_short_by_an_abort(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let user = task::spawn(use_666(script.clone(), async move |_| {
            noted.note("body");
            Ok(1)
        }));
        let waits = script.clone();
        eventually_here("it is closing", move || waits.text().ends_with("exit begins")).await;
        user.abort();
        assert!(user.await.unwrap_err().is_cancelled());
        eventually_here("it was closed", || script.text() == WHOLE).await;
    });
}

fn a_bracket_closes_when_its_body_panics(engine: Engine) {
    run_timed(engine, async {
        let script = Script::default();
        let noted = script.clone();
        let user = task::spawn(use_666(script.clone(), async move |_| {
            noted.note("body");
            panic!("on purpose")
        }));
        assert!(user.await.unwrap_err().is_panic());
        eventually_here("it was closed", || script.text() == WHOLE).await;

        let panics = task::bracket((), async |()| (), async |()| panic!("in the close"));
        let panic = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "in the close");
    });
}

fn a_bracket_outside_of_a_runtime_drops_its_resource(engine: Engine) {
    let script = Script::default();
    let runtime = builder(engine).build().unwrap();
    let guard = script.on_drop("dropped");
    let mut bracket = Box::pin(task::bracket(
        guard,
        async |_| pending::<()>().await,
        async |_| unreachable!("there is nobody to run it"),
    ));
    let polled = runtime.block_on(async { time::timeout(U, bracket.as_mut()).await });
    assert!(polled.is_err());
    drop(bracket);
    assert_eq!(script.text(), "dropped");
}

fn a_token_ends_what_listens_to_it(engine: Engine) {
    run(engine, async {
        let script = Script::default();
        let token = CancellationToken::new();
        let (child, noted) = (token.child_token(), script.clone());
        let worker = task::spawn(async move {
            let guard = noted.on_drop("dropped");
            let endless = async move {
                let _guard = guard;
                pending::<()>().await;
            };
            assert_eq!(child.run_until_cancelled(endless).await, None);
            noted.note("cleaned up");
        });
        turns(2).await;
        assert!(!token.is_cancelled());
        token.cancel();
        token.cancel();
        worker.await.unwrap();
        assert_eq!(script.text(), "dropped,cleaned up");
        // A cancel goes first, a value comes through before it.
        assert_eq!(token.run_until_cancelled(async { 1 }).await, None);
        assert_eq!(CancellationToken::new().run_until_cancelled(async { 1 }).await, Some(1));
        token.cancelled().await;
    });
}

fn a_task_that_ignores_its_token_runs_on(engine: Engine) {
    run(engine, async {
        let token = CancellationToken::new();
        let ignored = token.clone();
        let stubborn = task::spawn(async move {
            turns(5).await;
            ignored.is_cancelled()
        });
        token.cancel();
        assert!(stubborn.await.unwrap(), "it came to its end all the same");
    });
}

fn a_cancel_from_another_thread_arrives(engine: Engine) {
    run(engine, async {
        let token = CancellationToken::new();
        let waiters = task::gather((0..10).map(|_| token.child_token()).map(|child| async move {
            child.cancelled().await;
        }));
        let sent = token.clone();
        let thread = thread::spawn(move || sent.cancel());
        assert!(waiters.await.into_iter().all(|waited| waited.is_ok()));
        thread.join().unwrap();
    });
}

fn a_childs_cancel_leaves_its_parent_alone(engine: Engine) {
    run(engine, async {
        let parent = CancellationToken::new();
        let (one, two) = (parent.child_token(), parent.child_token());
        one.cancel();
        assert_eq!(
            [&parent, &one, &two].map(CancellationToken::is_cancelled),
            [false, true, false]
        );
        parent.cancel();
        assert!(two.is_cancelled());
        assert!(parent.child_token().is_cancelled(), "born cancelled");
    });
}

fn a_guard_cancels_its_token_unless_disarmed(engine: Engine) {
    run(engine, async {
        let token = CancellationToken::new();
        let disarmed = token.clone().drop_guard().disarm();
        assert!(!disarmed.is_cancelled());
        drop(token.clone().drop_guard());
        assert!(token.is_cancelled());
    });
}
