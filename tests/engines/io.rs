//! Streams under the traits of futures-io: readers, writers, lines, copies, halves.
//!
//! K1 → a_line_protocol_over_a_stream; K4 → a_writer_waits_for_its_reader,
//! a_half_close_ends_one_direction_alone, dropping_the_writing_half_ends_its_direction,
//! what_a_dropped_half_has_written_arrives, copies_pass_the_end_on;
//! K5 → one_slow_connection_does_not_hold_up_a_hundred

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use annulus::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufWriter, Lines};
use annulus::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use annulus::{Direction, Engine, Error, task, time};

use crate::harness::{
    Scratch, connect, eventually_here, pair, patient, pattern, receive_all, run, turns,
};

on_every_engine!(
    a_line_protocol_over_a_stream,
    reads_of_any_size_give_the_same_bytes,
    a_read_given_up_loses_nothing,
    chunks_and_reads_may_be_mixed,
    a_writer_waits_for_its_reader,
    writes_and_sends_keep_their_order,
    a_write_to_a_peer_that_is_gone_fails_from_then_on,
    a_half_close_ends_one_direction_alone,
    halves_live_in_two_tasks_and_join_again,
    dropping_the_writing_half_ends_its_direction,
    halves_of_two_streams_do_not_join,
    a_line_that_is_too_long_is_an_error,
    read_to_end_and_read_exact_say_what_is_wrong,
    copies_pass_the_end_on,
    a_relay_sends_chunks_on,
    a_unix_stream_reads_and_writes_alike,
    one_slow_connection_does_not_hold_up_a_hundred,
    std_sockets_come_and_go,
    a_socket_that_was_used_does_not_leave,
    what_a_dropped_half_has_written_arrives,
    a_line_may_be_of_any_length,
);

async fn stream_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap())
}

fn a_line_protocol_over_a_stream(engine: Engine) {
    run(engine, async {
        let (client, server) = stream_pair().await;
        let serving = task::spawn(async move {
            let (reader, mut writer) = server.split();
            let mut lines = Lines::new(reader, 100);
            while let Some(line) = lines.next_line().await.unwrap() {
                let answer = format!("{}\r\n", line.to_uppercase());
                writer.write_all(answer.as_bytes()).await.unwrap();
                writer.flush().await.unwrap();
            }
            writer.close().await.unwrap();
        });
        let mut client = client;
        client.write_all(b"one\ntwo\r\n\n").await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut line = String::new();
            client.read_line(&mut line).await.unwrap();
            answers.push(line);
        }
        assert_eq!(answers, ["ONE\r\n", "TWO\r\n", "\r\n"]);
        client.write_all(b"without an end").await.unwrap();
        client.close().await.unwrap();
        let mut rest = String::new();
        io::read_to_string(&mut client, &mut rest, 1000).await.unwrap();
        assert_eq!(rest, "WITHOUT AN END\r\n");
        serving.await.unwrap();
    });
}

fn reads_of_any_size_give_the_same_bytes(engine: Engine) {
    run(engine, async {
        let (mut stream, mut peer) = pair().await;
        let sending = thread::spawn(move || {
            for part in 0..200 {
                peer.write_all(&pattern(part * 1000, 1000)).unwrap();
            }
        });
        let mut received = Vec::new();
        let mut sizes = [1, 7, 100, 4096, 1, 70_000].iter().cycle();
        loop {
            let mut buffer = vec![0; *sizes.next().unwrap()];
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..count]);
        }
        assert!(received == pattern(0, 200_000), "the bytes differ");
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0, "the end stays the end");
        sending.join().unwrap();
    });
}

fn a_read_given_up_loses_nothing(engine: Engine) {
    run(engine, async {
        let (mut stream, mut peer) = pair().await;
        let sending = thread::spawn(move || {
            for part in 0..100 {
                peer.write_all(&pattern(part * 100, 100)).unwrap();
                thread::sleep(Duration::from_micros(50));
            }
        });
        let mut received = Vec::new();
        let mut buffer = [0; 33];
        loop {
            match time::timeout(Duration::from_micros(80), stream.read(&mut buffer)).await {
                Ok(Ok(0)) => break,
                Ok(count) => received.extend_from_slice(&buffer[..count.unwrap()]),
                Err(_) => {}
            }
        }
        assert!(received == pattern(0, 10_000), "the bytes differ");
        sending.join().unwrap();
    });
}

