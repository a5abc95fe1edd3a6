//! Every interleaving of a sender and a receiver that wait for each other.

use super::super::sleep;
use super::*;

#[test]
fn a_receiver_does_not_sleep_through_an_item() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(1);
        let sending = loom::thread::spawn(move || {
            assert!(sender.try_send(1).is_ok());
            // The sender stays: its going would wake the receiver as well.
            sender
        });
        assert_eq!(sleep::wait(receiver.recv()), Some(1));
        drop(sending.join().unwrap());
    });
}

#[test]
fn a_sender_does_not_sleep_through_room() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(1);
        assert!(sender.try_send(1).is_ok());
        let receiving = loom::thread::spawn(move || {
            assert_eq!(receiver.try_recv(), Ok(1));
            receiver
        });
        assert_eq!(sleep::wait(sender.send(2)), Ok(()));
        assert_eq!(receiving.join().unwrap().try_recv(), Ok(2));
    });
}

#[test]
fn neither_side_sleeps_while_both_wait_for_each_other() {
    let mut model = loom::model::Builder::new();
    // All interleavings of this many changes of thread at arbitrary places: the rest is too many.
    model.preemption_bound = Some(2);
    model.check(|| {
        let (mut sender, mut receiver) = channel(1);
        let sending = loom::thread::spawn(move || {
            for item in [1, 2] {
                sleep::wait(sender.send(item)).unwrap();
            }
        });
        assert_eq!(sleep::wait(receiver.recv()), Some(1));
        assert_eq!(sleep::wait(receiver.recv()), Some(2));
        sending.join().unwrap();
    });
}

#[test]
fn a_receiver_is_told_that_the_sender_is_gone_after_its_last_item() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(2);
        let sending = loom::thread::spawn(move || assert!(sender.try_send(1).is_ok()));
        assert_eq!(sleep::wait(receiver.recv()), Some(1));
        assert_eq!(sleep::wait(receiver.recv()), None);
        sending.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_is_told_that_the_receiver_is_gone() {
    loom::model(|| {
        let (mut sender, receiver) = channel(1);
        assert!(sender.try_send(1).is_ok());
        let leaving = loom::thread::spawn(move || drop(receiver));
        // Refused, or taken just before the receiver went; but never left waiting.
        if sleep::wait(sender.send(2)).is_ok() {
            assert!(sleep::wait(sender.send(3)).is_err());
        }
        leaving.join().unwrap();
    });
}
