//! The whole life of an operation, on one page.
//!
//! ```text
//! one-shot   free → in flight ─┬─ complete → ready → taken → free
//!                              └─ abandoned → orphaned ─ complete → free
//! stream     free → stream (armed ⇄ disarmed, events queue up)
//!                              └─ abandoned → orphaned ─ last completion → free
//! ```
//!
//! A slot owns its operation, and so buffer and path, until the *last* completion: an abandoned
//! operation is orphaned, never freed early. What an orphan yields is dropped, which closes a
//! descriptor and returns a buffer. The kernel is told a [`SlotKey`], never an address; the
//! generation in it makes a stale completion visible.
//!
//! Waking is pushing on a run queue, so wakers are called here, in the middle of a reap.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::buffer::Credit;
use crate::clock::Instant;
use crate::error::Errno;
use crate::limits;
use crate::metrics::{self, Counter};
use crate::op::{Event, Op, Outcome, Value, datagram};

/// Names a slot and the life it is in. Travels through the kernel as `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    index: u32,
    generation: u32,
}

impl SlotKey {
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// Whether the kernel (or the readiness table) works on a stream's behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    Disarmed,
    Armed,
    /// Armed, and told to stop.
    Cancelling,
}

struct Stream {
    /// Kept from wait to wait, so that waiting again in the same task costs no reference count.
    waker: Option<Waker>,
    /// Whether the holder waits: it found no event and has not been woken since.
    waiting: bool,
    /// Who waits besides, where several tasks share a stream. All are woken: each looks again.
    others: Vec<Waker>,
    events: VecDeque<Event>,
    credit: Option<Rc<Credit>>,
    arm: Arm,
    /// A receive has ended or failed: from then on it yields its end, as often as it is asked.
    over: bool,
}

enum State {
    Free { next: u32 },
    InFlight { waker: Option<Waker> },
    Ready(Result<Value, Errno>),
    Stream(Stream),
    Orphaned,
}

struct Slot {
    generation: u32,
    submitted: Instant,
    op: Op,
    state: State,
}

impl Slot {
    fn view(&self, now: Instant) -> InFlight {
        InFlight {
            operation: self.op.name(),
            descriptor: self.op.descriptor(),
            age_ns: now.nanos_since(self.submitted),
            orphaned: matches!(self.state, State::Orphaned),
        }
    }
}

/// What the driver must do about an abandoned operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// Nothing: it was complete.
    Freed,
    /// Cancel it; its slot stays until the last completion.
    Orphaned,
}

/// An operation that is in flight, for dumps and for the report of a shutdown.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The operation's name.
    pub operation: &'static str,
    /// The descriptor it works on.
    pub descriptor: RawFd,
    /// How long it has been in flight, in nanoseconds.
    pub age_ns: u64,
    /// Whether nobody waits for it any more.
    pub orphaned: bool,
}

const NO_SLOT: u32 = u32::MAX;