fn chunks_and_reads_may_be_mixed(engine: Engine) {
    run(engine, async {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"abcdefgh").unwrap();
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"ab");
        assert_eq!(&stream.recv().await.unwrap().unwrap()[..], b"cdefgh");
        peer.write_all(b"ijkl").unwrap();
        (&stream).read_exact(&mut two).await.unwrap();
        let (mut reader, writer) = stream.split();
        reader.read_exact(&mut two[..1]).await.unwrap();
        assert_eq!(&two, b"kj");
        let stream = reader.reunite(writer).unwrap();
        assert_eq!(&stream.recv().await.unwrap().unwrap()[..], b"l");
    });
}

/// High and low water: what a writer has under way is bounded, and it goes on when there is room.
fn a_writer_waits_for_its_reader(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        socket2::SockRef::from(&stream).set_send_buffer_size(20_000).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(20_000).unwrap();
        let written = Rc::new(Cell::new(0));
        let counted = Rc::clone(&written);
        let mut writing = task::spawn(async move {
            let mut stream = stream;
            while counted.get() < 20_000_000 {
                let bytes = pattern(counted.get(), 50_000);
                counted.set(counted.get() + stream.write(&bytes).await.unwrap());
            }
            stream.close().await.unwrap();
        });
        // It stops: nobody reads.
        let mut before = usize::MAX;
        while before != written.get() {
            before = written.get();
            time::sleep(Duration::from_millis(30)).await;
        }
        assert!(before < 10_000_000, "{before} bytes were taken while nobody read");
        assert!(
            !poll_fn(|context| Poll::Ready(Pin::new(&mut writing).poll(context).is_ready())).await
        );
        let reading = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).unwrap();
            received
        });
        writing.await.unwrap();
        eventually_here("the reader has ended", || reading.is_finished()).await;
        assert!(reading.join().unwrap() == pattern(0, written.get()), "the bytes differ");
    });
}

fn writes_and_sends_keep_their_order(engine: Engine) {
    run(engine, async {
        let (mut stream, peer) = pair().await;
        let reading = thread::spawn(move || {
            let mut peer = peer;
            let mut received = Vec::new();
            peer.read_to_end(&mut received).unwrap();
            received
        });
        let mut sent = 0;
        for part in 0..60 {
            let length = (part * 7_919) % 200_000;
            let bytes = pattern(sent, length);
            match part % 3 {
                0 => stream.write_all(&bytes).await.unwrap(),
                1 => drop(stream.send(bytes).await.unwrap()),
                _ => drop(stream.send_vectored(vec![bytes.into()]).await.unwrap()),
            }
            sent += length;
        }
        stream.write_all(&pattern(sent, 150_000)).await.unwrap();
        stream.shutdown(Direction::Write).await.unwrap();
        eventually_here("the reader has ended", || reading.is_finished()).await;
        assert!(reading.join().unwrap() == pattern(0, sent + 150_000), "the bytes differ");
    });
}

fn a_write_to_a_peer_that_is_gone_fails_from_then_on(engine: Engine) {
    run(engine, async {
        let (mut stream, peer) = pair().await;
        crate::harness::reset(peer);
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 1000]).await {
                break error;
            }
            turns(1).await;
        };
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(stream.write(b"x").await.is_err());
        assert!(stream.flush().await.is_err());
        assert!(Error::from(stream.close().await.unwrap_err()).is_disconnected());
        assert!(stream.send(b"x").await.unwrap_err().is_disconnected());
    });
}

fn a_half_close_ends_one_direction_alone(engine: Engine) {
    run(engine, async {
        let (mut stream, mut peer) = pair().await;
        stream.write_all(&pattern(0, 300_000)).await.unwrap();
        let reading = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).unwrap();
            // The other direction is open: it answers after the end.
            peer.write_all(b"still here").unwrap();
            received
        });
        stream.close().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "still here");
        assert!(reading.join().unwrap() == pattern(0, 300_000));
        let error = stream.write_all(b"more").await.and(stream.flush().await).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

fn halves_live_in_two_tasks_and_join_again(engine: Engine) {
    run(engine, async {
        let (one, other) = stream_pair().await;
        let echo = task::spawn(async move {
            let (mut reader, mut writer) = other.split();
            io::copy(&mut reader, &mut writer).await.unwrap()
        });
        let (mut reader, mut writer) = one.split();
        let writing = task::spawn(async move {
            writer.write_all(&pattern(0, 1_000_000)).await.unwrap();
            writer.flush().await.unwrap();
            writer
        });
        let mut received = vec![0; 1_000_000];
        io::read_exact(&mut reader, &mut received).await.unwrap();
        assert!(received == pattern(0, 1_000_000), "the bytes differ");
        let mut stream = reader.reunite(writing.await.unwrap()).unwrap();
        stream.write_all(b"joined").await.unwrap();
        stream.close().await.unwrap();
        assert_eq!(receive_all(&stream).await, b"joined");
        assert_eq!(echo.await.unwrap(), 1_000_006);
    });
}

