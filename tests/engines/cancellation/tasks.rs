//! Tasks, groups of them, and combinators: a result that was not taken is there for the next, and
//! what a group owns ends with it.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use annulus::future::{as_completed, join_all, or, race, try_join_all};
use annulus::stream::{self, StreamExt};
use annulus::task::{self, CancellationToken, JoinSet, OnError, Scope, WaitFor};
use annulus::{Engine, time};

use super::{at_every_await, later, small, within};
use crate::harness::{run_with, turns};

on_every_engine!(
    alone: joining,
    gathering,
    scopes,
    brackets,
    sets,
    waiting_for_some,
    tokens,
    combinators,
    streams,
);

const AGES: Duration = Duration::from_secs(3600);

/// A few awaits of different kinds, and then a value.
async fn work(value: u32) -> u32 {
    turns(value as usize % 3).await;
    time::sleep(Duration::from_micros(50 * u64::from(value))).await;
    value
}

fn joining(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("JoinHandle", async |cut| {
            let mut task = task::spawn(work(3));
            let value = match cut.until(&mut task).await {
                Some(value) => value,
                None => within("a task's value", task).await,
            };
            assert_eq!(value.unwrap(), 3);
        })
        .await;
        at_every_await("JoinHandle of a task that is aborted", async |cut| {
            let mut task = task::spawn(time::sleep(AGES));
            let abort = task.abort_handle();
            let aborting = later(move || abort.abort());
            let ended = match cut.until(&mut task).await {
                Some(ended) => ended,
                None => within("a task's end", task).await,
            };
            assert!(ended.unwrap_err().is_cancelled() && aborting.await.unwrap());
        })
        .await;
        at_every_await("shield", async |cut| {
            let done = Rc::new(Cell::new(false));
            let shielded = {
                let done = Rc::clone(&done);
                async move {
                    work(2).await;
                    done.set(true);
                }
            };
            cut.past(async { task::shield(shielded).await }).await;
            let is_begun = task::all().iter().len() > 0 || done.get();
            while is_begun && !done.get() && !task::all().is_empty() {
                turns(1).await;
            }
            assert_eq!(done.get(), is_begun, "it runs on");
        })
        .await;
    });
}

fn gathering(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("gather", async |cut| {
            let values = cut.until(task::gather([work(3), work(1), work(2)])).await;
            if let Some(values) = values {
                let values: Vec<u32> = values.into_iter().map(Result::unwrap).collect();
                assert_eq!(values, [3, 1, 2]);
            }
        })
        .await;
        at_every_await("try_gather", async |cut| {
            let futures = [3, 1, 2].map(|value| async move {
                let value = work(value).await;
                if value == 2 { Err(value) } else { Ok(value) }
            });
            let values = cut.until(task::try_gather(futures)).await;
            assert!(values.is_none_or(|values| values.unwrap_err().failed() == Some(&2)));
        })
        .await;
    });
}

fn scopes(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("scope", async |cut| {
            let open = Rc::new(Cell::new(0));
            let scope = task::scope(async |scope: Scope<()>| {
                for value in 0..3 {
                    let guard = Guard::new(&open);
                    scope.spawn(async move {
                        work(value).await;
                        drop(guard);
                        Ok(())
                    });
                }
                let value = scope.spawn(async { Ok(work(4).await) }).await;
                Ok::<_, ()>(value)
            });
            let value = cut.until(scope).await;
            assert!(value.as_ref().is_none_or(|value| *value.as_ref().unwrap() == Some(4)));
            assert!(value.is_none() || open.get() == 0, "children end before their scope");
            while open.get() > 0 {
                turns(1).await;
            }
        })
        .await;
        at_every_await("scope_with a failure", async |cut| {
            let scope = task::scope_with(OnError::CancelRest, async |scope: Scope<u32>| {
                scope.spawn(async {
                    time::sleep(AGES).await;
                    Ok(())
                });
                scope.spawn(async { Err::<(), _>(work(2).await) });
                time::sleep(AGES).await;
                Ok(())
            });
            let ended = cut.until(scope).await;
            assert!(ended.is_none_or(|ended| ended.unwrap_err().first_error() == Some(2)));
        })
        .await;
        at_every_await("ScopedTask", async |cut| {
            let ended = task::scope(async |scope: Scope<()>| {
                let child = scope.spawn(async { Ok(work(2).await) });
                Ok::<_, ()>(cut.until(child).await)
            });
            assert!(ended.await.unwrap().is_none_or(|value| value == Some(2)));
        })
        .await;
    });
}

/// Counts those that are alive.
struct Guard(Rc<Cell<u32>>);

impl Guard {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn brackets(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("bracket", async |cut| {
            let (opened, closed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (open, close) = (Rc::clone(&opened), Rc::clone(&closed));
            let bracket = task::bracket(
                (),
                async move |(): &mut ()| {
                    open.set(open.get() + 1);
                    work(2).await
                },
                async move |()| {
                    work(2).await;
                    close.set(close.get() + 1);
                },
            );
            assert!(cut.until(bracket).await.is_none_or(|value| value == 2));
            while closed.get() < opened.get() {
                assert!(!task::all().is_empty(), "what was opened is closed");
                turns(1).await;
            }
            assert_eq!(opened.get(), closed.get());
        })
        .await;
    });
}

fn set() -> JoinSet<u32> {
    let mut set = JoinSet::new();
    for value in [3, 1, 2] {
        set.spawn(work(value));
    }
    set
}

