//! Performs operations on an io_uring: one submission entry each, one kernel entry a turn, and more
//! only for many operations on files.
//!
//! Accept and receive are multishot: one entry serves the life of a listener or connection.
//! Invariant: every entry pushed names a live slot (or is marked ignored), and the slot keeps what
//! the entry points to until its last completion.

mod buffer_ring;
mod door;
mod entry;
mod file;
mod pipe;
pub(in crate::driver) mod setup;

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue};

use self::buffer_ring::BufferRing;
use self::door::Door;
pub(crate) use self::setup::{Given, RingSettings};
use super::event::{EventFd, EventSet};
use super::named::Named;
use super::offload::Offload;
use super::slots::{Arm, SlotKey, Slots};
use super::{Wait, calls, settle};
use crate::buffer::Pool;
use crate::clock::{self, Instant};
use crate::error::Errno;
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{Direction, Event, Op, Value};

/// Room for streams in line from the start, so that a request on the way does not pay for it.
const PAUSED_COUNT: usize = 256;

pub(super) struct Ring {
    /// Dropped by hand, before the buffer ring that the kernel reads.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<BufferRing>,
    /// The buffers of datagrams, once a socket receives any. Dropped as `buffers` is.
    datagrams: ManuallyDrop<Option<BufferRing>>,
    pool: Rc<Pool>,
    event: Arc<EventFd>,
    /// Receives that wait for buffers or for their own credit, in line.
    paused: VecDeque<SlotKey>,
    /// What the pool's count of releases was when the line was last looked at; `None` if the line
    /// has grown since.
    releases_seen: Option<u64>,
    /// Streams in line that wait for their task, not for a release: looked at every time.
    tasks_awaited: usize,
    /// Whether receives are told how much to receive at most. Until the kernel refuses it.
    is_bounding: bool,
    door: Door,
    given: Given,
    /// Operations on files that the kernel has not been told of.
    files_queued: usize,
    /// Files whose number is looked up later.
    named: Named,
    /// For what has no entry; `None` if there was no such thing yet.
    offload: Option<Offload>,
    /// For somebody else's loop; `None` if none has asked for it.
    watch: Option<Watch>,
}

/// What tells somebody else's loop that there is something to do.
///
/// The ring's own descriptor does not become readable by work that waits for this thread (deferred
/// task work), so the kernel bumps an eventfd then (io_uring_register_eventfd(3)). It may fail to
/// where the reason is a bump of another eventfd (seen on Linux 6.18 at the second time), so wakes
/// are looked for where they come from.
struct Watch {
    bumped: EventFd,
    set: EventSet,
}

impl Watch {
    fn new(ring: &IoUring, wakes: &EventFd) -> Result<Self, Errno> {
        let bumped = EventFd::new()?;
        let registered = ring.submitter().register_eventfd(bumped.descriptor());
        registered.map_err(|error| Errno::from_io(&error))?;
        let set = EventSet::new([&bumped, wakes])?;
        Ok(Self { bumped, set })
    }
}

impl Ring {
    pub(super) fn new(settings: &RingSettings, pool: &Rc<Pool>) -> Result<Self, Errno> {
        let (ring, mut given) = setup::open(settings)?;
        let door = Door::open(&ring, &mut given);
        let (mut buffers, incremental) = BufferRing::of_streams(&ring, pool)?;
        given.incremental = incremental;
        if !incremental {
            given.given_up.push("incremental buffers (before Linux 6.12)".into());
        }
        buffers.replenish();
        let mut this = Self {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            datagrams: ManuallyDrop::new(None),
            pool: Rc::clone(pool),
            event: Arc::new(EventFd::new()?),
            paused: VecDeque::with_capacity(PAUSED_COUNT),
            releases_seen: None,
            tasks_awaited: 0,
            is_bounding: true,
            door,
            given,
            files_queued: 0,
            named: Named::default(),
            offload: None,
            watch: None,
        };
        let watch = entry::watch(this.event.descriptor());
        this.push(watch);
        Ok(this)
    }

