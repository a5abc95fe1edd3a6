//! The queue: its edges, and random traffic with random cancels.

use std::collections::VecDeque;
use std::task::Poll;

use proptest::prelude::*;

use super::super::puppet::{Puppet, now, pending, woken};
use super::*;

#[test]
#[should_panic(expected = "a queue of capacity 0 can hold no item; give it at least 1")]
fn a_capacity_of_zero_is_refused() {
    drop(Queue::<u32>::bounded(0));
}

#[test]
fn a_put_waits_for_room_and_a_get_for_an_item() {
    let queue = Queue::<u32>::bounded(2);
    let get = pending(queue.get());
    for item in 0..2 {
        assert_eq!(now(queue.put(item)), Ok(()));
    }
    // One of them is promised to the first get, but lies there until it is taken.
    let put = pending(queue.put(2));
    assert!(queue.is_full());
    assert_eq!(woken(get), Some(0));
    assert_eq!(woken(put), Ok(()));
    assert_eq!((now(queue.get()), now(queue.get())), (Some(1), Some(2)));
}

#[test]
fn what_is_promised_is_not_taken_by_a_newcomer() {
    let queue = Queue::<u32>::bounded(1);
    let get = pending(queue.get());
    queue.try_put(1).unwrap();
    assert_eq!(queue.try_get(), Err(TryRecvError::Empty));
    let put = pending(queue.put(2));
    assert_eq!(woken(get), Some(1));
    assert_eq!(queue.try_put(3), Err(TrySendError::Full(3)));
    assert_eq!(woken(put), Ok(()));
    assert_eq!(queue.try_get(), Ok(2));
}

#[test]
fn a_promise_that_is_dropped_goes_to_the_next() {
    let queue = Queue::<u32>::bounded(1);
    let (first, second) = (pending(queue.get()), pending(queue.get()));
    queue.try_put(1).unwrap();
    assert!(!second.is_woken());
    drop(first);
    assert_eq!(woken(second), Some(1));
    queue.try_put(2).unwrap();
    let (first, second) = (pending(queue.put(3)), pending(queue.put(4)));
    assert_eq!(queue.try_get(), Ok(2));
    assert!(!second.is_woken());
    drop(first);
    assert_eq!(woken(second), Ok(()));
    assert_eq!(queue.try_get(), Ok(4));
}

#[test]
fn a_closed_queue_drains_and_refuses() {
    let queue = Queue::<u32>::bounded(1);
    queue.try_put(1).unwrap();
    let put = pending(queue.put(2));
    queue.close();
    assert_eq!(woken(put), Err(SendError(2)));
    assert_eq!(now(queue.put(3)), Err(SendError(3)));
    assert_eq!(queue.try_put(4), Err(TrySendError::Closed(4)));
    assert_eq!(now(queue.get()), Some(1));
    assert_eq!(now(queue.get()), None);
    assert_eq!(queue.try_get(), Err(TryRecvError::Closed));
}

#[test]
fn a_close_ends_the_gets_that_have_no_item_left() {
    let queue = Queue::<u32>::bounded(2);
    let (first, second) = (pending(queue.get()), pending(queue.get()));
    queue.try_put(1).unwrap();
    queue.close();
    // The second waits on: the first may yet be cancelled, and then the item is its.
    assert!(!second.is_woken());
    assert_eq!(woken(first), Some(1));
    assert_eq!(woken(second), None);
    let queue = Queue::<u32>::bounded(2);
    let (first, second) = (pending(queue.get()), pending(queue.get()));
    queue.try_put(1).unwrap();
    queue.close();
    drop(first);
    assert_eq!(woken(second), Some(1));
}

#[test]
fn a_put_that_was_promised_room_is_refused_by_a_close() {
    let queue = Queue::<u32>::bounded(1);
    queue.try_put(1).unwrap();
    let put = pending(queue.put(2));
    assert_eq!(queue.try_get(), Ok(1));
    queue.close();
    assert_eq!(woken(put), Err(SendError(2)));
    assert_eq!(now(queue.get()), None);
}

#[test]
fn an_unbounded_queue_never_waits() {
    let queue = Queue::<u32>::unbounded();
    for item in 0..10_000 {
        assert_eq!(now(queue.put(item)), Ok(()));
    }
    assert_eq!((queue.len(), queue.capacity()), (10_000, None));
    assert!(!queue.is_full());
}

#[test]
fn the_last_comes_first_or_the_smallest() {
    let lifo = LifoQueue::<u32>::bounded(3);
    let priority = PriorityQueue::<(u32, &str)>::bounded(4);
    for item in [2, 1, 3] {
        now(lifo.put(item)).unwrap();
    }
    assert_eq!([now(lifo.get()), now(lifo.get()), now(lifo.get())], [Some(3), Some(1), Some(2)]);
    for item in [(2, "late"), (1, "first"), (1, "second")] {
        now(priority.put(item)).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| priority.try_get().ok()).collect();
    assert_eq!(order, [(1, "first"), (1, "second"), (2, "late")]);
}

/// Equal to every other of its rank.
#[derive(Debug)]
struct Rank(u8, u32);

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

#[test]
fn equal_priorities_keep_the_order_of_their_arrival() {
    let queue = PriorityQueue::unbounded();
    for arrival in 0..100 {
        queue.try_put(Rank((arrival % 3) as u8, arrival)).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.try_get().ok()).collect();
    assert!(order.is_sorted_by_key(|rank| (rank.0, rank.1)), "{order:?}");
    assert_eq!(order.len(), 100);
}

