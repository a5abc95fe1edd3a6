//! What a program may hang into spawning: a hook that sees, and may wrap, every new task's future.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::JoinHandle;
use crate::executor::TaskInfo;
use crate::shard::context;

/// A task's future without its type. It yields nothing: the value goes past the hook.
pub type LocalBoxFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Sees every spawn of its shard; what it gives back runs in the place of the task's future.
pub type SpawnHook = dyn Fn(&TaskInfo, LocalBoxFuture) -> LocalBoxFuture;

/// Sets the hook of this shard; gives back the one before. With `None` tasks are spawned as
/// without.
///
/// With a hook each spawn costs one more allocation. A hook whose future ends before the task's
/// has: the task counts as cancelled.
///
/// # Panics
/// Outside a runtime.
pub fn set_spawn_hook(hook: Option<Rc<SpawnHook>>) -> Option<Rc<SpawnHook>> {
    context::with(|shard| shard.executor.set_spawn_hook(hook))
}

/// The hook of this shard.
///
/// # Panics
/// Outside a runtime.
pub fn spawn_hook() -> Option<Rc<SpawnHook>> {
    context::with(|shard| shard.executor.spawn_hook())
}

/// Spawns what the hook makes of `future`.
pub(super) fn spawn<F>(hook: &Rc<SpawnHook>, mut info: TaskInfo, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    context::with(|shard| shard.executor.identify(&mut info));
    let value = Rc::new(Cell::new(None));
    let place = Rc::clone(&value);
    let inner: LocalBoxFuture = Box::pin(async move { place.set(Some(future.await)) });
    let wrapped = hook(&info, inner);
    let task = async move {
        wrapped.await;
        match value.take() {
            Some(value) => value,
            None => abort_self().await,
        }
    };
    context::with(|shard| JoinHandle::spawn(shard, info, task))
}

/// Ends the running task as if it had been aborted.
async fn abort_self<T>() -> T {
    let mut is_aborted = false;
    poll_fn(move |_| {
        if !std::mem::replace(&mut is_aborted, true) {
            context::with(|shard| shard.executor.abort_running());
        }
        Poll::Pending
    })
    .await
}
