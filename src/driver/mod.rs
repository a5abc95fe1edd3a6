//! Who performs operations.
//!
//! The driver takes an [`Op`], keeps it in a slot, has one of three backends perform it, and gives
//! back its outcome through a waker. It knows no task and no timer. `shard/` is its only caller.
//!
//! What a backend promises, whatever the kernel does underneath:
//! - [`Driver::submit`] never blocks. An outcome may be there at once.
//! - A completion only wakes; it runs no task.
//! - What an operation owns is not freed, moved or reused before its last completion.
//! - [`Driver::park`] returns when something completed, the deadline has passed, or an
//!   [`Unparker`] was used; it may return early for no reason.
//! - Receives lose nothing: what arrived waits in the stream's slot until it is taken.

mod bell;
mod blocking;
mod calls;
mod choose;
mod epoll;
mod event;
mod file_call;
mod named;
mod offload;
mod packer;
mod ring;
mod settle;
mod slots;

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(crate) use self::choose::{ASKED_FOR, assume, choose, fall_back};
pub(crate) use self::event::EventFd;
pub(crate) use self::ring::{Given, RingSettings};
pub use self::slots::InFlight;
pub(crate) use self::slots::SlotKey;
use self::slots::{Abandoned, Slots};
use crate::buffer::{Credit, Pool};
use crate::clock::{self, Instant};
use crate::error::Errno;
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{Direction, Event, Op, Outcome};

/// Performs the operations of one shard. Not `Send`: a ring has one issuer.
pub(crate) struct Driver {
    slots: ManuallyDrop<Slots>,
    pool: ManuallyDrop<Rc<Pool>>,
    /// The buffers of datagrams, once a socket receives any.
    datagrams: ManuallyDrop<Option<Rc<Pool>>>,
    backend: ManuallyDrop<Backend>,
    /// Whether a shutdown has left operations to the kernel.
    given_up: bool,
}

enum Backend {
    Ring(Box<ring::Ring>),
    Epoll(Box<epoll::Epoll>),
    Blocking(Box<blocking::Blocking>),
}

/// Which backend to build, and with what.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    Ring(RingSettings),
    Epoll { offload_threads: usize },
    Blocking,
}

/// The shard's receive buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferSettings {
    pub(crate) count: u16,
    pub(crate) size: u32,
}

/// Whether, and until when, a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all, and there are tasks to run: where looking for completions costs a system call
    /// that hands over nothing, it need not be made every time.
    Busy,
    /// Not at all.
    No,
    /// Until something happens or the instant has come ([`Instant::NEVER`]: no deadline).
    Until(Instant),
}

/// What a shutdown could not get back in time. Its memory is leaked on purpose.
#[derive(Clone, Debug, Default)]
pub struct Leaked {
    /// The operations that the kernel still held.
    pub operations: Vec<InFlight>,
}

impl Driver {
    /// Builds the chosen backend on the calling thread, which is the only one that may use it.
    pub(crate) fn new(choice: &Choice, buffers: BufferSettings) -> Result<Self, Errno> {
        let pool = Pool::new(buffers.count, buffers.size)?;
        let backend = match choice {
            Choice::Ring(settings) => Backend::Ring(Box::new(ring::Ring::new(settings, &pool)?)),
            Choice::Epoll { offload_threads } => {
                Backend::Epoll(Box::new(epoll::Epoll::new(&pool, *offload_threads)?))
            }
            Choice::Blocking => Backend::Blocking(Box::new(blocking::Blocking::new(&pool)?)),
        };
        Ok(Self {
            slots: ManuallyDrop::new(Slots::new()),
            pool: ManuallyDrop::new(pool),
            datagrams: ManuallyDrop::new(None),
            backend: ManuallyDrop::new(backend),
            given_up: false,
        })
    }

    /// Received chunks and datagrams that somebody still holds.
    pub(crate) fn leases(&self) -> usize {
        self.pool.leases() + self.datagrams.as_ref().map_or(0, |pool| pool.leases())
    }

