//! Every interleaving of a sender and a receiver that wait for each other.

use super::super::sleep;
use super::*;

#[test]
fn neither_side_sleeps_through_what_it_waits_for() {
    loom::model(|| {
        let (mut sender, mut receiver) = channel(1);
        let sending = loom::thread::spawn(move || {
            // The second waits for room unless the first has been received.
            sleep::wait(sender.send(1)).unwrap();
            sleep::wait(sender.send(2)).unwrap();
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
