//! A GET over a real connection allocates nothing on its shard, from receiving to sending.
//!
//! A program of its own, because the counting allocator is the whole program's.
#![cfg(feature = "daemon")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use annulus::net::{TcpListener, serve_connection};
use annulus::service::http::{About, HttpService, HttpSettings};
use annulus::store::{PartitionId, SlotMap, Store};
use annulus::{Engine, Handle, Runtime};

thread_local! {
    /// Whether this thread's allocations are counted.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every method passes its arguments on to the system's allocator unchanged, so each
// obligation of the caller is the one that the system's allocator has; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` and `layout` are as above, and `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Serves HTTP on one shard of `engine` until the runtime drains; tells where.
fn serve(engine: Engine, settings: HttpSettings, told: mpsc::Sender<(SocketAddr, Handle)>) {
    IS_COUNTED.set(true);
    let runtime = Runtime::builder().engine(engine).shards(1).cpu_cores(1).build().unwrap();
    let registry = runtime.metrics().clone();
    let service = Arc::new(HttpService::new(settings, &About::default(), registry));
    let handle = runtime.handle();
    runtime.block_on(async {
        Store::owning(SlotMap::new(1), PartitionId(0)).install();
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        told.send((listener.local_addr().unwrap(), handle)).unwrap();
        while let Ok(stream) = listener.accept().await {
            let service = Arc::clone(&service);
            serve_connection("http", stream, move |stream| service.serve(stream)).unwrap();
        }
    });
}

/// Sends `request` over and over and gives what the shard allocates for a thousand of them, once
/// everything has grown to what it needs.
fn allocations(engine: Engine, settings: HttpSettings, prepare: &str, request: &str) -> usize {
    let (sender, receiver) = mpsc::channel();
    let server = std::thread::spawn(move || serve(engine, settings, sender));
    let (address, handle) = receiver.recv().unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_nodelay(true).unwrap();
    let mut reply = [0; 4096];
    let mut ask = |request: &str, status: &str| {
        peer.write_all(request.as_bytes()).unwrap();
        let length = peer.read(&mut reply).unwrap();
        let start = String::from_utf8_lossy(&reply[9..12]).into_owned();
        assert_eq!(start, status, "{}", reply[..length].escape_ascii());
    };
    if !prepare.is_empty() {
        ask(prepare, "201");
    }
    (0..2_000).for_each(|_| ask(request, "200"));
    let before = ALLOCATED.load(Ordering::Relaxed);
    (0..1_000).for_each(|_| ask(request, "200"));
    let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
    drop(peer);
    handle.drain();
    server.join().unwrap();
    allocated
}

#[test]
fn a_get_of_a_key_and_of_a_small_file_allocates_nothing() {
    let folder = std::env::temp_dir().join(format!("annulus-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), [b'f'; 1024]).unwrap();
    let settings = || HttpSettings {
        files_root: Some(folder.clone()),
        // Looking at the file again is not the steady path.
        file_cache_valid: std::time::Duration::from_secs(60),
        ..HttpSettings::default()
    };
    let put = "PUT /kv/key HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nvalue";
    let get = "GET /kv/key HTTP/1.1\r\nHost: a\r\n\r\n";
    let file = "GET /files/file HTTP/1.1\r\nHost: a\r\n\r\n";
    // One after the other: the counter is everybody's.
    for engine in [Engine::Uring, Engine::Epoll] {
        assert_eq!(allocations(engine, settings(), put, get), 0, "a key, {engine}");
        assert_eq!(allocations(engine, settings(), "", file), 0, "a file, {engine}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
