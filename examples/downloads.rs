//! Three files from a slow server: one after the other, as tasks, and by blocking calls on a pool.
//!
//! Answers the three downloads with `requests`, with `aiohttp`, and with `requests` in an executor.
//! The server here takes two units for each answer: six in sequence, two in both other forms. The
//! names are what follows the last `_`, and the files must be what the server has.
//!
//! `cargo run --example downloads`

mod trace;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use annulus::{Result, Runtime, blocking, fs, task};
use trace::{Trace, UNIT};

const PATHS: [&str; 3] = ["/image_one.jpg", "/image_two.jpg", "/image_three.jpg"];
/// No answer waits longer for the others.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server has at `path`.
fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(50_000).collect()
}

/// How many requests are there at the same time.
#[derive(Default)]
struct Requests {
    now_and_most: Mutex<(usize, usize)>,
    more: Condvar,
}

impl Requests {
    /// Counts one in, and holds it until `together` have been there at once.
    fn enter(&self, together: usize) {
        let mut counts = self.now_and_most.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        self.more.notify_all();
        drop(self.more.wait_timeout_while(counts, PATIENCE, |counts| counts.1 < together));
    }

    fn leave(&self) {
        self.now_and_most.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1;
    }

    fn most(&self) -> usize {
        self.now_and_most.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn answer(mut stream: TcpStream, together: usize, requests: &Requests) -> io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..length]);
    }
    requests.enter(together);
    thread::sleep(UNIT * 2);
    let request = String::from_utf8_lossy(&request);
    let body = content(request.split(' ').nth(1).unwrap_or("/"));
    requests.leave();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

/// A server with a thread for each of three connections.
fn serve(together: usize) -> io::Result<(SocketAddr, Arc<Requests>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let requests = Arc::new(Requests::default());
    let shared = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming().take(PATHS.len()).flatten() {
            let requests = Arc::clone(&shared);
            thread::spawn(move || answer(stream, together, &requests));
        }
    });
    Ok((address, requests))
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The body of an answer that ended with its connection.
fn body(answer: &[u8]) -> Vec<u8> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    head.map_or(Vec::new(), |at| answer[at + 4..].to_vec())
}

/// By blocking calls.
fn get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&request(path))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(body(&answer))
}

/// By awaiting.
async fn get_async(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let stream = annulus::net::TcpStream::connect(address).await?;
    stream.send(request(path)).await?;
    let mut answer = Vec::new();
    while let Some(chunk) = stream.recv().await? {
        answer.extend_from_slice(&chunk);
    }
    Ok(body(&answer))
}

fn name_of(path: &str) -> &str {
    path.rsplit('_').next().unwrap_or(path)
}

/// Writes the file and says whether it is what the server has.
async fn save(folder: &Path, path: &str, bytes: Vec<u8>, trace: &Trace) -> Result<()> {
    let name = name_of(path);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true);
    let file = file.open(folder.join(name)).await?;
    file.write_at(bytes, 0).await?;
    let written = std::fs::read(folder.join(name)).unwrap_or_default();
    trace.say(format_args!("saved {name}, as it should be: {}", written == content(path)));
    Ok(())
}

async fn one_by_one(address: SocketAddr, folder: &Path, trace: &Trace) -> Result<()> {
    for path in PATHS {
        trace.say(format_args!("begin {}", name_of(path)));
        let bytes = get(address, path).unwrap_or_default();
        save(folder, path, bytes, trace).await?;
    }
    Ok(())
}

async fn as_tasks(address: SocketAddr, folder: &Path, trace: &Trace) -> Result<()> {
    let download = |path: &'static str| {
        let trace = trace.clone();
        async move {
            trace.say(format_args!("begin {}", name_of(path)));
            get_async(address, path).await
        }
    };
    let answers = task::gather(PATHS.map(download)).await;
    for (path, bytes) in PATHS.into_iter().zip(answers) {
        save(folder, path, bytes.ok().and_then(Result::ok).unwrap_or_default(), trace).await?;
    }
    Ok(())
}

async fn on_pool(address: SocketAddr, folder: &Path, trace: &Trace) -> Result<()> {
    let pool = blocking::Pool::builder().threads(PATHS.len()).build()?;
    let handles = PATHS.map(|path| {
        trace.say(format_args!("begin {}", name_of(path)));
        pool.submit(move || get(address, path))
    });
    for (path, handle) in PATHS.into_iter().zip(handles) {
        let bytes = handle.await.ok().and_then(io::Result::ok).unwrap_or_default();
        save(folder, path, bytes, trace).await?;
    }
    Ok(())
}

/// Runs the three forms, saves into `folder`, and gives what they printed.
pub(crate) fn run(runtime: &Runtime, folder: &Path) -> io::Result<Vec<String>> {
    let trace = Trace::default();
    for (form, together) in [("one by one", 1), ("as tasks", 3), ("on a pool", 3)] {
        trace.say(form);
        let (address, requests) = serve(together)?;
        let done = runtime.block_on(async {
            match form {
                "one by one" => one_by_one(address, folder, &trace).await,
                "as tasks" => as_tasks(address, folder, &trace).await,
                _ => on_pool(address, folder, &trace).await,
            }
        });
        done.map_err(io::Error::other)?;
        trace.say(format_args!("{} at once", requests.most()));
    }
    Ok(trace.lines())
}

fn main() -> io::Result<()> {
    let runtime = Runtime::builder().shards(1).build().map_err(io::Error::other)?;
    let folder = std::env::temp_dir().join(format!("annulus-downloads-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let done = run(&runtime, &folder);
    std::fs::remove_dir_all(&folder)?;
    done.map(drop)
}
