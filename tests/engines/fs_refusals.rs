//! What disks and limits refuse: no room, no quota, no right to write, a failed device, a file too
//! long; and a disk that stands still.
//!
//! Each test that needs a mount makes it in a mount namespace of its own thread, where it goes with
//! the thread. That takes root; without it the test says so and is skipped.

use std::ffi::CString;
use std::fs as std_fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use annulus::buffer::Payload;
use annulus::fs::{self, Directory, File, OpenOptions, Space, TemporaryFile};
use annulus::{Engine, Error, task, time};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    a_full_disk_is_an_error_and_writing_goes_on_when_there_is_room,
    a_quota_that_is_used_up_is_an_error,
    a_read_only_file_system_refuses_every_change,
    a_device_that_fails_is_an_error,
    a_disk_that_stands_still_holds_up_no_read_elsewhere,
);

/// Gives the calling thread, and those that it starts, mounts of their own. False where that is not
/// allowed.
fn own_mounts() -> bool {
    // SAFETY: neither call keeps a pointer; both concern the calling thread.
    let result = unsafe {
        match libc::unshare(libc::CLONE_NEWNS) {
            0 => {
                let (none, root) = (std::ptr::null(), c"/".as_ptr());
                let flags = libc::MS_REC | libc::MS_PRIVATE;
                libc::mount(none, root, none, flags, none.cast())
            }
            failed => failed,
        }
    };
    if result != 0 {
        println!("skipped: mounting takes root: {}", std::io::Error::last_os_error());
    }
    result == 0
}

