//! Pipes: much data, the end, a reader that is gone, ends given to other processes, fifos.
//!
//! D3: `a_mebibyte_goes_through_whole`, `the_end_is_seen_once_the_last_sender_is_closed`,
//! `a_write_that_nobody_reads_is_an_error_and_no_signal`, `ends_are_given_to_a_child`,
//! `a_receive_that_is_given_up_loses_nothing`, `a_buffer_of_the_callers_is_appended_to`,
//! `a_write_that_is_given_up_leaves_nothing`, `descriptors_set_nonblocking_work_too`,
//! `a_terminal_is_read_line_by_line`,
//! `a_fifo_joins_what_opens_it`, `what_is_no_pipe_is_refused`, `too_much_is_refused`,
//! `closed_numbers_are_of_use_again`, `pipes_are_read_and_written_by_trait`,
//! `a_device_without_readiness_is_read_and_written`, `what_others_share_blocks_again_in_the_end`.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use annulus::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use annulus::{Engine, Handle, ipc, task, time};

use crate::harness::{Scratch, descriptors, eventually_here, pattern, run, turns};

// Alone: they count descriptors, and one changes what SIGPIPE does.
on_every_engine!(
    alone: a_mebibyte_goes_through_whole,
    the_end_is_seen_once_the_last_sender_is_closed,
    a_write_that_nobody_reads_is_an_error_and_no_signal,
    ends_are_given_to_a_child,
    a_receive_that_is_given_up_loses_nothing,
    a_buffer_of_the_callers_is_appended_to,
    a_write_that_is_given_up_leaves_nothing,
    descriptors_set_nonblocking_work_too,
    a_terminal_is_read_line_by_line,
    a_fifo_joins_what_opens_it,
    what_is_no_pipe_is_refused,
    too_much_is_refused,
    closed_numbers_are_of_use_again,
    pipes_are_read_and_written_by_trait,
    a_device_without_readiness_is_read_and_written,
    what_others_share_blocks_again_in_the_end,
);

const MEBIBYTE: usize = 1 << 20;

fn a_mebibyte_goes_through_whole(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        let sent = pattern(1, MEBIBYTE);
        let copy = sent.clone();
        let write = task::spawn(async move {
            let given_back = sender.write_all(copy).await.unwrap();
            assert_eq!(given_back.len(), MEBIBYTE);
        });
        let mut received = Vec::new();
        while let Some(bytes) = receiver.recv().await.unwrap() {
            assert!(!bytes.is_empty());
            received.extend_from_slice(&bytes);
        }
        assert!(received == sent, "{} bytes came", received.len());
        write.await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), None);
    });
}

fn the_end_is_seen_once_the_last_sender_is_closed(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        let second = sender.as_fd().try_clone_to_owned().unwrap();
        sender.write_all(b"last").await.unwrap();
        sender.close().await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), b"last");
        let open = time::timeout(Duration::from_millis(2), receiver.recv()).await;
        assert!(open.is_err(), "another sender is open");
        drop(second);
        assert_eq!(receiver.recv().await.unwrap(), None);
        assert_eq!(receiver.recv_into(vec![1]).await.unwrap(), [1]);
    });
}

fn a_write_that_nobody_reads_is_an_error_and_no_signal(engine: Engine) {
    // SAFETY: sets a disposition; no other test runs meanwhile.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    run(engine, async {
        let (mut sender, receiver) = ipc::pipe().unwrap();
        drop(receiver);
        turns(5).await;
        for _ in 0..3 {
            let error = sender.write_all(b"x").await.unwrap_err();
            assert!(error.is_disconnected());
            assert_eq!(error.to_string(), "writing to a pipe: Broken pipe (os error 32)");
        }
        // Also one that waits for room when its reader goes away.
        let (mut sender, receiver) = ipc::pipe().unwrap();
        let write = task::spawn(async move { sender.write_all(vec![0; MEBIBYTE]).await });
        turns(20).await;
        drop(receiver);
        assert!(write.await.unwrap().unwrap_err().is_disconnected());
    });
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, before) };
}

