//! Files past the page cache: any offset and length, against a plain file and against a model.

use std::fs;
use std::ops::Range;

use annulus::buffer::{AlignedBuffer, PooledBuffer};
use annulus::fs::{DirectFile, OpenOptions};
use annulus::{Engine, Errno, task, time};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    any_part_of_a_file_is_read,
    an_aligned_payload_goes_as_it_is_and_comes_back,
    any_writes_leave_the_file_that_a_model_predicts,
    an_unaligned_write_leaves_its_neighbours_and_the_length,
    unaligned_writes_of_one_block_at_once_are_all_there,
    durable_writes_of_any_shape_are_there,
    a_file_without_direct_io_is_read_and_written_all_the_same,
    many_reads_are_under_way_at_once,
    reads_that_are_given_up_leave_nothing_behind,
    a_file_that_is_not_open_for_writing_says_so,
    offsets_beyond_what_files_can_have_are_errors,
    what_has_no_room_is_an_error_and_reads_go_on,
    files_for_appending_are_refused,
);

fn options() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

fn any_part_of_a_file_is_read(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let length = 3 * 4096 + 777;
        fs::write(&path, pattern(0, length)).unwrap();
        let file = DirectFile::open(&path).await.unwrap();
        for (offset, asked) in [
            (0, 1),
            (0, 4096),
            (0, 20_000),
            (1, 4095),
            (511, 2),
            (4095, 2),
            (4096, 4096),
            (5000, 7000),
            (12_288, 777),
            (12_288, 778),
            (length - 1, 1),
            (length - 1, 5000),
        ] {
            let read = file.read_at(offset as u64, asked).await.unwrap();
            let expected = pattern(offset, asked.min(length - offset));
            assert!(read[..] == expected, "{asked} bytes at {offset}");
        }
        for offset in [length, length + 1, 16_384, 1 << 40] {
            assert!(file.read_at(offset as u64, 100).await.unwrap().is_empty(), "at {offset}");
        }
        assert!(file.read_at(5, 0).await.unwrap().is_empty());
    });
}

fn an_aligned_payload_goes_as_it_is_and_comes_back(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let file = options().open_direct(&path).await.unwrap();
        let mut block = PooledBuffer::new(8192);
        block.extend_from_slice(&pattern(0, 8192));
        let address = block.as_ptr();
        let block = file.write_at(block, 4096).await.unwrap();
        assert_eq!((block.as_ptr(), block.len()), (address, 8192));
        let mut own = AlignedBuffer::new(4096, 4096);
        own.as_mut_slice().fill(9);
        own.set_len(4096);
        file.write_at(own, 0).await.unwrap();
        drop(file);
        let written = fs::read(&path).unwrap();
        assert!(written[..4096] == [9; 4096]);
        assert!(written[4096..] == pattern(0, 8192));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write { range: Range<usize>, seed: usize, durable: bool },
    Read { range: Range<usize> },
}

/// Ranges that like to begin and end near blocks.
fn ranges() -> impl Strategy<Value = Range<usize>> {
    let edge = (0..12_usize, prop_oneof![Just(0_i64), -3..4_i64, 0..512_i64])
        .prop_map(|(block, delta)| (block as i64 * 512 + delta).max(0) as usize);
    let length = prop_oneof![0..10_usize, Just(512), Just(4096), 0..9000_usize];
    (edge, length).prop_map(|(start, length)| start..start + length)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (ranges(), 0..1000_usize, any::<bool>())
        .prop_map(|(range, seed, durable)| Step::Write { range, seed, durable });
    let step = prop_oneof![3 => write, 1 => ranges().prop_map(|range| Step::Read { range })];
    prop::collection::vec(step, 1..12)
}

fn any_writes_leave_the_file_that_a_model_predicts(engine: Engine) {
    let scratch = Scratch::new();
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let path = scratch.file("data");
        let _ = fs::remove_file(&path);
        let (model, reads) = run(engine, follow(&path, &steps));
        prop_assert!(reads, "a read differs: {steps:?}");
        prop_assert!(fs::read(&path).unwrap() == model, "the file differs: {steps:?}");
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn follow(path: &std::path::Path, steps: &[Step]) -> (Vec<u8>, bool) {
    let file = options().open_direct(path).await.unwrap();
    let mut model = Vec::new();
    let mut are_right = true;
    for step in steps {
        match step.clone() {
            Step::Write { range, seed, durable } => {
                let bytes = pattern(seed, range.len());
                if !range.is_empty() && model.len() < range.end {
                    model.resize(range.end, 0);
                }
                if !range.is_empty() {
                    model[range.clone()].copy_from_slice(&bytes);
                }
                let offset = range.start as u64;
                let written = if durable {
                    file.write_durable_at(bytes, offset).await
                } else {
                    file.write_at(bytes, offset).await
                };
                assert_eq!(written.unwrap().len(), range.len());
            }
            Step::Read { range } => {
                let read = file.read_at(range.start as u64, range.len()).await.unwrap();
                let end = range.end.min(model.len());
                are_right &= read[..] == model[range.start.min(end)..end];
            }
        }
    }
    (model, are_right)
}

fn an_unaligned_write_leaves_its_neighbours_and_the_length(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 20_001)).unwrap();
        let file = options().open_direct(&path).await.unwrap();
        file.write_at(b"within", 5000).await.unwrap();
        file.write_at(b"end", 19_998).await.unwrap();
        let mut expected = pattern(0, 20_001);
        expected[5000..5006].copy_from_slice(b"within");
        expected[19_998..].copy_from_slice(b"end");
        assert!(fs::read(&path).unwrap() == expected);
        file.write_at(b"behind a hole", 30_000).await.unwrap();
        assert_eq!(file.file().metadata().await.unwrap().len(), 30_013);
        let written = fs::read(&path).unwrap();
        assert!(written[..20_001] == expected);
        assert!(written[20_001..30_000].iter().all(|byte| *byte == 0));
        assert_eq!(&written[30_000..], b"behind a hole");
    });
}