#[test]
fn join_waits_for_the_work_and_not_for_the_queue() {
    let queue = Queue::<u32>::unbounded();
    now(queue.join());
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    let (join, other) = (pending(queue.join()), pending(queue.join()));
    drop(other);
    assert_eq!((queue.try_get(), queue.try_get()), (Ok(1), Ok(2)));
    queue.task_done();
    assert!(!join.is_woken());
    assert_eq!(queue.unfinished(), 1);
    queue.task_done();
    woken(join);
}

#[test]
#[should_panic(expected = "task_done is called once for each item that was put, not more")]
fn more_done_than_put_is_refused() {
    Queue::<u32>::unbounded().task_done();
}

#[derive(Clone, Debug)]
enum Step {
    Put,
    TryPut,
    Get,
    TryGet,
    CancelPut(usize),
    CancelGet(usize),
    PollPut(usize),
    PollGet(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => Just(Step::Put),
        4 => Just(Step::TryPut),
        20 => Just(Step::Get),
        4 => Just(Step::TryGet),
        8 => (0..6usize).prop_map(Step::CancelPut),
        8 => (0..6usize).prop_map(Step::CancelGet),
        16 => (0..6usize).prop_map(Step::PollPut),
        16 => (0..6usize).prop_map(Step::PollGet),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..200)
}

type PutPuppet<'a> = Puppet<'a, Result<(), SendError<u32>>>;

/// What has gone in and come out, and who waits, in order.
struct Traffic<'a> {
    queue: &'a Queue<u32>,
    accepted: Vec<u32>,
    taken: Vec<u32>,
    puts: VecDeque<(u32, PutPuppet<'a>)>,
    gets: VecDeque<Puppet<'a, Option<u32>>>,
    numbers: u32,
}

impl Traffic<'_> {
    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn poll_put(&mut self, place: usize) {
        let Some((number, put)) = self.puts.get_mut(place) else { return };
        if let Poll::Ready(done) = put.poll() {
            match done {
                Ok(()) => self.accepted.push(*number),
                Err(SendError(back)) => assert_eq!((back, self.queue.is_closed()), (*number, true)),
            }
            self.puts.remove(place);
        }
    }

    fn poll_get(&mut self, place: usize) {
        let Some(get) = self.gets.get_mut(place) else { return };
        if let Poll::Ready(item) = get.poll() {
            match item {
                Some(item) => self.taken.push(item),
                None => assert!(self.queue.is_closed()),
            }
            self.gets.remove(place);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put => {
                let number = self.number();
                self.puts.push_back((number, Puppet::new(self.queue.put(number))));
                self.poll_put(self.puts.len() - 1);
            }
            Step::TryPut => {
                let number = self.number();
                if self.queue.try_put(number).is_ok() {
                    self.accepted.push(number);
                }
            }
            Step::Get => {
                self.gets.push_back(Puppet::new(self.queue.get()));
                self.poll_get(self.gets.len() - 1);
            }
            Step::TryGet => self.taken.extend(self.queue.try_get().ok()),
            Step::CancelPut(place) => drop(self.puts.remove(place)),
            Step::CancelGet(place) => drop(self.gets.remove(place)),
            Step::PollPut(place) => self.poll_put(place),
            Step::PollGet(place) => self.poll_get(place),
            Step::Close => self.queue.close(),
        }
    }

    fn check(&self) {
        assert!(self.queue.len() <= self.queue.capacity().unwrap());
        assert_eq!(self.accepted.len() - self.taken.len(), self.queue.len(), "an item is lost");
        assert_eq!(self.taken, self.accepted[..self.taken.len()], "not in order");
        // Whoever is awake came before whoever is not.
        let gets: Vec<bool> = self.gets.iter().map(Puppet::is_woken).collect();
        let puts: Vec<bool> = self.puts.iter().map(|(_, put)| put.is_woken()).collect();
        assert!(gets.is_sorted_by(|one, two| one >= two), "a get has overtaken: {gets:?}");
        assert!(puts.is_sorted_by(|one, two| one >= two), "a put has overtaken: {puts:?}");
    }

    /// Polls those that are awake, oldest first, until nobody is.
    fn settle(&mut self) {
        while self.gets.front().is_some_and(Puppet::is_woken)
            || self.puts.front().is_some_and(|(_, put)| put.is_woken())
        {
            if self.puts.front().is_some_and(|(_, put)| put.is_woken()) {
                self.poll_put(0);
            }
            if self.gets.front().is_some_and(Puppet::is_woken) {
                self.poll_get(0);
            }
            self.check();
        }
    }
}

proptest! {
    #[test]
    fn no_item_and_no_wake_is_lost_whatever_is_cancelled(
        capacity in 1..5usize,
        steps in steps(),
    ) {
        let queue = Queue::<u32>::bounded(capacity);
        let mut traffic = Traffic {
            queue: &queue,
            accepted: Vec::new(),
            taken: Vec::new(),
            puts: VecDeque::new(),
            gets: VecDeque::new(),
            numbers: 0,
        };
        for step in steps {
            traffic.step(step);
            traffic.check();
        }
        traffic.settle();
        // With everybody served, who still waits has reason to.
        prop_assert!(traffic.gets.is_empty() || (queue.is_empty() && !queue.is_closed()));
        prop_assert!(traffic.puts.is_empty() || (queue.is_full() && !queue.is_closed()));
    }
}