fn dropping_the_writing_half_ends_its_direction(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let (mut reader, mut writer) = stream.split();
        writer.send(b"last").await.unwrap();
        drop(writer);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"last");
        peer.write_all(b"and back").unwrap();
        assert_eq!(&reader.recv().await.unwrap().unwrap()[..], b"and back");
        // And the reading half alone leaves the writing one open.
        let (stream, mut peer) = pair().await;
        let (reader, mut writer) = stream.split();
        drop(reader);
        writer.send(b"alone").await.unwrap();
        writer.shutdown().await.unwrap();
        received.clear();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"alone");
    });
}

fn halves_of_two_streams_do_not_join(engine: Engine) {
    run(engine, async {
        let (one, other) = stream_pair().await;
        let ((read_one, write_one), (read_other, write_other)) = (one.split(), other.split());
        let error = read_one.reunite(write_other).unwrap_err();
        assert_eq!(error.to_string(), "the halves are of two streams");
        let (read_one, write_other) = (error.0, error.1);
        read_one.reunite(write_one).unwrap();
        read_other.reunite(write_other).unwrap();
    });
}

fn a_line_that_is_too_long_is_an_error(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"12345678\n12345678\r\n123456789\n1\n").unwrap();
        let mut lines = Lines::new(stream, 8);
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "12345678");
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "12345678");
        for _ in 0..2 {
            let error = Error::from(lines.next_line().await.unwrap_err());
            assert!(error.is_limit());
            assert_eq!(error.to_string(), "a line of more than 8 bytes");
        }
        let (mut stream, mut peer) = pair().await;
        peer.write_all(b"key=value;12345678901").unwrap();
        let mut bytes = Vec::new();
        assert_eq!(io::read_until(&mut stream, b';', &mut bytes, 10).await.unwrap(), 10);
        assert_eq!(bytes, b"key=value;");
        let error = io::read_until(&mut stream, b';', &mut bytes, 10).await.unwrap_err();
        assert!(Error::from(error).is_limit());
        assert_eq!(bytes, b"key=value;1234567890");
    });
}

fn read_to_end_and_read_exact_say_what_is_wrong(engine: Engine) {
    run(engine, async {
        let (mut stream, mut peer) = pair().await;
        peer.write_all(&[255; 100]).unwrap();
        drop(peer);
        let mut bytes = Vec::new();
        let error = Error::from(io::read_to_end(&mut stream, &mut bytes, 99).await.unwrap_err());
        assert!(error.is_limit() && bytes.len() == 99, "{error}");
        assert_eq!(io::read_to_end(&mut stream, &mut bytes, 1).await.unwrap(), 1);
        let error = Error::from(io::read_exact(&mut stream, &mut [0; 5]).await.unwrap_err());
        assert!(error.is_unexpected_end());
        assert_eq!(error.to_string(), "the end after 0 of 5 bytes");
        let (mut stream, mut peer) = pair().await;
        peer.write_all(&[255; 100]).unwrap();
        drop(peer);
        let mut text = String::from("kept");
        let error = io::read_to_string(&mut stream, &mut text, 1000).await.unwrap_err();
        assert_eq!((error.kind(), &text[..]), (ErrorKind::InvalidData, "kept"));
    });
}

