//! File operations of an epoll shard, on helper threads: epoll has no readiness for files.
//!
//! Threads are started by the first file operation. An operation stays in its slot while a helper
//! makes its call, as it would while the kernel works on it.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::driver::calls::FileCall;
use crate::driver::event::EventFd;
use crate::driver::slots::SlotKey;
use crate::error::Errno;

type Answer = (SlotKey, RawFd, Result<u32, Errno>);

#[derive(Default)]
struct State {
    calls: VecDeque<(SlotKey, RawFd, FileCall)>,
    answers: Vec<Answer>,
    closed: bool,
}

struct Desk {
    state: Mutex<State>,
    filled: Condvar,
    event: Arc<EventFd>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((key, descriptor, call)) = state.calls.pop_front() {
                drop(state);
                // SAFETY: the slot keeps the operation until the answer has been reaped.
                let answer = unsafe { call.perform() };
                state = self.lock();
                state.answers.push((key, descriptor, answer));
                self.event.notify();
            } else if state.closed {
                return;
            } else {
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
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
    /// The descriptors of calls whose answers have not been taken.
    open: Vec<RawFd>,
}

impl Offload {
    pub(super) fn new(threads_max: usize, event: &Arc<EventFd>) -> Self {
        assert!(threads_max > 0, "file operations need a helper");
        let desk =
            Desk { state: Mutex::default(), filled: Condvar::new(), event: Arc::clone(event) };
        Self {
            desk: Arc::new(desk),
            threads_max,
            threads: Vec::new(),
            answers: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Hands a call to the helpers. An error if there is no helper and none can be started.
    pub(super) fn submit(
        &mut self,
        key: SlotKey,
        descriptor: RawFd,
        call: FileCall,
    ) -> Result<(), Errno> {
        if self.threads.len() < self.threads_max && self.open.len() >= self.threads.len() {
            let desk = Arc::clone(&self.desk);
            let builder = thread::Builder::new().name("annulus-file".into());
            match builder.spawn(move || desk.work()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(Errno::from_io(&error)),
                Err(_) => {}
            }
        }
        self.open.push(descriptor);
        self.desk.lock().calls.push_back((key, descriptor, call));
        self.desk.filled.notify_one();
        Ok(())
    }

    /// Hands every answer to `settle`.
    pub(super) fn reap(&mut self, mut settle: impl FnMut(SlotKey, Result<u32, Errno>)) {
        if self.open.is_empty() {
            return;
        }
        std::mem::swap(&mut self.desk.lock().answers, &mut self.answers);
        for (key, descriptor, answer) in self.answers.drain(..) {
            if let Some(place) = self.open.iter().position(|open| *open == descriptor) {
                self.open.swap_remove(place);
            }
            settle(key, answer);
        }
    }

    /// Whether an answer waits to be taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.desk.lock().answers.is_empty()
    }

    /// Whether a call on this descriptor has not been answered: then its number must not be given
    /// up, or the call would reach another file.
    pub(super) fn uses(&self, descriptor: RawFd) -> bool {
        self.open.contains(&descriptor)
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
