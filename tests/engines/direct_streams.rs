//! Files read ahead and written behind: every length, where errors come out, what a drop leaves.

use std::fs;
use std::rc::Rc;

use annulus::fs::{DirectFile, DirectReader, DirectWriter, OpenOptions, Window};
use annulus::{Engine, Errno};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    files_of_every_length_are_read_to_their_end,
    a_reader_begins_anywhere_and_fills_slices_of_any_length,
    files_of_every_length_are_written_and_end_there,
    a_writer_leaves_what_is_behind_it_until_it_finishes,
    a_flush_shows_what_was_taken_and_the_writer_goes_on,
    a_write_at_the_end_of_the_file_cuts_off_no_block_that_is_landing,
    room_is_filled_in_place,
    the_error_of_a_write_behind_comes_with_a_later_call_and_stays,
    the_error_of_a_read_ahead_comes_in_its_place_and_stays,
    readers_and_writers_that_are_dropped_leave_nothing_behind,
    senseless_windows_and_offsets_are_refused,
    a_small_file_system_that_is_full_is_an_error,
);

/// Small blocks, so that short files have many.
fn small() -> Window {
    Window::new(4096, 3).unwrap()
}

fn options() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

const LENGTHS: [usize; 11] =
    [0, 1, 511, 512, 4095, 4096, 4097, 8192, 12_288 + 512, 40_000, 100 * 4096];

fn files_of_every_length_are_read_to_their_end(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        for length in LENGTHS {
            let path = scratch.file("data");
            fs::write(&path, pattern(0, length)).unwrap();
            for window in [small(), Window::new(4096, 1).unwrap(), Window::default()] {
                let file = DirectFile::open(&path).await.unwrap();
                let mut reader = DirectReader::new(file, 0, window);
                let mut read = Vec::new();
                while let Some(block) = reader.next_block().await.unwrap() {
                    assert!(!block.is_empty(), "a block has at least one byte");
                    read.extend_from_slice(&block);
                    assert_eq!(reader.position(), read.len() as u64);
                }
                assert!(read == pattern(0, length), "{length} bytes");
                assert!(reader.next_block().await.unwrap().is_none(), "the end stays");
            }
        }
    });
}

fn a_reader_begins_anywhere_and_fills_slices_of_any_length(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 50_000)).unwrap();
        let file = Rc::new(DirectFile::open(&path).await.unwrap());
        for start in [1, 511, 512, 4097, 49_999, 50_000, 60_000] {
            let mut reader = DirectReader::new(Rc::clone(&file), start as u64, small());
            let (mut read, mut slice) = (Vec::new(), [0; 1234]);
            loop {
                let asked = read.len() % 1234 + 1;
                match reader.read(&mut slice[..asked]).await.unwrap() {
                    0 => break,
                    count => read.extend_from_slice(&slice[..count]),
                }
                assert_eq!(reader.position(), (start + read.len()) as u64);
            }
            assert!(read == pattern(start, 50_000_usize.saturating_sub(start)), "from {start}");
        }
        let mut reader = DirectReader::new(file, 100, small());
        assert_eq!(reader.read(&mut []).await.unwrap(), 0);
        let mut first = [0; 10];
        assert_eq!(reader.read(&mut first).await.unwrap(), 10);
        let block = reader.next_block().await.unwrap().unwrap();
        assert!(block[..] == pattern(110, block.len()), "the rest of a block is a block");
    });
}

fn files_of_every_length_are_written_and_end_there(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        for length in LENGTHS {
            for step in [1000, 4096, 1 << 20] {
                fs::write(&path, vec![7; 60_000]).unwrap();
                let file = options().open_direct(&path).await.unwrap();
                let mut writer = DirectWriter::new(file, 0, small()).unwrap();
                for piece in pattern(0, length).chunks(step) {
                    writer.write(piece).await.unwrap();
                }
                assert_eq!(writer.position(), length as u64);
                let file = writer.finish().await.unwrap();
                file.file().sync_data().await.unwrap();
                assert!(fs::read(&path).unwrap() == pattern(0, length), "{length} bytes");
            }
        }
    });
}