fn copies_pass_the_end_on(engine: Engine) {
    run(engine, async {
        let (mut inner, mut server) = pair().await;
        let (mut outer, mut client) = pair().await;
        let between =
            task::spawn(async move { io::copy_bidirectional(&mut outer, &mut inner).await });
        let serving = thread::spawn(move || {
            let mut question = Vec::new();
            server.read_to_end(&mut question).unwrap();
            server.write_all(&pattern(7, 400_000)).unwrap();
            question
        });
        let asking = thread::spawn(move || {
            client.write_all(&pattern(3, 300_000)).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        assert_eq!(between.await.unwrap().unwrap(), (300_000, 400_000));
        assert!(serving.join().unwrap() == pattern(3, 300_000), "the question differs");
        assert!(asking.join().unwrap() == pattern(7, 400_000), "the answer differs");
    });
}

fn a_relay_sends_chunks_on(engine: Engine) {
    run(engine, async {
        let (inner, mut server) = pair().await;
        let (outer, mut client) = pair().await;
        let between = task::spawn(async move { io::relay(&outer, &inner).await });
        let serving = thread::spawn(move || {
            let mut question = Vec::new();
            server.read_to_end(&mut question).unwrap();
            server.write_all(&question).unwrap();
        });
        let asking = thread::spawn(move || {
            client.write_all(&pattern(3, 300_000)).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        assert_eq!(between.await.unwrap().unwrap(), (300_000, 300_000));
        serving.join().unwrap();
        assert!(asking.join().unwrap() == pattern(3, 300_000), "the answer differs");
    });
}

fn a_unix_stream_reads_and_writes_alike(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixStream::pair().unwrap();
        let writing = task::spawn(async move {
            let mut writer = BufWriter::new(one);
            for number in 0..1000 {
                writer.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
            }
            writer.close().await.unwrap();
        });
        let mut lines = Lines::new(other, 20);
        for number in 0..1000 {
            assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("line {number}"));
        }
        assert_eq!(lines.next_line().await.unwrap(), None);
        writing.await.unwrap();
    });
}

/// One connection whose handler waits for ever, one whose peer never reads, and a hundred others:
/// they are all answered while the slow ones have not moved.
fn one_slow_connection_does_not_hold_up_a_hundred(engine: Engine) {
    run(engine, async {
        let (slow, slow_peer) = pair().await;
        let slow_is_done = Rc::new(Cell::new(false));
        let done = Rc::clone(&slow_is_done);
        let filling = task::spawn(async move {
            let mut slow = slow;
            slow.write_all(&vec![0; 50_000_000]).await.unwrap();
            slow.flush().await.unwrap();
            done.set(true);
        });
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 0..100_usize {
            let (mut client, server) = stream_pair().await;
            task::spawn(async move {
                let (mut reader, mut writer) = server.split();
                let _ = io::copy(&mut reader, &mut writer).await;
            })
            .detach();
            let order = Rc::clone(&order);
            tasks.push(task::spawn(async move {
                let question = pattern(number, 2_000);
                let mut answer = vec![0; 2_000];
                client.write_all(&question).await.unwrap();
                io::read_exact(&mut client, &mut answer).await.unwrap();
                assert!(answer == question);
                order.borrow_mut().push(number);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.borrow().len(), 100);
        assert!(!slow_is_done.get(), "the slow one has not been read from");
        let mut slow_peer = patient(slow_peer);
        let reading = thread::spawn(move || slow_peer.read_exact(&mut vec![0; 50_000_000]));
        filling.await.unwrap();
        reading.join().unwrap().unwrap();
    });
}

fn std_sockets_come_and_go(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        for nonblocking in [true, false] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let address = listener.local_addr().unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let accepting = task::spawn(async move { listener.accept().await });
            time::sleep(Duration::from_millis(3)).await;
            let client = connect(address);
            client.set_nonblocking(nonblocking).unwrap();
            let server = accepting.await.unwrap().unwrap();
            let client = TcpStream::from_std(client).unwrap();
            let receiving = task::spawn(async move { receive_all(&client).await });
            time::sleep(Duration::from_millis(3)).await;
            server.send(b"by the runtime").await.unwrap();
            // Used for sending, it still may leave; its number serves the next at once.
            let mut server = server.into_std().unwrap();
            server.write_all(b", by std").unwrap();
            drop(server);
            assert_eq!(receiving.await.unwrap(), b"by the runtime, by std");
            let (one, other) = stream_pair().await;
            one.send(b"next").await.unwrap();
            assert_eq!(&other.recv().await.unwrap().unwrap()[..], b"next");
        }
        let path = scratch.file("socket");
        let listener = UnixListener::bind(&path).unwrap().into_std().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let server = listener.accept().await.unwrap().into_std().unwrap();
        let server = UnixStream::from_std(server).unwrap();
        client.write_all(b"unix").unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"unix");
    });
}

fn a_socket_that_was_used_does_not_leave(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"x").unwrap();
        stream.recv().await.unwrap();
        assert!(stream.into_std().unwrap_err().is_config());
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _ = time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(listener.into_std().unwrap_err().is_config());
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listener.into_std().unwrap().local_addr().unwrap(), address);
    });
}

fn what_a_dropped_half_has_written_arrives(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, mut writer) = one.split();
        writer.write_all(b"hello").await.unwrap();
        drop(writer);
        assert_eq!(&other.recv().await.unwrap().expect("bytes before the end")[..], b"hello");
        assert!(other.recv().await.unwrap().is_none());
        drop(reader);
    });
}

fn a_line_may_be_of_any_length(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send(b"first\r").await.unwrap();
        let rest = task::spawn(async move {
            turns(20).await;
            one.send(b"\nlast").await.unwrap();
        });
        let mut lines = Lines::new(other, usize::MAX);
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("first"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("last"));
        rest.await.unwrap();
    });
}
