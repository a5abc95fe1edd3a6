//! Every async function of the library, given up at every await point, leaves nothing behind: no
//! descriptor, operation, task, timer, received chunk or child; and where a function says that it
//! is cancel-safe, nothing is lost: what it had not taken comes to whoever asks next.
//!
//! A story makes what it needs and hands one future to its [`Cut`], which polls it as it is woken
//! and drops it after the n-th poll: at once, some turns later, or once its outcome waits. It is
//! told again for each n until the future ends by itself. [`stages`] polls at moments of its own.
//!
//! - [`net`]: `TcpStream` and, what it has of it, `UnixStream`: `connect, connect_with, connect_to,
//!   connect_to_with, connect_any, recv, recv_into, send, send_vectored, shutdown`;
//!   `ReadHalf::recv`, `WriteHalf::{send, send_vectored, shutdown}`; `resolve`; `accept` of both
//!   listeners.
//! - [`datagrams`]: `UdpSocket` and `UnixDatagram`: `recv_from, recv, datagrams, recv_from_into,
//!   send_to, send`.
//! - [`io`]: `read_exact, read_to_end, read_to_string, read_until, Lines::next_line, copy,
//!   copy_bidirectional, relay`; `AsyncFd::{readable, writable, ready, perform}`; of futures-io's
//!   traits `read, write_all, flush, close` on streams, halves and pipes.
//! - [`ipc`]: `pipe::Sender::{write_all, close}`, `pipe::Receiver::{open, recv, recv_into,
//!   recv_all}`, `ring::Sender::send`, `ring::Receiver::{recv, recv_into}`; `Signals::recv` and as
//!   a stream, `ctrl_c`.
//! - [`processes`]: `Command::{status, output}`, `Child::{wait, wait_with_output, kill}`.
//! - [`files`]: `OpenOptions::{open, open_in}`, `File::{open, create, read_at, write_at,
//!   write_durable_at, append, read_vectored_at, write_vectored_at, sync_all, sync_data, allocate,
//!   allocate_as, set_len, advise, metadata}`, `Directory::{open, open_file, sync, metadata,
//!   entries}`, `Entries::next_entry` and as a stream.
//! - [`names`]: of `fs` `rename, remove_file, remove_dir, create_dir, create_dir_all, hard_link,
//!   symlink, read_link, metadata, symlink_metadata, exists, read_dir, read, read_to_string, write,
//!   write_durably`, `RenameOptions::rename`, `TemporaryFile::{create_in, persist,
//!   persist_durably}`.
//! - [`sync`]: `Mutex::lock`, `RwLock::{read, write}`; `acquire, acquire_many, acquire_owned,
//!   acquire_many_owned` of `Semaphore` and `BoundedSemaphore`; `OnceCell::{get_or_init,
//!   get_or_try_init, wait}`, `Notify::notified`, `Event::wait`, `Condvar::{wait, wait_while}`,
//!   `Barrier::wait`.
//! - [`queues`]: `channel`: `send, recv`; `Queue::{put, get, join}` of all three kinds;
//!   `broadcast::Receiver::recv`, `watch::Receiver::{changed, wait_for}`, `oneshot::Receiver` and
//!   `Sender::closed`, `Promised`.
//! - [`shared`]: of `sync::shared` `spsc`, `oneshot`, `Event::wait`, `channel`, `notify`, and the
//!   locks of `async-lock`.
//! - [`times`]: `sleep, sleep_until, timeout, timeout_at`, `Interval::tick` and as a stream,
//!   `yield_now, yield_if_needed`.
//! - [`tasks`]: `JoinHandle`, `gather, try_gather, shield, scope, scope_with, ScopedTask,
//!   bracket`, `JoinSet::{join_next, shut_down}`, `wait, wait_where`,
//!   `CancellationToken::{cancelled, run_until_cancelled}`; `join_all, try_join_all, race, or,
//!   as_completed`; `stream::{from_fn, unfold}`.
//! - [`elsewhere`]: `cpu::run`, `blocking::run`, `blocking::Pool::{run, submit}`,
//!   `ShardHandle::{submit, call, spawn}`, `Handle::{in_flight, dump_tasks}`.
//!
//! In other binaries: `process::pool::Pool::{call, submit}` in `tests/process_pool.rs`, whose main
//! must serve as a worker. Not here: `block_on_stream` and whatever blocks a thread, which cannot
//! be given up; `compat`, whose polls are those of [`io`] and [`times`] under other traits.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::Read;
use std::pin::pin;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use annulus::shard::{self, ShardId};
use annulus::{Builder, Engine, Handle, task, time};

use crate::harness::{builder, descriptors, eventually_here, pattern, turns};

mod datagrams;
mod elsewhere;
mod files;
mod io;
mod ipc;
mod names;
mod net;
mod processes;
mod queues;
mod shared;
mod stages;
mod sync;
mod tasks;
mod times;

/// Far more polls than any future here takes.
const POLLS_MAX: usize = 500;

/// A guard against hangs: no future here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// What must be the same before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    descriptors: usize,
    operations: usize,
    children: usize,
    shards: Vec<shard::Held>,
}

async fn left() -> Left {
    let handle = Handle::current();
    let operations = handle.in_flight().await.unwrap().len();
    let mut shards = Vec::new();
    for index in 0..handle.shards() {
        shards.push(handle.shard(ShardId(index as u16)).call(shard::held).await.unwrap());
    }
    Left { descriptors: descriptors(), operations, children: children(), shards }
}

