//! In its steady state a request allocates nothing.
//!
//! This binary's allocator counts, for each thread by itself. A test warms its server up, then
//! compares the count of the shard's thread before and after many requests. A service's test is a
//! function that serves one connection and a client that asks, given to [`serve_one`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream};
use annulus::shard::placement::Placement;
use annulus::{Engine, Runtime, sync, task, time};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

fn count() {
    // A thread that is ending has no count any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Serves one connection by `serve` on one shard while `client` talks to it, and gives what
/// `serve` gives. `None` where the engine cannot run.
fn serve_one<F, Fut, R>(engine: Engine, serve: F, client: fn(StdStream)) -> Option<R>
where
    F: FnOnce(TcpStream) -> Fut,
    Fut: Future<Output = R> + 'static,
    R: 'static,
{
    let built = Runtime::builder().engine(engine).shards(1).placement(Placement::Floating).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let (sender, receiver) = mpsc::channel();
    let peer = thread::spawn(move || {
        let stream = StdStream::connect::<std::net::SocketAddr>(receiver.recv().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        client(stream);
    });
    let value = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        sender.send(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().await.unwrap();
        task::spawn(serve(stream)).await.unwrap()
    });
    peer.join().unwrap();
    Some(value)
}

const WARM_UP: usize = 2000;
const REQUESTS: usize = 10_000;

/// Asks one question after the other, and checks the answers.
fn ask(mut stream: StdStream) {
    for number in 0..WARM_UP + REQUESTS {
        let question = [number as u8; 100];
        stream.write_all(&question).unwrap();
        let mut answer = [0; 100];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, question);
    }
}

/// Echoes, and counts what the thread has allocated once it is warm.
async fn echo_and_count(stream: TcpStream) -> u64 {
    let mut echoed = 0;
    let mut before = 0;
    let mut after = 0;
    while let Some(chunk) = stream.recv().await.unwrap() {
        echoed += chunk.len();
        stream.send(chunk).await.unwrap();
        if echoed == WARM_UP * 100 {
            before = allocations();
        }
        after = allocations();
    }
    assert_eq!(echoed, (WARM_UP + REQUESTS) * 100);
    after - before
}

#[test]
fn an_echo_on_the_ring_allocates_nothing() {
    if let Some(count) = serve_one(Engine::Uring, echo_and_count, ask) {
        assert_eq!(count, 0, "allocations in {REQUESTS} requests");
    }
}

#[test]
fn an_echo_under_epoll_allocates_nothing() {
    assert_eq!(serve_one(Engine::Epoll, echo_and_count, ask), Some(0));
}

#[test]
fn an_echo_by_blocking_calls_allocates_nothing() {
    assert_eq!(serve_one(Engine::Threads, echo_and_count, ask), Some(0));
}

#[test]
fn a_receive_with_a_time_limit_allocates_nothing() {
    let serve = |stream: TcpStream| async move {
        let mut echoed = 0;
        let (mut before, mut after) = (0, 0);
        let limit = Duration::from_secs(60);
        while let Some(chunk) = time::timeout(limit, stream.recv()).await.unwrap().unwrap() {
            echoed += chunk.len();
            stream.send(chunk).await.unwrap();
            if echoed == WARM_UP * 100 {
                before = allocations();
            }
            after = allocations();
        }
        after - before
    };
    if let Some(count) = serve_one(Engine::Uring, serve, ask) {
        assert_eq!(count, 0, "allocations in {REQUESTS} requests");
    }
}

/// Two tasks of one shard do something `WARM_UP + REQUESTS` times; counts what they allocate once
/// they are warm.
fn count_both<A, B>(one: impl FnOnce(Rc<Cell<u64>>) -> A, two: B) -> u64
where
    A: Future<Output = ()>,
    B: Future<Output = ()> + 'static,
{
    let runtime = Runtime::builder().shards(1).placement(Placement::Floating).build().unwrap();
    let before = Rc::new(Cell::new(0));
    runtime.block_on(async {
        let other = task::spawn(two);
        one(Rc::clone(&before)).await;
        let count = allocations() - before.get();
        other.await.unwrap();
        count
    })
}

#[test]
fn items_through_a_channel_allocate_nothing() {
    let (sender, receiver) = sync::channel::bounded(16);
    let receive = |before: Rc<Cell<u64>>| async move {
        for number in 0..WARM_UP + REQUESTS {
            if number == WARM_UP {
                before.set(allocations());
            }
            assert_eq!(receiver.recv().await, Some(number));
        }
    };
    let send = async move {
        for number in 0..WARM_UP + REQUESTS {
            sender.send(number).await.unwrap();
        }
    };
    assert_eq!(count_both(receive, send), 0, "allocations in {REQUESTS} items");
}

#[test]
fn turns_at_a_contended_lock_allocate_nothing() {
    let mutex = Rc::new(sync::Mutex::new(0));
    let take = |mutex: Rc<sync::Mutex<u64>>, before: Rc<Cell<u64>>| async move {
        for number in 0..WARM_UP + REQUESTS {
            if number == WARM_UP {
                before.set(allocations());
            }
            let mut value = mutex.lock().await;
            task::yield_now().await;
            *value += 1;
        }
    };
    let other = take(Rc::clone(&mutex), Rc::default());
    let count = count_both(|before| take(Rc::clone(&mutex), before), other);
    assert_eq!(count, 0, "allocations in {REQUESTS} turns");
}

#[test]
fn a_task_is_one_allocation_and_a_timer_none() {
    let runtime = Runtime::builder().shards(1).placement(Placement::Floating).build().unwrap();
    let (tasks, timers) = runtime.block_on(async {
        let spawn_and_join = async || {
            let before = allocations();
            for number in 0..100_u32 {
                assert_eq!(task::spawn(async move { number }).await.unwrap(), number);
            }
            allocations() - before
        };
        let set_and_drop = async || {
            let before = allocations();
            for _ in 0..100 {
                time::timeout(Duration::from_secs(60), task::yield_now()).await.unwrap();
            }
            allocations() - before
        };
        spawn_and_join().await;
        set_and_drop().await;
        (spawn_and_join().await, set_and_drop().await)
    });
    assert_eq!((tasks, timers), (100, 0));
}