    /// Starts a one-shot operation. At [`limits::OPERATIONS_COUNT_MAX`] it comes back instead, with
    /// what it owns.
    pub(crate) fn submit(&mut self, op: Op, now: Instant) -> Result<SlotKey, (Errno, Op)> {
        if self.is_full() {
            // The descriptor of a `Close` is closed here. What is known of its number would be
            // taken for its next owner's.
            let Op::Close { descriptor } = op else { return Err((Errno(libc::ENFILE), op)) };
            self.release(descriptor.as_raw_fd());
            match &mut *self.backend {
                Backend::Ring(ring) => drop(ring.keep(descriptor)),
                Backend::Epoll(epoll) => drop(epoll.keep(descriptor)),
                Backend::Blocking(_) => drop(descriptor),
            }
            return Err((Errno(libc::ENFILE), Op::Idle));
        }
        let key = self.slots.insert(op, now).expect("there is a slot below the limit");
        metrics::add(Counter::Operations, 1);
        match &mut *self.backend {
            Backend::Ring(ring) => ring.start(key, &mut self.slots),
            Backend::Epoll(epoll) => epoll.start(key, &mut self.slots, now),
            Backend::Blocking(blocking) => blocking.start(key, &mut self.slots),
        }
        Ok(key)
    }

    /// Starts a one-shot operation whose outcome nobody wants.
    pub(crate) fn submit_detached(&mut self, op: Op, now: Instant) {
        if let Op::Shutdown { socket, how } = op
            && self.is_full()
        {
            if let Backend::Ring(ring) = &mut *self.backend {
                // Sends that are queued come before it.
                let _ = ring.shut_down(socket, how);
                return;
            }
            return shut_down_socket(socket, how);
        }
        if let Ok(key) = self.submit(op, now) {
            self.slots.abandon(key);
        }
    }

    fn is_full(&self) -> bool {
        self.slots.count() >= limits::OPERATIONS_COUNT_MAX as usize
    }

    /// Opens a stream (accept, receive, datagrams). It yields once armed.
    pub(crate) fn open_stream(&mut self, op: Op, now: Instant) -> Result<SlotKey, Errno> {
        let pool = match op {
            Op::Receive { .. } => Some(&*self.pool),
            Op::ReceiveDatagrams { .. } => Some(self.datagram_pool()?),
            _ => None,
        };
        let credit = pool.map(|pool| Credit::new(pool, limits::CONNECTION_CREDIT_BYTES));
        let key = self.slots.insert_stream(op, credit, now).ok_or(Errno(libc::ENFILE))?;
        match &mut *self.backend {
            Backend::Ring(ring) => ring.arm(key, &mut self.slots),
            Backend::Epoll(epoll) => epoll.arm(key, &mut self.slots),
            Backend::Blocking(blocking) => blocking.arm(key, &mut self.slots),
        }
        Ok(key)
    }

    fn datagram_pool(&mut self) -> Result<&Rc<Pool>, Errno> {
        if self.datagrams.is_none() {
            let pool = Pool::new(limits::DATAGRAM_BUFFERS_COUNT, limits::DATAGRAM_BUFFER_BYTES)?;
            match &mut *self.backend {
                Backend::Ring(ring) => ring.open_datagrams(&pool)?,
                Backend::Epoll(epoll) => epoll.open_datagrams(&pool),
                Backend::Blocking(blocking) => blocking.open_datagrams(&pool),
            }
            *self.datagrams = Some(pool);
        }
        Ok(self.datagrams.as_ref().expect("it was just made"))
    }

    /// The outcome of a one-shot operation, once.
    pub(crate) fn poll(&mut self, key: SlotKey, context: &mut Context<'_>) -> Poll<Outcome> {
        self.slots.poll(key, context)
    }

    /// Whether a one-shot operation is complete.
    pub(crate) fn is_ready(&mut self, key: SlotKey) -> bool {
        self.slots.is_ready(key)
    }

    /// The next event of a stream.
    pub(crate) fn poll_event(&mut self, key: SlotKey, context: &mut Context<'_>) -> Poll<Event> {
        self.slots.poll_event(key, context)
    }

    /// Whoever held the operation is gone: cancel it, keep what it owns until it is over.
    pub(crate) fn abandon(&mut self, key: SlotKey) {
        if self.slots.abandon(key) == Abandoned::Orphaned {
            match &mut *self.backend {
                Backend::Ring(ring) => ring.cancel(key, &mut self.slots),
                Backend::Epoll(epoll) => epoll.cancel(key, &mut self.slots),
                Backend::Blocking(blocking) => blocking.cancel(key, &mut self.slots),
            }
        }
    }