/// Child processes, zombies among them.
fn children() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end meanwhile.
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        let list = std::fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        Some(list.split_whitespace().count())
    };
    threads.filter_map(of_thread).sum()
}

/// What is held once nothing is on its way out any more.
async fn quiet() -> Left {
    let mut before = left().await;
    let mut same = 0;
    while same < 5 {
        time::sleep(Duration::from_millis(2)).await;
        let now = left().await;
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    before
}

/// Waits until what is held is back to `before`.
async fn settled(before: &Left, what: &str) {
    settled_by(before, what, |left| left).await;
}

/// But for chunks that wait on their connection for whoever receives next.
async fn settled_but_for_leases(before: &Left, what: &str) {
    let view = |mut left: Left| {
        left.shards.iter_mut().for_each(|shard| shard.leases = 0);
        left
    };
    settled_by(before, what, view).await;
}

async fn settled_by(before: &Left, what: &str, view: fn(Left) -> Left) {
    let before = view(before.clone());
    let mut now = left().await;
    for _ in 0..5000 {
        if view(now.clone()) == before {
            return;
        }
        time::sleep(Duration::from_millis(2)).await;
        now = left().await;
    }
    let operations = Handle::current().in_flight().await.unwrap();
    let tasks = Handle::current().dump_tasks().await.unwrap();
    panic!("{what}: was {before:?}, is {now:?}: {operations:?}, {tasks:?}");
}

/// When a future is dropped after its last poll.
#[derive(Clone, Copy, Debug)]
enum Moment {
    AtOnce,
    /// What it has begun is under way.
    AfterTurns,
    /// What it waits for has happened, and it was woken.
    AfterOutcome,
}

/// Where one telling of a story gives its future up.
struct Cut {
    what: String,
    polls: usize,
    drop: Moment,
    is_met: Cell<bool>,
    has_ended: Cell<bool>,
}

impl Cut {
    /// The value of `future`, if it comes before it is given up.
    async fn until<F: Future>(&self, future: F) -> Option<F::Output> {
        assert!(!self.is_met.replace(true), "{}: a story has one cut", self.what);
        let mut future = pin!(future);
        let mut hang = pin!(time::sleep(LONG));
        let mut polls_left = self.polls;
        let value = poll_fn(|context| {
            if polls_left == 0 {
                return Poll::Ready(None);
            }
            polls_left -= 1;
            match future.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Some(value)),
                Poll::Pending if polls_left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    assert!(hang.as_mut().poll(context).is_pending(), "{} hangs", self.what);
                    Poll::Pending
                }
            }
        });
        let value = value.await;
        if value.is_some() {
            self.has_ended.set(true);
            return value;
        }
        match self.drop {
            Moment::AtOnce => {}
            Moment::AfterTurns => turns(2).await,
            Moment::AfterOutcome => time::sleep(Duration::from_millis(3)).await,
        }
        None
    }

    /// [`Cut::until`] for a future whose value does not matter.
    async fn past<F: Future>(&self, future: F) {
        drop(self.until(future).await);
    }
}

/// Tells the story of a future for each place where it may be given up, and looks at what is left.
async fn at_every_await(what: &str, story: impl AsyncFn(&Cut)) {
    let before = quiet().await;
    for polls in 0..POLLS_MAX {
        let mut has_ended = true;
        for drop in [Moment::AtOnce, Moment::AfterTurns, Moment::AfterOutcome] {
            let what = format!("{what}, dropped after {polls} polls, {drop:?}");
            let (is_met, ended) = (Cell::new(false), Cell::new(false));
            let cut = Cut { what, polls, drop, is_met, has_ended: ended };
            within(&cut.what, story(&cut)).await;
            assert!(cut.is_met.get(), "{}: nothing was given up", cut.what);
            settled(&before, &cut.what).await;
            has_ended &= cut.has_ended.get();
        }
        if has_ended {
            return;
        }
    }
    panic!("{what} does not end within {POLLS_MAX} polls");
}

/// Awaits what must come.
async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let came = time::timeout(LONG, future).await;
    came.unwrap_or_else(|_| panic!("{what}: something is lost, or hangs"))
}

/// Does something in a task, when whoever waits has begun to.
fn later<T: 'static>(action: impl FnOnce() -> T + 'static) -> task::JoinHandle<T> {
    task::spawn(async move {
        turns(3).await;
        action()
    })
}

/// Two shards, and few buffers, so that one that is lost is missed.
fn small(engine: Engine) -> Builder {
    builder(engine).shards(2).buffers(4, 4096)
}

/// Reads all that comes, on a thread of its own.
fn drain(mut peer: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // A reset ends it like the end does.
        let _ = peer.read_to_end(&mut all);
        all
    })
}

/// That the peer got the whole pattern where `sent` says so, and otherwise a beginning of it.
async fn prefix(sent: Option<usize>, whole: usize, peer: JoinHandle<Vec<u8>>) {
    eventually_here("the peer sees the end", || peer.is_finished()).await;
    let came = peer.join().unwrap();
    assert!(pattern(0, whole).starts_with(&came), "{} bytes, but others", came.len());
    if let Some(sent) = sent {
        assert_eq!((sent, came.len()), (whole, whole));
    }
}