    pub(super) fn given(&self) -> &Given {
        &self.given
    }

    pub(super) fn event(&self) -> Arc<EventFd> {
        Arc::clone(&self.event)
    }

    /// Offers the pool's buffers for datagrams from now on.
    pub(super) fn open_datagrams(&mut self, pool: &Rc<Pool>) -> Result<(), Errno> {
        let mut datagrams = BufferRing::of_datagrams(&self.ring, pool)?;
        datagrams.replenish();
        *self.datagrams = Some(datagrams);
        Ok(())
    }

    /// A descriptor that is readable when there are completions, or work that leads to some, or a
    /// wake.
    pub(super) fn watch(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.watch.is_none() {
            self.watch = Some(Watch::new(&self.ring, &self.event)?);
        }
        Ok(self.watch.as_ref().expect("it was just made").set.as_fd())
    }

    /// Has the watched descriptor tell only of what comes from now on.
    pub(super) fn forget_told(&self) {
        if let Some(watch) = &self.watch {
            watch.bumped.reset();
            self.event.reset();
        }
    }

    /// Makes the watched descriptor readable.
    pub(super) fn tell(&self) {
        if let Some(watch) = &self.watch {
            watch.bumped.notify();
        }
    }

    /// Queues the entry of a one-shot operation.
    pub(super) fn start(&mut self, key: SlotKey, slots: &mut Slots) {
        let op = slots.op(key).expect("an operation is started in a live slot");
        if matches!(op, Op::Close { .. }) && !self.closes_now(op) {
            return slots.complete(key, Ok(Value::Count(0)), clock::now());
        }
        match op {
            Op::WaitChild { process, held } if !self.given.wait_child => {
                match calls::open_process(*process) {
                    Ok(descriptor) => *held = Some(descriptor),
                    Err(errno) => return slots.complete(key, Err(errno), clock::now()),
                }
            }
            Op::Shutdown { socket, how } => {
                let (socket, how) = (*socket, *how);
                let result = self.shut_down(socket, how);
                return slots.complete(key, result.map(Value::Count), clock::now());
            }
            _ if op.is_on_file() => return self.start_file(key, slots),
            _ => {}
        }
        let is_loud = !self.given.quiet_writes && matches!(op, Op::Write { waits: false, .. });
        if is_loud && !pipe::write(key, slots) {
            return;
        }
        let op = slots.op(key).expect("it is still there");
        let entry = entry::entry(op).user_data(key.to_user_data());
        self.push(entry);
    }

    /// Behind what was queued before: its sends get what room there is. Not by an entry: the kernel
    /// looks the number up in a worker then, when it may be another's.
    pub(super) fn shut_down(&mut self, socket: RawFd, how: Direction) -> Result<u32, Errno> {
        if !self.ring.submission().is_empty() {
            self.enter(0, None)?;
        }
        calls::shutdown(socket, how)
    }

    /// Queues the entry of a multishot operation.
    pub(super) fn arm(&mut self, key: SlotKey, slots: &mut Slots) {
        slots.set_arm(key, Arm::Armed);
        let op = slots.op(key).expect("a stream is armed in a live slot");
        let mut entry = entry::entry(op).user_data(key.to_user_data());
        let is_bounded = self.is_bounding && matches!(slots.op(key), Some(Op::Receive { .. }));
        if is_bounded && let Some(credit) = slots.credit(key) {
            bound(&mut entry, credit.left());
        }
        self.push(entry);
    }

    pub(super) fn cancel(&mut self, key: SlotKey, slots: &mut Slots) {
        if self.is_helped() && self.call_back(key, slots) {
            return;
        }
        self.push(entry::cancel(key.to_user_data()));
    }

    pub(super) fn cancel_all(&mut self, slots: &mut Slots) {
        self.call_back_all(slots);
        self.push(entry::cancel_any());
    }

