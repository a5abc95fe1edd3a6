//! hyper 1 on a shard: its I/O traits for streams, its timer and its executor.
//!
//! ```no_run
//! # // The program with its routes: examples/hyper_server.rs.
//! use annulus::compat::hyper::{Io, ShardTimer};
//! use annulus::{net::TcpListener, task};
//! use hyper::server::conn::http1;
//! use hyper::service::service_fn;
//!
//! # async fn serve(listener: TcpListener) -> annulus::Result<()> {
//! loop {
//!     let stream = Io::new(listener.accept().await?);
//!     let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
//!         Ok::<_, hyper::Error>(hyper::Response::new(request.into_body()))
//!     });
//!     let mut server = http1::Builder::new();
//!     task::spawn(server.timer(ShardTimer).serve_connection(stream, service)).detach();
//! }
//! # }
//! ```
//!
//! Services and bodies need not be `Send`, but hyper's own sleeps must be: see [`ShardTimer`].

use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Executor, Read, ReadBufCursor, Timer, Write};

use crate::clock::{self, Instant};
use crate::io::{AsyncBufRead, AsyncWrite};
use crate::{task, time};

/// A stream with hyper's I/O traits. Received chunks are copied once, to hyper's buffer.
#[derive(Debug)]
pub struct Io<S> {
    inner: S,
}

impl<S> Io<S> {
    /// Wraps a stream.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The stream: for one that was upgraded.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Unpin> Io<S> {
    fn pin(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl<S: AsyncBufRead + Unpin> Read for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let chunk = ready!(self.as_mut().pin().poll_fill_buf(context))?;
        let count = chunk.len().min(buffer.remaining());
        buffer.put_slice(&chunk[..count]);
        self.pin().consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for Io<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.pin().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.pin().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.pin().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.pin().poll_close(context)
    }
}

/// Runs hyper's background futures as tasks of the calling shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardExecutor;

impl<F> Executor<F> for ShardExecutor
where
    F: Future + 'static,
{
    /// # Panics
    /// Outside a runtime.
    fn execute(&self, future: F) {
        drop(task::spawn(async move { drop(future.await) }));
    }
}

/// Sleeps on the shard's timers, and follows a paused clock.
///
/// hyper wants its sleeps `Send` and `Sync`, which nothing of a shard is. So a sleep is only a
/// place for a deadline and a waker, and a small task keeps the timer on the shard that polled it
/// first. It may be polled and dropped anywhere; the task ends with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardTimer;

impl Timer for ShardTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::until(clock::now() + duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::until(clock::from_std(deadline)))
    }

    fn now(&self) -> std::time::Instant {
        clock::to_std(clock::now())
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, new_deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(own) => own.reset(clock::from_std(new_deadline)),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

/// What a sleep and its task share.
struct Alarm {
    deadline: Instant,
    /// Whether a task keeps the timer.
    is_kept: bool,
    has_rung: bool,
    is_given_up: bool,
    /// Who awaits the sleep.
    sleeper: Option<Waker>,
    /// The task that keeps the timer.
    keeper: Option<Waker>,
}

type Shared = Arc<Mutex<Alarm>>;

fn lock(alarm: &Shared) -> MutexGuard<'_, Alarm> {
    alarm.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sleep(Shared);

impl Sleep {
    fn until(deadline: Instant) -> Self {
        Self(Arc::new(Mutex::new(Alarm {
            deadline,
            is_kept: false,
            has_rung: false,
            is_given_up: false,
            sleeper: None,
            keeper: None,
        })))
    }

    /// A later deadline costs nothing until the timer fires: its keeper then sees that it moved.
    fn reset(&self, deadline: Instant) {
        let mut alarm = lock(&self.0);
        let is_earlier = deadline < alarm.deadline;
        alarm.deadline = deadline;
        alarm.has_rung = false;
        let keeper = if is_earlier { alarm.keeper.take() } else { None };
        drop(alarm);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }
}

impl hyper::rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// When it is polled first outside a runtime.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = lock(&self.0);
        if alarm.has_rung {
            return Poll::Ready(());
        }
        match &mut alarm.sleeper {
            Some(sleeper) => sleeper.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        let is_kept = std::mem::replace(&mut alarm.is_kept, true);
        drop(alarm);
        if !is_kept {
            let keep = keep(Arc::clone(&self.0));
            task::Builder::new().name("hyper-sleep").spawn(keep).detach();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut alarm = lock(&self.0);
        alarm.is_given_up = true;
        let keeper = alarm.keeper.take();
        drop(alarm);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }
}

/// Keeps the timer until the alarm has rung or its sleep is gone.
async fn keep(shared: Shared) {
    let mut timer = time::sleep_until(lock(&shared).deadline);
    std::future::poll_fn(|context| {
        let mut alarm = lock(&shared);
        loop {
            if alarm.is_given_up {
                return Poll::Ready(());
            }
            if alarm.deadline < timer.deadline() {
                timer.reset(alarm.deadline);
            }
            if Pin::new(&mut timer).poll(context).is_pending() {
                alarm.keeper = Some(context.waker().clone());
                return Poll::Pending;
            }
            if alarm.deadline <= timer.deadline() {
                break;
            }
            timer.reset(alarm.deadline);
        }
        alarm.has_rung = true;
        alarm.is_kept = false;
        alarm.keeper = None;
        let sleeper = alarm.sleeper.take();
        drop(alarm);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Poll::Ready(())
    })
    .await;
}
