//! The judge itself: states that are right pass, and every way of losing something is found.
//!
//! No server: the states are made from a client's own operations.

use std::time::{Duration, Instant};

use super::*;
use crate::model::Value;
use crate::operation::{Deadline, TOGETHER};

const OPERATIONS: usize = 400;
const ACKNOWLEDGED: usize = 350;

/// A client that has sent 400 operations and got replies to the first 350, and its states.
fn client() -> (Client, Vec<Model>) {
    let mut client = Client::new(1, 7);
    client.draw.value_bytes_max = 200;
    let mut model = Model::default();
    let mut states = vec![model.settled()];
    let began = Instant::now();
    for index in 0..OPERATIONS {
        let operation = client.draw.next();
        let sequence = client.next;
        client.next += 1;
        model.apply(client.id, sequence, &operation);
        let at = Fate::Acknowledged(began + Duration::from_millis(index as u64));
        let fate = if index < ACKNOWLEDGED { at } else { Fate::Sent };
        let sent = began;
        client.entries.push(Entry { sequence, batch: sequence, sent, operation, fate });
        states.push(model.settled());
    }
    (client, states)
}

fn judge(change: impl FnOnce(&mut Vec<Model>) -> Model) -> Result<Verdict, String> {
    let (mut client, mut states) = client();
    let found = Model::of(change(&mut states).values);
    client.judge(found, Floor::Acknowledged, None)
}

/// A prefix from this one on after which the state is another than at any other place.
fn distinct(states: &[Model], from: usize) -> usize {
    let is_only = |index: &usize| {
        let mark = states[*index].mark();
        states.iter().filter(|state| state.mark() == mark).count() == 1
    };
    (from..states.len()).find(is_only).expect("states differ")
}

#[test]
fn every_prefix_from_the_last_acknowledged_operation_on_is_right() {
    for prefix in ACKNOWLEDGED..=OPERATIONS {
        assert!(judge(|states| states[prefix].clone()).is_ok(), "{prefix}");
    }
}

#[test]
fn an_acknowledged_operation_that_is_missing_is_found() {
    let error = judge(|states| {
        // The last place whose state differs from all that come after it.
        let last = &states[ACKNOWLEDGED..].iter().map(Model::mark).collect::<Vec<_>>();
        let lost = (0..ACKNOWLEDGED).rev().find(|i| !last.contains(&states[*i].mark()));
        states[lost.expect("states differ")].clone()
    });
    assert!(error.unwrap_err().contains("acknowledged operations are lost"));
}

/// The states after all but one of the first so many operations, for each that makes a difference.
fn with_one_left_out(
    client: &Client,
    range: std::ops::Range<usize>,
    states: &[Model],
) -> Vec<Model> {
    let without = |left_out: usize| {
        let mut model = Model::default();
        for (index, entry) in client.entries[..range.end].iter().enumerate() {
            if index != left_out {
                model.apply(client.id, entry.sequence, &entry.operation);
            }
        }
        model.settled()
    };
    let is_new = |model: &Model| states.iter().all(|state| state.mark() != model.mark());
    range.clone().map(without).filter(is_new).collect()
}

#[test]
fn an_operation_that_is_missing_in_the_middle_is_found() {
    let (first, states) = client();
    let wrong = with_one_left_out(&first, ACKNOWLEDGED - 20..ACKNOWLEDGED, &states);
    assert!(wrong.len() > 5, "{}", wrong.len());
    for found in wrong {
        let (mut client, _) = client();
        let error = client.judge(found, Floor::Acknowledged, None).unwrap_err();
        assert!(error.contains("no prefix"), "{error}");
    }
}

