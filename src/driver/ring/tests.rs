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

fn ring() -> Option<(Ring, Slots)> {
    let pool = Pool::new(4, 4096).unwrap();
    match Ring::new(&RingSettings::default(), &pool) {
        Ok(ring) => Some((ring, Slots::new())),
        Err(errno) => {
            println!("skipped: {errno}");
            None
        }
    }
}

/// A file of its own, without a name.
fn scratch(content: &[u8]) -> std::fs::File {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let mut file = options.open(std::env::temp_dir()).unwrap();
    file.write_all(content).unwrap();
    file
}

fn length(file: &std::fs::File) -> u64 {
    file.metadata().unwrap().len()
}

/// What Linux before 6.9 does.
#[test]
fn without_ftruncate_a_helper_cuts_files() {
    use std::os::fd::AsRawFd;
    let Some((mut ring, mut slots)) = ring() else { return };
    ring.given.truncate = false;
    let file = scratch(b"0123456789");
    let cut = |length| Op::Truncate { file: file.as_raw_fd(), length };
    for wanted in [3, 7] {
        let key = slots.insert(cut(wanted), clock::now()).unwrap();
        ring.start(key, &mut slots);
        assert!(ring.is_helped());
        assert!(complete(&mut ring, &mut slots, key).result.is_ok());
        assert_eq!(length(&file), wanted);
    }
    assert!(!ring.is_helped());
    let key = slots.insert(cut(u64::MAX), clock::now()).unwrap();
    ring.start(key, &mut slots);
    let outcome = complete(&mut ring, &mut slots, key);
    assert!(matches!(outcome.result, Err(Errno(libc::EINVAL))));
}

/// What a read, a write and a sync do with an answer that asks to try again.
#[test]
fn an_answer_to_try_again_is_followed_and_others_are_given_back() {
    use std::os::fd::AsRawFd;
    let Some((mut ring, mut slots)) = ring() else { return };
    let file = scratch(b"0123456789");
    let operations: [fn(RawFd) -> Op; 3] = [
        |file| Op::ReadAt { file, buffer: Vec::with_capacity(4).into(), offset: 2 },
        |file| Op::WriteAt {
            file,
            payload: b"cde".into(),
            skip: 1,
            offset: 3,
            durable: true,
            appends: false,
        },
        |file| Op::Sync { file, data_only: true },
    ];
    for make in operations {
        for (errno, is_helped) in [(libc::EINTR, false), (libc::EAGAIN, true)] {
            let key = slots.insert(make(file.as_raw_fd()), clock::now()).unwrap();
            if slots.op(key).unwrap().is_looked_up_late() {
                ring.named.begin(file.as_raw_fd());
            }
            ring.complete(key, -errno, 0, &mut slots, clock::now());
            assert_eq!(ring.is_helped(), is_helped);
            let outcome = complete(&mut ring, &mut slots, key);
            match (outcome.result, outcome.op) {
                (Ok(Value::Count(4)), Op::ReadAt { buffer, .. }) => assert_eq!(&buffer[..2], b"23"),
                (Ok(Value::Count(2)), Op::WriteAt { .. }) => assert_eq!(length(&file), 10),
                (Ok(Value::Count(0)), Op::Sync { .. }) => {}
                (result, _) => panic!("{result:?}"),
            }
            assert!(ring.named.keep(file.try_clone().unwrap().into()).is_some());
        }
        for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS] {
            let key = slots.insert(make(file.as_raw_fd()), clock::now()).unwrap();
            ring.complete(key, -errno, 0, &mut slots, clock::now());
            let poll = slots.poll(key, &mut Context::from_waker(Waker::noop()));
            let Poll::Ready(outcome) = poll else { panic!("it is over") };
            assert_eq!(outcome.result.unwrap_err(), Errno(errno));
        }
    }
    let mut content = [0; 10];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).unwrap();
    assert_eq!(&content, b"012de56789");
}

/// An orphan is not tried again: nobody waits for it.
#[test]
fn an_orphan_that_is_to_try_again_is_over() {
    use std::os::fd::AsRawFd;
    let Some((mut ring, mut slots)) = ring() else { return };
    let file = scratch(b"0123456789");
    for errno in [libc::EINTR, libc::EAGAIN] {
        let op = Op::Truncate { file: file.as_raw_fd(), length: 0 };
        let key = slots.insert(op, clock::now()).unwrap();
        slots.abandon(key);
        ring.complete(key, -errno, 0, &mut slots, clock::now());
        assert_eq!((slots.count(), ring.is_helped()), (0, false));
    }
    assert_eq!(length(&file), 10);
}

/// A worker looks a file up when it begins, by a number that may be another file's by then.
#[test]
fn a_file_is_closed_after_the_operation_that_was_given_up() {
    use std::os::fd::AsRawFd;
    let is_open = |number: RawFd| std::fs::exists(format!("/proc/self/fd/{number}")).unwrap();
    let Some((mut ring, mut slots)) = ring() else { return };
    for truncate in [true, false] {
        ring.given.truncate = truncate;
        let file = scratch(b"0123456789");
        // SAFETY: F_DUPFD_CLOEXEC takes no pointers; the copy is nobody else's. Its number is one
        // that other tests, which open the lowest free one, do not come across.
        let copy = unsafe {
            let number = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 700);
            assert!(number >= 700);
            OwnedFd::from_raw_fd(number)
        };
        let number = copy.as_raw_fd();
        let key = slots.insert(Op::Truncate { file: number, length: 1 }, clock::now()).unwrap();
        ring.start(key, &mut slots);
        slots.abandon(key);
        let close = slots.insert(Op::Close { descriptor: copy }, clock::now()).unwrap();
        ring.start(close, &mut slots);
        assert!(complete(&mut ring, &mut slots, close).result.is_ok());
        assert!(is_open(number), "somebody will look it up");
        while slots.count() > 0 {
            ring.park(&mut slots, Wait::Until(Instant::NEVER)).unwrap();
            ring.reap(&mut slots, clock::now());
        }
        assert!(!is_open(number));
        assert_eq!(length(&file), 1, "it was this file");
    }
}