fn ends_are_given_to_a_child(engine: Engine) {
    run(engine, async {
        let (mut sender, theirs) = ipc::pipe().unwrap();
        let (mut back, mut receiver) = ipc::pipe().unwrap();
        // One that the driver knows, and one that it does not.
        back.write_all(b"before ").await.unwrap();
        let mut command = Command::new("cat");
        command.stdin(theirs.into_stdio().unwrap()).stdout(back.into_stdio().unwrap());
        let mut child = command.spawn().unwrap();
        drop(command);
        sender.write_all(b"through a child").await.unwrap();
        sender.close().await.unwrap();
        let all = receiver.recv_all(100).await.unwrap();
        assert_eq!(all, b"before through a child");
        assert!(child.wait().unwrap().success());
    });
}

fn a_receive_that_is_given_up_loses_nothing(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        let sent = pattern(2, 20_000);
        let copy = sent.clone();
        let write = task::spawn(async move {
            for part in copy.chunks(40) {
                sender.write_all(part.to_vec()).await.unwrap();
                task::yield_now().await;
            }
        });
        let mut received = Vec::new();
        let mut round = 0;
        loop {
            round += 1;
            let limit = Duration::from_micros(round % 40);
            let next = if round % 3 == 0 {
                let read = time::timeout(limit, receiver.recv_into(b"own".to_vec())).await;
                read.map(|read| {
                    let bytes = read.unwrap().split_off(3);
                    Some(bytes).filter(|bytes| !bytes.is_empty())
                })
            } else {
                time::timeout(limit, receiver.recv()).await.map(Result::unwrap)
            };
            match next {
                Ok(Some(bytes)) => received.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(_) => task::yield_now().await,
            }
        }
        assert!(received == sent, "{} of {} bytes came", received.len(), sent.len());
        write.await.unwrap();
    });
}

fn a_buffer_of_the_callers_is_appended_to(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        sender.write_all(b"abcdef").await.unwrap();
        let mut buffer = Vec::with_capacity(7);
        buffer.extend_from_slice(b"own");
        let spare = buffer.capacity() - buffer.len();
        let buffer = receiver.recv_into(buffer).await.unwrap();
        assert_eq!(buffer, &b"ownabcdef"[..3 + spare.min(6)]);
        let full = b"full".to_vec().into_boxed_slice().into_vec();
        sender.write_all(b"!").await.unwrap();
        assert!(receiver.recv_into(full).await.unwrap().starts_with(b"full"));
    });
}

fn a_write_that_is_given_up_leaves_nothing(engine: Engine) {
    run(engine, async {
        time::sleep(Duration::from_millis(1)).await;
        let before = descriptors();
        for round in 0..30 {
            let (mut sender, receiver) = ipc::pipe().unwrap();
            let limit = Duration::from_micros(round * 50);
            let write = time::timeout(limit, sender.write_all(vec![1; MEBIBYTE])).await;
            assert!(write.is_err());
            drop((sender, receiver));
        }
        eventually_here("all is closed", || descriptors() == before).await;
        for _ in 0..5000 {
            if Handle::current().in_flight().await.unwrap().is_empty() {
                return;
            }
            turns(1).await;
        }
        panic!("left in flight: {:?}", Handle::current().in_flight().await);
    });
}

fn descriptors_set_nonblocking_work_too(engine: Engine) {
    run(engine, async {
        for on in [true, false] {
            let (reader, writer) = std::io::pipe().unwrap();
            let (reader, writer): (OwnedFd, OwnedFd) = (reader.into(), writer.into());
            for end in [&reader, &writer] {
                let flags = if on { libc::O_NONBLOCK } else { 0 };
                // SAFETY: F_SETFL takes no pointers.
                assert_eq!(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, flags) }, 0);
            }
            let mut sender = ipc::pipe::Sender::from_owned_fd(writer).unwrap();
            let mut receiver = ipc::pipe::Receiver::from_owned_fd(reader).unwrap();
            let read = task::spawn(async move { receiver.recv_all(MEBIBYTE).await.unwrap() });
            turns(20).await;
            let sent = pattern(3, MEBIBYTE / 2);
            sender.write_all(sent.clone()).await.unwrap();
            drop(sender);
            assert!(read.await.unwrap() == sent);
        }
    });
}