    /// Forgets an open descriptor that goes elsewhere. Operations on it that were given up are seen
    /// to their end first: an entry that waits for its submission names a number, which may soon
    /// be another file's.
    pub(crate) fn release(&mut self, descriptor: RawFd) {
        /// An operation on a socket ends with its cancel, usually in the first look.
        const LOOKS: usize = 100;
        match &mut *self.backend {
            Backend::Ring(ring) => {
                for _ in 0..LOOKS {
                    if !self.slots.is_used(descriptor) {
                        break;
                    }
                    // An error is for the loop, which will meet it again.
                    let _ = ring.park(&mut self.slots, Wait::No);
                    ring.reap(&mut self.slots, clock::now());
                }
            }
            Backend::Epoll(epoll) => epoll.release(descriptor),
            Backend::Blocking(blocking) => blocking.release(descriptor),
        }
    }

    /// Drains completions into slots.
    pub(crate) fn reap(&mut self, now: Instant) {
        match &mut *self.backend {
            Backend::Ring(ring) => ring.reap(&mut self.slots, now),
            Backend::Epoll(epoll) => epoll.reap(&mut self.slots, now),
            Backend::Blocking(_) => {}
        }
    }

    /// Hands over what was started, and sleeps if asked to.
    pub(crate) fn park(&mut self, wait: Wait) -> Result<(), Errno> {
        match &mut *self.backend {
            Backend::Ring(ring) => ring.park(&mut self.slots, wait),
            Backend::Epoll(epoll) => epoll.park(&mut self.slots, wait),
            Backend::Blocking(blocking) => blocking.park(&mut self.slots, wait),
        }
    }

    /// Whether completions wait to be reaped: a running task should yield soon.
    #[inline]
    pub(crate) fn has_news(&mut self) -> bool {
        match &mut *self.backend {
            Backend::Ring(ring) => ring.has_news(),
            Backend::Epoll(epoll) => epoll.has_news(),
            Backend::Blocking(_) => false,
        }
    }

    /// Whether something is in flight that ends whatever others do, such as a read of a file.
    pub(crate) fn is_working(&self) -> bool {
        self.slots.is_working()
    }

    /// A descriptor that becomes readable when a reap has something to take, or an [`Unparker`] was
    /// used; `None` for the blocking backend, which waits inside of its calls.
    pub(crate) fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Errno> {
        match &mut *self.backend {
            Backend::Ring(ring) => ring.watch().map(Some),
            Backend::Epoll(epoll) => Ok(Some(epoll.descriptor())),
            Backend::Blocking(_) => Ok(None),
        }
    }

    /// Has the watched descriptor tell only of what comes from now on. What is there already is
    /// told by [`Driver::has_news`] after this.
    pub(crate) fn forget_told(&self) {
        if let Backend::Ring(ring) = &*self.backend {
            ring.forget_told();
        }
    }

    /// Makes the watched descriptor readable.
    pub(crate) fn tell(&self) {
        match &*self.backend {
            Backend::Ring(ring) => ring.tell(),
            Backend::Epoll(epoll) => epoll.event().notify(),
            Backend::Blocking(_) => {}
        }
    }

    /// What ends a [`Driver::park`] from another thread.
    pub(crate) fn unparker(&self) -> Unparker {
        match &*self.backend {
            Backend::Ring(ring) => Unparker::Event(ring.event()),
            Backend::Epoll(epoll) => Unparker::Event(epoll.event()),
            Backend::Blocking(blocking) => Unparker::Thread(blocking.parker()),
        }
    }

