//! Ready tasks by class, taken in cohorts and by share.
//!
//! A cohort is what was ready when it began: what is woken meanwhile waits for the next one. Within
//! a class tasks run in the order of their wakes. Between classes the one with the least virtual
//! time goes first; a class's virtual time is the time its tasks took, divided by its share.

use std::collections::VecDeque;

use super::Ready;
use super::task::Class;
use crate::clock::Instant;

const CLASSES: usize = Class::ALL.len();

#[derive(Default)]
struct Queue<T> {
    ready: VecDeque<(T, Instant)>,
    /// Tasks of the current cohort that are still in the queue.
    cohort: usize,
    virtual_ns: u64,
}

pub(super) struct RunQueue<T = Ready> {
    queues: [Queue<T>; CLASSES],
    length: usize,
    /// The virtual time that the busy classes have reached: where a class that slept joins in.
    reached: u64,
}

impl<T> RunQueue<T> {
    pub(super) fn new() -> Self {
        let queue = || Queue { ready: VecDeque::new(), cohort: 0, virtual_ns: 0 };
        Self { queues: [queue(), queue(), queue()], length: 0, reached: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, task: T, class: Class, now: Instant) {
        let index = class as usize;
        if self.queues[index].ready.is_empty() {
            // A class that slept has no claim on the time that it did not use.
            let queue = &mut self.queues[index];
            queue.virtual_ns = queue.virtual_ns.max(self.reached);
        }
        self.queues[index].ready.push_back((task, now));
        self.length += 1;
    }

    /// Begins a cohort of everything that is ready.
    pub(super) fn begin_cohort(&mut self) {
        for queue in &mut self.queues {
            queue.cohort = queue.ready.len();
        }
    }

    /// The cohort's next task, when it was woken, and its class.
    pub(super) fn pop(&mut self) -> Option<(T, Instant, Class)> {
        let class = Class::ALL
            .into_iter()
            .filter(|class| self.queues[*class as usize].cohort > 0)
            .min_by_key(|class| self.queues[*class as usize].virtual_ns)?;
        let queue = &mut self.queues[class as usize];
        let (task, woken) = queue.ready.pop_front()?;
        queue.cohort -= 1;
        self.length -= 1;
        Some((task, woken, class))
    }

    /// Accounts for time that a task of the class took.
    pub(super) fn charge(&mut self, class: Class, nanos: u64) {
        let queue = &mut self.queues[class as usize];
        queue.virtual_ns += nanos * class.weight();
        let charged = queue.virtual_ns;
        let busy = self.queues.iter().filter(|queue| !queue.ready.is_empty());
        let least = busy.map(|queue| queue.virtual_ns).fold(charged, u64::min);
        self.reached = self.reached.max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(0);

    #[test]
    fn a_task_woken_during_a_cohort_waits_for_the_next() {
        let mut queue = RunQueue::new();
        queue.push(1, Class::Normal, NOW);
        queue.begin_cohort();
        queue.push(2, Class::Latency, NOW);
        assert_eq!(queue.pop().map(|popped| popped.0), Some(1));
        assert!(queue.pop().is_none());
        queue.begin_cohort();
        assert_eq!(queue.pop().map(|popped| popped.0), Some(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn under_load_classes_get_time_by_their_shares() {
        let mut queue = RunQueue::new();
        for _ in 0..100 {
            queue.push('l', Class::Latency, NOW);
            queue.push('n', Class::Normal, NOW);
            queue.push('b', Class::Background, NOW);
        }
        queue.begin_cohort();
        let mut taken = [0; 3];
        for _ in 0..100 {
            let (_, _, class) = queue.pop().unwrap();
            taken[class as usize] += 1;
            queue.charge(class, 1000);
        }
        assert_eq!(taken, [64, 32, 4]);
    }

    #[test]
    fn a_class_that_slept_while_nothing_was_ready_does_not_catch_up_either() {
        let mut queue = RunQueue::new();
        for _ in 0..1000 {
            queue.push('n', Class::Normal, NOW);
            queue.begin_cohort();
            queue.pop().unwrap();
            queue.charge(Class::Normal, 1_000_000);
        }
        // All queues are empty when the background wakes first.
        for name in ['b', 'n', 'b', 'n', 'b', 'n'] {
            let class = if name == 'b' { Class::Background } else { Class::Normal };
            queue.push(name, class, NOW);
        }
        queue.begin_cohort();
        let order: String = std::iter::from_fn(|| {
            let (name, _, class) = queue.pop()?;
            queue.charge(class, 100_000);
            Some(name)
        })
        .collect();
        assert!(order.ends_with("bb"), "{order}");
    }

    #[test]
    fn a_class_that_slept_does_not_catch_up() {
        let mut queue = RunQueue::new();
        for _ in 0..10 {
            queue.push('n', Class::Normal, NOW);
        }
        queue.begin_cohort();
        for _ in 0..5 {
            queue.pop().unwrap();
            queue.charge(Class::Normal, 1_000_000);
        }
        for _ in 0..5 {
            queue.push('b', Class::Background, NOW);
        }
        queue.begin_cohort();
        let order: String = std::iter::from_fn(|| {
            let (name, _, class) = queue.pop()?;
            queue.charge(class, 1000);
            Some(name)
        })
        .collect();
        // One background task may lead on a tie; then the others wait for their share.
        assert_eq!(order.matches('b').count(), 5);
        assert!(order.ends_with("bbbb"), "{order}");
    }
}
