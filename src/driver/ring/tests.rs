//! What older kernels do, forced on this one, and answers that this one does not give.

use super::*;
use crate::error::Errno;
use std::task::{Context, Poll, Waker};

fn complete(ring: &mut Ring, slots: &mut Slots, key: SlotKey) -> crate::op::Outcome {
    loop {
        if let Poll::Ready(outcome) = slots.poll(key, &mut Context::from_waker(Waker::noop())) {
            return outcome;
        }
        ring.park(slots, Wait::Until(Instant::NEVER)).unwrap();
        ring.reap(slots, clock::now());
    }
}

/// What Linux before 6.18 does.
#[test]
fn without_quiet_writes_a_full_pipe_is_waited_for() {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    let pool = Pool::new(4, 4096).unwrap();
    let mut ring = match Ring::new(&RingSettings::default(), &pool) {
        Ok(ring) => ring,
        Err(errno) => return println!("skipped: {errno}"),
    };
    ring.given.quiet_writes = false;
    let mut slots = Slots::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let write = |ring: &mut Ring, slots: &mut Slots| {
        let payload = vec![7; 1 << 20].into();
        let op = Op::Write { pipe: writer.as_raw_fd(), payload, written: 0, waits: false };
        let key = slots.insert(op, clock::now()).unwrap();
        ring.start(key, slots);
        key
    };
    let key = write(&mut ring, &mut slots);
    assert!(matches!(slots.op(key), Some(Op::Write { written: 1.., waits: true, .. })));
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        reader.read_exact(&mut bytes).unwrap();
        bytes.iter().all(|byte| *byte == 7)
    });
    assert!(complete(&mut ring, &mut slots, key).result.is_ok());
    assert!(reading.join().unwrap(), "all of it came, as it was");
    let key = write(&mut ring, &mut slots);
    let outcome = complete(&mut ring, &mut slots, key);
    assert!(matches!(outcome.result, Err(Errno(libc::EPIPE))), "nobody reads any more");
}

/// What Linux before 6.7 does.
#[test]
fn without_waitid_a_child_is_waited_for_by_descriptor() {
    let pool = Pool::new(4, 4096).unwrap();
    let mut ring = match Ring::new(&RingSettings::default(), &pool) {
        Ok(ring) => ring,
        Err(errno) => return println!("skipped: {errno}"),
    };
    ring.given.wait_child = false;
    let mut slots = Slots::new();
    let mut child = std::process::Command::new("sh").arg("-c").arg("exit 3").spawn().unwrap();
    let process = child.id() as libc::pid_t;
    let key = slots.insert(Op::WaitChild { process, held: None }, clock::now()).unwrap();
    ring.start(key, &mut slots);
    let outcome = complete(&mut ring, &mut slots, key);
    assert!(outcome.result.is_ok());
    assert!(matches!(outcome.op, Op::WaitChild { held: Some(_), .. }));
    assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(3), "it was left to collect");
    let op = Op::WaitChild { process, held: None };
    let key = slots.insert(op, clock::now()).unwrap();
    ring.start(key, &mut slots);
    let poll = slots.poll(key, &mut Context::from_waker(Waker::noop()));
    let Poll::Ready(outcome) = poll else { panic!("there is nothing to wait for") };
    assert!(matches!(outcome.result, Err(Errno(libc::ESRCH))));
}
