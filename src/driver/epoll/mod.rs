//! Performs operations by readiness: one non-blocking call each, and epoll(7) to know when.
//!
//! A socket is registered once, edge-triggered, for both directions. Sends are tried at once.
//! Receives are made when readiness comes, until the socket is drained. Files go to helper threads.
//! Invariant: a socket that may be readable is either armed and unreported, or in line (`paused`).

mod attempt;
mod file;
mod news;
mod watch;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use super::Wait;
use super::calls;
use super::event::EventFd;
use super::named::Named;
use super::offload::Offload;
use super::packer::Packer;
use super::slots::{Arm, SlotKey, Slots};
use crate::buffer::Pool;
use crate::clock::{self, Instant};
use crate::error::Errno;
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{Event, Op, Value};

/// Readiness taken from the kernel at once.
const EVENTS_MAX: usize = 512;

/// What `epoll_event.u64` carries for the eventfd.
const WAKE: u64 = u64::MAX;

const INTEREST: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// The peer has finished: a short read is not the last one then.
const FINISHED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// A registered socket.
#[derive(Default)]
struct Socket {
    registered: bool,
    /// Distinguishes the uses of a descriptor number.
    generation: u32,
    reader: Option<SlotKey>,
    writers: VecDeque<SlotKey>,
    /// Waits for readiness alone; a number that has one has nothing else.
    watcher: Option<SlotKey>,
    /// A pipe's end that was set non-blocking.
    is_nonblocking: bool,
}

pub(super) struct Epoll {
    epoll: OwnedFd,
    event: Arc<EventFd>,
    packer: Packer,
    /// Where datagrams go, once a socket receives any.
    datagrams: Option<Packer>,
    offload: Offload,
    /// By descriptor number.
    sockets: Vec<Socket>,
    events: Vec<libc::epoll_event>,
    paused: VecDeque<SlotKey>,
    /// What the packer's count of releases was when the line was last looked at; `None` if the
    /// line has grown since.
    releases_seen: Option<u64>,
    /// Streams in line that wait for their task, not for a release: looked at every time.
    tasks_awaited: usize,
    /// Files that a helper uses.
    named: Named,
    /// When this turn began, and when readiness was last looked for.
    now: Instant,
    looked: Instant,
    /// Turns since then.
    turns_unlooked: u32,
}

impl Epoll {
    pub(super) fn new(pool: &Rc<Pool>, offload_threads: usize) -> Result<Self, Errno> {
        // SAFETY: epoll_create1 takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let event = Arc::new(EventFd::new()?);
        let this = Self {
            offload: Offload::new(offload_threads, &event),
            epoll,
            event,
            packer: Packer::new(pool),
            datagrams: None,
            sockets: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            paused: VecDeque::new(),
            releases_seen: None,
            tasks_awaited: 0,
            named: Named::default(),
            now: clock::now(),
            looked: clock::now(),
            turns_unlooked: 0,
        };
        // Edge-triggered, so the counter need not be read.
        this.register(this.event.descriptor(), WAKE)?;
        Ok(this)
    }

    pub(super) fn event(&self) -> Arc<EventFd> {
        Arc::clone(&self.event)
    }

    /// Receives datagrams into the pool from now on.
    pub(super) fn open_datagrams(&mut self, pool: &Rc<Pool>) {
        self.datagrams = Some(Packer::of_datagrams(pool));
    }

    fn register(&self, descriptor: RawFd, data: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event { events: INTEREST, u64: data };
        // SAFETY: the event is a valid local for the call.
        let result = unsafe {
            let epoll = self.epoll.as_raw_fd();
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
        };
        if result == 0 { Ok(()) } else { Err(Errno::last()) }
    }

