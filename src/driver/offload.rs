//! File operations on helper threads: all of them under epoll, which has no readiness for files,
//! and under the ring those for which it has no entry.
//!
//! Threads are started by the first calls that find none idle. An operation stays in its slot while
//! a helper makes its call, as it would while the kernel works on it. Invariant: what changes files
//! never takes the last helpers, nor does what reads them: a sync that takes seconds holds up no
//! read.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::driver::event::EventFd;
use crate::driver::file_call::FileCall;
use crate::driver::slots::SlotKey;
use crate::error::Errno;
use crate::limits;
use crate::op::Op;

type Answer = (SlotKey, Result<u32, Errno>);

/// What one kind of call has waiting and under way.
#[derive(Default)]
struct Queue {
    /// Oldest first, each with its number.
    calls: VecDeque<(u64, SlotKey, FileCall)>,
    /// Helpers that make such a call.
    busy: usize,
}

/// Calls that read.
const READS: usize = 0;

/// Calls that change, or make durable.
const CHANGES: usize = 1;

fn kind_of(op: &Op) -> usize {
    /// O_TMPFILE has more bits than its own.
    const MAKES: i32 = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    let reads = matches!(
        op,
        Op::ReadAt { .. }
            | Op::ReadVectoredAt { .. }
            | Op::Stat { .. }
            | Op::Advise { .. }
            | Op::List { .. }
            | Op::ReadLink { .. }
    ) || matches!(op, Op::Open { how, .. } if how.flags & MAKES as u64 == 0);
    if reads { READS } else { CHANGES }
}

#[derive(Default)]
struct State {
    queues: [Queue; 2],
    /// Calls so far.
    count: u64,
    answers: Vec<Answer>,
    /// Helpers that wait for a call.
    idle: usize,
    closed: bool,
}

impl State {
    fn push(&mut self, kind: usize, key: SlotKey, call: FileCall) {
        self.queues[kind].calls.push_back((self.count, key, call));
        self.count += 1;
    }

    /// The oldest call of the kinds that have not their share of helpers.
    fn take(&mut self, share: usize) -> Option<(usize, SlotKey, FileCall)> {
        let open = self.queues.iter().enumerate().filter(|(_, queue)| queue.busy < share);
        let fronts = open.filter_map(|(kind, queue)| Some((queue.calls.front()?.0, kind)));
        let (_, kind) = fronts.min()?;
        let (_, key, call) = self.queues[kind].calls.pop_front()?;
        self.queues[kind].busy += 1;
        Some((kind, key, call))
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.calls.len()).sum()
    }
}