    #[inline]
    pub(super) fn has_news(&mut self) -> bool {
        self.ring.submission().taskrun() || !self.ring.completion().is_empty()
    }

    fn push(&mut self, entry: Entry) {
        loop {
            // SAFETY: the entry's pointers lead into its slot's operation (heap memory or the
            // pool), which `Slots` keeps until the last completion; `entry.rs` makes no others.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over now. Submission without waiting fails only when
            // completions must be reaped first, and then the kernel has still taken entries.
            if let Err(errno) = self.enter(0, None) {
                tracing::warn!(%errno, "flushing a full submission queue failed; trying again");
                std::thread::yield_now();
            }
        }
    }

    /// Drains the completion queue into the slots.
    pub(super) fn reap(&mut self, slots: &mut Slots, now: Instant) {
        self.take_answers(slots, now);
        // Copied out, as handling a completion may push entries.
        while let Some(cqe) = { self.ring.completion().next() } {
            match cqe.user_data() {
                entry::IGNORED => {}
                entry::WAKE => {
                    // A shutdown cancels this too, but it waits for the helpers.
                    let is_over = cqe.result() == -libc::ECANCELED && !self.is_helped();
                    if !cqueue::more(cqe.flags()) && !is_over {
                        let watch = entry::watch(self.event.descriptor());
                        self.push(watch);
                    }
                }
                user_data => {
                    let key = SlotKey::from_user_data(user_data);
                    self.complete(key, cqe.result(), cqe.flags(), slots, now);
                }
            }
        }
    }

    fn complete(&mut self, key: SlotKey, result: i32, flags: u32, slots: &mut Slots, now: Instant) {
        let Some(op) = slots.op(key) else { return };
        let count = if result >= 0 { Ok(result as u32) } else { Err(Errno(-result)) };
        match op {
            Op::Receive { .. } => self.received(key, count, flags, slots),
            Op::Accept { .. } => self.accepted(key, count, flags, slots),
            Op::ReceiveDatagrams { .. } => self.received_datagram(key, count, flags, slots),
            Op::Read { waits, .. } | Op::Write { waits, .. }
                if *waits || count == Err(Errno(libc::EAGAIN)) =>
            {
                // A descriptor that is set non-blocking is waited for by poll, then tried again.
                *waits = !*waits;
                match count {
                    Err(errno) if errno.0 != libc::EAGAIN => slots.complete(key, Err(errno), now),
                    _ if slots.is_orphaned(key) => {
                        slots.complete(key, Err(Errno(libc::ECANCELED)), now);
                    }
                    _ => self.start(key, slots),
                }
            }
            Op::Send { .. } | Op::SendVectored { .. } | Op::SendTo { .. } | Op::Write { .. } => {
                if slots.is_orphaned(key) {
                    // Told to stop: the rest is not sent. Its peer may never read, and it would
                    // keep the connection open behind its close.
                    slots.complete(key, count.map(Value::Count), now);
                } else if settle::sent(slots, key, count, now) {
                    self.start(key, slots);
                }
            }
            Op::Close { .. } => {
                // The kernel has closed it (close(2): also when it reports an error), so the
                // operation must not close the number again, unless it was never tried.
                if let Op::Close { descriptor } = std::mem::replace(op, Op::Idle)
                    && count != Err(Errno(libc::ECANCELED))
                {
                    std::mem::forget(descriptor);
                }
                slots.complete(key, count.map(Value::Count), now);
            }
            _ if op.is_on_file() => self.complete_file(key, count, slots, now),
            // SAFETY: this is the kernel's answer to this operation.
            _ => unsafe { settle::settle(slots, key, count, now) },
        }
    }

