//! Performs operations by plain blocking calls, where the thread would otherwise wait.
//!
//! Under the `threads` engine each connection has a thread with one of these. A task that awaits a
//! receive gets one recv(2) in [`Blocking::park`], and nothing else: no readiness, no second call.
//! Deadlines become the socket's own timeout, and poll(2) is used only while the thread waits for
//! two things at once. A thread that is blocked in a call is woken by a signal whose handler does
//! nothing (EINTR); [`Bell`] says how no wake is lost.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::thread::{self, Thread};
use std::time::Duration;

use super::bell::{self, Bell};
use super::calls;
use super::event::EventFd;
use super::file_call::FileCall;
use super::packer::Packer;
use super::slots::{Arm, SlotKey, Slots};
use super::{Wait, settle};
use crate::buffer::Pool;
use crate::clock::{self, Instant};
use crate::error::Errno;
use crate::metrics::{self, Counter};
use crate::op::{Event, Op, Value};

/// The signal that ends a blocked call. Ignored by default, so one that comes late does no harm.
const KICK: i32 = libc::SIGURG;

/// A socket timeout is kept while it is no longer than the time left and no shorter than this part
/// of it: a receive with an idle limit then costs no second system call.
const TIMEOUT_SLACK: u64 = 4;

/// Up to here a timeout is set exactly; above, half of the time left is set, and what remains is
/// waited for in a second call.
const TIMEOUT_EXACT_NS: u64 = 100_000_000;

/// Ends the sleep of a thread, in whichever of three ways it sleeps.
pub(crate) struct Parker {
    bell: Bell,
    thread: Thread,
    thread_id: libc::pid_t,
    event: EventFd,
}

impl Parker {
    fn new() -> Result<Self, Errno> {
        Ok(Self {
            bell: Bell::new(),
            thread: thread::current(),
            // SAFETY: gettid takes no pointers and cannot fail.
            thread_id: unsafe { libc::gettid() },
            event: EventFd::new()?,
        })
    }

    /// Ends the current sleep, or the next one.
    pub(crate) fn unpark(&self) {
        match self.bell.ring() {
            bell::PARKED => self.thread.unpark(),
            bell::POLLING => self.event.notify(),
            bell::BLOCKED => self.kick(),
            _ => {}
        }
    }

    /// Signals the thread until it has left its call: a signal that arrives just before the call
    /// begins would not end it, so one may not be enough.
    fn kick(&self) {
        let mut pause = Duration::from_micros(10);
        while self.bell.is_unheard() {
            // SAFETY: tgkill takes no pointers. A thread that has ended meanwhile gives ESRCH.
            unsafe {
                let process = libc::getpid();
                libc::syscall(libc::SYS_tgkill, process, self.thread_id, KICK);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }
}

/// Installs the handler that makes the signal end calls instead of being ignored.
fn install_kick() {
    extern "C" fn ignore(_: i32) {}
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the action is all zero but for a handler that does nothing, which is safe in any
        // context; without SA_RESTART, so that calls end with EINTR.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as *const () as usize;
            libc::sigaction(KICK, &raw const action, std::ptr::null_mut());
        }
    });
}

/// The timeouts set on a socket, in nanoseconds; zero is none.
struct Timeouts {
    socket: RawFd,
    receive_ns: u64,
    send_ns: u64,
}

pub(super) struct Blocking {
    packer: Packer,
    /// Where datagrams go, once a socket receives any.
    datagrams: Option<Packer>,
    parker: Arc<Parker>,
    /// Operations that have not been performed.
    pending: Vec<SlotKey>,
    /// Armed streams.
    streams: Vec<SlotKey>,
    timeouts: Vec<Timeouts>,
    /// Scratch: what can be waited for now.
    waitable: Vec<SlotKey>,
}

impl Blocking {
    pub(super) fn new(pool: &Rc<Pool>) -> Result<Self, Errno> {
        install_kick();
        Ok(Self {
            packer: Packer::new(pool),
            datagrams: None,
            parker: Arc::new(Parker::new()?),
            pending: Vec::new(),
            streams: Vec::new(),
            timeouts: Vec::new(),
            waitable: Vec::new(),
        })
    }