    /// The operations in flight, longest first.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        self.slots.in_flight(clock::now())
    }

    /// Who waits for which operation.
    pub(crate) fn waiters(&self, now: Instant) -> Vec<(Waker, InFlight)> {
        self.slots.waiters(now)
    }

    /// Whether the pipes that it works on become non-blocking.
    pub(crate) fn unblocks_pipes(&self) -> bool {
        self.given().is_none_or(|given| !given.quiet_writes)
    }

    /// What the ring gave up on this host; `None` for the other backends.
    pub(crate) fn given(&self) -> Option<&Given> {
        match &*self.backend {
            Backend::Ring(ring) => Some(ring.given()),
            Backend::Epoll(_) | Backend::Blocking(_) => None,
        }
    }

    /// Cancels everything and waits until nothing is in flight, at most until `deadline`. What the
    /// kernel still holds then is leaked with all it may write to, and reported.
    pub(crate) fn shut_down(&mut self, deadline: Instant) -> Leaked {
        self.reap_all(deadline);
        Leaked { operations: self.in_flight() }
    }

    fn reap_all(&mut self, deadline: Instant) {
        self.slots.abandon_all();
        match &mut *self.backend {
            Backend::Ring(ring) => ring.cancel_all(&mut self.slots),
            Backend::Epoll(epoll) => epoll.cancel_all(&mut self.slots),
            Backend::Blocking(blocking) => blocking.cancel_all(&mut self.slots),
        }
        loop {
            let now = clock::now();
            self.reap(now);
            if self.slots.count() == 0 {
                return;
            }
            if now >= deadline || self.park(Wait::Until(deadline)).is_err() {
                self.given_up = true;
                return;
            }
        }
    }
}

impl Drop for Driver {
    /// Frees what the operations own only if the kernel is done with all of them. A driver that is
    /// dropped without [`Driver::shut_down`] (its thread panicked) waits a little for that.
    fn drop(&mut self) {
        if self.slots.count() > 0 && !self.given_up {
            self.reap_all(clock::now() + Duration::from_millis(limits::TEARDOWN_MS_DEFAULT));
        }
        if self.slots.count() == 0 {
            // SAFETY: each is dropped once, here, and nothing uses them after. The backend goes
            // first: then the kernel knows the pools' memory no more.
            unsafe {
                ManuallyDrop::drop(&mut self.backend);
                ManuallyDrop::drop(&mut self.slots);
                ManuallyDrop::drop(&mut self.pool);
                ManuallyDrop::drop(&mut self.datagrams);
            }
        }
        // Otherwise the kernel may still write to buffers of the slots and of the pool: none is
        // freed, and the ring stays open so that its memory stays mapped.
    }
}

/// Ends one or both directions of a socket (shutdown(2)), from any thread. A socket that is not
/// connected any more needs no ending, so there is nothing to report.
pub(crate) fn shut_down_socket(socket: RawFd, direction: Direction) {
    let _ = calls::shutdown(socket, direction);
}

/// Turns a file to direct I/O; EINVAL if its file system has none.
pub(crate) fn set_direct(file: BorrowedFd<'_>) -> Result<(), Errno> {
    calls::set_direct(file.as_raw_fd())
}

/// A descriptor that becomes readable when a child of this process has ended.
pub(crate) fn open_process(process: libc::pid_t) -> Result<OwnedFd, Errno> {
    calls::open_process(process)
}

/// Has a thread that is no shard sleep until one of `descriptors` is readable, the time is over, or
/// for no reason.
pub(crate) fn wait_readable(descriptors: &[RawFd], timeout_ns: Option<u64>) {
    let asked = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    let mut asked: Vec<libc::pollfd> = descriptors.iter().map(asked).collect();
    // Whoever sleeps here looks again at what it waits for, whatever the answer.
    let _ = calls::poll(&mut asked, timeout_ns);
}

/// Takes back what a backend may have done to a descriptor: it blocks again.
pub(crate) fn set_blocking(descriptor: RawFd) -> Result<(), Errno> {
    calls::set_nonblocking(descriptor, false)
}

/// The status flags of an open file.
pub(crate) fn status_flags(descriptor: RawFd) -> Result<i32, Errno> {
    calls::status_flags(descriptor)
}

/// Ends a park of one shard from any thread.
#[derive(Clone)]
pub(crate) enum Unparker {
    Event(std::sync::Arc<event::EventFd>),
    Thread(std::sync::Arc<blocking::Parker>),
}

