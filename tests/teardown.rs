//! The end of a runtime while the kernel still works for it: nothing is freed that may yet be
//! written to, and what does not come back in time is leaked on purpose and reported.
//!
//! This binary's allocator never reuses a block of the size of a disk read here. It fills it with a
//! pattern when it is freed, and the tests look later whether anybody has written there since.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use annulus::buffer::AlignedBuffer;
use annulus::fs::{File, OpenOptions};
use annulus::net::UdpSocket;
use annulus::shard::placement::Placement;
use annulus::{Builder, Engine, Runtime, ShutdownReport, task, time};

const READS: usize = 32;
const READ_BYTES: usize = 512 * 1024;
const PATTERN: u8 = 0xd5;

/// The tests share the allocator.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine {
    freed: [const { AtomicPtr::new(std::ptr::null_mut()) }; 4 * READS],
    freed_count: AtomicUsize::new(0),
    trap: AtomicPtr::new(std::ptr::null_mut()),
    trap_is_freed: AtomicBool::new(false),
};

struct Quarantine {
    freed: [AtomicPtr<u8>; 4 * READS],
    freed_count: AtomicUsize,
    /// Memory to hand out for the next block of the size of a file's status.
    trap: AtomicPtr<u8>,
    trap_is_freed: AtomicBool,
}

fn is_read(layout: Layout) -> bool {
    layout.size() == READ_BYTES && layout.align() == PAGE
}

// SAFETY: blocks come from the system's allocator, except for the trap, which the test hands over
// whole, aligned to a page, and once; those that are kept back are never handed out again.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A status and what is asked beside it.
        if (size_of::<libc::statx>()..=PAGE).contains(&layout.size()) {
            let trap = self.trap.swap(std::ptr::null_mut(), Ordering::SeqCst);
            if !trap.is_null() {
                return trap;
            }
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if block as usize == TRAP_ADDRESS {
            self.trap_is_freed.store(true, Ordering::SeqCst);
            return;
        }
        if is_read(layout) {
            let place = self.freed_count.fetch_add(1, Ordering::SeqCst);
            if let Some(freed) = self.freed.get(place) {
                // SAFETY: the block is the caller's to give up, and has this size.
                unsafe { block.write_bytes(PATTERN, layout.size()) };
                freed.store(block, Ordering::SeqCst);
                return;
            }
        }
        // SAFETY: the caller's contract is the same, and the block is not the trap.
        unsafe { System.dealloc(block, layout) }
    }
}

impl Quarantine {
    /// How many blocks have been freed, and how many of them have been written to since.
    fn look(&self) -> (usize, usize) {
        let blocks = self.freed.iter().map(|block| block.load(Ordering::SeqCst));
        let blocks: Vec<_> = blocks.filter(|block| !block.is_null()).collect();
        let is_touched = |block: &&*mut u8| {
            // SAFETY: a block in quarantine stays allocated, with all its bytes written.
            let bytes = unsafe { std::slice::from_raw_parts(**block, READ_BYTES) };
            bytes.iter().any(|byte| *byte != PATTERN)
        };
        (blocks.len(), blocks.iter().filter(is_touched).count())
    }
}