/// A tmpfs with room for `bytes` at `place`; false if there can be none.
fn mount_memory(place: &Path, bytes: usize) -> bool {
    std_fs::create_dir(place).unwrap();
    own_mounts() && {
        let place = CString::new(place.to_str().unwrap()).unwrap();
        let options = CString::new(format!("size={bytes}")).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all are strings that outlive the call.
        let result = unsafe { libc::mount(kind, place.as_ptr(), kind, 0, options.as_ptr().cast()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        true
    }
}

/// An ext4 on a loop device at `place`; false if there can be none.
fn mount_ext4(scratch: &Scratch, place: &Path, made_with: &[&str], options: &str) -> bool {
    std_fs::create_dir(place).unwrap();
    let image = scratch.file("image");
    std_fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let succeeds = |program: &str, arguments: &[&str], path: &Path, rest: &[&Path]| {
        let mut command = Command::new(program);
        let output = command.args(arguments).arg(path).args(rest).output();
        let error = match output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("skipped: {program}: {error}");
        false
    };
    let made_with = [&["-q", "-F"], made_with].concat();
    own_mounts()
        && succeeds("mkfs.ext4", &made_with, &image, &[])
        && succeeds("mount", &["-o", &format!("loop{options}")], &image, &[place])
}

fn is_full(error: &Error) -> bool {
    error.is_storage_full() && error.errno() == Some(annulus::Errno(libc::ENOSPC))
}

async fn writable(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(path).await.unwrap()
}

fn a_full_disk_is_an_error_and_writing_goes_on_when_there_is_room(engine: Engine) {
    let scratch = Scratch::new();
    let place = scratch.file("small");
    let has_mount = mount_memory(&place, 64 << 10);
    run(engine, async {
        let full = OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        assert!(is_full(&full.write_at(b"x", 0).await.unwrap_err()));
        let error = full.write_vectored_at(vec![Payload::Static(b"x")], 0).await.unwrap_err();
        assert!(is_full(&error));
        assert_eq!(error.to_string(), "writing a file: No space left on device (os error 28)");
        if !has_mount {
            return;
        }
        let ballast = writable(place.join("ballast")).await;
        ballast.allocate(0, 32 << 10).await.unwrap();
        assert!(is_full(&ballast.allocate(32 << 10, 64 << 10).await.unwrap_err()));
        let file = writable(place.join("data")).await;
        assert!(is_full(&file.write_at(pattern(0, 100_000), 0).await.unwrap_err()));
        // What fitted is there, and right.
        let kept = std_fs::read(place.join("data")).unwrap();
        assert!(kept.len() >= 16 << 10, "{} bytes", kept.len());
        assert_eq!(kept, pattern(0, kept.len()));
        assert!(is_full(&file.write_durable_at(vec![1; 9999], 1 << 20).await.unwrap_err()));
        assert!(is_full(&file.append(vec![1; 9999]).await.unwrap_err()));
        let parts = || (0..9).map(|part| pattern(part * 9999, 9999).into()).collect();
        assert!(is_full(&file.write_vectored_at(parts(), 0).await.unwrap_err()));
        assert!(is_full(&fs::write_durably(place.join("new"), vec![1; 99_999]).await.unwrap_err()));
        assert!(!place.join("new").exists());
        // It reads, and goes on once there is room.
        let read = file.read_at(Vec::with_capacity(9999), 0).await.unwrap();
        assert_eq!(read[..], pattern(0, 9999));
        ballast.allocate_as(Space::PunchHole, 0, 32 << 10).await.unwrap();
        file.write_at(pattern(0, 40_000), 0).await.unwrap();
        assert_eq!(std_fs::read(place.join("data")).unwrap()[..40_000], pattern(0, 40_000));
    });
}

/// Lets the calling thread, and those that it starts, act as somebody without rights.
fn act_as(user: libc::uid_t) {
    // SAFETY: it takes no pointers. The call itself, not the C library's, concerns one thread.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) };
    assert_eq!(result, 0);
}

fn a_quota_that_is_used_up_is_an_error(engine: Engine) {
    const NOBODY: libc::uid_t = 65_534;
    let scratch = Scratch::new();
    let place = scratch.file("small");
    let made_with = ["-O", "quota", "-E", "quotatype=usrquota"];
    if !mount_ext4(&scratch, &place, &made_with, ",usrquota") {
        return;
    }
    // 64 KiB for nobody, by `struct if_dqblk` of quotactl(2).
    let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&place).output().unwrap();
    let device = String::from_utf8(device.stdout).unwrap();
    let device = CString::new(device.trim()).unwrap();
    let mut limits: [u64; 9] = [64, 64, 0, 0, 0, 0, 0, 0, 1];
    // SAFETY: the device is a string, and the structure is as long as the kernel's.
    let result = unsafe {
        let command = libc::QCMD(libc::Q_SETQUOTA, libc::USRQUOTA);
        libc::quotactl(command, device.as_ptr(), NOBODY as i32, limits.as_mut_ptr().cast())
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std_fs::set_permissions(&place, mode).unwrap();
    act_as(NOBODY);
    run(engine, async {
        let file = writable(place.join("data")).await;
        let error = file.write_durable_at(pattern(0, 100_000), 0).await.unwrap_err();
        assert_eq!(error.errno(), Some(annulus::Errno(libc::EDQUOT)), "{error}");
        assert!(error.is_storage_full());
    });
    act_as(0);
}

fn a_read_only_file_system_refuses_every_change(engine: Engine) {
    let scratch = Scratch::new();
    let place = scratch.file("sealed");
    if !mount_memory(&place, 1 << 20) {
        return;
    }
    std_fs::write(place.join("data"), "kept").unwrap();
    std_fs::create_dir(place.join("directory")).unwrap();
    let sealed = CString::new(place.to_str().unwrap()).unwrap();
    let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
    // SAFETY: all are strings that outlive the call, or null.
    let result = unsafe {
        libc::mount(std::ptr::null(), sealed.as_ptr(), std::ptr::null(), flags, std::ptr::null())
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    run(engine, async {
        let (data, new) = (place.join("data"), place.join("new"));
        let refused = [
            OpenOptions::new().write(true).open(&data).await.map(drop),
            File::create(&data).await.map(drop),
            fs::write(&new, b"x").await,
            fs::write_durably(&data, b"x").await,
            TemporaryFile::create_in(&place).await.map(drop),
            fs::rename(&data, &new).await,
            fs::remove_file(&data).await,
            fs::create_dir(&new).await,
            fs::create_dir_all(new.join("more")).await,
            fs::remove_dir(place.join("directory")).await,
            fs::hard_link(&data, &new).await,
            fs::symlink("data", &new).await,
        ];
        for (place, result) in refused.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(error.is_read_only(), "{place}: {error}");
        }
        fs::create_dir_all(place.join("directory")).await.unwrap();
        assert_eq!(fs::read(&data).await.unwrap(), b"kept");
        Directory::open(&place).await.unwrap().sync().await.unwrap();
    });
}

/// The file system stops as after a power cut (FS_IOC_SHUTDOWN of <linux/fs.h>, 2: without a flush
/// of its log).
fn cut_power(place: &Path) {
    const SHUTDOWN: libc::c_ulong = 0x8004_587d;
    let directory = std_fs::File::open(place).unwrap();
    let mut manner: u32 = 2;
    // SAFETY: the call reads one word.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &raw mut manner) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn a_device_that_fails_is_an_error(engine: Engine) {
    let scratch = Scratch::new();
    let place = scratch.file("failing");
    if !mount_ext4(&scratch, &place, &[], "") {
        return;
    }
    run(engine, async {
        let file = writable(place.join("data")).await;
        file.write_durable_at(pattern(0, 9999), 0).await.unwrap();
        file.write_at(pattern(0, 9999), 9999).await.unwrap();
        let directory = Directory::open(&place).await.unwrap();
        cut_power(&place);
        let failures = [
            file.sync_data().await,
            file.sync_all().await,
            file.write_at(b"x", 0).await.map(drop),
            file.write_durable_at(b"x", 0).await.map(drop),
            file.append(b"x").await.map(drop),
            file.write_vectored_at(vec![Payload::Static(b"x")], 0).await.map(drop),
            file.allocate(0, 1 << 20).await,
            file.set_len(0).await,
            directory.sync().await,
            fs::rename(place.join("data"), place.join("new")).await,
            fs::write_durably(place.join("data"), b"x").await,
        ];
        for (place, result) in failures.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(error.is_device_failure(), "{place}: {error}");
        }
        // A sync that has failed never succeeds by being asked again.
        assert!(file.sync_data().await.unwrap_err().is_device_failure());
    });
}

/// Stops every change of a file system (FIFREEZE of <linux/fs.h>), or lets it go on.
fn set_frozen(directory: &std_fs::File, frozen: bool) {
    const FREEZE: libc::c_ulong = 0xc004_5877;
    const THAW: libc::c_ulong = 0xc004_5878;
    let request = if frozen { FREEZE } else { THAW };
    // SAFETY: the call looks at no argument.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), request, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn a_disk_that_stands_still_holds_up_no_read_elsewhere(engine: Engine) {
    /// More than the kernel has workers for by itself on two CPUs, and than there are helpers.
    const STILL: usize = 12;
    if engine == Engine::Threads {
        return; // There a call has its thread to itself, and waits in it.
    }
    let scratch = Scratch::new();
    let place = scratch.file("slow");
    if !mount_ext4(&scratch, &place, &[], "") {
        return;
    }
    std_fs::write(scratch.file("elsewhere"), pattern(0, 9999)).unwrap();
    run(engine, async {
        let mut writes = Vec::new();
        for number in 0..STILL {
            let file = writable(place.join(number.to_string())).await;
            file.write_durable_at(b"x", 0).await.unwrap();
            writes.push(file);
        }
        let directory = std_fs::File::open(&place).unwrap();
        set_frozen(&directory, true);
        let writes: Vec<_> = writes
            .into_iter()
            .map(|file| task::spawn(async move { file.write_durable_at(b"y", 0).await.map(drop) }))
            .collect();
        // Long enough for all of them to have begun, and to show that none gets through.
        time::sleep(Duration::from_millis(50)).await;
        // A frozen file system must not be left behind.
        let reading = fs::read(scratch.file("elsewhere"));
        let elsewhere = time::timeout(Duration::from_secs(30), reading).await;
        let still = writes.iter().filter(|write| !write.is_finished()).count();
        set_frozen(&directory, false);
        assert_eq!(elsewhere.expect("it is not held up").unwrap(), pattern(0, 9999));
        assert_eq!(still, STILL, "none got through");
        for write in writes {
            write.await.unwrap().unwrap();
        }
    });
}