fn a_writer_leaves_what_is_behind_it_until_it_finishes(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 30_000)).unwrap();
        let file = options().open_direct(&path).await.unwrap();
        let mut writer = DirectWriter::new(file, 8192, small()).unwrap();
        writer.write(&[9; 5000]).await.unwrap();
        writer.sync().await.unwrap();
        let mut expected = pattern(0, 30_000);
        expected[8192..13_192].fill(9);
        assert!(fs::read(&path).unwrap() == expected);
        writer.finish().await.unwrap();
        assert!(fs::read(&path).unwrap() == expected[..13_192]);
    });
}

fn a_flush_shows_what_was_taken_and_the_writer_goes_on(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let file = options().open_direct(&path).await.unwrap();
        let mut writer = DirectWriter::new(file, 0, small()).unwrap();
        let mut length = 0;
        for step in [1, 100, 3995, 4096, 0, 10_000, 3, 20_000] {
            writer.write(&pattern(length, step)).await.unwrap();
            length += step;
            writer.flush().await.unwrap();
            assert!(fs::read(&path).unwrap() == pattern(0, length), "{length} bytes");
        }
        writer.finish().await.unwrap();
        assert!(fs::read(&path).unwrap() == pattern(0, length));
    });
}

fn a_write_at_the_end_of_the_file_cuts_off_no_block_that_is_landing(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        for length in [1, 2, 3, 8].map(|blocks| blocks * 4096 + 100).repeat(10) {
            let _ = fs::remove_file(&path);
            let file = Rc::new(options().open_direct(&path).await.unwrap());
            let window = Window::new(4096, 8).unwrap();
            let mut writer = DirectWriter::new(Rc::clone(&file), 8192, window).unwrap();
            writer.write(&pattern(8192, length)).await.unwrap();
            // All but the last bytes are under way, and this finds no file yet, or a part of it.
            file.write_at(b"header", 100).await.unwrap();
            writer.flush().await.unwrap();
            let mut expected = vec![0; 8192];
            expected[100..106].copy_from_slice(b"header");
            expected.extend(pattern(8192, length));
            assert!(fs::read(&path).unwrap() == expected, "{length} bytes behind a header");
        }
    });
}

fn room_is_filled_in_place(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        let file = options().open_direct(&path).await.unwrap();
        let mut writer = DirectWriter::new(file, 0, small()).unwrap();
        for block in 0..10 {
            let room = writer.room().await.unwrap();
            assert_eq!(room.len(), 4096);
            room.copy_from_slice(&pattern(block * 4096, 4096));
            writer.fill(4096);
        }
        writer.finish().await.unwrap();
        assert!(fs::read(&path).unwrap() == pattern(0, 10 * 4096));
    });
}

fn the_error_of_a_write_behind_comes_with_a_later_call_and_stays(engine: Engine) {
    run(engine, async {
        let file = options().open_direct("/dev/full").await.unwrap();
        let mut writer = DirectWriter::new(file, 0, small()).unwrap();
        let mut error = None;
        // Each call hands over one block at most; the window holds three.
        for _ in 0..5 {
            error = error.or(writer.write(&[1; 4096]).await.err());
        }
        let full = Some(Errno(libc::ENOSPC));
        assert_eq!(error.expect("it is told by then").errno(), full);
        assert_eq!(writer.write(b"x").await.unwrap_err().errno(), full);
        assert_eq!(writer.flush().await.unwrap_err().errno(), full);
        assert_eq!(writer.sync().await.unwrap_err().errno(), full);
        assert_eq!(writer.finish().await.unwrap_err().errno(), full);
        let file = options().open_direct("/dev/full").await.unwrap();
        let mut writer = DirectWriter::new(file, 0, small()).unwrap();
        writer.write(b"little").await.unwrap();
        assert_eq!(writer.finish().await.unwrap_err().errno(), full, "the last bytes count");
    });
}