async fn rest_of(set: &mut JoinSet<u32>) -> Vec<u32> {
    let mut rest = Vec::new();
    while let Some(value) = within("join_next", set.join_next()).await {
        rest.push(value.unwrap());
    }
    rest
}

fn sets(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("JoinSet::join_next", async |cut| {
            let mut set = set();
            let mut all = Vec::new();
            let joining = async {
                while let Some(value) = set.join_next().await {
                    all.push(value.unwrap());
                }
            };
            cut.past(joining).await;
            all.extend(rest_of(&mut set).await);
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3], "each result comes once");
        })
        .await;
        at_every_await("JoinSet::shut_down", async |cut| {
            let mut set = JoinSet::new();
            set.spawn(time::sleep(AGES));
            set.spawn(time::sleep(AGES));
            if cut.until(set.shut_down()).await.is_some() {
                assert!(set.is_empty());
            }
        })
        .await;
    });
}

fn waiting_for_some(engine: Engine) {
    run_with(small(engine), async {
        for wait_for in [WaitFor::All, WaitFor::First, WaitFor::FirstError] {
            at_every_await(&format!("wait, {wait_for:?}"), async |cut| {
                let mut set = set();
                let done = cut.until(task::wait(&mut set, wait_for, Some(AGES))).await;
                let done = done.map_or_else(Vec::new, |(done, _)| done);
                let mut all: Vec<u32> = done.into_iter().map(Result::unwrap).collect();
                all.extend(rest_of(&mut set).await);
                all.sort_unstable();
                assert_eq!(all, [1, 2, 3], "each result comes once");
            })
            .await;
        }
        at_every_await("wait_where", async |cut| {
            let mut set = set();
            let is_enough = |ended: &Result<u32, _>| ended.as_ref().is_ok_and(|value| *value == 2);
            let short = Some(Duration::from_micros(100));
            let done = cut.until(task::wait_where(&mut set, is_enough, short)).await;
            let done = done.map_or_else(Vec::new, |(done, _)| done);
            let mut all: Vec<u32> = done.into_iter().map(Result::unwrap).collect();
            all.extend(rest_of(&mut set).await);
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3], "each result comes once");
        })
        .await;
    });
}

fn tokens(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("CancellationToken::cancelled", async |cut| {
            let token = CancellationToken::new();
            let child = token.child_token();
            let cancelling = later(move || token.cancel());
            cut.past(child.cancelled()).await;
            within("cancelled", child.cancelled()).await;
            cancelling.await.unwrap();
        })
        .await;
        at_every_await("run_until_cancelled", async |cut| {
            let token = CancellationToken::new();
            let running = token.clone();
            let cancelling = later(move || token.cancel());
            let ended = cut.until(running.run_until_cancelled(time::sleep(AGES))).await;
            assert!(ended.is_none_or(|ended| ended.is_none()));
            cancelling.await.unwrap();
        })
        .await;
    });
}

fn combinators(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("join_all", async |cut| {
            let values = cut.until(join_all([work(3), work(1), work(2)])).await;
            assert!(values.is_none_or(|values| values == [3, 1, 2]));
        })
        .await;
        at_every_await("join_all of many", async |cut| {
            let values = cut.until(join_all((0..100).map(|value| work(value % 5)))).await;
            assert!(values.is_none_or(|values| values.len() == 100));
        })
        .await;
        at_every_await("try_join_all", async |cut| {
            let futures = [3, 1, 2].map(|value| async move {
                let value = work(value).await;
                if value == 2 { Err(value) } else { Ok(value) }
            });
            let values = cut.until(try_join_all(futures)).await;
            assert!(values.is_none_or(|values| values == Err(2)));
        })
        .await;
        at_every_await("race", async |cut| {
            let won = cut.until(race([work(30), work(1), work(20)])).await;
            assert!(won.is_none_or(|won| won == 1));
        })
        .await;
        at_every_await("or", async |cut| {
            let first = async {
                time::sleep(AGES).await;
                9
            };
            assert!(cut.until(or(first, work(2))).await.is_none_or(|value| value == 2));
        })
        .await;
        at_every_await("as_completed", async |cut| {
            let mut values = as_completed([work(3), work(1), work(2)]);
            let mut all = Vec::new();
            let taking = async {
                while let Some(value) = values.next().await {
                    all.push(value);
                }
            };
            cut.past(taking).await;
            while let Some(value) = within("as_completed", values.next()).await {
                all.push(value);
            }
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3], "each value comes once");
        })
        .await;
    });
}

fn streams(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("stream::from_fn", async |cut| {
            let mut number = 0;
            let mut values = pin!(stream::from_fn(async || {
                number += 1;
                (number < 5).then_some(work(number).await)
            }));
            let mut all = Vec::new();
            let taking = async {
                while let Some(value) = values.next().await {
                    all.push(value);
                }
            };
            cut.past(taking).await;
            // A call under way goes on with the next poll of the stream.
            while let Some(value) = within("from_fn", values.next()).await {
                all.push(value);
            }
            assert_eq!(all, [1, 2, 3, 4]);
        })
        .await;
        at_every_await("stream::unfold, dropped whole", async |cut| {
            let open = Rc::new(Cell::new(0));
            let values = stream::unfold((0, Guard::new(&open)), async |(number, guard)| {
                let value = work(number).await;
                (value < 4).then_some((value, (number + 1, guard)))
            });
            let all = cut.until(values.collect::<Vec<u32>>()).await;
            assert!(all.is_none_or(|all| all == [0, 1, 2, 3]));
            assert_eq!(open.get(), 0, "its state is dropped with it");
        })
        .await;
    });
}