    /// The socket's entry, registered.
    fn socket(&mut self, descriptor: RawFd) -> Result<&mut Socket, Errno> {
        let index = usize::try_from(descriptor).map_err(|_| Errno(libc::EBADF))?;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, Socket::default);
        }
        if !self.sockets[index].registered {
            let data = u64::from(self.sockets[index].generation) << 32 | index as u64;
            match self.register(descriptor, data) {
                Ok(()) | Err(Errno(libc::EEXIST)) => self.sockets[index].registered = true,
                Err(errno) => return Err(errno),
            }
        }
        Ok(&mut self.sockets[index])
    }

    /// Starts a one-shot operation: most are over when this returns.
    pub(super) fn start(&mut self, key: SlotKey, slots: &mut Slots, now: Instant) {
        let op = slots.op(key).expect("an operation is started in a live slot");
        if op.is_on_file() {
            return self.start_file(key, slots, now);
        }
        match op {
            Op::Ready { .. } | Op::WaitChild { .. } => self.watch(key, slots, now),
            Op::Send { socket, .. }
            | Op::SendVectored { socket, .. }
            | Op::SendTo { socket, .. }
            | Op::Write { pipe: socket, .. } => {
                let socket = *socket;
                if let Err(errno) = self.prepare(op.is_on_pipe(), socket) {
                    return slots.complete(key, Err(errno), now);
                }
                let waits = |socket: &Socket| !socket.writers.is_empty();
                if self.sockets.get(socket as usize).is_some_and(waits)
                    || attempt::send(key, slots, now)
                {
                    self.wait_writable(key, socket, slots, now);
                }
            }
            Op::Connect { socket, address } => {
                let socket = *socket;
                let begun = calls::set_nonblocking(socket, true)
                    .and_then(|()| calls::connect(socket, address));
                match begun {
                    Err(Errno(libc::EINPROGRESS | libc::EINTR)) => {
                        self.wait_writable(key, socket, slots, now);
                    }
                    result => slots.complete(key, result.map(Value::Count), now),
                }
            }
            Op::ReceiveOnce { socket, .. }
            | Op::ReceiveFrom { socket, .. }
            | Op::Read { pipe: socket, .. } => {
                let socket = *socket;
                if let Err(errno) = self.prepare(op.is_on_pipe(), socket) {
                    return slots.complete(key, Err(errno), now);
                }
                if attempt::receive_once(key, slots, now) {
                    match self.socket(socket) {
                        Ok(entry) => entry.reader = Some(key),
                        Err(errno) => slots.complete(key, Err(errno), now),
                    }
                }
            }
            Op::Shutdown { socket, how } => {
                let result = calls::shutdown(*socket, *how);
                slots.complete(key, result.map(Value::Count), now);
            }
            Op::Close { .. } => {
                if let Op::Close { descriptor } = std::mem::replace(op, Op::Idle) {
                    self.forget(descriptor.as_raw_fd());
                    drop(self.keep(descriptor));
                }
                slots.complete(key, Ok(Value::Count(0)), now);
            }
            _ => unreachable!("streams are armed and file operations offloaded"),
        }
    }

    /// Calls on pipes know no MSG_DONTWAIT: an end is set non-blocking, once. A device that epoll
    /// refuses (EPERM: it has no readiness, as /dev/null) never has its calls wait.
    fn prepare(&mut self, is_pipe: bool, descriptor: RawFd) -> Result<(), Errno> {
        if is_pipe {
            match self.socket(descriptor) {
                Ok(_) | Err(Errno(libc::EPERM)) => {}
                Err(errno) => return Err(errno),
            }
            let entry = &mut self.sockets[descriptor as usize];
            if !entry.is_nonblocking {
                calls::set_nonblocking(descriptor, true)?;
                entry.is_nonblocking = true;
            }
        }
        Ok(())
    }

    /// The number means nothing any more; the kernel drops the registration with the descriptor.
    fn forget(&mut self, descriptor: RawFd) {
        if let Some(socket) = self.sockets.get_mut(descriptor as usize) {
            let generation = socket.generation.wrapping_add(1);
            *socket = Socket { generation, ..Socket::default() };
        }
    }

    /// Forgets a descriptor that stays open: its registration would live as long as its file.
    pub(super) fn release(&mut self, descriptor: RawFd) {
        let is_known =
            self.sockets.get(descriptor as usize).is_some_and(|socket| socket.registered);
        if is_known {
            let null = std::ptr::null_mut();
            let epoll = self.epoll.as_raw_fd();
            // SAFETY: the event of a removal is not looked at.
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, descriptor, null) };
        }
        self.forget(descriptor);
    }

    fn wait_writable(&mut self, key: SlotKey, socket: RawFd, slots: &mut Slots, now: Instant) {
        match self.socket(socket) {
            Ok(entry) => entry.writers.push_back(key),
            Err(errno) => slots.complete(key, Err(errno), now),
        }
    }

    /// Arms a stream: its socket's readiness is reported from now on, the present one too.
    pub(super) fn arm(&mut self, key: SlotKey, slots: &mut Slots) {
        let Some(op) = slots.op(key) else { return };
        let descriptor = op.descriptor();
        let prepared = match op {
            Op::Accept { .. } => calls::set_nonblocking(descriptor, true),
            _ => Ok(()),
        };
        let known = self.sockets.get(descriptor as usize).is_some_and(|socket| socket.registered);
        match prepared.and_then(|()| self.socket(descriptor)) {
            Ok(socket) => {
                socket.reader = Some(key);
                if known {
                    // Its readiness may have been reported before anyone read: look at once.
                    self.line_up(key);
                } else {
                    slots.set_arm(key, Arm::Armed);
                }
            }
            Err(errno) => slots.push_event(key, Event::Failed(errno)),
        }
    }

    pub(super) fn cancel(&mut self, key: SlotKey, slots: &mut Slots) {
        let Some(op) = slots.op(key) else { return };
        if op.is_on_file() {
            return self.cancel_file(key, slots);
        }
        let is_stream =
            matches!(op, Op::Accept { .. } | Op::Receive { .. } | Op::ReceiveDatagrams { .. });
        if op.is_watch() {
            let number = op.awaits().0;
            self.release(number);
        } else if let Some(socket) = self.sockets.get_mut(op.descriptor() as usize) {
            socket.reader.take_if(|reader| *reader == key);
            socket.writers.retain(|writer| *writer != key);
        }
        if is_stream {
            slots.disarm(key);
        } else {
            slots.complete(key, Err(Errno(libc::ECANCELED)), clock::now());
        }
    }

    pub(super) fn cancel_all(&mut self, slots: &mut Slots) {
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            let waiting = socket.reader.take().into_iter().chain(socket.watcher);
            let keys: Vec<SlotKey> = waiting.chain(socket.writers.drain(..)).collect();
            for key in keys {
                self.cancel(key, slots);
            }
        }
        for key in std::mem::take(&mut self.paused) {
            self.cancel(key, slots);
        }
        self.cancel_files(slots);
    }

    /// Performs what became possible since the last park.
    pub(super) fn reap(&mut self, slots: &mut Slots, now: Instant) {
        self.now = now;
        self.take_answers(slots, now);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let (data, ready) = (event.u64, event.events);
            if data == WAKE {
                continue;
            }
            let index = data as u32 as usize;
            let Some(socket) = self.sockets.get_mut(index) else { continue };
            if socket.generation != (data >> 32) as u32 {
                continue;
            }
            let reader = socket.reader;
            if let Some(key) = socket.watcher {
                self.watched(key, index, ready, slots);
                continue;
            }
            if ready & WRITABLE != 0 && !socket.writers.is_empty() {
                self.write(index, slots, now);
            }
            if let Some(key) = reader.filter(|_| ready & READABLE != 0) {
                self.read(key, ready & FINISHED != 0, slots, now);
            }
        }
        self.events = events;
    }

    fn write(&mut self, index: usize, slots: &mut Slots, now: Instant) {
        while let Some(key) = self.sockets[index].writers.front().copied() {
            if let Some(Op::Connect { socket, .. }) = slots.op(key) {
                let result = calls::connected(*socket);
                slots.complete(key, result.map(Value::Count), now);
            } else if attempt::send(key, slots, now) {
                return;
            }
            self.sockets[index].writers.pop_front();
        }
    }

    fn read(&mut self, key: SlotKey, finished: bool, slots: &mut Slots, now: Instant) {
        match slots.op(key) {
            Some(
                Op::ReceiveOnce { socket, .. }
                | Op::ReceiveFrom { socket, .. }
                | Op::Read { pipe: socket, .. },
            ) => {
                let index = *socket as usize;
                if !attempt::receive_once(key, slots, now) {
                    self.sockets[index].reader = None;
                }
            }
            Some(Op::Receive { socket }) => {
                let socket = *socket;
                if slots.arm(key) == Some(Arm::Armed) {
                    self.receive(key, socket, finished, slots);
                }
            }
            Some(Op::ReceiveDatagrams { socket, .. }) => {
                let socket = *socket;
                if slots.arm(key) == Some(Arm::Armed) {
                    self.receive_datagrams(key, socket, slots);
                }
            }
            Some(Op::Accept { listener }) => {
                let listener = *listener;
                if slots.arm(key) == Some(Arm::Armed) {
                    Self::accept(key, listener, slots);
                    if slots.arm(key) == Some(Arm::Disarmed) {
                        self.line_up(key);
                    }
                }
            }
            _ => {}
        }
    }

    /// Receives until the socket is drained, buffers or credit are spent, or it is over.
    fn receive(&mut self, key: SlotKey, socket: RawFd, finished: bool, slots: &mut Slots) {
        loop {
            let Some(credit) = slots.credit(key).map(Rc::clone) else { return };
            if credit.is_spent() {
                break;
            }
            let Some((start, length)) = self.packer.room() else {
                metrics::add(Counter::BufferWaits, 1);
                break;
            };
            // SAFETY: the room belongs to the packer's open buffer.
            match unsafe { calls::receive(socket, start, length, libc::MSG_DONTWAIT) } {
                Ok(0) => return Self::end(key, Event::End, slots),
                Ok(count) => {
                    let chunk = self.packer.fill(count, &credit);
                    slots.push_event(key, Event::Chunk(chunk));
                    if (count as usize) < length && !finished {
                        return;
                    }
                }
                Err(Errno(libc::EAGAIN)) => return,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => return Self::end(key, Event::Failed(errno), slots),
            }
        }
        slots.set_arm(key, Arm::Disarmed);
        self.line_up(key);
    }

    /// Receives datagrams until there is none; or buffers or credit are spent, or it fails: then
    /// the stream waits in line until its task has taken what it has.
    fn receive_datagrams(&mut self, key: SlotKey, socket: RawFd, slots: &mut Slots) {
        let packer = self.datagrams.as_mut().expect("a stream of datagrams has its packer");
        loop {
            let Some(credit) = slots.credit(key).map(Rc::clone) else { return };
            if credit.is_spent() {
                break;
            }
            let Some((start, length)) = packer.room() else {
                metrics::add(Counter::BufferWaits, 1);
                break;
            };
            // SAFETY: the room belongs to the packer's open buffer.
            match unsafe { calls::receive_datagram(socket, start, length, libc::MSG_DONTWAIT) } {
                Ok(count) => {
                    let datagram = packer.fill(count, &credit);
                    slots.push_event(key, Event::Datagram(datagram));
                }
                Err(Errno(libc::EAGAIN)) => return,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    slots.push_event(key, Event::Failed(errno));
                    break;
                }
            }
        }
        slots.set_arm(key, Arm::Disarmed);
        self.line_up(key);
    }

    /// The last event of a receive: whatever readiness comes later, nothing is to be read.
    fn end(key: SlotKey, event: Event, slots: &mut Slots) {
        slots.set_arm(key, Arm::Disarmed);
        slots.push_event(key, event);
    }

    /// Accepts until there is no more connection, or enough wait to be taken (then it is disarmed).
    fn accept(key: SlotKey, listener: RawFd, slots: &mut Slots) {
        while slots.queued(key) < limits::ACCEPT_QUEUE_COUNT_MAX {
            match calls::accept(listener) {
                Ok(accepted) => slots.push_event(key, Event::Accepted(accepted)),
                Err(Errno(libc::EAGAIN)) => return,
                Err(Errno(libc::EINTR | libc::ECONNABORTED)) => {}
                Err(errno) => {
                    slots.push_event(key, Event::Failed(errno));
                    break;
                }
            }
        }
        slots.set_arm(key, Arm::Disarmed);
    }

    fn line_up(&mut self, key: SlotKey) {
        self.paused.push_back(key);
        self.releases_seen = None;
    }

    /// Goes on with the streams in line that can: receives once there are buffers and their credit
    /// allows, datagrams if also nothing waits for their task, accepts once somebody waits for
    /// them. True if any was looked at.
    fn resume(&mut self, slots: &mut Slots) -> bool {
        let line_has_grown = self.releases_seen.is_none() && !self.paused.is_empty();
        if line_has_grown && !(self.packer.has_room() && self.has_room_for_datagrams()) {
            slots.unpin_queued();
        }
        let releases = Some(self.releases());
        if self.paused.is_empty() || (self.releases_seen == releases && self.tasks_awaited == 0) {
            return false;
        }
        self.releases_seen = releases;
        self.tasks_awaited = 0;
        let now = clock::now();
        let mut resumed = false;
        for _ in 0..self.paused.len() {
            let Some(key) = self.paused.pop_front() else { break };
            if slots.arm(key) != Some(Arm::Disarmed) {
                continue;
            }
            let (has_room, waits_for_task) = match slots.op(key) {
                Some(Op::Receive { .. }) => (self.packer.has_room(), false),
                Some(Op::ReceiveDatagrams { .. }) => {
                    (self.has_room_for_datagrams(), slots.queued(key) > 0)
                }
                _ => (true, !slots.is_wanted(key)),
            };
            let is_spent = slots.credit(key).is_some_and(|credit| credit.is_spent());
            if has_room && !is_spent && !waits_for_task {
                resumed = true;
                slots.set_arm(key, Arm::Armed);
                self.read(key, true, slots, now);
            } else {
                self.tasks_awaited += usize::from(waits_for_task);
                self.paused.push_back(key);
            }
        }
        resumed
    }

    fn has_room_for_datagrams(&mut self) -> bool {
        self.datagrams.as_mut().is_none_or(Packer::has_room)
    }

    /// Changes whenever a buffer or credit of either kind comes back.
    fn releases(&self) -> u64 {
        self.packer.releases() + self.datagrams.as_ref().map_or(0, Packer::releases)
    }

    /// Takes readiness from the kernel; sleeps if asked to.
    pub(super) fn park(&mut self, slots: &mut Slots, wait: Wait) -> Result<(), Errno> {
        let resumed = self.resume(slots);
        if !self.events.is_empty() {
            // What was taken has not been reaped, and is reported once only.
            return Ok(());
        }
        if wait == Wait::Busy && self.has_just_looked() {
            return Ok(());
        }
        let timeout_ns = match wait {
            Wait::Busy | Wait::No => Some(0),
            Wait::Until(_) if resumed => Some(0),
            Wait::Until(Instant::NEVER) => None,
            Wait::Until(deadline) => Some(deadline.nanos_since(clock::now())),
        };
        match self.wait(timeout_ns) {
            Err(Errno(libc::EINTR)) => Ok(()),
            result => result,
        }
    }

    /// Whether readiness was looked for a moment ago. Turns are counted as well, since time may
    /// stand still.
    fn has_just_looked(&mut self) -> bool {
        const LOOK_EVERY_NS: u64 = 10_000;
        const TURNS_UNLOOKED_MAX: u32 = 64;
        self.turns_unlooked += 1;
        self.now.nanos_since(self.looked) < LOOK_EVERY_NS
            && self.turns_unlooked < TURNS_UNLOOKED_MAX
    }

    fn wait(&mut self, timeout_ns: Option<u64>) -> Result<(), Errno> {
        self.looked = self.now;
        self.turns_unlooked = 0;
        metrics::add(Counter::DriverEnters, 1);
        let timeout = timeout_ns.map(|nanos| libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |time| &raw const *time);
        // SAFETY: the events' spare capacity has room for EVENTS_MAX entries; the timeout is null
        // or a local that outlives the call; there is no signal mask.
        let count = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as i32,
                timeout,
                std::ptr::null(),
            )
        };
        if count < 0 {
            return Err(Errno::last());
        }
        // SAFETY: the kernel has filled `count` entries, at most EVENTS_MAX, in an empty vector of
        // that capacity.
        unsafe { self.events.set_len(count as usize) };
        Ok(())
    }
}
