//! What the tests stand on: runtimes, a server, peers, and guards against hangs.
//!
//! A test that counts descriptors runs alone in the process; all others may run side by side.

use std::future::Future;
use std::io::Write;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use annulus::net::{TcpListener, TcpStream, serve_connection};
use annulus::shard::placement::Placement;
use annulus::{Builder, Engine, Handle, Runtime, task, time};

/// Calls something when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Longer than any test takes on a busy machine: past it, it hangs.
const HANG: Duration = Duration::from_secs(120);

/// How long a state may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// Held for writing by a test that must have the process to itself.
static PROCESS: RwLock<()> = RwLock::new(());

/// Makes three tests of each function, one for each engine.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => { on_every_engine!(@make guarded $($name)*); };
    (alone: $($name:ident),* $(,)?) => { on_every_engine!(@make guarded_alone $($name)*); };
    (@make $guard:ident $($name:ident)*) => {
        mod uring {
            $(#[test]
            fn $name() {
                $crate::harness::$guard(annulus::Engine::Uring, super::$name);
            })*
        }
        mod epoll {
            $(#[test]
            fn $name() {
                $crate::harness::$guard(annulus::Engine::Epoll, super::$name);
            })*
        }
        mod threads {
            $(#[test]
            fn $name() {
                $crate::harness::$guard(annulus::Engine::Threads, super::$name);
            })*
        }
    };
}

/// Runs a test beside others.
pub(crate) fn guarded(engine: Engine, test: fn(Engine)) {
    let _shared = PROCESS.read().unwrap_or_else(PoisonError::into_inner);
    guard(engine, test);
}

/// Runs a test while no other runs.
pub(crate) fn guarded_alone(engine: Engine, test: fn(Engine)) {
    let _alone = PROCESS.write().unwrap_or_else(PoisonError::into_inner);
    guard(engine, test);
}

fn guard(engine: Engine, test: fn(Engine)) {
    if engine == Engine::Uring
        && let Err(error) = builder(engine).plan()
    {
        println!("skipped: {error}");
        return;
    }
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, watch) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if watch.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "{name} hangs: ending the process");
            std::process::abort();
        }
    });
    test(engine);
    drop(done);
    watchdog.join().unwrap();
}

/// One shard, one thread for the cpu pool, not pinned: tests run side by side.
pub(crate) fn builder(engine: Engine) -> Builder {
    Runtime::builder().engine(engine).shards(1).cpu_cores(1).placement(Placement::Floating)
}

/// Runs a future on a runtime of its own that must end with nothing left in flight.
pub(crate) fn run<F: Future>(engine: Engine, future: F) -> F::Output {
    run_with(builder(engine), future)
}

/// [`run`] with settings.
pub(crate) fn run_with<F: Future>(builder: Builder, future: F) -> F::Output {
    let runtime = builder.build().unwrap();
    let value = runtime.block_on(future);
    let report = runtime.shut_down();
    assert!(report.leaked.is_empty(), "left in flight: {:?}", report.leaked);
    value
}

/// A stream of the runtime and the `std` socket at its other end.
pub(crate) async fn pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    (stream, patient(peer))
}

/// A peer that does not wait for ever.
pub(crate) fn patient(peer: StdStream) -> StdStream {
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer.set_nodelay(true).unwrap();
    peer
}

/// Connects a `std` socket.
pub(crate) fn connect(address: SocketAddr) -> StdStream {
    patient(StdStream::connect(address).unwrap())
}

/// Closes with a reset instead of the end of the stream.
pub(crate) fn reset(peer: StdStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

/// A port on which nobody listens.
pub(crate) fn dead_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Receives until the peer has finished.
pub(crate) async fn receive_all(stream: &TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(chunk) = stream.recv().await.unwrap() {
        assert!(!chunk.is_empty(), "a chunk has at least one byte");
        received.extend_from_slice(&chunk);
    }
    received
}

/// Receives exactly `count` bytes.
pub(crate) async fn receive_exactly(stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < count {
        let chunk = stream.recv().await.unwrap().expect("the peer has not finished");
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received.len(), count);
    received
}

/// Bytes that are different at every place nearby: a lost, doubled or swapped one shows.
pub(crate) fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends everything back.
pub(crate) async fn echo(stream: TcpStream) {
    while let Ok(Some(chunk)) = stream.recv().await {
        if stream.send(chunk).await.is_err() {
            return;
        }
    }
}

/// A runtime with a listener, on a thread of its own. It drains and ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start<F, Fut>(builder: Builder, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let body = move || {
            let runtime = builder.build().unwrap();
            runtime.block_on(accept_until_drained(sender, runtime.handle(), serve));
            let report = runtime.shut_down();
            assert!(report.leaked.is_empty(), "left in flight: {:?}", report.leaked);
        };
        let thread = thread::Builder::new().name("server".into()).spawn(body).unwrap();
        let (address, handle) = receiver.recv().unwrap();
        Self { address, handle, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> StdStream {
        connect(self.address)
    }
}

async fn accept_until_drained<F, Fut>(
    started: Sender<(SocketAddr, Handle)>,
    handle: Handle,
    serve: F,
) where
    F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    started.send((listener.local_addr().unwrap(), handle.clone())).unwrap();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let serve = serve.clone();
                serve_connection("served", stream, serve).unwrap();
            }
            Err(error) if error.is_closed() => break,
            Err(error) => panic!("{error}"),
        }
    }
    while handle.connections() > 0 {
        time::sleep(Duration::from_millis(1)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.drain();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().expect("the server ended well");
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let step = Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if condition() {
            return;
        }
        thread::sleep(step);
    }
    panic!("{what}: it did not come about");
}

/// [`eventually`] for a task: the shard turns meanwhile.
pub(crate) async fn eventually_here(what: &str, mut condition: impl FnMut() -> bool) {
    let step = Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if condition() {
            return;
        }
        time::sleep(step).await;
    }
    panic!("{what}: it did not come about");
}

/// Lets the shard turn a few times.
pub(crate) async fn turns(count: usize) {
    for _ in 0..count {
        task::yield_now().await;
    }
}

/// Lets the shard turn until `condition` holds: a turn need not reach every task that is ready.
pub(crate) async fn turns_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        task::yield_now().await;
    }
}

/// Open descriptors of this process.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Blocks a thread that is no shard until `future` ends.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

/// The names of what is in flight on every shard.
pub(crate) fn in_flight(handle: &Handle) -> Vec<&'static str> {
    let list = wait_for(handle.in_flight()).unwrap();
    list.into_iter().map(|(_, operation)| operation.operation).collect()
}

/// A directory for one test, removed at its end.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("engines-{}-{number}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
