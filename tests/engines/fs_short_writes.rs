//! Writes that the kernel takes in part, and then refuses: by a limit of the whole process.

use std::fs as std_fs;

use annulus::Engine;
use annulus::fs::OpenOptions;

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    alone: a_write_that_is_cut_short_goes_on_until_it_fails,
);

/// A limit of the process on the size of files (RLIMIT_FSIZE).
fn set_size_limit(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call reads a limit that outlives it; the signal is ignored from now on.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

fn a_write_that_is_cut_short_goes_on_until_it_fails(engine: Engine) {
    const LIMIT: usize = 100_000;
    let scratch = Scratch::new();
    run(engine, async {
        let options = OpenOptions::new().write(true).create(true);
        let file = options.open(scratch.file("one")).await.unwrap();
        let appended = options.open(scratch.file("two")).await.unwrap();
        let vectored = options.open(scratch.file("three")).await.unwrap();
        appended.append(pattern(0, 10)).await.unwrap();
        set_size_limit(LIMIT as libc::rlim_t);
        let durable = file.write_durable_at(pattern(0, 150_000), 0).await;
        let append = appended.append(pattern(10, 150_000)).await;
        let parts = (0..15).map(|part| pattern(part * 9999, 9999).into()).collect();
        let vectors = vectored.write_vectored_at(parts, 0).await;
        let longer = [file.set_len(LIMIT as u64 + 1).await, file.allocate(0, 150_000).await];
        set_size_limit(libc::RLIM_INFINITY);
        let errors = [durable.unwrap_err(), append.unwrap_err(), vectors.unwrap_err()];
        for error in errors.into_iter().chain(longer.map(Result::unwrap_err)) {
            assert!(error.is_file_too_large(), "{error}");
        }
        // The kernel has taken a part first, and then refused the rest.
        for name in ["one", "two", "three"] {
            assert_eq!(std_fs::read(scratch.file(name)).unwrap(), pattern(0, LIMIT), "{name}");
        }
    });
}
