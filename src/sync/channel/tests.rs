//! The channel as a stream: whoever polls once and never again is in nobody's way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Wake, Waker};

use proptest::prelude::*;

use super::super::puppet::{Puppet, now, pending, woken};
use super::*;

/// A receiver that is polled by hand, any number of times.
fn stream<'a>(receiver: &Receiver<u32>) -> Puppet<'a, Option<u32>> {
    let mut receiver = receiver.clone();
    Puppet::new(poll_fn(move |context| receiver.poll_recv(context)))
}

#[test]
fn a_receiver_that_was_polled_once_still_receives_otherwise() {
    let (sender, mut receiver) = unbounded();
    drop(pending(poll_fn(|context| receiver.poll_recv(context))));
    sender.try_send(1).unwrap();
    assert_eq!(receiver.try_recv(), Ok(1));
    drop(pending(poll_fn(|context| receiver.poll_recv(context))));
    sender.try_send(2).unwrap();
    assert_eq!(now(receiver.recv()), Some(2));
    drop(pending(poll_fn(|context| receiver.poll_recv(context))));
    let recv = pending(receiver.recv());
    sender.try_send(3).unwrap();
    assert_eq!(woken(recv), Some(3));
    drop(pending(poll_fn(|context| receiver.poll_recv(context))));
    sender.try_send(4).unwrap();
    assert_eq!(now(poll_fn(|context| receiver.poll_recv(context))), Some(4));
}

#[test]
fn an_item_wakes_all_streams_or_the_one_that_is_in_line() {
    let (sender, receiver) = unbounded();
    let [mut idle, mut live] = [stream(&receiver), stream(&receiver)];
    assert!(idle.poll().is_pending() && live.poll().is_pending());
    let recv = pending(receiver.recv());
    sender.try_send(1).unwrap();
    assert!(!idle.is_woken() && !live.is_woken(), "it is promised");
    drop(recv);
    assert!(idle.is_woken() && live.is_woken());
    assert_eq!(live.poll(), Poll::Ready(Some(1)));
    assert!(idle.poll().is_pending());
    assert!(live.poll().is_pending());
    drop(sender);
    assert!(idle.is_woken());
    assert_eq!(woken(live), None);
}

#[test]
fn a_stream_ends_with_the_last_item_that_another_takes() {
    let (sender, receiver) = unbounded();
    let mut stream = stream(&receiver);
    assert!(stream.poll().is_pending());
    let recv = pending(receiver.recv());
    sender.try_send(1).unwrap();
    drop(sender);
    assert!(!stream.is_woken(), "the item may yet be its");
    assert_eq!(woken(recv), Some(1));
    assert_eq!(woken(stream), None);
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_receiver_that_is_dropped_leaves_no_waker() {
    let (_sender, mut receiver) = unbounded::<u32>();
    let _other = receiver.clone();
    let nobody = Arc::new(Nobody);
    let waker = Waker::from(Arc::clone(&nobody));
    assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&nobody), 2);
    drop(receiver);
    assert_eq!(Arc::strong_count(&nobody), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    TryRecv,
    Recv,
    PollRecv(usize),
    CancelRecv(usize),
    Stream,
    PollStream(usize),
    DropStream(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => Just(Step::Send),
        4 => Just(Step::TryRecv),
        10 => Just(Step::Recv),
        10 => (0..4usize).prop_map(Step::PollRecv),
        6 => (0..4usize).prop_map(Step::CancelRecv),
        6 => Just(Step::Stream),
        16 => (0..4usize).prop_map(Step::PollStream),
        4 => (0..4usize).prop_map(Step::DropStream),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..200)
}

/// What has gone in and come out, and who waits.
struct Traffic<'a> {
    sender: &'a Sender<u32>,
    receiver: &'a Receiver<u32>,
    sent: u32,
    taken: Vec<u32>,
    recvs: VecDeque<Puppet<'a, Option<u32>>>,
    /// With whether it was pending when it was last polled.
    streams: Vec<(Puppet<'a, Option<u32>>, bool)>,
}

impl Traffic<'_> {
    fn take(&mut self, item: Option<u32>) {
        assert!(item.is_some() || self.receiver.is_closed());
        self.taken.extend(item);
    }

    fn poll_recv(&mut self, place: usize) {
        let Some(recv) = self.recvs.get_mut(place) else { return };
        if let Poll::Ready(item) = recv.poll() {
            self.recvs.remove(place);
            self.take(item);
        }
    }

    fn poll_stream(&mut self, place: usize) {
        let Some((stream, is_pending)) = self.streams.get_mut(place) else { return };
        let polled = stream.poll();
        *is_pending = polled.is_pending();
        if let Poll::Ready(item) = polled {
            self.take(item);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send => self.sent += u32::from(self.sender.try_send(self.sent).is_ok()),
            Step::TryRecv => self.taken.extend(self.receiver.try_recv().ok()),
            Step::Recv => {
                self.recvs.push_back(Puppet::new(self.receiver.recv()));
                self.poll_recv(self.recvs.len() - 1);
            }
            Step::PollRecv(place) => self.poll_recv(place),
            Step::CancelRecv(place) => drop(self.recvs.remove(place)),
            Step::Stream if self.streams.len() < 4 => {
                self.streams.push((stream(self.receiver), false));
                self.poll_stream(self.streams.len() - 1);
            }
            Step::Stream => {}
            Step::PollStream(place) => self.poll_stream(place),
            Step::DropStream(place) if place < self.streams.len() => {
                drop(self.streams.remove(place));
            }
            Step::DropStream(_) => {}
            Step::Close => self.sender.close(),
        }
    }

    fn check(&self) {
        let left = self.sent as usize - self.taken.len();
        assert_eq!(left, self.receiver.len(), "an item is lost");
        assert!(self.taken.iter().copied().eq(0..self.taken.len() as u32), "not in order");
        // Each item that is there has one that was woken for it, or nobody waits.
        let awake = self.recvs.iter().filter(|recv| recv.is_woken()).count();
        let has_asleep = |is_asleep: bool| is_asleep && (left > awake || self.is_over());
        let asleep = self.recvs.iter().any(|recv| !recv.is_woken());
        assert!(!has_asleep(asleep), "a receive sleeps by an item");
        let asleep = self.streams.iter().any(|(stream, pending)| *pending && !stream.is_woken());
        assert!(!has_asleep(asleep), "a stream sleeps by an item");
    }

    fn is_over(&self) -> bool {
        self.receiver.is_closed() && self.receiver.is_empty()
    }
}

proptest! {
    /// Whether or not a stream that was woken ever comes, nobody else goes without.
    #[test]
    fn no_item_waits_for_a_stream_that_does_not_come(steps in steps(), streams_come: bool) {
        let (sender, receiver) = unbounded();
        let mut traffic = Traffic {
            sender: &sender,
            receiver: &receiver,
            sent: 0,
            taken: Vec::new(),
            recvs: VecDeque::new(),
            streams: Vec::new(),
        };
        for step in steps {
            traffic.step(step);
            traffic.check();
        }
        while let Some(place) = traffic.recvs.iter().position(Puppet::is_woken) {
            traffic.poll_recv(place);
            traffic.check();
        }
        prop_assert!(traffic.recvs.is_empty() || receiver.is_empty());
        if streams_come && !traffic.streams.is_empty() {
            while !receiver.is_empty() {
                traffic.poll_stream(0);
            }
        }
        // Whoever is left takes the rest, past all that do not come.
        while let Ok(item) = receiver.try_recv() {
            traffic.taken.push(item);
        }
        prop_assert_eq!(traffic.taken.len(), traffic.sent as usize);
    }
}