fn the_error_of_a_read_ahead_comes_in_its_place_and_stays(engine: Engine) {
    run(engine, async {
        // A process may look at its own memory, where there is some (proc_pid_mem(5)).
        let file = DirectFile::open("/proc/self/mem").await.unwrap();
        let memory: Vec<u8> = vec![5; 64 * 1024];
        let start = memory.as_ptr() as u64;
        let mut reader = DirectReader::new(file, start, Window::new(4096, 2).unwrap());
        let block = reader.next_block().await.unwrap().unwrap();
        assert!(block.iter().all(|byte| *byte == 5));
        let file = Rc::clone(reader.file());
        let mut reader = DirectReader::new(file, 4096, Window::new(4096, 2).unwrap());
        let eio = Some(Errno(libc::EIO));
        assert_eq!(reader.next_block().await.unwrap_err().errno(), eio);
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap_err().errno(), eio);
    });
}

fn readers_and_writers_that_are_dropped_leave_nothing_behind(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("data");
        fs::write(&path, pattern(0, 1 << 20)).unwrap();
        for taken in 0..8 {
            let file = options().open_direct(&path).await.unwrap();
            let file = Rc::new(file);
            let mut reader = DirectReader::new(Rc::clone(&file), 0, Window::new(4096, 8).unwrap());
            for _ in 0..taken {
                reader.next_block().await.unwrap();
            }
            let mut writer = DirectWriter::new(file, 1 << 20, small()).unwrap();
            writer.write(&vec![1; taken * 4096 + 5]).await.unwrap();
        }
        assert!(fs::read(&path).unwrap()[..1 << 20] == pattern(0, 1 << 20));
    });
}

fn senseless_windows_and_offsets_are_refused(engine: Engine) {
    let scratch = Scratch::new();
    for (bytes, blocks) in [(0, 1), (4095, 1), (1 << 31, 1), (4096, 0), (4096, 1025)] {
        let error = Window::new(bytes, blocks).unwrap_err();
        assert!(error.is_config(), "{bytes} × {blocks}: {error}");
    }
    run(engine, async {
        let file = Rc::new(options().open_direct(scratch.file("data")).await.unwrap());
        if file.is_direct() {
            let error = DirectWriter::new(Rc::clone(&file), 100, small()).unwrap_err();
            assert!(error.to_string().contains("at offset 100: give a multiple of"), "{error}");
        }
        let mut reader = DirectReader::new(Rc::clone(&file), u64::MAX, small());
        assert_eq!(reader.next_block().await.unwrap_err().errno(), Some(Errno(libc::EINVAL)));
    });
}

/// A file system of 1 MiB in memory, gone when dropped. `None` without the rights for it.
struct Small(Scratch);

impl Small {
    fn mount() -> Option<Self> {
        let scratch = Scratch::new();
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&scratch.0);
        let output = command.output().ok()?;
        output.status.success().then_some(Self(scratch))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(&self.0.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.0.0.display());
    }
}

fn a_small_file_system_that_is_full_is_an_error(engine: Engine) {
    let Some(small_disk) = Small::mount() else {
        println!("skipped: mounting needs root");
        return;
    };
    run(engine, async {
        let path = small_disk.0.file("data");
        let file = options().open_direct(&path).await.unwrap();
        let mut writer = DirectWriter::new(file, 0, small()).unwrap();
        let mut error = None;
        for _ in 0..300 {
            error = error.or(writer.write(&pattern(0, 4096)).await.err());
        }
        assert_eq!(error.expect("it is full").errno(), Some(Errno(libc::ENOSPC)));
        let file = Rc::clone(writer.file());
        assert_eq!(writer.finish().await.unwrap_err().errno(), Some(Errno(libc::ENOSPC)));
        assert!(file.read_at(0, 4096).await.unwrap()[..] == pattern(0, 4096), "reads go on");
    });
}
