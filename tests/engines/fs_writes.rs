//! Writes: durable, appended, vectored; and the space of files.

use std::fs as std_fs;
use std::os::unix::fs::MetadataExt;

use annulus::buffer::{AlignedBuffer, Payload, ReadBuffer};
use annulus::fs::{Advice, File, OpenOptions, Space};
use annulus::{Engine, Errno, limits, task};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    a_durable_write_is_there_when_it_returns,
    appends_go_to_the_end,
    a_file_opened_to_append_ignores_offsets,
    vectored_writes_and_reads_keep_their_order,
    vectored_calls_are_bounded,
    space_is_reserved_and_given_back,
    a_file_is_cut_and_extended,
    advice_is_taken,
    offsets_that_no_file_has_are_refused,
);

async fn new(scratch: &Scratch) -> File {
    let options = OpenOptions::new().read(true).write(true).create_new(true);
    options.open(scratch.file("data")).await.unwrap()
}

fn bytes(scratch: &Scratch) -> Vec<u8> {
    std_fs::read(scratch.file("data")).unwrap()
}

fn a_durable_write_is_there_when_it_returns(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        let payload = file.write_durable_at(pattern(0, 70_000), 10).await.unwrap();
        assert_eq!(payload.len(), 70_000);
        assert_eq!(bytes(&scratch)[10..], pattern(0, 70_000));
        let options = OpenOptions::new().write(true).direct(true);
        if let Ok(direct) = options.open(scratch.file("data")).await {
            let mut block = AlignedBuffer::new(4096, 4096);
            block.as_mut_slice().fill(7);
            block.set_len(4096);
            direct.write_durable_at(block, 8192).await.unwrap();
            assert_eq!(bytes(&scratch)[8192..8192 + 4096], [7; 4096]);
        }
        assert!(file.write_durable_at(b"", 0).await.is_ok());
        let reader = File::open(scratch.file("data")).await.unwrap();
        let error = reader.write_durable_at(b"x", 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EBADF)));
    });
}

fn appends_go_to_the_end(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        file.append(b"one ").await.unwrap();
        std_fs::OpenOptions::new().append(true).open(scratch.file("data")).unwrap();
        file.set_len(6).await.unwrap();
        file.append(b"two").await.unwrap();
        assert_eq!(bytes(&scratch), b"one \0\0two");
        // Several at once: none overwrites another.
        let file = std::rc::Rc::new(file);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let file = std::rc::Rc::clone(&file);
                task::spawn(async move { file.append(vec![9; 100]).await.map(drop) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(bytes(&scratch)[9..], [9; 2000]);
    });
}

fn a_file_opened_to_append_ignores_offsets(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let options = OpenOptions::new().append(true).create(true);
        let file = options.open(scratch.file("data")).await.unwrap();
        file.write_at(b"one", 0).await.unwrap();
        file.write_at(b"two", 0).await.unwrap();
        drop(file);
        let file = options.read(true).open(scratch.file("data")).await.unwrap();
        file.write_durable_at(b"three", 0).await.unwrap();
        assert_eq!(bytes(&scratch), b"onetwothree");
        let read = file.read_at(Vec::with_capacity(3), 3).await.unwrap();
        assert_eq!(&read[..], b"two");
    });
}

fn vectored_writes_and_reads_keep_their_order(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        let payloads: Vec<Payload> =
            vec![pattern(0, 10).into(), Payload::Static(b""), pattern(10, 5000).into()];
        let back = file.write_vectored_at(payloads, 3).await.unwrap();
        let lengths: Vec<_> = back.iter().map(|payload| payload.len()).collect();
        assert_eq!(lengths, [10, 0, 5000]);
        assert_eq!(bytes(&scratch)[3..], pattern(0, 5010));
        let mut begun = Vec::with_capacity(9);
        begun.extend_from_slice(b"ab");
        let buffers: Vec<ReadBuffer> = vec![
            begun.into(),
            Vec::new().into(),
            AlignedBuffer::new(4096, 4096).into(),
            Vec::with_capacity(5000).into(),
            Vec::with_capacity(5000).into(),
        ];
        let read = file.read_vectored_at(buffers, 3).await.unwrap();
        let lengths: Vec<_> = read.iter().map(|buffer| buffer.len()).collect();
        assert_eq!(lengths, [9, 0, 4096, 5010 - 7 - 4096, 0], "the last ones as far as it goes");
        assert_eq!(&read[0][..2], b"ab");
        let all: Vec<u8> = read.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        assert_eq!(all[2..], pattern(0, 5010));
        let none = file.read_vectored_at(vec![Vec::with_capacity(9).into()], 9999).await.unwrap();
        assert!(none[0].is_empty());
        assert!(file.read_vectored_at(Vec::new(), 0).await.unwrap().is_empty());
        assert!(file.write_vectored_at(Vec::new(), 0).await.unwrap().is_empty());
    });
}

