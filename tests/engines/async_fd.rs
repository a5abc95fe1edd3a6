//! Descriptors awaited for readiness: level-triggered, any number of waits at once, and never the
//! readiness of another file that came by the same number.
//!
//! I3: `a_write_makes_the_other_end_readable`, `a_half_read_descriptor_stays_ready`,
//! `both_directions_are_awaited_at_once`, `a_number_used_again_is_not_reported_to_the_old_wait`,
//! `a_wait_that_is_dropped_leaves_nothing`, `one_descriptor_is_awaited_by_many`,
//! `a_registered_socket_can_be_awaited_too`, `a_regular_file_is_always_ready`,
//! `the_end_and_a_broken_pipe_are_readiness`, `nonblocking_or_not_stays_as_it_was`,
//! `a_call_that_would_block_is_made_again`, `a_closed_number_is_an_error`.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnix;
use std::rc::Rc;
use std::time::Duration;

use annulus::io::{AsyncFd, Interest};
use annulus::net::UnixStream;
use annulus::{Engine, Handle, task, time};

use crate::harness::{Scratch, descriptors, eventually_here, run, turns};

// Alone, since they look at descriptor numbers.
on_every_engine!(
    alone: a_write_makes_the_other_end_readable,
    a_half_read_descriptor_stays_ready,
    both_directions_are_awaited_at_once,
    one_descriptor_is_awaited_by_many,
    a_registered_socket_can_be_awaited_too,
    a_regular_file_is_always_ready,
    the_end_and_a_broken_pipe_are_readiness,
    nonblocking_or_not_stays_as_it_was,
    a_call_that_would_block_is_made_again,
    a_closed_number_is_an_error,
    a_number_used_again_is_not_reported_to_the_old_wait,
    a_wait_that_is_dropped_leaves_nothing,
);

/// A descriptor by its number, whatever that means at the moment: what no safe type would do.
struct Number(RawFd);

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: only its number is taken, for an operation that may fail.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

type Trace = Rc<RefCell<Vec<&'static str>>>;

/// Waits in a task of its own, and writes down that it is over.
fn note(trace: &Trace, word: &'static str, fd: impl AsFd + 'static, interest: Interest) {
    let trace = Rc::clone(trace);
    let wait = async move {
        AsyncFd::new(fd).ready(interest).await.unwrap();
        trace.borrow_mut().push(word);
    };
    task::spawn(wait).detach();
}

/// Waits until so many waits are in flight, and not one that was given up.
async fn waits(count: usize) {
    for _ in 0..5000 {
        let list = Handle::current().in_flight().await.unwrap();
        let ready = list.iter().filter(|(_, operation)| operation.operation == "ready");
        if ready.count() == count {
            return;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    panic!("there are not {count} waits: {:?}", Handle::current().in_flight().await);
}

fn a_write_makes_the_other_end_readable(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        let trace = Trace::default();
        note(&trace, "readable", ours.try_clone().unwrap(), Interest::Readable);
        turns(20).await;
        assert!(trace.borrow().is_empty());
        waits(1).await;
        theirs.write_all(b"x").unwrap();
        eventually_here("the write is noticed", || *trace.borrow() == ["readable"]).await;
        waits(0).await;
    });
}

fn a_half_read_descriptor_stays_ready(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        let ours = AsyncFd::new(ours);
        theirs.write_all(b"abcd").unwrap();
        for expected in b"abcd" {
            assert!(ours.readable().await.unwrap().is_readable());
            assert!(ours.readable().await.unwrap().is_readable(), "nothing was taken");
            let mut byte = [0];
            ours.get_ref().read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], *expected);
        }
        let over = time::timeout(Duration::from_millis(5), ours.readable()).await;
        assert!(over.is_err(), "all was read");
        waits(0).await;
    });
}

/// Fills the way out of a socket.
fn fill(socket: &StdUnix) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut filled = 0;
    loop {
        match (&*socket).write(&[0; 4096]) {
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return filled,
            Err(error) => panic!("{error}"),
        }
    }
}

fn both_directions_are_awaited_at_once(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        let filled = fill(&ours);
        let ours = Rc::new(ours);
        let trace = Trace::default();
        note(&trace, "readable", Rc::clone(&ours), Interest::Readable);
        note(&trace, "writable", Rc::clone(&ours), Interest::Writable);
        turns(20).await;
        waits(2).await;
        theirs.write_all(b"x").unwrap();
        eventually_here("one direction", || *trace.borrow() == ["readable"]).await;
        turns(20).await;
        waits(1).await;
        theirs.read_exact(&mut vec![0; filled]).unwrap();
        eventually_here("the other", || *trace.borrow() == ["readable", "writable"]).await;
        let both = AsyncFd::new(ours).ready(Interest::Both).await.unwrap();
        assert!(both.is_readable() && both.is_writable() && !both.is_closed());
    });
}

fn one_descriptor_is_awaited_by_many(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        let ours = Rc::new(ours);
        let trace = Trace::default();
        for _ in 0..3 {
            note(&trace, "one", Rc::clone(&ours), Interest::Readable);
        }
        let fourth = AsyncFd::new(Rc::clone(&ours));
        let given_up = time::timeout(Duration::from_millis(1), fourth.readable()).await;
        assert!(given_up.is_err());
        waits(3).await;
        theirs.write_all(b"x").unwrap();
        eventually_here("all of them", || trace.borrow().len() == 3).await;
        assert!(fourth.readable().await.unwrap().is_readable());
    });
}