    pub(super) fn parker(&self) -> Arc<Parker> {
        Arc::clone(&self.parker)
    }

    /// Receives datagrams into the pool from now on.
    pub(super) fn open_datagrams(&mut self, pool: &Rc<Pool>) {
        self.datagrams = Some(Packer::of_datagrams(pool));
    }

    /// Performs what does not wait for a peer; keeps the rest for [`Blocking::park`].
    pub(super) fn start(&mut self, key: SlotKey, slots: &mut Slots) {
        let op = slots.op(key).expect("an operation is started in a live slot");
        if let Some(call) = FileCall::of(op) {
            // SAFETY: the operation lies in its slot during the call, whose answer this is.
            unsafe {
                let answer = call.perform();
                settle::settle(slots, key, answer, clock::now());
            }
            return;
        }
        match op {
            Op::Ready { .. } | Op::WaitChild { .. } => self.watch(key, slots),
            Op::Read { pipe, .. } | Op::Write { pipe, .. } => {
                // Waited for by poll(2): a pipe has no timeout of its own.
                if let Err(errno) = calls::set_nonblocking(*pipe, true) {
                    return slots.complete(key, Err(errno), clock::now());
                }
                self.pending.push(key);
                let called = self.call(key, 0, slots);
                self.finish(key, called, slots);
            }
            Op::Shutdown { socket, how } => {
                let result = calls::shutdown(*socket, *how);
                slots.complete(key, result.map(Value::Count), clock::now());
            }
            Op::Close { .. } => {
                if let Op::Close { descriptor } = std::mem::replace(op, Op::Idle) {
                    use std::os::fd::AsRawFd;
                    let closed = descriptor.as_raw_fd();
                    self.timeouts.retain(|timeouts| timeouts.socket != closed);
                    drop(descriptor);
                }
                slots.complete(key, Ok(Value::Count(0)), clock::now());
            }
            Op::Connect { socket, address } => {
                let begun = calls::set_nonblocking(*socket, true)
                    .and_then(|()| calls::connect(*socket, address));
                match begun {
                    Err(Errno(libc::EINPROGRESS | libc::EINTR)) => self.pending.push(key),
                    result => Self::connected(key, result, slots),
                }
            }
            _ => self.pending.push(key),
        }
    }

    /// Looks whether a descriptor is ready; if not, keeps a duplicate to look at later, since its
    /// number may mean something else by then.
    fn watch(&mut self, key: SlotKey, slots: &mut Slots) {
        let Some(op) = slots.op(key) else { return };
        let held = match op {
            Op::WaitChild { process, held } => {
                calls::open_process(*process).map(|process| *held = Some(process))
            }
            _ => Ok(()),
        };
        let (descriptor, bits) = op.awaits();
        let ready = held.and_then(|()| calls::ready_now(descriptor, bits)).and_then(|ready| {
            if ready == 0
                && let Op::Ready { held, .. } = op
            {
                *held = Some(calls::duplicate(descriptor)?);
            }
            Ok(ready)
        });
        match ready {
            Ok(0) => self.pending.push(key),
            result => slots.complete(key, result.map(Value::Count), clock::now()),
        }
    }

    fn connected(key: SlotKey, result: Result<u32, Errno>, slots: &mut Slots) {
        let Some(Op::Connect { socket, .. }) = slots.op(key) else { return };
        let result = calls::set_nonblocking(*socket, false).and(result);
        slots.complete(key, result.map(Value::Count), clock::now());
    }

    pub(super) fn arm(&mut self, key: SlotKey, slots: &mut Slots) {
        // A connection is waited for by poll(2): accepting is no hot path, a timeout of the
        // listener's would be inherited, and another process may take the connection first.
        if let Some(Op::Accept { listener }) = slots.op(key)
            && let Err(errno) = calls::set_nonblocking(*listener, true)
        {
            slots.push_event(key, Event::Failed(errno));
        }
        slots.set_arm(key, Arm::Armed);
        self.streams.push(key);
    }