#[test]
fn commands_sent_together_may_be_done_in_any_order_that_keeps_each_keys() {
    let together = |batch: u64| {
        let (mut client, states) = client();
        for entry in &mut client.entries[ACKNOWLEDGED..] {
            entry.batch = batch;
        }
        client.entries.truncate(ACKNOWLEDGED + 6);
        (client, states)
    };
    let (mut client, _) = together(1);
    let add = |key, amount| Operation::Add { key, amount };
    let operations = [add(12, 1), add(13, 1), add(12, 10), add(14, 1), add(13, 10), add(15, 1)];
    for (entry, operation) in client.entries[ACKNOWLEDGED..].iter_mut().zip(operations) {
        entry.operation = operation;
    }
    let state = |done: &[usize]| {
        let mut model = Model::default();
        for (index, entry) in client.entries.iter().enumerate() {
            if index < ACKNOWLEDGED || done.contains(&(index - ACKNOWLEDGED)) {
                model.apply(client.id, entry.sequence, &entry.operation);
            }
        }
        model.settled()
    };
    let judge_from = |floor: Floor, done: &[usize], seen: Option<usize>| {
        let (mut other, _) = together(1);
        for (entry, known) in other.entries.iter_mut().zip(&client.entries) {
            entry.operation = known.operation.clone();
        }
        let seen = seen.map(|index| client.entries[ACKNOWLEDGED + index].sequence);
        other.judge(state(done), floor, seen)
    };
    let judge = |done: &[usize], seen| judge_from(Floor::Acknowledged, done, seen);
    let open = |unacknowledged| Verdict { unacknowledged, lost: 0 };
    assert_eq!(judge(&[1, 3, 5], None), Ok(open(3)));
    assert_eq!(judge(&[1, 3, 4], Some(4)), Ok(open(3)));
    assert!(judge(&[1, 2], None).is_err(), "the second of key 12 without the first");
    assert!(judge(&[1, 3], Some(0)).is_err(), "somebody has read the first");
    let lossy = judge_from(Floor::Nothing, &[1, 3], Some(0));
    assert_eq!(lossy, Ok(open(2)), "what may be lost may be lost after somebody has read it");
}

#[test]
fn one_key_of_several_that_were_written_together_is_found_missing() {
    let error = judge(|states| {
        let at = distinct(states, ACKNOWLEDGED);
        let mut values = states[at].values.clone();
        let before = Value { bytes: b"old".to_vec(), deadline: Deadline::Never };
        values.insert(TOGETHER.start, before);
        Model::of(values)
    });
    assert!(error.unwrap_err().contains("no prefix"));
}

#[test]
fn a_wrong_byte_a_lost_deadline_and_a_key_that_came_back_are_found() {
    let change = |change: fn(&mut Model)| {
        let error = judge(|states| {
            let mut state = states[OPERATIONS].clone();
            change(&mut state);
            state
        });
        assert!(error.unwrap_err().contains("no prefix"));
    };
    change(|state| {
        let value = state.values.values_mut().find(|value| value.bytes.len() > 3);
        value.expect("a long one").bytes[2] ^= 1;
    });
    change(|state| {
        let is_dated = |value: &&mut Value| value.deadline != Deadline::Never;
        state.values.values_mut().find(is_dated).expect("one").deadline = Deadline::Never;
    });
    change(|state| {
        let back = Value { bytes: b"expired".to_vec(), deadline: Deadline::Near(1) };
        state.values.insert(29, Value { deadline: Deadline::Never, ..back });
    });
}

#[test]
fn what_was_refused_must_not_be_there() {
    let (mut client, states) = client();
    let last = client.entries.len() - 1;
    client.entries[last].operation = Operation::Add { key: 13, amount: 1000 };
    client.entries[last].fate = Fate::Refused;
    let with = {
        let mut model = states[last].clone();
        model.apply(client.id, 1, &Operation::Add { key: 13, amount: 1000 });
        model
    };
    assert!(client.judge(with, Floor::Acknowledged, None).is_err());
    assert!(client.judge(states[last].clone(), Floor::Acknowledged, None).is_ok());
}

#[test]
fn what_somebody_has_read_must_be_there() {
    let (mut client, states) = client();
    let at = distinct(&states, ACKNOWLEDGED + 1);
    let seen = client.entries[at].sequence;
    assert!(client.judge(states[at].clone(), Floor::Acknowledged, Some(seen)).is_err());
    assert!(client.judge(states[at].clone(), Floor::Acknowledged, Some(seen - 1)).is_ok());
}

#[test]
fn an_interval_may_lose_what_came_within_it_and_no_more() {
    let (mut first, states) = client();
    let at = distinct(&states, 100);
    let Fate::Acknowledged(time) = first.entries[at - 1].fate else { panic!("acknowledged") };
    let later = time + Duration::from_millis(1);
    let found = || states[at].clone();
    assert!(first.judge(found(), Floor::AcknowledgedBefore(later), None).is_err());
    let verdict = first.judge(found(), Floor::AcknowledgedBefore(time), None).unwrap();
    assert_eq!(verdict, Verdict { unacknowledged: 0, lost: ACKNOWLEDGED - at });
    let (mut second, _) = client();
    assert!(second.judge(states[0].clone(), Floor::Nothing, None).is_ok());
}