fn runtime(engine: Engine, teardown: Duration) -> Option<Runtime> {
    let builder: Builder = Runtime::builder().engine(engine).shards(1).cpu_cores(1);
    let built = builder.placement(Placement::Floating).teardown(teardown).build();
    match built {
        Ok(runtime) => Some(runtime),
        Err(error) if error.is_unsupported() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn scratch(name: &str) -> PathBuf {
    let name = format!("teardown-{}-{name}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Shuts a runtime down while all its disk reads are in flight.
fn end_with_reads_in_flight(engine: Engine) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(runtime) = runtime(engine, Duration::from_secs(60)) else { return };
    let path = scratch("reads");
    fs::write(&path, vec![7; READS * READ_BYTES]).unwrap();
    let file = runtime.block_on(OpenOptions::new().read(true).direct(true).open(&path));
    let Ok(file) = file else {
        println!("skipped: this file system has no direct I/O");
        return;
    };
    let (freed_before, touched_before) = ALLOCATOR.look();
    runtime.block_on(async {
        let file = std::rc::Rc::new(file);
        for number in 0..READS {
            let file = std::rc::Rc::clone(&file);
            let mut buffer = AlignedBuffer::new(READ_BYTES, PAGE);
            // Its pages are there, so that the read begins at once.
            buffer.as_mut_slice().fill(1);
            let offset = (number * READ_BYTES) as u64;
            task::spawn(async move { file.read_at(buffer, offset).await.map(drop) }).detach();
        }
        // One turn: they are in the kernel now.
        task::yield_now().await;
    });
    let report = runtime.shut_down();
    assert!(report.leaked.is_empty(), "the disk gives every read back: {:?}", report.leaked);
    let (freed, _) = ALLOCATOR.look();
    assert_eq!(freed - freed_before, READS, "every buffer has been freed");
    thread::sleep(Duration::from_millis(500));
    let (_, touched) = ALLOCATOR.look();
    assert_eq!(touched - touched_before, 0, "the kernel has written to freed memory");
    fs::remove_file(&path).unwrap();
}

#[test]
fn no_disk_read_writes_to_memory_that_a_ring_has_freed() {
    for _ in 0..3 {
        end_with_reads_in_flight(Engine::Uring);
        // As if this round had not been: its blocks may be used again.
        release_quarantine();
    }
}

#[test]
fn no_disk_read_writes_to_memory_that_an_epoll_shard_has_freed() {
    end_with_reads_in_flight(Engine::Epoll);
    release_quarantine();
}

fn release_quarantine() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for freed in &ALLOCATOR.freed {
        let block = freed.swap(std::ptr::null_mut(), Ordering::SeqCst);
        if !block.is_null() {
            let layout = Layout::from_size_align(READ_BYTES, PAGE).unwrap();
            // SAFETY: the block came from the system's allocator with this layout and has been
            // kept back since it was freed.
            unsafe { System.dealloc(block, layout) };
        }
    }
    ALLOCATOR.freed_count.store(0, Ordering::SeqCst);
}

/// Shuts runtimes down while datagrams arrive, for a multishot receive and for one into a buffer
/// of the caller's: under AddressSanitizer, a late write of the kernel's shows.
fn end_with_datagrams_arriving(engine: Engine) {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let target = std::sync::Arc::new(AtomicUsize::new(0));
    let (flood_stop, flood_target) = (stop.clone(), target.clone());
    let flood = thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        while !flood_stop.load(Ordering::Relaxed) {
            let port = flood_target.load(Ordering::Relaxed) as u16;
            let _ = socket.send_to(&[PATTERN; 3000], ("127.0.0.1", port));
        }
    });
    for round in 0..20_usize {
        let Some(runtime) = runtime(engine, Duration::from_secs(60)) else { break };
        let received = runtime.block_on(async {
            let bind = || UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let (socket, once) = (bind(), bind());
            target.store(usize::from(socket.local_addr().unwrap().port()), Ordering::Relaxed);
            let count = std::rc::Rc::new(std::cell::Cell::new(0));
            let counted = count.clone();
            task::spawn(async move {
                let mut held = Vec::new();
                while let Ok(datagram) = socket.recv_from().await {
                    held.push(datagram);
                    held.truncate(round);
                    counted.set(counted.get() + 1);
                }
            })
            .detach();
            task::spawn(async move { once.recv_from_into(vec![0; 64]).await.map(drop) }).detach();
            while count.get() < round {
                task::yield_now().await;
            }
            count.get()
        });
        assert!(received >= round);
        let report = runtime.shut_down();
        assert!(report.leaked.is_empty(), "{:?}", report.leaked);
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[test]
fn datagrams_that_arrive_while_a_ring_ends_write_to_nothing_freed() {
    end_with_datagrams_arriving(Engine::Uring);
}

#[test]
fn datagrams_that_arrive_while_an_epoll_shard_ends_write_to_nothing_freed() {
    end_with_datagrams_arriving(Engine::Epoll);
}

#[test]
fn datagrams_that_arrive_while_a_thread_ends_write_to_nothing_freed() {
    end_with_datagrams_arriving(Engine::Threads);
}

/// Makes a FIFO, which nobody opens for writing.
fn fifo(name: &str) -> PathBuf {
    let path = scratch(name);
    let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    path
}

/// Shuts a runtime down while it opens a FIFO, which waits for a writer.
fn end_while_opening(engine: Engine, path: &Path) -> Option<ShutdownReport> {
    let runtime = runtime(engine, Duration::from_millis(200))?;
    runtime.block_on(async {
        let path = path.to_owned();
        task::spawn(async move { File::open(path).await.map(drop) }).detach();
        time::sleep(Duration::from_millis(20)).await;
    });
    Some(runtime.shut_down())
}

#[test]
fn a_ring_gets_back_what_waits_for_ever_by_cancelling_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = fifo("ring-fifo");
    if let Some(report) = end_while_opening(Engine::Uring, &path) {
        assert!(report.leaked.is_empty(), "{:?}", report.leaked);
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_a_helper_thread_cannot_give_back_is_leaked_and_reported() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = fifo("epoll-fifo");
    let report = end_while_opening(Engine::Epoll, &path).unwrap();
    assert_eq!(report.leaked.len(), 1, "{:?}", report.leaked);
    let leaked = &report.leaked[0];
    assert_eq!((leaked.operation, leaked.orphaned), ("open", true));
    assert_eq!(leaked.descriptor, libc::AT_FDCWD);
    assert!(leaked.age_ns >= 200_000_000, "it was waited for: {} ns", leaked.age_ns);
    // The helper goes on, and must find what it works on where it was.
    drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
    thread::sleep(Duration::from_millis(20));
    fs::remove_file(&path).unwrap();
}

const PAGE: usize = 4096;

/// Where the trap lies: an address that nothing else uses, so that a free of it is recognised.
const TRAP_ADDRESS: usize = 0x0000_5a5a_0000_0000;

/// A page whose first use by the kernel waits for ever: nobody answers its faults
/// (userfaultfd(2)). `None` where that is not allowed.
struct Trap {
    faults: i32,
}

#[repr(C)]
struct FaultApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct FaultRange {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// UFFDIO_API and UFFDIO_REGISTER of <linux/userfaultfd.h>.
const FAULT_API: libc::c_ulong = 0xc018_aa3f;
const FAULT_REGISTER: libc::c_ulong = 0xc020_aa00;

impl Trap {
    fn map() -> Option<Self> {
        // SAFETY: a fresh anonymous page at an address that is free, or the call fails.
        unsafe {
            let faults = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as i32;
            let mut api = FaultApi { api: 0xaa, features: 0, ioctls: 0 };
            if faults < 0 || libc::ioctl(faults, FAULT_API, &raw mut api) != 0 {
                return None;
            }
            let memory = libc::mmap(
                TRAP_ADDRESS as *mut libc::c_void,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            );
            assert_eq!(memory as usize, TRAP_ADDRESS);
            Some(Self { faults })
        }
    }

    /// The page is gone; whoever touches it next waits.
    fn spring(&self) {
        let mut range = FaultRange {
            start: TRAP_ADDRESS as u64,
            length: PAGE as u64,
            mode: 1, // Missing pages.
            ioctls: 0,
        };
        // SAFETY: the range is the page of `map`; what it held was zeroes.
        unsafe {
            assert_eq!(libc::ioctl(self.faults, FAULT_REGISTER, &raw mut range), 0);
            let memory = TRAP_ADDRESS as *mut libc::c_void;
            assert_eq!(libc::madvise(memory, PAGE, libc::MADV_DONTNEED), 0);
        }
    }

    /// Whoever waits gets a fresh page.
    fn release(self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { libc::close(self.faults) };
    }
}

#[test]
fn what_the_kernel_does_not_give_back_in_time_is_leaked_and_reported() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(trap) = Trap::map() else {
        println!("skipped: userfaultfd is not allowed here");
        return;
    };
    let Some(runtime) = runtime(Engine::Uring, Duration::from_millis(200)) else { return };
    let descriptor = runtime.block_on(async {
        let file = File::open("/dev/null").await.unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&file));
        ALLOCATOR.trap.store(TRAP_ADDRESS as *mut u8, Ordering::SeqCst);
        // The status that the kernel is to fill lies in the trap.
        let mut status = pin!(file.metadata());
        let pending = poll_fn(|context| Poll::Ready(status.as_mut().poll(context).is_pending()));
        assert!(pending.await);
        assert!(ALLOCATOR.trap.load(Ordering::SeqCst).is_null(), "the trap is not in use");
        trap.spring();
        time::sleep(Duration::from_millis(20)).await;
        descriptor
    });
    let report = runtime.shut_down();
    assert_eq!(report.leaked.len(), 1, "{:?}", report.leaked);
    let leaked = &report.leaked[0];
    assert_eq!((leaked.operation, leaked.descriptor), ("stat", descriptor));
    assert!(leaked.orphaned);
    assert!(leaked.age_ns >= 200_000_000, "it was waited for: {} ns", leaked.age_ns);
    assert!(!ALLOCATOR.trap_is_freed.load(Ordering::SeqCst), "the kernel still has it");
    // It can write now, to memory that is still there.
    trap.release();
    thread::sleep(Duration::from_millis(100));
    assert!(!ALLOCATOR.trap_is_freed.load(Ordering::SeqCst), "leaked is leaked");
}