/// All operations of one shard.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    count: usize,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: NO_SLOT, count: 0 }
    }

    /// Slots in use.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Gives a one-shot operation a slot, in flight. `None` at [`limits::OPERATIONS_COUNT_MAX`].
    pub(crate) fn insert(&mut self, op: Op, now: Instant) -> Option<SlotKey> {
        self.occupy(op, State::InFlight { waker: None }, now)
    }

    /// Gives a multishot operation a slot, disarmed.
    pub(crate) fn insert_stream(
        &mut self,
        op: Op,
        credit: Option<Rc<Credit>>,
        now: Instant,
    ) -> Option<SlotKey> {
        let stream = Stream {
            waker: None,
            waiting: false,
            others: Vec::new(),
            events: VecDeque::new(),
            credit,
            arm: Arm::Disarmed,
            over: false,
        };
        self.occupy(op, State::Stream(stream), now)
    }

    fn occupy(&mut self, op: Op, state: State, now: Instant) -> Option<SlotKey> {
        let index = self.free;
        if index == NO_SLOT {
            let index = self.slots.len() as u32;
            if index >= limits::OPERATIONS_COUNT_MAX {
                return None;
            }
            self.slots.push(Slot { generation: 0, submitted: now, op, state });
            self.count += 1;
            return Some(SlotKey { index, generation: 0 });
        }
        let slot = &mut self.slots[index as usize];
        let State::Free { next } = slot.state else {
            unreachable!("the free list holds free slots")
        };
        self.free = next;
        self.count += 1;
        slot.op = op;
        slot.state = state;
        slot.submitted = now;
        Some(SlotKey { index, generation: slot.generation })
    }

    fn vacate(&mut self, index: u32) -> (State, Op) {
        let slot = &mut self.slots[index as usize];
        let state = std::mem::replace(&mut slot.state, State::Free { next: self.free });
        let op = std::mem::replace(&mut slot.op, Op::Idle);
        slot.generation = slot.generation.wrapping_add(1);
        self.free = index;
        self.count -= 1;
        (state, op)
    }

    fn get(&mut self, key: SlotKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
    }

    /// Who waits for which operation.
    pub(crate) fn waiters(&self, now: Instant) -> Vec<(Waker, InFlight)> {
        let waiters = self.slots.iter().filter_map(|slot| {
            let waker = match &slot.state {
                State::InFlight { waker } => waker.as_ref()?,
                State::Stream(Stream { waker, waiting: true, .. }) => waker.as_ref()?,
                _ => return None,
            };
            Some((waker.clone(), slot.view(now)))
        });
        waiters.collect()
    }

    /// The operation of a live slot, for the driver that performs it.
    pub(crate) fn op(&mut self, key: SlotKey) -> Option<&mut Op> {
        self.get(key).map(|slot| &mut slot.op)
    }

    /// A one-shot operation is over: the last completion has arrived.
    pub(crate) fn complete(&mut self, key: SlotKey, result: Result<Value, Errno>, now: Instant) {
        let Some(slot) = self.get(key) else { return };
        match &mut slot.state {
            State::InFlight { waker } => {
                let waker = waker.take();
                metrics::record(slot.op.measure(), now.nanos_since(slot.submitted));
                if result.is_err() {
                    metrics::add(Counter::OperationErrors, 1);
                }
                slot.state = State::Ready(result);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Orphaned => drop(self.vacate(key.index)),
            State::Free { .. } | State::Ready(_) | State::Stream(_) => {
                unreachable!("a one-shot operation completes once, while in flight")
            }
        }
    }

    /// Takes the outcome of a one-shot operation, or leaves the waker for it.
    pub(crate) fn poll(&mut self, key: SlotKey, context: &mut Context<'_>) -> Poll<Outcome> {
        let slot = self.get(key).expect("an operation is polled until its outcome, not after");
        match &mut slot.state {
            State::Ready(_) => {
                let (State::Ready(result), op) = self.vacate(key.index) else { unreachable!() };
                Poll::Ready(Outcome { result, op })
            }
            State::InFlight { waker } => {
                leave_waker(waker, context);
                Poll::Pending
            }
            State::Free { .. } | State::Stream(_) | State::Orphaned => {
                unreachable!("only a one-shot operation that somebody holds is polled")
            }
        }
    }

    /// A stream has yielded. `None` back when its last holder is gone: the event is dropped.
    pub(crate) fn push_event(&mut self, key: SlotKey, event: Event) {
        let Some(slot) = self.get(key) else { return };
        let is_receive = matches!(slot.op, Op::Receive { .. });
        match &mut slot.state {
            State::Stream(stream) => {
                let ends = matches!(event, Event::End | Event::Failed(_));
                if ends && std::mem::replace(&mut stream.over, is_receive) {
                    return;
                }
                match &event {
                    Event::Chunk(chunk) => metrics::add(Counter::BytesReceived, chunk.len() as u64),
                    Event::Datagram(datagram) => {
                        let bytes = datagram.len() - datagram::PAYLOAD_OFFSET;
                        metrics::add(Counter::BytesReceived, bytes as u64);
                    }
                    Event::Accepted(_) => metrics::add(Counter::ConnectionsAccepted, 1),
                    Event::Failed(_) => metrics::add(Counter::OperationErrors, 1),
                    Event::End => {}
                }
                stream.events.push_back(event);
                if std::mem::take(&mut stream.waiting)
                    && let Some(waker) = &stream.waker
                {
                    waker.wake_by_ref();
                }
                stream.others.drain(..).for_each(Waker::wake);
            }
            State::Orphaned => drop(event),
            State::Free { .. } | State::InFlight { .. } | State::Ready(_) => {
                unreachable!("only a stream yields events")
            }
        }
    }

    /// Takes a stream's next event, or leaves the waker for it.
    pub(crate) fn poll_event(&mut self, key: SlotKey, context: &mut Context<'_>) -> Poll<Event> {
        let stream = self.stream(key).expect("a stream is polled by its holder");
        if let Some(event) = stream.events.pop_front() {
            return Poll::Ready(event);
        }
        if stream.over {
            return Poll::Ready(Event::End);
        }
        let before = stream
            .waker
            .as_ref()
            .filter(|before| stream.waiting && !before.will_wake(context.waker()));
        if let Some(before) = before.cloned() {
            stream.others.retain(|other| !other.will_wake(context.waker()));
            stream.others.push(before);
        }
        stream.waiting = true;
        leave_waker(&mut stream.waker, context);
        Poll::Pending
    }

    /// Whether an operation, orphaned or not, works on a descriptor.
    pub(crate) fn is_used(&self, descriptor: RawFd) -> bool {
        let busy = self.slots.iter().filter(|slot| match &slot.state {
            State::InFlight { .. } | State::Orphaned => true,
            State::Stream(stream) => stream.arm != Arm::Disarmed,
            State::Free { .. } | State::Ready(_) => false,
        });
        busy.into_iter().any(|slot| slot.op.descriptor() == descriptor)
    }

    /// Whether a one-shot operation is complete.
    pub(crate) fn is_ready(&mut self, key: SlotKey) -> bool {
        self.get(key).is_some_and(|slot| matches!(slot.state, State::Ready(_)))
    }

    /// The holder is gone.
    pub(crate) fn abandon(&mut self, key: SlotKey) -> Abandoned {
        let slot = self.get(key).expect("an operation is abandoned once, by its holder");
        match &mut slot.state {
            State::Ready(_) | State::Stream(Stream { arm: Arm::Disarmed, .. }) => {
                drop(self.vacate(key.index));
                Abandoned::Freed
            }
            State::InFlight { .. } | State::Stream(_) => {
                slot.state = State::Orphaned;
                Abandoned::Orphaned
            }
            State::Free { .. } | State::Orphaned => {
                unreachable!("an operation is abandoned once, by its holder")
            }
        }
    }

    /// Abandons everything, as a shutdown does; holders that are left must not poll again.
    pub(crate) fn abandon_all(&mut self) {
        for index in 0..self.slots.len() as u32 {
            let generation = self.slots[index as usize].generation;
            match self.slots[index as usize].state {
                State::Free { .. } | State::Orphaned => {}
                _ => drop(self.abandon(SlotKey { index, generation })),
            }
        }
    }

    fn stream(&mut self, key: SlotKey) -> Option<&mut Stream> {
        match &mut self.get(key)?.state {
            State::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether a stream that somebody holds is armed; `None` if nobody holds it.
    pub(crate) fn arm(&mut self, key: SlotKey) -> Option<Arm> {
        self.stream(key).map(|stream| stream.arm)
    }

    /// Notes that a held stream is armed, or told to stop.
    pub(crate) fn set_arm(&mut self, key: SlotKey, arm: Arm) {
        if let Some(stream) = self.stream(key) {
            stream.arm = arm;
        }
    }

    /// The kernel is done with this arming of a stream. False if nobody holds it any more: then
    /// its slot is free now.
    pub(crate) fn disarm(&mut self, key: SlotKey) -> bool {
        let Some(slot) = self.get(key) else { return false };
        match &mut slot.state {
            State::Stream(stream) => {
                stream.arm = Arm::Disarmed;
                true
            }
            State::Orphaned => {
                drop(self.vacate(key.index));
                false
            }
            State::Free { .. } | State::InFlight { .. } | State::Ready(_) => {
                unreachable!("only a stream is disarmed")
            }
        }
    }

    /// The credit of a held stream.
    pub(crate) fn credit(&mut self, key: SlotKey) -> Option<&Rc<Credit>> {
        self.stream(key)?.credit.as_ref()
    }

    /// Events that wait in a held stream.
    pub(crate) fn queued(&mut self, key: SlotKey) -> usize {
        self.stream(key).map_or(0, |stream| stream.events.len())
    }

    /// Copies chunks that wait for a busy reader out of the pool, since others wait for buffers:
    /// a peer that is not read from cannot hold up the shard. Bounded by the streams' credit.
    pub(crate) fn unpin_queued(&mut self) {
        for slot in &mut self.slots {
            let State::Stream(stream) = &mut slot.state else { continue };
            for event in &mut stream.events {
                if let Event::Chunk(lease) | Event::Datagram(lease) = event {
                    lease.unpin();
                }
            }
        }
    }

    /// Whether the holder of a stream waits for an event.
    pub(crate) fn is_wanted(&mut self, key: SlotKey) -> bool {
        self.stream(key).is_some_and(|stream| stream.waiting)
    }

    /// Whether a live slot has lost its holder.
    pub(crate) fn is_orphaned(&mut self, key: SlotKey) -> bool {
        self.get(key).is_some_and(|slot| matches!(slot.state, State::Orphaned))
    }

    /// Whether something is in flight that ends whatever others do.
    pub(crate) fn is_working(&self) -> bool {
        self.slots.iter().any(|slot| {
            matches!(slot.state, State::InFlight { .. } | State::Orphaned)
                && slot.op.ends_by_itself()
        })
    }

    /// What is in flight, longest first.
    pub(crate) fn in_flight(&self, now: Instant) -> Vec<InFlight> {
        let mut list: Vec<InFlight> = self
            .slots
            .iter()
            .filter(|slot| match &slot.state {
                State::InFlight { .. } | State::Orphaned => true,
                State::Stream(stream) => stream.arm != Arm::Disarmed,
                State::Free { .. } | State::Ready(_) => false,
            })
            .map(|slot| slot.view(now))
            .collect();
        list.sort_by_key(|entry| std::cmp::Reverse(entry.age_ns));
        list
    }
}

/// Keeps the waker that was left before where it wakes the same task: no reference counting then.
fn leave_waker(place: &mut Option<Waker>, context: &mut Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use std::os::fd::AsRawFd;

    const NOW: Instant = Instant::from_nanos(0);

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn descriptor() -> std::os::fd::OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn is_open(descriptor: RawFd) -> bool {
        std::fs::read_link(format!("/proc/self/fd/{descriptor}"))
            .is_ok_and(|path| path.ends_with("null"))
    }

    #[test]
    fn an_operation_gives_back_what_it_owned() {
        let mut slots = Slots::new();
        let op = Op::Send { socket: 3, payload: vec![1, 2].into(), sent: 0 };
        let key = slots.insert(op, NOW).unwrap();
        assert!(slots.poll(key, &mut context()).is_pending());
        slots.complete(key, Ok(Value::Count(2)), NOW);
        let Poll::Ready(outcome) = slots.poll(key, &mut context()) else { panic!("not ready") };
        assert!(matches!(outcome.result, Ok(Value::Count(2))));
        assert!(matches!(outcome.op, Op::Send { payload, .. } if payload[..] == [1, 2]));
        assert_eq!(slots.count(), 0);
    }

    #[test]
    fn an_orphan_keeps_its_slot_until_its_completion() {
        let mut slots = Slots::new();
        let key = slots.insert(Op::Accept { listener: 3 }, NOW).unwrap();
        assert_eq!(slots.abandon(key), Abandoned::Orphaned);
        assert_eq!(slots.count(), 1);
        slots.complete(key, Err(Errno(libc::ECANCELED)), NOW);
        assert_eq!(slots.count(), 0);
    }

    #[test]
    fn the_descriptor_that_an_orphan_yields_is_closed() {
        let mut slots = Slots::new();
        let key = slots.insert(Op::Accept { listener: 3 }, NOW).unwrap();
        slots.abandon(key);
        let descriptor = descriptor();
        let number = descriptor.as_raw_fd();
        slots.complete(key, Ok(Value::Descriptor(descriptor)), NOW);
        assert!(!is_open(number));
    }

    #[test]
    fn the_descriptor_of_an_outcome_that_nobody_takes_is_closed() {
        let mut slots = Slots::new();
        let key = slots.insert(Op::Accept { listener: 3 }, NOW).unwrap();
        let descriptor = descriptor();
        let number = descriptor.as_raw_fd();
        slots.complete(key, Ok(Value::Descriptor(descriptor)), NOW);
        assert_eq!(slots.abandon(key), Abandoned::Freed);
        assert!(!is_open(number));
    }

    #[test]
    fn a_stale_completion_does_not_reach_the_next_life_of_a_slot() {
        let mut slots = Slots::new();
        let old = slots.insert(Op::Shutdown { socket: 1, how: crate::Direction::Both }, NOW);
        let old = old.unwrap();
        slots.complete(old, Ok(Value::Count(0)), NOW);
        assert!(slots.poll(old, &mut context()).is_ready());
        let new = slots.insert(Op::Accept { listener: 2 }, NOW).unwrap();
        assert_ne!(old, new);
        slots.complete(old, Ok(Value::Count(9)), NOW);
        assert!(slots.poll(new, &mut context()).is_pending());
        assert_eq!(SlotKey::from_user_data(new.to_user_data()), new);
    }

    #[test]
    fn events_of_a_stream_wait_in_order_and_leave_nothing_behind() {
        let pool = Pool::new(1, 4096).unwrap();
        let credit = Credit::new(&pool, 4096);
        let mut slots = Slots::new();
        let op = Op::Receive { socket: 3 };
        let key = slots.insert_stream(op, Some(Rc::clone(&credit)), NOW).unwrap();
        slots.set_arm(key, Arm::Armed);
        let id = pool.take().unwrap();
        slots.push_event(key, Event::Chunk(credit.lease(id, 0, 5)));
        slots.push_event(key, Event::End);
        pool.release(id);
        let Poll::Ready(Event::Chunk(chunk)) = slots.poll_event(key, &mut context()) else {
            panic!("the chunk comes first")
        };
        assert_eq!(chunk.len(), 5);
        drop(chunk);
        assert_eq!(slots.abandon(key), Abandoned::Orphaned);
        assert!(!slots.disarm(key));
        assert_eq!((slots.count(), pool.free_count()), (0, 1));
    }
}
