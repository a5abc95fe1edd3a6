//! What gives out turns in order, against a model with random cancels: Mutex, Semaphore, RwLock.
//!
//! All three are a number of permits and a line: a mutex has one, a reader takes one of many, a
//! writer takes all of them. After each step exactly those are awake to whom the model has given
//! permits, so a lost wake, a lost permit, an overtaking and a needless wake all show.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::puppet::Puppet;
use super::{Mutex, RwLock, Semaphore};

/// A guard or permit of whatever kind.
trait Held {}

impl<T> Held for T {}

type Guard<'a> = Box<dyn Held + 'a>;

#[derive(Clone, Debug)]
enum Step {
    /// Ask for one of the weights, and poll once.
    Start(usize),
    /// Drop one that was not yet seen to have its permits.
    Cancel(usize),
    /// Poll one that was woken.
    Collect(usize),
    /// Give back what one holds.
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8usize).prop_map(Step::Start),
        2 => (0..8usize).prop_map(Step::Cancel),
        2 => (0..8usize).prop_map(Step::Collect),
        3 => (0..8usize).prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..120)
}

struct Model {
    free: usize,
    line: VecDeque<(u32, usize)>,
    granted: Vec<(u32, usize)>,
}

impl Model {
    fn serve(&mut self) {
        while let Some(&(id, weight)) = self.line.front()
            && weight <= self.free
        {
            self.free -= weight;
            self.line.pop_front();
            self.granted.push((id, weight));
        }
    }

    fn start(&mut self, id: u32, weight: usize) {
        self.line.push_back((id, weight));
        self.serve();
    }

    fn end(&mut self, id: u32) {
        self.line.retain(|waiter| waiter.0 != id);
        if let Some(place) = self.granted.iter().position(|holder| holder.0 == id) {
            self.free += self.granted.remove(place).1;
        }
        self.serve();
    }

    fn has(&self, id: u32) -> bool {
        self.granted.iter().any(|holder| holder.0 == id)
    }
}

/// Runs the steps on a primitive of `total` permits, whose `start` asks for a weight.
fn check<'a>(
    total: usize,
    weights: &[usize],
    steps: Vec<Step>,
    start: impl Fn(usize) -> Puppet<'a, Guard<'a>>,
) {
    let mut model = Model { free: total, line: VecDeque::new(), granted: Vec::new() };
    let mut waiting: Vec<(u32, Puppet<'a, Guard<'a>>)> = Vec::new();
    let mut held: Vec<(u32, Guard<'a>)> = Vec::new();
    let mut id = 0;
    for step in steps {
        match step {
            Step::Start(choice) => {
                id += 1;
                let weight = weights[choice % weights.len()];
                model.start(id, weight);
                let mut puppet = start(weight);
                match puppet.poll() {
                    std::task::Poll::Ready(guard) => {
                        assert!(model.has(id), "{id} has overtaken");
                        held.push((id, guard));
                    }
                    std::task::Poll::Pending => waiting.push((id, puppet)),
                }
            }
            Step::Cancel(place) if place < waiting.len() => {
                let (id, puppet) = waiting.remove(place);
                drop(puppet);
                model.end(id);
            }
            Step::Collect(place) if place < waiting.len() => {
                let (id, mut puppet) = waiting.remove(place);
                match puppet.poll() {
                    std::task::Poll::Ready(guard) => held.push((id, guard)),
                    std::task::Poll::Pending => waiting.insert(place, (id, puppet)),
                }
            }
            Step::Release(place) if place < held.len() => {
                let (id, guard) = held.remove(place);
                drop(guard);
                model.end(id);
            }
            Step::Cancel(_) | Step::Collect(_) | Step::Release(_) => {}
        }
        for (id, puppet) in &waiting {
            assert_eq!(puppet.is_woken(), model.has(*id), "{id} of {:?}", model.line);
        }
        assert!(held.iter().all(|(id, _)| model.has(*id)), "somebody holds what it was not given");
    }
}

proptest! {
    #[test]
    fn a_mutex_serves_in_order_whatever_is_cancelled(steps in steps()) {
        let mutex = Mutex::new(());
        check(1, &[1], steps, |_| Puppet::new(async { Box::new(mutex.lock().await) as Guard<'_> }));
        assert!(!mutex.is_locked());
    }

    #[test]
    fn a_semaphore_loses_no_permit_whatever_is_cancelled(steps in steps()) {
        let semaphore = Semaphore::new(5);
        check(5, &[1, 1, 1, 2, 3, 5], steps, |count| Puppet::new({
            let semaphore = &semaphore;
            async move { Box::new(semaphore.acquire_many(count).await.unwrap()) as Guard<'_> }
        }));
        assert_eq!((semaphore.available_permits(), semaphore.waiting()), (5, 0));
    }

    #[test]
    fn a_read_write_lock_starves_nobody_whatever_is_cancelled(steps in steps()) {
        let lock = RwLock::new(());
        // A writer weighs as much as all readers that could be.
        check(1000, &[1, 1, 1, 1000], steps, |weight| Puppet::new({
            let lock = &lock;
            async move {
                match weight {
                    1 => Box::new(lock.read().await) as Guard<'_>,
                    _ => Box::new(lock.write().await) as Guard<'_>,
                }
            }
        }));
        assert!(lock.try_write().is_some());
    }
}
