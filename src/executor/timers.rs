//! A hierarchical timer wheel: insert, cancel and fire in constant time.
//!
//! Eight levels of 64 slots; a tick is 2^16 ns (66 µs) and level n counts in units of 64^n ticks,
//! so the wheel spans all of time. A timer lies at the level of the highest 6-bit group in which
//! its tick differs from the wheel's, and moves down as that group is reached (Varghese and Lauck,
//! *Hashed and hierarchical timing wheels*, 1987). Deadlines are rounded up: a timer is never
//! early. A paused clock has a wheel of eleven levels whose tick is one nanosecond, so that it
//! stands exactly at each deadline.
//!
//! Timers fire in the order of their deadlines, and those of one deadline in the order of their
//! insertion; only one that has passed when it is inserted goes before what shares its tick.
//! Between slots that is the wheel's own order, and a slot is sorted when it fires. A slot moves
//! down before the wheel has reached it, thus before a timer can be inserted below: earlier ones
//! stay in front.

use std::task::Waker;

use slab::Slab;

use crate::clock::Instant;
use crate::metrics::{self, Counter, Measure};

const TICK_BITS: u32 = 16;

/// How much later than its deadline a timer may fire.
pub(crate) const TICK_NS: u64 = 1 << TICK_BITS;
const GROUP_BITS: u32 = 6;
const SLOTS: usize = 1 << GROUP_BITS;
/// Levels of a wheel whose tick is one nanosecond: the most that there are.
const LEVELS_MAX: usize = u64::BITS.div_ceil(GROUP_BITS) as usize;
const NONE: u32 = u32::MAX;

const _: () = assert!((u64::BITS - TICK_BITS).is_multiple_of(GROUP_BITS));

/// Names a timer that has neither fired nor been cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

struct Timer {
    deadline: Instant,
    tick: u64,
    waker: Option<Waker>,
    fired: bool,
    list: u32,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List { first: NONE, last: NONE };

/// The list of timers that are due but not yet fired.
const DUE: u32 = (LEVELS_MAX * SLOTS) as u32;

/// The timers of one shard.
pub(crate) struct Timers {
    timers: Slab<Timer>,
    /// One list for each slot of each level, and [`DUE`].
    lists: Box<[List]>,
    occupied: [u64; LEVELS_MAX],
    /// A tick is two to the power of this many nanoseconds.
    tick_bits: u32,
    /// The tick up to which timers have fired.
    elapsed: u64,
    armed: usize,
    /// Scratch: the timers of a list that fires.
    firing: Vec<(Instant, u32)>,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Self {
        Self::with_tick(now, TICK_BITS)
    }

    /// Timers for a clock that stands still and jumps: each fires at its very nanosecond.
    pub(crate) fn exact(now: Instant) -> Self {
        Self::with_tick(now, 0)
    }

    fn with_tick(now: Instant, tick_bits: u32) -> Self {
        Self {
            timers: Slab::new(),
            lists: vec![EMPTY; LEVELS_MAX * SLOTS + 1].into(),
            occupied: [0; LEVELS_MAX],
            tick_bits,
            elapsed: now.as_nanos() >> tick_bits,
            armed: 0,
            firing: Vec::new(),
        }
    }

    /// Timers that have not fired.
    #[cfg(test)]
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    /// Timers that somebody holds, fired ones among them.
    pub(crate) fn count(&self) -> usize {
        self.timers.len()
    }

    /// Who waits for which instant.
    pub(crate) fn waiters(&self) -> Vec<(Waker, Instant)> {
        let armed = self.timers.iter().filter(|(_, timer)| !timer.fired);
        armed.filter_map(|(_, timer)| Some((timer.waker.clone()?, timer.deadline))).collect()
    }

    /// Adds a timer; `waker` is woken at the first expiry pass at or after `deadline`. One that is
    /// not after `now` is for the next pass, whatever the tick.
    pub(crate) fn insert(&mut self, deadline: Instant, now: Instant, waker: Waker) -> TimerKey {
        // The last tick stands for all that lies beyond it: the wheel has no place for more.
        let last = u64::MAX >> self.tick_bits;
        let tick = deadline.as_nanos().div_ceil(1 << self.tick_bits).min(last);
        let tick = if deadline <= now { self.elapsed } else { tick };
        let timer = Timer {
            deadline,
            tick,
            waker: Some(waker),
            fired: false,
            list: NONE,
            previous: NONE,
            next: NONE,
        };
        let index = self.timers.insert(timer) as u32;
        self.armed += 1;
        self.place(index);
        TimerKey(index)
    }