fn unaligned_writes_of_one_block_at_once_are_all_there(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let file = std::rc::Rc::new(options().open_direct(&path).await.unwrap());
        let tasks: Vec<_> = (0..64)
            .map(|number| {
                let file = std::rc::Rc::clone(&file);
                // From the end to the start: each but the first finds the file's end elsewhere.
                let offset = (63 - number) * 100;
                task::spawn(async move {
                    file.write_at(pattern(offset, 100), offset as u64).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(fs::read(&path).unwrap() == pattern(0, 6400));
    });
}

fn durable_writes_of_any_shape_are_there(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let file = options().open_direct(&path).await.unwrap();
        file.write_durable_at(pattern(0, 3 << 20), 0).await.unwrap();
        file.write_durable_at(pattern(0, 4096), 3 << 20).await.unwrap();
        file.write_durable_at(b"odd", (3 << 20) + 4096).await.unwrap();
        let written = fs::read(&path).unwrap();
        assert!(written[..3 << 20] == pattern(0, 3 << 20));
        assert!(written[3 << 20..(3 << 20) + 4096] == pattern(0, 4096));
        assert_eq!(&written[(3 << 20) + 4096..], b"odd");
    });
}

fn a_file_without_direct_io_is_read_and_written_all_the_same(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let status = DirectFile::open("/proc/self/status").await.unwrap();
        assert_eq!((status.is_direct(), status.alignment()), (false, 1));
        assert_eq!(&status.read_at(0, 5).await.unwrap()[..], b"Name:");
        let path = scratch.file("data");
        let file = options().read(true).open(&path).await.unwrap();
        let file = DirectFile::through_cache(file);
        assert!(!file.is_direct());
        file.write_at(b"0123456789", 3).await.unwrap();
        file.write_durable_at(b"x", 5).await.unwrap();
        assert_eq!(&file.read_at(1, 6).await.unwrap()[..], b"\0\x0001x3");
        assert_eq!(fs::read(&path).unwrap(), b"\0\0\x0001x3456789");
    });
}

fn many_reads_are_under_way_at_once(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 1 << 20)).unwrap();
        let file = std::rc::Rc::new(DirectFile::open(&path).await.unwrap());
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let file = std::rc::Rc::clone(&file);
                task::spawn(async move {
                    let offset = number * 10_007;
                    let read = file.read_at(offset as u64, 4096).await.unwrap();
                    assert!(read[..] == pattern(offset, 4096), "the bytes differ");
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn reads_that_are_given_up_leave_nothing_behind(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 1 << 20)).unwrap();
        let file = DirectFile::open(&path).await.unwrap();
        for number in 0..50 {
            let read = file.read_at(number * 4096, 8192);
            drop(time::timeout(std::time::Duration::ZERO, read).await);
        }
        assert!(file.read_at(77, 100).await.unwrap()[..] == pattern(77, 100));
    });
}

fn a_file_that_is_not_open_for_writing_says_so(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 8192)).unwrap();
        let file = DirectFile::open(&path).await.unwrap();
        for payload in [pattern(9, 4096), pattern(9, 10)] {
            let error = file.write_at(payload, 0).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(libc::EBADF)));
        }
        let error = DirectFile::open(scratch.file("none")).await.unwrap_err();
        assert!(error.is_not_found());
        assert!(fs::read(&path).unwrap() == pattern(0, 8192));
    });
}

fn offsets_beyond_what_files_can_have_are_errors(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let file = options().open_direct(scratch.file("data")).await.unwrap();
        for offset in [u64::MAX, i64::MAX as u64, i64::MAX as u64 - 10] {
            let error = file.read_at(offset, 100).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(libc::EINVAL)), "reading at {offset}");
            let error = file.write_at(pattern(0, 100), offset).await.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(libc::EINVAL)), "writing at {offset}");
        }
    });
}

fn what_has_no_room_is_an_error_and_reads_go_on(engine: Engine) {
    run(engine, async {
        let file = options().open_direct("/dev/full").await.unwrap();
        assert!(!file.is_direct());
        let error = file.write_at(b"x", 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ENOSPC)));
        assert_eq!(&file.read_at(0, 2).await.unwrap()[..], b"\0\0");
    });
}

fn files_for_appending_are_refused(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        for appending in [options().append(true), options().custom_flags(libc::O_APPEND)] {
            let error = appending.open_direct(&path).await.unwrap_err();
            assert!(error.is_config() && error.to_string().contains("O_APPEND"), "{error}");
            assert!(!path.exists(), "nothing is made for it");
            let file = appending.open(&path).await.unwrap();
            let error = DirectFile::from_file(file).await.unwrap_err();
            assert!(error.is_config(), "{error}");
            fs::remove_file(&path).unwrap();
        }
    });
}
