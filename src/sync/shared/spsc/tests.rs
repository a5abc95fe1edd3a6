//! The queue between threads: its edges, order under traffic, cancels, plain threads.

use std::rc::Rc;
use std::thread;

use super::super::super::puppet::{now, pending, woken};
use super::*;

#[test]
#[should_panic(expected = "holds 1 to limits::SPSC_ITEMS_COUNT_MAX items, not 0")]
fn a_capacity_of_zero_is_refused() {
    drop(channel::<u32>(0));
}

#[test]
#[should_panic(expected = "holds 1 to limits::SPSC_ITEMS_COUNT_MAX items")]
fn a_capacity_beyond_the_limit_is_refused() {
    drop(channel::<u32>(limits::SPSC_ITEMS_COUNT_MAX + 1));
}

#[test]
fn each_side_waits_for_the_other() {
    let (mut sender, mut receiver) = channel(1);
    let recv = pending(receiver.recv());
    assert_eq!(now(sender.send(1)), Ok(()));
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    let send = pending(sender.send(2));
    assert_eq!(woken(recv), Some(1));
    assert_eq!(woken(send), Ok(()));
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn a_sender_that_goes_ends_the_queue_after_what_is_in_it() {
    let (mut sender, mut receiver) = channel(4);
    sender.try_send(1).unwrap();
    drop(sender);
    assert_eq!((now(receiver.recv()), now(receiver.recv())), (Some(1), None));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    let (sender, mut receiver) = channel::<u32>(4);
    let recv = pending(receiver.recv());
    drop(sender);
    assert_eq!(woken(recv), None);
}

#[test]
fn a_receiver_that_goes_takes_the_items_along_and_refuses_more() {
    let item = Rc::new(());
    let (mut sender, receiver) = channel(1);
    sender.try_send(Rc::clone(&item)).unwrap();
    let send = pending(sender.send(Rc::clone(&item)));
    drop(receiver);
    assert!(woken(send).is_err());
    assert_eq!(Rc::strong_count(&item), 1);
    assert!(sender.is_closed());
    assert!(sender.try_send(item).is_err_and(|error| error.is_closed()));
}

#[test]
fn a_dropped_wait_leaves_no_waker_and_no_item() {
    let (mut sender, mut receiver) = channel(1);
    drop(pending(receiver.recv()));
    sender.try_send(1).unwrap();
    drop(pending(sender.send(2)));
    // Not one that can be seen from here, but both sides have nobody to wake.
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    let recv = pending(receiver.recv());
    sender.try_send(3).unwrap();
    assert_eq!(woken(recv), Some(3));
}

#[test]
fn plain_threads_keep_the_order() {
    const COUNT: u32 = 200_000;
    let (mut sender, mut receiver) = channel(8);
    let sending = thread::spawn(move || {
        for number in 0..COUNT {
            sender.send_blocking(number).unwrap();
        }
    });
    for number in 0..COUNT {
        assert_eq!(receiver.recv_blocking(), Some(number));
    }
    assert_eq!(receiver.recv_blocking(), None);
    sending.join().unwrap();
}

#[test]
#[should_panic(expected = "a blocking call would stop this shard and all its tasks")]
fn a_shard_does_not_block() {
    let runtime = crate::Runtime::builder().shards(1).build().unwrap();
    let (_sender, mut receiver) = channel::<u32>(1);
    runtime.block_on(async { receiver.recv_blocking() });
}