    /// Whether the timer has fired; if not, `waker` replaces the one it had, which is handed back,
    /// to be dropped when nothing is borrowed.
    pub(crate) fn poll(&mut self, key: TimerKey, waker: &Waker) -> (bool, Option<Waker>) {
        let timer = &mut self.timers[key.0 as usize];
        let is_same = timer.waker.as_ref().is_some_and(|old| old.will_wake(waker));
        if timer.fired || is_same {
            return (timer.fired, None);
        }
        (false, timer.waker.replace(waker.clone()))
    }

    /// Forgets a timer, fired or not. Its waker is handed back, to be dropped by the caller when
    /// nothing is borrowed.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        if !self.timers[key.0 as usize].fired {
            self.unlink(key.0);
            self.armed -= 1;
        }
        self.timers.remove(key.0 as usize).waker
    }

    /// Fires every timer whose deadline is not after `now`. Their wakers go to `woken`, in order,
    /// for the caller to wake when nothing is borrowed: a waker may do anything.
    pub(crate) fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        let target = now.as_nanos() >> self.tick_bits;
        self.fire(DUE, now, woken);
        while self.armed > 0 {
            let Some((level, slot, start)) = self.next_slot() else { break };
            if start > target {
                break;
            }
            self.elapsed = self.elapsed.max(start);
            let list = (level * SLOTS + slot) as u32;
            if level == 0 {
                self.fire(list, now, woken);
            } else {
                self.cascade(list);
                self.fire(DUE, now, woken);
            }
        }
        self.elapsed = self.elapsed.max(target);
    }

    /// When [`Timers::expire`] must be called next: the deadline of the next timer, rounded up to
    /// a tick, or an earlier instant at which far timers move down.
    pub(crate) fn next_deadline(&self) -> Instant {
        if self.lists[DUE as usize].first != NONE {
            return Instant::from_nanos(0);
        }
        match self.next_slot() {
            Some((level, slot, start)) => {
                let tick = self.first_tick((level * SLOTS + slot) as u32).unwrap_or(start);
                Instant::from_nanos(tick.saturating_mul(1 << self.tick_bits))
            }
            None => Instant::NEVER,
        }
    }

    /// The first tick of a short list, so that a shard with few timers wakes when one is due and
    /// not at each level on the way. `None` for a long one: it is cheaper to wake than to look.
    fn first_tick(&self, list: u32) -> Option<u64> {
        const LOOKED_AT_MAX: usize = 16;
        let mut first = u64::MAX;
        let mut index = self.lists[list as usize].first;
        for _ in 0..LOOKED_AT_MAX {
            if index == NONE {
                return Some(first);
            }
            let timer = &self.timers[index as usize];
            first = first.min(timer.tick);
            index = timer.next;
        }
        None
    }

    /// The occupied slot that begins first: level, slot, and its first tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // A lower level lies within one slot of the level above, so its timers come first.
        (0..LEVELS_MAX).find_map(|level| {
            let occupied = self.occupied[level];
            if occupied == 0 {
                return None;
            }
            let shift = level as u32 * GROUP_BITS;
            let position = (self.elapsed >> shift) as usize % SLOTS;
            let ahead = occupied.rotate_right(position as u32).trailing_zeros() as usize;
            let slot = (position + ahead) % SLOTS;
            let block = self.elapsed >> shift >> GROUP_BITS << GROUP_BITS << shift;
            let mut start = block + ((slot as u64) << shift);
            if slot < position {
                start += 1 << shift << GROUP_BITS;
            }
            Some((level, slot, start))
        })
    }

    /// Puts a timer on the list that its tick belongs to.
    fn place(&mut self, index: u32) {
        let tick = self.timers[index as usize].tick;
        if tick <= self.elapsed {
            return self.link(index, DUE);
        }
        let differing = tick ^ self.elapsed;
        let level = ((u64::BITS - 1 - differing.leading_zeros()) / GROUP_BITS) as usize;
        let slot = (tick >> (level as u32 * GROUP_BITS)) as usize % SLOTS;
        self.occupied[level] |= 1 << slot;
        self.link(index, (level * SLOTS + slot) as u32);
    }

    fn cascade(&mut self, list: u32) {
        let mut index = self.take_list(list);
        while index != NONE {
            let next = self.timers[index as usize].next;
            self.place(index);
            index = next;
        }
    }

    fn fire(&mut self, list: u32, now: Instant, woken: &mut Vec<Waker>) {
        let mut index = self.take_list(list);
        while index != NONE {
            let timer = &self.timers[index as usize];
            self.firing.push((timer.deadline, index));
            index = timer.next;
        }
        // Stable, and linear where nothing is to be sorted.
        self.firing.sort_by_key(|(deadline, _)| *deadline);
        for (_, index) in self.firing.drain(..) {
            let timer = &mut self.timers[index as usize];
            timer.fired = true;
            self.armed -= 1;
            metrics::record(Measure::TimerLateness, now.nanos_since(timer.deadline));
            metrics::add(Counter::TimersFired, 1);
            woken.extend(timer.waker.take());
        }
    }

    fn take_list(&mut self, list: u32) -> u32 {
        self.vacate(list);
        std::mem::replace(&mut self.lists[list as usize], EMPTY).first
    }

    fn vacate(&mut self, list: u32) {
        if list != DUE {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
    }

    fn link(&mut self, index: u32, list: u32) {
        let last = std::mem::replace(&mut self.lists[list as usize].last, index);
        let timer = &mut self.timers[index as usize];
        timer.list = list;
        timer.previous = last;
        timer.next = NONE;
        match last {
            NONE => self.lists[list as usize].first = index,
            last => self.timers[last as usize].next = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Timer { list, previous, next, .. } = self.timers[index as usize];
        match previous {
            NONE => self.lists[list as usize].first = next,
            previous => self.timers[previous as usize].next = next,
        }
        match next {
            NONE => self.lists[list as usize].last = previous,
            next => self.timers[next as usize].previous = previous,
        }
        if self.lists[list as usize].first == NONE {
            self.vacate(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const TICK: u64 = 1 << TICK_BITS;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn expire(timers: &mut Timers, now: Instant) {
        let mut woken = Vec::new();
        timers.expire(now, &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }

    fn fired(timers: &mut Timers, key: TimerKey) -> bool {
        timers.poll(key, Waker::noop()).0
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before() {
        let mut timers = Timers::new(at(0));
        let key = timers.insert(at(10 * TICK + 1), at(0), Waker::noop().clone());
        assert_eq!(timers.next_deadline(), at(11 * TICK));
        expire(&mut timers, at(11 * TICK - 1));
        assert!(!fired(&mut timers, key));
        expire(&mut timers, at(11 * TICK));
        assert!(fired(&mut timers, key));
    }

    #[test]
    fn an_exact_timer_fires_at_its_nanosecond() {
        let mut timers = Timers::exact(at(1));
        let deadlines = [u64::MAX - 1, 2, (1 << 60) + 5, TICK + 1, 3, TICK];
        let keys = deadlines.map(|nanos| timers.insert(at(nanos), at(1), Waker::noop().clone()));
        let never = timers.insert(Instant::NEVER, at(5), Waker::noop().clone());
        for place in [1, 4, 5, 3, 2, 0] {
            let deadline = at(deadlines[place]);
            // A far one may first have to move down.
            while timers.next_deadline() < deadline {
                let next = timers.next_deadline();
                expire(&mut timers, next);
                assert!(!fired(&mut timers, keys[place]));
            }
            assert_eq!(timers.next_deadline(), deadline);
            expire(&mut timers, deadline);
            assert!(fired(&mut timers, keys[place]));
        }
        assert_eq!(timers.next_deadline(), Instant::NEVER);
        assert!(!fired(&mut timers, never));
    }

    #[test]
    fn a_far_timer_wakes_its_shard_once() {
        let mut timers = Timers::new(at(0));
        let key = timers.insert(at(1_000_000 * TICK), at(0), Waker::noop().clone());
        assert_eq!(timers.next_deadline(), at(1_000_000 * TICK));
        expire(&mut timers, at(1_000_000 * TICK));
        assert!(fired(&mut timers, key));
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_pass() {
        let mut timers = Timers::new(at(50 * TICK));
        let key = timers.insert(at(3), at(50 * TICK), Waker::noop().clone());
        assert_eq!(timers.next_deadline(), at(0));
        expire(&mut timers, at(50 * TICK));
        assert!(fired(&mut timers, key));
        assert_eq!(timers.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn a_timer_that_never_comes_wakes_nobody() {
        let mut timers = Timers::new(at(5));
        let key = timers.insert(Instant::NEVER, at(5), Waker::noop().clone());
        expire(&mut timers, at(5) + Duration::from_secs(100 * 365 * 86_400));
        assert!(!fired(&mut timers, key));
        timers.remove(key);
        assert_eq!(timers.armed(), 0);
    }

    /// Says which timer has fired.
    struct Mark(usize, std::sync::Arc<std::sync::Mutex<Vec<usize>>>);

    impl std::task::Wake for Mark {
        fn wake(self: std::sync::Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    proptest! {
        #[test]
        fn timers_fire_by_deadline_and_then_in_the_order_of_insertion(
            exact in any::<bool>(),
            // Few deadlines, at any distance, so that many are equal and pass through all levels.
            steps in prop::collection::vec((0u64..12, 0u32..50, any::<bool>(), 0u64..6), 1..80)
        ) {
            let start = at(7 * TICK + 3);
            let mut timers = if exact { Timers::exact(start) } else { Timers::new(start) };
            let fired = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let mut now = start;
            let mut model: Vec<(bool, Instant, usize, TimerKey)> = Vec::new();
            for (number, (place, scale, jump, cancelled)) in steps.into_iter().enumerate() {
                let unit = 1u64 << scale;
                let deadline = at((now.as_nanos() / unit + place) * unit);
                let mark = Mark(number, std::sync::Arc::clone(&fired));
                let key = timers.insert(deadline, now, std::sync::Arc::new(mark).into());
                let passed = deadline <= now;
                model.push((!passed, deadline, number, key));
                if cancelled == 0 {
                    let (.., key) = model.remove(model.len() / 2);
                    drop(timers.remove(key));
                }
                if jump {
                    now = now + Duration::from_nanos(unit * (place + 1) / 2);
                    expire(&mut timers, now);
                    let tick = if exact { 1 } else { TICK };
                    let is_due = |ahead: bool, deadline: &Instant| {
                        !ahead || deadline.as_nanos().div_ceil(tick) <= now.as_nanos() / tick
                    };
                    // Sorted stably: those of one deadline stay as they were inserted.
                    model.sort_by_key(|(ahead, deadline, ..)| (*ahead, *deadline));
                    let due: Vec<_> = model
                        .extract_if(.., |(ahead, deadline, ..)| is_due(*ahead, deadline))
                        .collect();
                    let expected: Vec<_> = due.iter().map(|(_, _, number, _)| *number).collect();
                    prop_assert_eq!(std::mem::take(&mut *fired.lock().unwrap()), expected);
                    for (.., key) in due {
                        timers.remove(key);
                    }
                }
            }
        }

        #[test]
        fn timers_agree_with_a_sorted_list(
            steps in prop::collection::vec((0u64..1 << 44, 0u64..1 << 40, any::<bool>()), 1..60)
        ) {
            let mut timers = Timers::new(at(7 * TICK));
            let mut now = 7 * TICK;
            let mut model: Vec<(u64, TimerKey)> = Vec::new();
            for (delay, advance, cancel) in steps {
                let deadline = now + delay;
                let key = timers.insert(at(deadline), at(now), Waker::noop().clone());
                let due = if delay == 0 { 0 } else { deadline.div_ceil(TICK) * TICK };
                model.push((due, key));
                if cancel && model.len() > 2 {
                    let (_, key) = model.swap_remove(model.len() / 2);
                    timers.remove(key);
                }
                now += advance;
                expire(&mut timers, at(now));
                model.retain(|(due, key)| {
                    let has_fired = timers.poll(*key, Waker::noop()).0;
                    assert_eq!(has_fired, *due <= now / TICK * TICK, "due {due}, now {now}");
                    if has_fired {
                        timers.remove(*key);
                    }
                    !has_fired
                });
                let next = model.iter().map(|(due, _)| *due).min();
                prop_assert!(next.is_none_or(|due| timers.next_deadline() <= at(due)));
                prop_assert_eq!(next.is_none(), timers.next_deadline() == Instant::NEVER);
            }
        }
    }
}