fn a_registered_socket_can_be_awaited_too(engine: Engine) {
    run(engine, async {
        let scratch = Scratch::new();
        let listener = annulus::net::UnixListener::bind(scratch.file("socket")).unwrap();
        let stream = UnixStream::connect(scratch.file("socket")).await.unwrap();
        let served = listener.accept().await.unwrap();
        served.send(b"ping").await.unwrap();
        assert_eq!(&*stream.recv().await.unwrap().unwrap(), b"ping");
        let list = Handle::current().in_flight().await.unwrap();
        let receive = list.iter().find(|(_, operation)| operation.operation == "receive");
        let number = Number(receive.unwrap().1.descriptor);
        // The stream's own receive goes on beside the waits.
        let trace = Trace::default();
        note(&trace, "writable", number, Interest::Writable);
        eventually_here("writable", || *trace.borrow() == ["writable"]).await;
        served.send(b"again").await.unwrap();
        assert_eq!(&*stream.recv().await.unwrap().unwrap(), b"again");
    });
}

fn a_regular_file_is_always_ready(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("file");
        std::fs::write(&path, b"text").unwrap();
        let file = AsyncFd::new(std::fs::File::open(&path).unwrap());
        for _ in 0..3 {
            assert!(file.readable().await.unwrap().is_readable());
            assert!(file.writable().await.unwrap().is_writable());
        }
    });
}

fn the_end_and_a_broken_pipe_are_readiness(engine: Engine) {
    run(engine, async {
        let (reader, writer) = io::pipe().unwrap();
        let writer = AsyncFd::new(writer);
        let ready = writer.writable().await.unwrap();
        assert!(ready.is_writable() && !ready.is_error());
        drop(reader);
        let ready = writer.writable().await.unwrap();
        assert!(ready.is_writable() && ready.is_error(), "{ready:?}");

        let (reader, writer) = io::pipe().unwrap();
        let trace = Trace::default();
        note(&trace, "end", reader.try_clone().unwrap(), Interest::Readable);
        turns(10).await;
        drop(writer);
        eventually_here("the end", || *trace.borrow() == ["end"]).await;
        let ready = AsyncFd::new(reader).readable().await.unwrap();
        assert!(ready.is_readable() && ready.is_closed(), "{ready:?}");
    });
}

fn flags(fd: impl AsFd) -> i32 {
    // SAFETY: F_GETFL takes no pointers.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

fn nonblocking_or_not_stays_as_it_was(engine: Engine) {
    run(engine, async {
        for on in [false, true] {
            let (ours, mut theirs) = StdUnix::pair().unwrap();
            ours.set_nonblocking(on).unwrap();
            let before = flags(&ours);
            let ours = AsyncFd::new(ours);
            let given_up = time::timeout(Duration::from_millis(1), ours.readable()).await;
            assert!(given_up.is_err());
            theirs.write_all(b"x").unwrap();
            assert!(ours.readable().await.unwrap().is_readable());
            assert_eq!(flags(ours.get_ref()), before);
        }
    });
}

fn a_call_that_would_block_is_made_again(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = AsyncFd::new(ours);
        let mut calls = 0;
        let mut bytes = [0; 8];
        let later = task::spawn(async move {
            turns(10).await;
            theirs.write_all(b"hello").unwrap();
            theirs
        });
        let read = ours.perform(Interest::Readable, |mut socket| {
            calls += 1;
            socket.read(&mut bytes)
        });
        assert_eq!(read.await.unwrap(), 5);
        assert_eq!((&bytes[..5], calls), (&b"hello"[..], 2));
        drop(later.await.unwrap());
        let broken = ours.perform(Interest::Writable, |mut socket| socket.write(b"x"));
        assert!(broken.await.unwrap_err().is_disconnected());
    });
}

fn a_closed_number_is_an_error(engine: Engine) {
    run(engine, async {
        let error = AsyncFd::new(Number(1 << 19)).readable().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "waiting for a descriptor to be ready: Bad file descriptor (os error 9)"
        );
    });
}

fn a_number_used_again_is_not_reported_to_the_old_wait(engine: Engine) {
    run(engine, async {
        let (ours, mut theirs) = StdUnix::pair().unwrap();
        let (other, mut other_peer) = StdUnix::pair().unwrap();
        let number = ours.as_raw_fd();
        let kept = ours.try_clone().unwrap();
        let trace = Trace::default();
        note(&trace, "old", Number(number), Interest::Readable);
        turns(20).await;
        waits(1).await;
        drop(ours);
        // SAFETY: the number has just been closed, and no other thread makes descriptors.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);
        other_peer.write_all(b"x").unwrap();
        note(&trace, "new", Number(number), Interest::Readable);
        eventually_here("the new one", || !trace.borrow().is_empty()).await;
        turns(20).await;
        assert_eq!(*trace.borrow(), ["new"], "the old wait is for the old file");
        theirs.write_all(b"x").unwrap();
        eventually_here("the old one", || *trace.borrow() == ["new", "old"]).await;
        drop(kept);
        // SAFETY: the number is the test's own, made by dup2 above.
        unsafe { libc::close(number) };
    });
}

fn a_wait_that_is_dropped_leaves_nothing(engine: Engine) {
    run(engine, async {
        let (ours, _theirs) = StdUnix::pair().unwrap();
        let ours = AsyncFd::new(ours);
        time::sleep(Duration::from_millis(1)).await;
        let before = descriptors();
        for round in 0..50 {
            let waiting = time::timeout(Duration::from_micros(round * 20), ours.readable()).await;
            assert!(waiting.is_err());
        }
        let gone = || descriptors() == before;
        eventually_here("no descriptor is left", gone).await;
        turns(20).await;
        waits(0).await;
    });
}