    /// Forgets a descriptor that stays open, and takes back the timeouts that it was given.
    pub(super) fn release(&mut self, descriptor: RawFd) {
        let Some(place) = self.timeouts.iter().position(|known| known.socket == descriptor) else {
            return;
        };
        self.timeouts.swap_remove(place);
        for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            // It fails for what is no socket any more, and then there is no timeout.
            let _ = calls::set_timeout(descriptor, option, 0);
        }
    }

    pub(super) fn cancel(&mut self, key: SlotKey, slots: &mut Slots) {
        if self.streams.contains(&key) {
            self.streams.retain(|stream| *stream != key);
            slots.disarm(key);
        } else {
            let is_send = matches!(
                slots.op(key),
                Some(Op::Send { .. } | Op::SendVectored { .. } | Op::SendTo { .. })
            );
            if is_send {
                // The other backends have tried it when it was started.
                drop(self.call(key, libc::MSG_DONTWAIT, slots));
            }
            self.pending.retain(|pending| *pending != key);
            slots.complete(key, Err(Errno(libc::ECANCELED)), clock::now());
        }
    }

    pub(super) fn cancel_all(&mut self, slots: &mut Slots) {
        let keys: Vec<SlotKey> = self.streams.iter().chain(self.pending.iter()).copied().collect();
        for key in keys {
            self.cancel(key, slots);
        }
    }

    /// Performs one operation, blocking if asked to; or waits for several, or for none.
    pub(super) fn park(&mut self, slots: &mut Slots, wait: Wait) -> Result<(), Errno> {
        let mut waitable = std::mem::take(&mut self.waitable);
        waitable.clear();
        waitable.extend(&self.pending);
        for key in &self.streams {
            let has_room = match slots.op(*key) {
                Some(Op::ReceiveDatagrams { .. }) => {
                    self.datagrams.as_mut().is_some_and(Packer::has_room)
                }
                _ => self.packer.has_room(),
            };
            let held = slots.credit(*key).is_some_and(|credit| credit.is_spent() || !has_room);
            if slots.is_wanted(*key) && !held {
                waitable.push(*key);
            }
        }
        let result = match (waitable.as_slice(), wait) {
            ([], Wait::Busy | Wait::No) => Ok(()),
            ([], Wait::Until(deadline)) => {
                self.sleep(deadline);
                Ok(())
            }
            ([key], Wait::Until(deadline)) => self.block(*key, deadline, slots),
            (keys, Wait::Until(deadline)) => self.poll(keys, deadline, slots),
            (keys, Wait::Busy | Wait::No) => self.poll(keys, Instant::from_nanos(0), slots),
        };
        self.waitable = waitable;
        result
    }

    /// Nothing to wait for but a wake or the deadline.
    fn sleep(&self, deadline: Instant) {
        if self.parker.bell.begin(bell::PARKED) {
            match deadline {
                Instant::NEVER => thread::park(),
                deadline => thread::park_timeout(deadline.since(clock::now())),
            }
        }
        self.parker.bell.end();
    }

    /// One operation: its call, in place, blocking until the deadline.
    fn block(&mut self, key: SlotKey, deadline: Instant, slots: &mut Slots) -> Result<(), Errno> {
        let Some(op) = slots.op(key) else { return Ok(()) };
        let socket = op.descriptor();
        let option = match op {
            Op::Send { .. } | Op::SendVectored { .. } | Op::SendTo { .. } => libc::SO_SNDTIMEO,
            Op::Receive { .. }
            | Op::ReceiveOnce { .. }
            | Op::ReceiveFrom { .. }
            | Op::ReceiveDatagrams { .. } => libc::SO_RCVTIMEO,
            _ => return self.poll(&[key], deadline, slots),
        };
        if !self.limit(socket, option, deadline)? {
            return Ok(());
        }
        if self.parker.bell.begin(bell::BLOCKED) {
            let begun = self.call(key, 0, slots);
            self.parker.bell.end();
            self.finish(key, begun, slots);
        }
        Ok(())
    }

    /// Gives the socket a timeout that ends no later than the deadline. False if that has come.
    fn limit(&mut self, socket: RawFd, option: i32, deadline: Instant) -> Result<bool, Errno> {
        let left_ns = match deadline {
            Instant::NEVER => 0,
            deadline => match deadline.nanos_since(clock::now()) {
                0 => return Ok(false),
                nanos => nanos,
            },
        };
        let known = self.timeouts.iter_mut().find(|timeouts| timeouts.socket == socket);
        let timeouts = match known {
            Some(timeouts) => timeouts,
            None if left_ns == 0 => return Ok(true),
            None => {
                self.timeouts.push(Timeouts { socket, receive_ns: 0, send_ns: 0 });
                self.timeouts.last_mut().expect("it was just pushed")
            }
        };
        let set_ns = match option {
            libc::SO_SNDTIMEO => &mut timeouts.send_ns,
            _ => &mut timeouts.receive_ns,
        };
        let fits = match left_ns {
            0 => *set_ns == 0,
            left => *set_ns != 0 && *set_ns <= left && *set_ns >= left / TIMEOUT_SLACK,
        };
        if !fits {
            *set_ns = if left_ns > TIMEOUT_EXACT_NS { left_ns / 2 } else { left_ns };
            calls::set_timeout(socket, option, *set_ns)?;
        }
        Ok(true)
    }

    /// Several things at once: waits until one is possible, then performs it without blocking.
    fn poll(
        &mut self,
        keys: &[SlotKey],
        deadline: Instant,
        slots: &mut Slots,
    ) -> Result<(), Errno> {
        let mut descriptors: Vec<libc::pollfd> = keys
            .iter()
            .map(|key| {
                let (fd, events) = slots.op(*key).map_or((-1, 0), |op| op.awaits());
                libc::pollfd { fd, events, revents: 0 }
            })
            .collect();
        let event = self.parker.event.descriptor();
        descriptors.push(libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 });
        let timeout_ns = match deadline {
            Instant::NEVER => None,
            deadline => Some(deadline.nanos_since(clock::now())),
        };
        // Rung before: it does not wait then, but looks all the same.
        let may_wait = self.parker.bell.begin(bell::POLLING);
        let timeout_ns = if may_wait { timeout_ns } else { Some(0) };
        let polled = calls::poll(&mut descriptors, timeout_ns);
        self.parker.bell.end();
        match polled {
            Ok(_) => {}
            Err(Errno(libc::EINTR)) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        if descriptors.last().is_some_and(|descriptor| descriptor.revents != 0) {
            self.parker.event.reset();
        }
        for (key, descriptor) in keys.iter().zip(&descriptors) {
            if descriptor.revents != 0 {
                let begun = match slots.op(*key) {
                    Some(op) if op.is_watch() => Called::Other(Ok(descriptor.revents as u32)),
                    _ => self.call(*key, libc::MSG_DONTWAIT, slots),
                };
                self.finish(*key, begun, slots);
            }
        }
        Ok(())
    }

    /// Makes the call of an operation.
    fn call(&mut self, key: SlotKey, flags: i32, slots: &mut Slots) -> Called {
        let Some(op) = slots.op(key) else { return Called::Gone };
        metrics::add(Counter::DriverEnters, 1);
        match op {
            Op::Receive { socket } => {
                let Some((start, length)) = self.packer.room() else { return Called::Gone };
                // SAFETY: the room belongs to the packer's open buffer.
                Called::Received(unsafe { calls::receive(*socket, start, length, flags) })
            }
            Op::Accept { listener } => Called::Accepted(calls::accept(*listener)),
            Op::Send { socket, payload, sent } => {
                Called::Sent(calls::send(*socket, &payload[*sent..], flags))
            }
            Op::SendVectored { socket, message } => {
                let socket = *socket;
                // SAFETY: the message owns all that its header leads to.
                Called::Sent(unsafe { calls::send_message(socket, message.header(), flags) })
            }
            Op::ReceiveDatagrams { socket, .. } => {
                let room = self.datagrams.as_mut().and_then(Packer::room);
                let Some((start, length)) = room else { return Called::Gone };
                // SAFETY: the room belongs to the packer's open buffer.
                let count = unsafe { calls::receive_datagram(*socket, start, length, flags) };
                Called::Datagram(count)
            }
            Op::ReceiveFrom { socket, reception } => {
                let (socket, header) = (*socket, reception.header());
                // SAFETY: the reception owns all that its header leads to.
                Called::Other(unsafe { calls::receive_message(socket, header, flags) })
            }
            Op::SendTo { socket, letter } => {
                let socket = *socket;
                // SAFETY: the letter owns all that its header leads to.
                let sent = unsafe { calls::send_message(socket, letter.header(), flags) };
                match sent {
                    // Polling would say again that the own socket is ready.
                    Err(Errno(libc::EAGAIN)) if flags != 0 && letter.is_at_once() => {
                        Called::Refused
                    }
                    sent => Called::Sent(sent),
                }
            }
            Op::ReceiveOnce { socket, buffer } => {
                let (start, length) = buffer.spare();
                // SAFETY: the spare part belongs to the operation.
                Called::Other(unsafe { calls::receive(*socket, start, length, flags) })
            }
            Op::Connect { socket, .. } => Called::Connected(calls::connected(*socket)),
            Op::Read { pipe, buffer, .. } => {
                let (start, length) = buffer.spare();
                // SAFETY: the spare part belongs to the operation.
                Called::Other(unsafe { calls::read(*pipe, start, length) })
            }
            Op::Write { pipe, payload, written, .. } => {
                Called::Sent(calls::write(*pipe, &payload[*written..]))
            }
            _ => unreachable!("everything else is performed when it is started"),
        }
    }

    /// Puts what a call gave into the slot. A call that was interrupted or timed out is made again
    /// by a later park.
    fn finish(&mut self, key: SlotKey, called: Called, slots: &mut Slots) {
        let again = |errno: Errno| matches!(errno.0, libc::EINTR | libc::EAGAIN);
        let now = clock::now();
        match called {
            Called::Gone => return,
            Called::Received(Err(errno))
            | Called::Datagram(Err(errno))
            | Called::Accepted(Err(errno)) => {
                if !again(errno) {
                    slots.push_event(key, Event::Failed(errno));
                }
                return;
            }
            Called::Received(Ok(0)) => return slots.push_event(key, Event::End),
            Called::Received(Ok(count)) => {
                if let Some(credit) = slots.credit(key) {
                    let chunk = self.packer.fill(count, credit);
                    slots.push_event(key, Event::Chunk(chunk));
                }
                return;
            }
            Called::Datagram(Ok(count)) => {
                if let (Some(credit), Some(packer)) = (slots.credit(key), &mut self.datagrams) {
                    let datagram = packer.fill(count, credit);
                    slots.push_event(key, Event::Datagram(datagram));
                }
                return;
            }
            Called::Accepted(Ok(accepted)) => {
                return slots.push_event(key, Event::Accepted(accepted));
            }
            Called::Sent(Err(errno)) | Called::Other(Err(errno)) if again(errno) => return,
            Called::Sent(step) => {
                if settle::sent(slots, key, step, now) {
                    return;
                }
            }
            // SAFETY: this is the kernel's answer to this operation.
            Called::Other(count) => unsafe { settle::settle(slots, key, count, now) },
            Called::Connected(result) => Self::connected(key, result, slots),
            Called::Refused => slots.complete(key, Err(Errno(libc::EAGAIN)), now),
        }
        self.pending.retain(|pending| *pending != key);
    }
}

/// What a call gave.
enum Called {
    Gone,
    Received(Result<u32, Errno>),
    Datagram(Result<u32, Errno>),
    Accepted(Result<std::os::fd::OwnedFd, Errno>),
    Sent(Result<u32, Errno>),
    Connected(Result<u32, Errno>),
    /// A full peer, which there is no readiness to wait for.
    Refused,
    Other(Result<u32, Errno>),
}
