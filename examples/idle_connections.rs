//! Few active connections among many idle ones: what a message and what a connection cost.
//!
//! ```text
//! ulimit -n 30000
//! cargo run --release --example idle_connections -- [uring|epoll] [idle] [messages]
//! ```
//!
//! One shard echoes. Ten `std` clients exchange messages with it, first alone, then beside the idle
//! connections (10,000 unless given), and the shard's own CPU time per message is printed for both,
//! with the memory that a connection takes. It ends by itself.

use std::io::{Error, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::mpsc;
use std::thread;

use annulus::net::{TcpListener, TcpStream};
use annulus::{Engine, Runtime, task};

const ACTIVE: usize = 10;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn echo(stream: TcpStream) {
    while let Ok(Some(chunk)) = stream.recv().await {
        if stream.send(chunk).await.is_err() {
            return;
        }
    }
}

/// Serves on a thread of its own, until the process ends. Its address, and its thread's folder.
fn serve(engine: Engine) -> Result<(SocketAddr, String)> {
    let (started, starting) = mpsc::channel();
    thread::spawn(move || -> Result<()> {
        let runtime = Runtime::builder().engine(engine).shards(1).build()?;
        println!("{}", runtime.report());
        Ok(runtime.block_on(async {
            let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
            let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
            let folder = format!("/proc/{}", thread.display());
            started.send((listener.local_addr()?, folder)).unwrap_or_default();
            loop {
                task::spawn(echo(listener.accept().await?)).detach();
            }
            #[expect(unreachable_code, reason = "names the type of the error")]
            annulus::Result::Ok(())
        })?)
    });
    Ok(starting.recv()?)
}

/// CPU time of a thread, in nanoseconds (proc(5)).
fn cpu_ns(folder: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("{folder}/schedstat"))?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = text.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}

fn exchange(stream: &mut StdStream, messages: usize) -> std::result::Result<(), Error> {
    let mut answer = [0; 64];
    for _ in 0..messages {
        stream.write_all(&[7; 64])?;
        stream.read_exact(&mut answer)?;
    }
    Ok(())
}

/// The shard's nanoseconds per message, over all active connections.
fn measure(address: SocketAddr, folder: &str, messages: usize) -> Result<f64> {
    let mut active = Vec::new();
    for _ in 0..ACTIVE {
        let stream = StdStream::connect(address)?;
        stream.set_nodelay(true)?;
        active.push(stream);
    }
    let before = cpu_ns(folder)?;
    let clients = active
        .into_iter()
        .map(|mut stream| thread::spawn(move || exchange(&mut stream, messages / ACTIVE)));
    for client in clients.collect::<Vec<_>>() {
        client.join().map_err(|_| "a client panicked")??;
    }
    Ok((cpu_ns(folder)? - before) as f64 / messages as f64)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let engine: Engine = arguments.next().unwrap_or("auto".into()).parse()?;
    let idle: usize = arguments.next().unwrap_or("10000".into()).parse()?;
    let messages: usize = arguments.next().unwrap_or("200000".into()).parse()?;
    let (address, folder) = serve(engine)?;
    measure(address, &folder, messages / 10)?;
    let alone = measure(address, &folder, messages)?;
    let before = resident_bytes()?;
    let mut connections = Vec::with_capacity(idle);
    for count in 0..idle {
        let mut stream = StdStream::connect(address)
            .map_err(|error| format!("connection {count}: {error}; raise ulimit -n"))?;
        exchange(&mut stream, 1)?;
        connections.push(stream);
    }
    let each = resident_bytes()?.saturating_sub(before) / idle.max(1);
    let beside = measure(address, &folder, messages)?;
    println!("shard's CPU per message: {alone:.0} ns alone, {beside:.0} ns beside {idle} idle");
    println!("ratio {:.2}; {each} bytes resident for each idle connection", beside / alone);
    Ok(())
}