impl Unparker {
    /// Ends the current or the next park. Costs a system call: call it only when the shard sleeps.
    pub(crate) fn unpark(&self) {
        match self {
            Unparker::Event(event) => event.notify(),
            Unparker::Thread(parker) => parker.unpark(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    /// What it owns is not lost, and a number that was closed there means nothing any more.
    #[test]
    fn at_the_limit_an_operation_comes_back_and_a_close_is_known_to_the_backend() {
        let buffers = BufferSettings { count: 4, size: 4096 };
        let mut driver = Driver::new(&Choice::Epoll { offload_threads: 1 }, buffers).unwrap();
        let now = clock::now();
        let receive = |socket: &UnixStream| Op::ReceiveOnce {
            socket: socket.as_raw_fd(),
            buffer: Vec::with_capacity(8).into(),
        };
        let mut context = Context::from_waker(Waker::noop());
        // A number that other tests, which open the lowest free one, do not come across.
        let high = |socket: UnixStream| {
            // SAFETY: F_DUPFD_CLOEXEC takes no pointers; the copy is nobody else's.
            unsafe {
                let copy = libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 900);
                assert!(copy >= 900);
                <UnixStream as std::os::fd::FromRawFd>::from_raw_fd(copy)
            }
        };
        let (_first_peer, first) = UnixStream::pair().unwrap();
        let first = high(first);
        let number = first.as_raw_fd();
        let key = driver.submit(receive(&first), now).ok().unwrap();
        driver.abandon(key);
        let mut keys: Vec<SlotKey> = Vec::new();
        while let Some(key) = driver.slots.insert(Op::Idle, now) {
            keys.push(key);
        }
        let write = Op::WriteAt {
            file: number,
            payload: b"kept".into(),
            skip: 0,
            offset: 0,
            durable: false,
            appends: false,
        };
        let Err((errno, write)) = driver.submit(write, now) else { panic!("it is full") };
        assert!(matches!(write, Op::WriteAt { payload, .. } if payload[..] == *b"kept"));
        assert_eq!(errno, Errno(libc::ENFILE));
        driver.submit_detached(Op::Close { descriptor: first.into() }, now);
        let (mut peer, second) = UnixStream::pair().unwrap();
        let second = high(second);
        assert_eq!(second.as_raw_fd(), number, "it is free again");
        for key in keys {
            driver.slots.abandon(key);
            driver.slots.complete(key, Err(Errno(libc::ECANCELED)), now);
        }
        let key = driver.submit(receive(&second), now).ok().unwrap();
        assert!(driver.poll(key, &mut context).is_pending());
        peer.write_all(b"heard").unwrap();
        driver.park(Wait::Until(clock::now() + Duration::from_secs(10))).unwrap();
        driver.reap(clock::now());
        assert!(driver.poll(key, &mut context).is_ready(), "the new socket is registered");
    }

    /// What was queued before the end of a socket is not lost with it.
    #[test]
    fn at_the_limit_a_ring_submits_what_is_queued_before_a_socket_ends() {
        use std::io::Read;
        let buffers = BufferSettings { count: 4, size: 4096 };
        let Ok(mut driver) = Driver::new(&Choice::Ring(RingSettings::default()), buffers) else {
            return println!("skipped: no ring");
        };
        let now = clock::now();
        for closes in [false, true] {
            let (mut peer, socket) = UnixStream::pair().unwrap();
            let number = socket.as_raw_fd();
            let send = Op::Send { socket: number, payload: b"last words".into(), sent: 0 };
            let key = driver.submit(send, now).ok().unwrap();
            let idle = || Op::Idle;
            let mut keys: Vec<SlotKey> = Vec::new();
            while let Some(key) = driver.slots.insert(idle(), now) {
                keys.push(key);
            }
            let how = Direction::Write;
            let op = if closes {
                Op::Close { descriptor: socket.into() }
            } else {
                Op::Shutdown { socket: number, how }
            };
            driver.submit_detached(op, now);
            driver.park(Wait::No).unwrap();
            let mut heard = String::new();
            peer.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "last words");
            driver.reap(clock::now());
            assert!(driver.poll(key, &mut Context::from_waker(Waker::noop())).is_ready());
            for key in keys {
                driver.slots.abandon(key);
                driver.slots.complete(key, Err(Errno(libc::ECANCELED)), now);
            }
        }
    }
}