fn vectored_calls_are_bounded(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        let most = limits::FILE_VECTORS_COUNT_MAX;
        let payloads =
            |count| (0..count).map(|n| pattern(n * 3, 3).into()).collect::<Vec<Payload>>();
        file.write_vectored_at(payloads(most), 0).await.unwrap();
        assert_eq!(bytes(&scratch), pattern(0, most * 3));
        let error = file.write_vectored_at(payloads(most + 1), 0).await.unwrap_err();
        assert!(error.is_limit());
        let text = "writing a file: 1025 buffers at once, of at most 1024; use several calls";
        assert_eq!(error.to_string(), text);
        let buffers = |count| (0..count).map(|_| Vec::with_capacity(3).into()).collect::<Vec<_>>();
        let read = file.read_vectored_at(buffers(most), 0).await.unwrap();
        assert!(read.iter().all(|buffer| buffer.len() == 3));
        assert!(file.read_vectored_at(buffers(most + 1), 0).await.unwrap_err().is_limit());
    });
}

fn space_is_reserved_and_given_back(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        let status = || std_fs::metadata(scratch.file("data")).unwrap();
        if let Err(error) = file.allocate(0, 1 << 20).await {
            assert!(error.is_unsupported(), "{error}");
            return println!("skipped: {error}");
        }
        assert_eq!((status().len(), status().blocks() >= 2048), (1 << 20, true));
        file.allocate_as(Space::ReserveKeepLength, 1 << 20, 1 << 20).await.unwrap();
        assert_eq!((status().len(), status().blocks() >= 4096), (1 << 20, true));
        file.write_at(vec![1; 1 << 20], 0).await.unwrap();
        file.allocate_as(Space::PunchHole, 0, 1 << 19).await.unwrap();
        assert!(bytes(&scratch)[..1 << 19].iter().all(|byte| *byte == 0));
        assert!(bytes(&scratch)[1 << 19..].iter().all(|byte| *byte == 1));
        assert!(status().blocks() < 4096);
        file.allocate_as(Space::Zero, 1 << 19, 5).await.unwrap();
        assert_eq!(bytes(&scratch)[1 << 19..][..6], [0, 0, 0, 0, 0, 1]);
        let error = file.allocate(0, 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EINVAL)));
    });
}

fn a_file_is_cut_and_extended(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        file.write_at(b"0123456789", 0).await.unwrap();
        file.set_len(3).await.unwrap();
        assert_eq!(bytes(&scratch), b"012");
        file.set_len(5).await.unwrap();
        assert_eq!(bytes(&scratch), b"012\0\0");
        let error = file.set_len(u64::MAX).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::EINVAL)));
        let reader = File::open(scratch.file("data")).await.unwrap();
        let error = reader.set_len(0).await.unwrap_err();
        assert!([libc::EINVAL, libc::EBADF].contains(&error.errno().unwrap().0), "{error}");
    });
}

fn advice_is_taken(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        file.write_at(pattern(0, 100_000), 0).await.unwrap();
        file.sync_all().await.unwrap();
        let all = [
            Advice::Normal,
            Advice::Sequential,
            Advice::Random,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::NoReuse,
        ];
        for advice in all {
            file.advise(0, 0, advice).await.unwrap();
            file.advise(4096, 5 << 32, advice).await.unwrap();
        }
        assert_eq!(bytes(&scratch), pattern(0, 100_000));
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let pipe = File::open(pipe).await.unwrap();
        let error = pipe.advise(0, 0, Advice::Normal).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ESPIPE)));
    });
}

fn offsets_that_no_file_has_are_refused(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = new(&scratch).await;
        let expected = Some(Errno(libc::EINVAL));
        for offset in [u64::MAX, i64::MAX as u64] {
            assert_eq!(file.write_at(b"x", offset).await.unwrap_err().errno(), expected);
            assert_eq!(file.write_durable_at(b"x", offset).await.unwrap_err().errno(), expected);
            let payloads = vec![Payload::Static(b"x")];
            let error = file.write_vectored_at(payloads, offset).await.unwrap_err();
            assert_eq!(error.errno(), expected);
        }
        let error = file.read_vectored_at(Vec::new(), u64::MAX).await.unwrap_err();
        assert_eq!(error.errno(), expected);
        assert_eq!(bytes(&scratch), b"");
    });
}