/// A terminal's two sides, the second non-blocking if asked to.
fn terminal(flags: i32) -> (OwnedFd, OwnedFd) {
    // SAFETY: the descriptors are new and checked; the name fits into the buffer, whose length is
    // given.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0, "{}", std::io::Error::last_os_error());
        let master = OwnedFd::from_raw_fd(master);
        assert_eq!(libc::grantpt(master.as_raw_fd()), 0);
        assert_eq!(libc::unlockpt(master.as_raw_fd()), 0);
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()), 0);
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | flags;
        let side = libc::open(name.as_ptr(), flags);
        assert!(side >= 0, "{}", std::io::Error::last_os_error());
        (master, OwnedFd::from_raw_fd(side))
    }
}

fn a_terminal_is_read_line_by_line(engine: Engine) {
    run(engine, async {
        for flags in [libc::O_NONBLOCK, 0] {
            let (keyboard, side) = terminal(flags);
            let mut receiver = ipc::pipe::Receiver::from_owned_fd(side).unwrap();
            let early = time::timeout(Duration::from_millis(2), receiver.recv()).await;
            assert!(early.is_err(), "{early:?}");
            let read = task::spawn(async move {
                let first = receiver.recv().await.unwrap().unwrap();
                (first, receiver.recv().await.unwrap().unwrap())
            });
            turns(10).await;
            let mut keyboard = std::fs::File::from(keyboard);
            keyboard.write_all(b"one\n").unwrap();
            turns(20).await;
            keyboard.write_all(b"two\n").unwrap();
            assert_eq!(read.await.unwrap(), (b"one\n".to_vec(), b"two\n".to_vec()));
        }
    });
}

fn a_fifo_joins_what_opens_it(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = ipc::pipe::Sender::open(&path).unwrap_err();
        let text = format!(
            "opening {}: nobody has it open to read: No such device or address (os error 6)",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        let (given_up, reader_path) = (path.clone(), path.clone());
        let limit = Duration::from_millis(2);
        let early = time::timeout(limit, ipc::pipe::Receiver::open(&given_up)).await;
        assert!(early.is_err(), "nobody has written");
        let read = task::spawn(async move {
            let mut receiver = ipc::pipe::Receiver::open(&reader_path).await.unwrap();
            receiver.recv_all(100).await.unwrap()
        });
        let mut sender = loop {
            match ipc::pipe::Sender::open(&path) {
                Ok(sender) => break sender,
                Err(_) => task::yield_now().await,
            }
        };
        turns(20).await;
        sender.write_all(b"by name").await.unwrap();
        sender.close().await.unwrap();
        assert_eq!(read.await.unwrap(), b"by name");
    });
}

fn what_is_no_pipe_is_refused(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("file");
        std::fs::write(&path, b"text").unwrap();
        let file = || OwnedFd::from(std::fs::File::open(&path).unwrap());
        assert!(ipc::pipe::Receiver::from_owned_fd(file()).unwrap_err().is_config());
        assert!(ipc::pipe::Sender::from_owned_fd(file()).unwrap_err().is_config());
        let error = ipc::pipe::Sender::open(&path).unwrap_err();
        let text = format!("{} is no fifo; make one with mkfifo(3)", path.display());
        assert_eq!(error.to_string(), text);
        let missing = ipc::pipe::Receiver::open(scratch.file("none")).await;
        assert!(missing.unwrap_err().is_not_found());
        // A socket does as well.
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut receiver = ipc::pipe::Receiver::from_owned_fd(ours.into()).unwrap();
        theirs.write_all(b"socket").unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), b"socket");
        drop(receiver);
        turns(10).await;
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).unwrap();
    });
}

fn too_much_is_refused(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        sender.write_all(b"four").await.unwrap();
        let error = receiver.recv_all(3).await.unwrap_err();
        assert!(error.is_limit());
        assert_eq!(error.to_string(), "more than 3 bytes came");
        sender.write_all(b"four").await.unwrap();
        sender.close().await.unwrap();
        assert_eq!(receiver.recv_all(4).await.unwrap(), b"four");
    });
}

