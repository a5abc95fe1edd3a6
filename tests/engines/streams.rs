//! Bytes through TCP streams: in order, complete, in whatever pieces and at whatever pace.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::{Direction, Engine, Payload, task, time};

use crate::harness::{
    Server, builder, echo, pair, pattern, receive_all, receive_exactly, reset, run,
};

on_every_engine!(
    after_the_peer_has_finished_the_answer_still_goes_out,
    after_this_end_has_finished_the_answer_still_comes_in,
    both_ends_may_finish_in_any_order,
    the_end_of_a_stream_stays_its_end,
    a_reset_by_the_peer_is_an_error_and_not_an_end,
    a_shutdown_after_a_reset_is_an_error,
    a_slow_reader_gets_every_byte,
    a_slow_writer_is_heard_and_keeps_nobody_waiting,
    single_bytes_arrive_one_by_one,
    single_bytes_in_a_rush_arrive_in_order,
    sixty_four_mebibytes_pass_through_one_connection,
    a_payload_comes_back_with_its_memory,
    sends_one_after_another_keep_their_order,
    a_vectored_send_is_continued_over_partial_writes,
    a_vectored_send_has_a_limit_and_may_be_empty,
    a_stream_sends_and_receives_at_once,
    a_receive_into_a_buffer_appends_until_the_end,
    a_receive_into_a_buffer_does_not_mix_with_the_other,
    bytes_that_came_before_the_first_receive_are_there,
);

fn after_the_peer_has_finished_the_answer_still_goes_out(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"question").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&stream).await, b"question");
        stream.send(b"answer").await.unwrap();
        drop(stream);
        let reader = thread::spawn(move || {
            let mut answer = Vec::new();
            peer.read_to_end(&mut answer).unwrap();
            answer
        });
        while !reader.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reader.join().unwrap(), b"answer");
    });
}

fn after_this_end_has_finished_the_answer_still_comes_in(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        stream.send(b"question").await.unwrap();
        stream.shutdown(Direction::Write).await.unwrap();
        let peer = thread::spawn(move || {
            let mut question = Vec::new();
            peer.read_to_end(&mut question).unwrap();
            peer.write_all(b"answer").unwrap();
            question
        });
        assert_eq!(receive_all(&stream).await, b"answer");
        assert_eq!(peer.join().unwrap(), b"question");
        let error = stream.send(b"more").await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
    });
}

fn both_ends_may_finish_in_any_order(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        stream.shutdown(Direction::Write).await.unwrap();
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        drop(peer);
        assert!(stream.recv().await.unwrap().is_none());
        let (stream, peer) = pair().await;
        drop(peer);
        assert!(stream.recv().await.unwrap().is_none());
        stream.shutdown(Direction::Write).await.unwrap();
    });
}

fn the_end_of_a_stream_stays_its_end(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"x").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_all(&stream).await, b"x");
        for _ in 0..3 {
            assert!(stream.recv().await.unwrap().is_none());
        }
        // Readiness of the other direction must not bring a second end either.
        let reader = thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
        for _ in 0..20 {
            stream.send(vec![7; 300_000]).await.unwrap();
        }
        assert!(stream.recv().await.unwrap().is_none());
        drop(stream);
        while !reader.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reader.join().unwrap().unwrap(), 6_000_000);
    });
}

fn a_reset_by_the_peer_is_an_error_and_not_an_end(engine: Engine) {
    run(engine, async {
        let (stream, peer) = pair().await;
        reset(peer);
        let error = stream.recv().await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert_eq!(error.to_string(), "receiving: Connection reset by peer (os error 104)");
        assert!(stream.recv().await.unwrap().is_none(), "nothing comes after the error");
        let error = stream.send(b"too late").await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert_eq!(error.to_string(), "sending: Broken pipe (os error 32)");
    });
}

fn a_shutdown_after_a_reset_is_an_error(engine: Engine) {
    run(engine, async {
        let (stream, peer) = pair().await;
        reset(peer);
        assert!(stream.recv().await.is_err());
        let error = stream.shutdown(Direction::Write).await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert!(error.to_string().starts_with("shutting down a socket: "), "{error}");
    });
}