    fn accepted(
        &mut self,
        key: SlotKey,
        result: Result<u32, Errno>,
        flags: u32,
        slots: &mut Slots,
    ) {
        match result {
            Ok(fd) => {
                // SAFETY: the completion of an accept yields a descriptor that nobody else has.
                let accepted = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                slots.push_event(key, Event::Accepted(accepted));
            }
            Err(Errno(libc::ECANCELED)) => {}
            Err(errno) => slots.push_event(key, Event::Failed(errno)),
        }
        if !cqueue::more(flags) {
            if slots.disarm(key) {
                // Re-armed when its holder asks again, so that a failing accept does not spin.
                self.line_up(key);
            }
        } else if slots.queued(key) >= limits::ACCEPT_QUEUE_COUNT_MAX {
            self.pause(key, slots);
        }
    }

    fn received(
        &mut self,
        key: SlotKey,
        result: Result<u32, Errno>,
        flags: u32,
        slots: &mut Slots,
    ) {
        let mut over = false;
        match result {
            Ok(length) => {
                if let Some(part) = self.buffers.consume(flags, length) {
                    if let (1.., Some(credit)) = (length, slots.credit(key)) {
                        let chunk = credit.lease(part.id, part.offset, length);
                        slots.push_event(key, Event::Chunk(chunk));
                    }
                    self.buffers.finish(&part, flags);
                }
                if length == 0 {
                    over = true;
                    slots.push_event(key, Event::End);
                }
            }
            Err(Errno(libc::ENOBUFS)) => metrics::add(Counter::BufferWaits, 1),
            Err(Errno(libc::EINVAL)) if self.is_bounding => {
                tracing::debug!("receives end by cancel only, not by themselves (Linux 6.17)");
                self.is_bounding = false;
            }
            Err(Errno(libc::ECANCELED)) => {}
            Err(errno) => {
                over = true;
                if let Some(part) = self.buffers.consume(flags, 0) {
                    self.buffers.finish(&part, flags);
                }
                slots.push_event(key, Event::Failed(errno));
            }
        }
        if !cqueue::more(flags) {
            if slots.disarm(key) && !over {
                self.line_up(key);
            }
        } else if slots.credit(key).is_some_and(|credit| credit.is_spent()) {
            self.pause(key, slots);
        }
    }

    fn received_datagram(
        &mut self,
        key: SlotKey,
        result: Result<u32, Errno>,
        flags: u32,
        slots: &mut Slots,
    ) {
        let buffers = self.datagrams.as_mut().expect("a stream of datagrams has its buffers");
        // Who fails may yet have picked a buffer.
        if let Some(part) = buffers.consume(flags, result.unwrap_or(0)) {
            if let (Ok(length), Some(credit)) = (result, slots.credit(key)) {
                let datagram = credit.lease(part.id, part.offset, length);
                slots.push_event(key, Event::Datagram(datagram));
            }
            buffers.finish(&part, flags);
        }
        match result {
            // An empty datagram ends this arming too, but nothing is over: there is no connection.
            Ok(_) | Err(Errno(libc::ECANCELED)) => {}
            Err(Errno(libc::ENOBUFS)) => metrics::add(Counter::BufferWaits, 1),
            Err(errno) => slots.push_event(key, Event::Failed(errno)),
        }
        if !cqueue::more(flags) {
            if slots.disarm(key) {
                self.line_up(key);
            }
        } else if slots.credit(key).is_some_and(|credit| credit.is_spent()) {
            self.pause(key, slots);
        }
    }

    /// Tells an armed stream to stop; its last completion puts it in line.
    fn pause(&mut self, key: SlotKey, slots: &mut Slots) {
        if slots.arm(key) == Some(Arm::Armed) {
            slots.set_arm(key, Arm::Cancelling);
            self.push(entry::cancel(key.to_user_data()));
        }
    }

    fn line_up(&mut self, key: SlotKey) {
        self.paused.push_back(key);
        self.releases_seen = None;
    }