fn closed_numbers_are_of_use_again(engine: Engine) {
    run(engine, async {
        for round in 0..50 {
            let (mut sender, mut receiver) = ipc::pipe().unwrap();
            let read = task::spawn(async move {
                let bytes = receiver.recv().await.unwrap();
                (bytes, receiver)
            });
            turns(3).await;
            sender.write_all(vec![round; 10]).await.unwrap();
            let (bytes, receiver) = read.await.unwrap();
            assert_eq!(bytes.unwrap(), [round; 10]);
            // One end by the driver, the other behind its back.
            drop(receiver.into_owned_fd().unwrap());
            sender.close().await.unwrap();
        }
    });
}

fn pipes_are_read_and_written_by_trait(engine: Engine) {
    run(engine, async {
        let (mut sender, mut receiver) = ipc::pipe().unwrap();
        let sent = pattern(4, 300_000);
        let copy = sent.clone();
        let write = task::spawn(async move {
            AsyncWriteExt::write_all(&mut sender, b"one\ntwo\nhead").await.unwrap();
            AsyncWriteExt::write_all(&mut sender, &copy).await.unwrap();
            AsyncWriteExt::close(&mut sender).await.unwrap();
            assert!(sender.write_all(b"x").await.is_err(), "it is closed");
        });
        let mut line = String::new();
        receiver.read_line(&mut line).await.unwrap();
        assert_eq!(line, "one\n");
        let mut bytes = [0; 6];
        receiver.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"two\nhe");
        // What the traits have left comes out of the end's own methods.
        let buffer = receiver.recv_into(b"the ".to_vec()).await.unwrap();
        assert!(buffer.starts_with(b"the ad"));
        let mut received = buffer[6..].to_vec();
        receiver.read_to_end(&mut received).await.unwrap();
        assert!(received == sent, "{} bytes came", received.len());
        write.await.unwrap();
        let (mut sender, receiver) = ipc::pipe().unwrap();
        drop(receiver);
        turns(10).await;
        let failed = async {
            AsyncWriteExt::write_all(&mut sender, b"x").await?;
            AsyncWriteExt::flush(&mut sender).await
        };
        assert_eq!(failed.await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        assert!(sender.write_all(b"x").await.unwrap_err().is_disconnected());
    });
}

fn a_device_without_readiness_is_read_and_written(engine: Engine) {
    run(engine, async {
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let mut zero = ipc::pipe::Receiver::from_owned_fd(zero.into()).unwrap();
        for _ in 0..3 {
            assert!(zero.recv().await.unwrap().unwrap().iter().all(|byte| *byte == 0));
        }
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        let mut end = ipc::pipe::Receiver::from_owned_fd(null.try_clone().unwrap().into()).unwrap();
        assert_eq!(end.recv().await.unwrap(), None);
        let mut null = ipc::pipe::Sender::from_owned_fd(null.into()).unwrap();
        null.write_all(b"gone").await.unwrap();
        null.close().await.unwrap();
    });
}

/// Whether the open file is non-blocking, for everyone (proc_pid_fdinfo(5)).
fn is_nonblocking(descriptor: &impl AsRawFd) -> bool {
    let info = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK != 0
}

fn what_others_share_blocks_again_in_the_end(engine: Engine) {
    run(engine, async {
        let (mut reader, theirs) = std::io::pipe().unwrap();
        let take = || ipc::pipe::Sender::from_owned_fd(theirs.try_clone().unwrap().into());
        let (mut one, mut other) = (take().unwrap(), take().unwrap());
        one.write_all(b"one").await.unwrap();
        let meanwhile = is_nonblocking(&theirs);
        drop(one);
        turns(5).await;
        assert_eq!(is_nonblocking(&theirs), meanwhile, "the other is still used");
        other.write_all(b"two").await.unwrap();
        other.close().await.unwrap();
        assert!(!is_nonblocking(&theirs), "as it was");
        let mut bytes = [0; 6];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"onetwo");
        // What was non-blocking before stays so.
        let mut first = take().unwrap();
        first.write_all(b"x").await.unwrap();
        let fd = theirs.as_raw_fd();
        drop(first);
        turns(5).await;
        // SAFETY: it takes no pointers.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        let mut second = take().unwrap();
        second.write_all(b"x").await.unwrap();
        drop(second);
        turns(5).await;
        assert!(is_nonblocking(&theirs));
    });
}