struct Desk {
    state: Mutex<State>,
    filled: Condvar,
    event: Arc<EventFd>,
    /// The most helpers that one kind of call may have.
    share: usize,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((kind, key, call)) = state.take(self.share) {
                drop(state);
                // SAFETY: the slot keeps the operation until the answer has been reaped.
                let answer = unsafe { call.perform() };
                state = self.lock();
                state.queues[kind].busy -= 1;
                state.answers.push((key, answer));
                self.event.notify();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// The helpers of one shard.
pub(super) struct Offload {
    desk: Arc<Desk>,
    threads_max: usize,
    threads: Vec<thread::JoinHandle<()>>,
    answers: Vec<Answer>,
    /// Calls whose answers have not been taken.
    count: usize,
}

impl Offload {
    pub(super) fn new(threads_max: usize, event: &Arc<EventFd>) -> Self {
        assert!(threads_max > 0, "file operations need a helper");
        let spare = limits::OFFLOAD_THREADS_SPARE_COUNT;
        let desk = Desk {
            state: Mutex::default(),
            filled: Condvar::new(),
            event: Arc::clone(event),
            share: threads_max.saturating_sub(spare).max(1),
        };
        Self {
            desk: Arc::new(desk),
            threads_max,
            threads: Vec::new(),
            answers: Vec::new(),
            count: 0,
        }
    }

    /// Hands a file operation to the helpers. An error if there is no helper and none can be
    /// started.
    pub(super) fn submit(&mut self, key: SlotKey, op: &mut Op) -> Result<(), Errno> {
        let call = FileCall::of(op).expect("only file operations are handed over");
        let mut state = self.desk.lock();
        state.push(kind_of(op), key, call);
        let is_short = state.waiting() > state.idle;
        drop(state);
        self.count += 1;
        if is_short && self.threads.len() < self.threads_max {
            let desk = Arc::clone(&self.desk);
            let builder = thread::Builder::new().name("annulus-file".into());
            match builder.spawn(move || desk.work()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => {
                    self.call_back(key);
                    return Err(Errno::from_io(&error));
                }
                Err(_) => {}
            }
        }
        self.desk.filled.notify_one();
        Ok(())
    }

    /// Takes a call back that no helper has begun. False if it has been begun, or is not here.
    pub(super) fn call_back(&mut self, key: SlotKey) -> bool {
        let mut state = self.desk.lock();
        for queue in &mut state.queues {
            if let Some(place) = queue.calls.iter().position(|(_, waiting, _)| *waiting == key) {
                queue.calls.remove(place);
                self.count -= 1;
                return true;
            }
        }
        false
    }

    /// Takes back all calls that no helper has begun.
    pub(super) fn call_back_all(&mut self) -> Vec<SlotKey> {
        let mut state = self.desk.lock();
        let waiting = state.queues.iter_mut().flat_map(|queue| queue.calls.drain(..));
        let keys: Vec<SlotKey> = waiting.map(|(_, key, _)| key).collect();
        self.count -= keys.len();
        keys
    }

    /// Hands every answer to `settle`.
    pub(super) fn reap(&mut self, mut settle: impl FnMut(SlotKey, Result<u32, Errno>)) {
        if self.count == 0 {
            return;
        }
        std::mem::swap(&mut self.desk.lock().answers, &mut self.answers);
        self.count -= self.answers.len();
        for (key, answer) in self.answers.drain(..) {
            settle(key, answer);
        }
    }

    /// Whether an answer waits to be taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.desk.lock().answers.is_empty()
    }

    /// Whether there are calls whose answers have not been taken.
    pub(super) fn is_busy(&self) -> bool {
        self.count > 0
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        // Nothing is open here: the driver has reaped every operation, or has forgotten this.
        self.desk.lock().closed = true;
        self.desk.filled.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock;
    use crate::driver::slots::Slots;
    use crate::op::OpenHow;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    /// An open of `path` that waits for the other end if it is a FIFO.
    fn open(path: &std::path::Path, flags: i32) -> Op {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let how = OpenHow { flags: flags as u64, mode: 0, resolve: 0 };
        Op::Open { directory: libc::AT_FDCWD, path, how: Box::new(how) }
    }

    fn answer(offload: &mut Offload, wanted: SlotKey) -> u32 {
        loop {
            let mut found = None;
            offload.reap(|key, answer| {
                if key == wanted {
                    found = Some(answer.unwrap());
                }
            });
            match found {
                Some(answer) => return answer,
                None => thread::yield_now(),
            }
        }
    }

    /// What blocks here, an open of a FIFO, stands for a slow disk.
    #[test]
    fn neither_reads_nor_changes_take_all_helpers() {
        let place = std::env::temp_dir().join(format!("annulus-offload-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let fifo = place.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let (reads, changes) = (libc::O_RDONLY, libc::O_RDONLY | libc::O_TRUNC);
        for (blocking, passing) in [(reads, changes), (changes, reads)] {
            let event = Arc::new(EventFd::new().unwrap());
            let mut offload = Offload::new(4, &event);
            let mut slots = Slots::new();
            let mut submit = |offload: &mut Offload, op: Op| {
                let key = slots.insert(op, clock::now()).unwrap();
                offload.submit(key, slots.op(key).unwrap()).unwrap();
                key
            };
            let blocked: Vec<_> =
                (0..9).map(|_| submit(&mut offload, open(&fifo, blocking))).collect();
            let null = open(std::path::Path::new("/dev/null"), passing);
            let key = submit(&mut offload, null);
            let opened = answer(&mut offload, key);
            assert!(offload.is_busy() && offload.threads.len() <= 4);
            // Those that no helper has begun go no further.
            let first = blocked.iter().filter(|key| offload.call_back(**key)).take(2).count();
            let back = first + offload.call_back_all().len();
            assert!(back >= 9 - 2, "two helpers of four are left to the others");
            let writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
            let mut descriptors = vec![opened as i32];
            while offload.is_busy() {
                offload.reap(|_, answer| descriptors.push(answer.unwrap() as i32));
            }
            drop(writer);
            for descriptor in descriptors {
                // SAFETY: each was opened above and is nobody else's.
                drop(unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(descriptor) });
            }
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
}