fn a_slow_reader_gets_every_byte(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let sent = pattern(0, 6_000_000);
        let expected = sent.clone();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            let mut piece = vec![0; 100_000];
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => return received,
                    count => received.extend_from_slice(&piece[..count]),
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        stream.send(sent).await.unwrap();
        drop(stream);
        while !reader.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert!(reader.join().unwrap() == expected, "the bytes differ");
    });
}

fn a_slow_writer_is_heard_and_keeps_nobody_waiting(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let writer = thread::spawn(move || {
            for piece in pattern(0, 1000).chunks(10) {
                peer.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let others = Rc::new(std::cell::Cell::new(0));
        let count = Rc::clone(&others);
        let other = task::spawn(async move {
            loop {
                time::sleep(Duration::from_millis(1)).await;
                count.set(count.get() + 1);
            }
        });
        assert_eq!(receive_all(&stream).await, pattern(0, 1000));
        writer.join().unwrap();
        assert!(others.get() > 0, "the other task stood still");
        assert!(other.abort());
    });
}

fn single_bytes_arrive_one_by_one(engine: Engine) {
    let server = Server::start(builder(engine), echo);
    let mut peer = server.connect();
    for byte in pattern(0, 500) {
        peer.write_all(&[byte]).unwrap();
        let mut answer = [0];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte]);
    }
}

fn single_bytes_in_a_rush_arrive_in_order(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let writer = thread::spawn(move || {
            for byte in pattern(0, 5000) {
                peer.write_all(&[byte]).unwrap();
            }
        });
        assert_eq!(receive_all(&stream).await, pattern(0, 5000));
        writer.join().unwrap();
    });
}

fn sixty_four_mebibytes_pass_through_one_connection(engine: Engine) {
    const TOTAL: usize = 64 << 20;
    // No power of two: a swapped buffer shows.
    let block = Arc::new(pattern(0, 1_000_003));
    let server = Server::start(builder(engine), echo);
    let mut peer = server.connect();
    let mut writer = peer.try_clone().unwrap();
    let source = Arc::clone(&block);
    let writing = thread::spawn(move || {
        let mut left = TOTAL;
        while left > 0 {
            let step = left.min(source.len());
            writer.write_all(&source[..step]).unwrap();
            left -= step;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut piece = vec![0; block.len()];
    let mut left = TOTAL;
    while left > 0 {
        let step = left.min(block.len());
        peer.read_exact(&mut piece[..step]).unwrap();
        assert!(piece[..step] == block[..step], "the bytes differ at {}", TOTAL - left);
        left -= step;
    }
    assert_eq!(peer.read(&mut piece).unwrap(), 0, "nothing comes after the end");
    writing.join().unwrap();
}

fn a_payload_comes_back_with_its_memory(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let mut bytes = Vec::with_capacity(5000);
        bytes.extend_from_slice(b"hello");
        let address = bytes.as_ptr();
        let payload = stream.send(bytes).await.unwrap();
        assert_eq!(&payload[..], b"hello");
        let bytes = payload.into_vec();
        assert_eq!((bytes.as_ptr(), bytes.len(), bytes.capacity()), (address, 0, 5000));
        let mut received = [0; 5];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
        assert!(stream.send(Vec::new()).await.unwrap().is_empty());
    });
}

fn sends_one_after_another_keep_their_order(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).unwrap();
            received
        });
        let mut start = 0;
        for round in 0..300 {
            let length = round * 37 % 9000 + 1;
            stream.send(pattern(start, length)).await.unwrap();
            start += length;
        }
        stream.shutdown(Direction::Write).await.unwrap();
        assert!(stream.recv().await.unwrap().is_none());
        assert!(reader.join().unwrap() == pattern(0, start), "the bytes differ");
    });
}