    /// Offers free buffers to the kernel and re-arms the streams in line that can go on: receives
    /// once there are buffers and their credit allows, datagrams if also nothing waits for their
    /// task, accepts once somebody waits for them.
    fn resume(&mut self, slots: &mut Slots) {
        self.replenish();
        let line_has_grown = self.releases_seen.is_none() && !self.paused.is_empty();
        if line_has_grown && self.is_short() {
            slots.unpin_queued();
            self.replenish();
        }
        let releases = Some(self.releases());
        if self.paused.is_empty() || (self.releases_seen == releases && self.tasks_awaited == 0) {
            return;
        }
        self.releases_seen = releases;
        self.tasks_awaited = 0;
        for _ in 0..self.paused.len() {
            let Some(key) = self.paused.pop_front() else { break };
            if slots.arm(key) != Some(Arm::Disarmed) {
                continue;
            }
            let (offered, waits_for_task) = match slots.op(key) {
                Some(Op::Receive { .. }) => (self.buffers.offered(), false),
                Some(Op::ReceiveDatagrams { .. }) => {
                    let offered = self.datagrams.as_ref().map_or(0, BufferRing::offered);
                    (offered, slots.queued(key) > 0)
                }
                _ => (1, !slots.is_wanted(key)),
            };
            let is_spent = slots.credit(key).is_some_and(|credit| credit.is_spent());
            if offered > 0 && !is_spent && !waits_for_task {
                self.arm(key, slots);
            } else {
                self.tasks_awaited += usize::from(waits_for_task);
                self.paused.push_back(key);
            }
        }
    }

    fn replenish(&mut self) {
        self.buffers.replenish();
        if let Some(datagrams) = &mut *self.datagrams {
            datagrams.replenish();
        }
    }

    /// Whether the kernel has used up the buffers of either kind.
    fn is_short(&self) -> bool {
        let datagrams = self.datagrams.as_ref();
        self.buffers.offered() == 0 || datagrams.is_some_and(|buffers| buffers.offered() == 0)
    }

    /// Changes whenever a buffer or credit of either kind comes back.
    fn releases(&self) -> u64 {
        self.pool.releases() + self.datagrams.as_ref().map_or(0, BufferRing::releases)
    }

    /// Submits what is queued and takes completions; sleeps if asked to. One kernel entry.
    pub(super) fn park(&mut self, slots: &mut Slots, wait: Wait) -> Result<(), Errno> {
        self.resume(slots);
        let mut want = 0;
        let mut timeout = None;
        if let Wait::Until(deadline) = wait
            && self.ring.completion().is_empty()
        {
            want = 1;
            if deadline != Instant::NEVER {
                timeout = Some(deadline.since(clock::now()));
            }
        }
        if want == 0 {
            let submission = self.ring.submission();
            if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
                return Ok(());
            }
        }
        self.enter(want, timeout)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> Result<(), Errno> {
        metrics::add(Counter::DriverEnters, 1);
        self.files_queued = 0;
        let queued = self.ring.submission().len() as u32;
        match self.door.enter(queued, want, timeout) {
            // EBUSY and EAGAIN: completions must be reaped first, which the next turn does.
            Ok(()) | Err(Errno(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Lets a multishot receive end by itself after `bytes`. Without it the kernel goes on for up to 32
/// receives before the driver can see that the credit is spent (`optlen` of <linux/io_uring.h>,
/// Linux 6.17, which the `io-uring` crate does not know).
fn bound(entry: &mut Entry, bytes: u32) {
    const OPTLEN_OFFSET: usize = 44;
    const { assert!(size_of::<Entry>() == 64) };
    // SAFETY: an entry is the kernel's structure, 64 bytes of plain integers; the four bytes at 44
    // are one of them, aligned, and borrowed with the entry.
    unsafe { std::ptr::from_mut(entry).byte_add(OPTLEN_OFFSET).cast::<u32>().write(bytes) };
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.door.close();
        // SAFETY: each is dropped once, here. The ring goes first: the kernel then no longer reads
        // the entries of the buffer ring. `Driver::shut_down` has reaped every operation, or has
        // forgotten this value.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.datagrams);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
