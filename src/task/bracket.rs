//! A resource with an async end: opened, used, and closed whatever becomes of the use.
//!
//! Invariant: the close begins once for each resource, and runs to its end.

use std::ops::AsyncFnOnce;
use std::panic::resume_unwind;

use super::{JoinHandle, spawn};
use crate::shard::context;

/// Awaits `body` with the resource, then `close`, and gives what `body` gave: an error too, so that
/// `?` inside it does not pass the close by. If this future is aborted, dropped, or panics in
/// `body`, the close is spawned all the same; `close` is a task from its beginning, so that an
/// abort does not cut it short either. Only the end of the runtime does: a resource keeps a `Drop`
/// for what must happen even then.
///
/// Dropping it before its first poll drops the resource without closing it.
///
/// # Panics
/// With what `body` or `close` panicked with; outside a runtime.
///
/// ```
/// use annulus::{Runtime, task};
///
/// let length = Runtime::new()?.block_on(task::bracket(
///     vec![6, 6],
///     async |digits| { digits.push(6); digits.len() },
///     async |digits| assert_eq!(digits, [6, 6, 6]),
/// ));
/// assert_eq!(length, 3);
/// # annulus::Result::Ok(())
/// ```
pub async fn bracket<R, T, C>(resource: R, body: impl AsyncFnOnce(&mut R) -> T, close: C) -> T
where
    R: 'static,
    C: AsyncFnOnce(R) + 'static,
{
    let mut open = Open(Some((resource, close)));
    let (resource, _) = open.0.as_mut().expect("it has just been put in");
    let value = body(resource).await;
    if let Some(closing) = open.close()
        && let Err(error) = closing.await
        && let Some(panic) = error.into_panic()
    {
        resume_unwind(panic);
    }
    value
}

/// A resource that is closed on drop at the latest.
struct Open<R: 'static, C: AsyncFnOnce(R) + 'static>(Option<(R, C)>);

impl<R: 'static, C: AsyncFnOnce(R) + 'static> Open<R, C> {
    /// Nothing, if it is closed already or there is no runtime to close it.
    fn close(&mut self) -> Option<JoinHandle<()>> {
        let (resource, close) = self.0.take()?;
        context::is_entered().then(|| spawn(async move { close(resource).await }))
    }
}

impl<R: 'static, C: AsyncFnOnce(R) + 'static> Drop for Open<R, C> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