fn a_vectored_send_is_continued_over_partial_writes(engine: Engine) {
    static FILL: [u8; 60_000] = [0x5a; 60_000];
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let mut payloads: Vec<Payload> = Vec::new();
        let mut expected = Vec::new();
        let mut start = 0;
        for index in 0..200 {
            let length = index * 791 % 60_000;
            let bytes = pattern(start, length);
            start += length;
            expected.extend_from_slice(if index % 3 == 2 { &FILL[..length] } else { &bytes });
            payloads.push(match index % 3 {
                0 => bytes.into(),
                1 => Arc::<[u8]>::from(bytes).into(),
                _ => Payload::Static(&FILL[..length]),
            });
        }
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            let mut piece = vec![0; 50_000];
            loop {
                match peer.read(&mut piece).unwrap() {
                    0 => return received,
                    count => received.extend_from_slice(&piece[..count]),
                }
                thread::sleep(Duration::from_micros(100));
            }
        });
        let back = stream.send_vectored(payloads).await.unwrap();
        assert_eq!(back.len(), 200);
        assert_eq!(back.iter().map(|payload| payload.len()).sum::<usize>(), start);
        stream.shutdown(Direction::Write).await.unwrap();
        assert!(stream.recv().await.unwrap().is_none());
        assert!(reader.join().unwrap() == expected, "the bytes differ");
    });
}

fn a_vectored_send_has_a_limit_and_may_be_empty(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let many = || (0..1025).map(|_| Payload::Static(b"x")).collect::<Vec<_>>();
        let error = stream.send_vectored(many()).await.unwrap_err();
        assert!(error.is_limit());
        assert_eq!(error.to_string(), "1025 payloads in one send: at most 1024");
        let mut most = many();
        most.pop();
        stream.send_vectored(most).await.unwrap();
        let mut received = [0; 1024];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(received, [b'x'; 1024]);
        assert_eq!(stream.send_vectored(Vec::new()).await.unwrap().len(), 0);
        let empty = vec![Payload::Static(b""), Payload::Vec(Vec::new())];
        assert_eq!(stream.send_vectored(empty).await.unwrap().len(), 2);
    });
}

fn a_stream_sends_and_receives_at_once(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let mut writer = peer.try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&pattern(0, 3_000_000)).unwrap());
        let reading = thread::spawn(move || {
            let mut received = vec![0; 3_000_000];
            peer.read_exact(&mut received).unwrap();
            received == pattern(5, 3_000_000)
        });
        let stream = Rc::new(stream);
        let sender = Rc::clone(&stream);
        let sending =
            task::spawn(async move { sender.send(pattern(5, 3_000_000)).await.map(drop) });
        let received = receive_exactly(&stream, 3_000_000).await;
        assert!(received == pattern(0, 3_000_000), "the bytes differ");
        sending.await.unwrap().unwrap();
        writing.join().unwrap();
        assert!(reading.join().unwrap(), "the bytes differ at the peer");
    });
}

fn a_receive_into_a_buffer_appends_until_the_end(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let writer = thread::spawn(move || {
            for piece in pattern(0, 100_000).chunks(777) {
                peer.write_all(piece).unwrap();
            }
        });
        let mut received = Vec::with_capacity(200_000);
        loop {
            let before = received.len();
            received = stream.recv_into(received).await.unwrap().into_vec();
            if received.len() == before {
                break;
            }
        }
        assert!(received == pattern(0, 100_000), "the bytes differ");
        writer.join().unwrap();
        assert!(stream.recv_into(Vec::with_capacity(10)).await.unwrap().is_empty());
    });
}

fn a_receive_into_a_buffer_does_not_mix_with_the_other(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"x").unwrap();
        assert!(stream.recv().await.unwrap().is_some());
        let error = stream.recv_into(Vec::with_capacity(10)).await.unwrap_err();
        assert!(error.is_config(), "{error}");
        let (stream, peer) = pair().await;
        reset(peer);
        let error = stream.recv_into(Vec::with_capacity(10)).await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
    });
}

fn bytes_that_came_before_the_first_receive_are_there(engine: Engine) {
    run(engine, async {
        let (stream, mut peer) = pair().await;
        let seen = AtomicUsize::new(0);
        peer.write_all(b"early").unwrap();
        drop(peer);
        time::sleep(Duration::from_millis(5)).await;
        while let Some(chunk) = stream.recv().await.unwrap() {
            seen.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        assert_eq!(seen.into_inner(), 5);
    });
}
