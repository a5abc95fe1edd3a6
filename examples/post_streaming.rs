//! A POST whose answer is read while it is still being written: three chunks, one each unit.
//!
//! Answers `session.post(url, json=...)` with `async for chunk in response.content.iter_any()`: a
//! callback for each chunk as it arrives, a branch for a status other than 200, and a chunk that is
//! not UTF-8 or not a number is reported while the stream goes on. HTTP is written by hand here, as
//! far as this program needs it.
//!
//! `cargo run --example post_streaming`

mod trace;

use std::net::SocketAddr;

use annulus::net::{TcpListener, TcpStream};
use annulus::stream::{self, Stream, StreamExt};
use annulus::{Result, Runtime, task, time};
use trace::{Trace, UNIT, units_since};

/// The server's part: answers one request, chunk by chunk.
async fn answer(stream: TcpStream) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        let Some(bytes) = stream.recv().await? else { return Ok(()) };
        request.extend_from_slice(&bytes);
    }
    if request.starts_with(b"POST /missing ") {
        stream
            .send(&b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"[..])
            .await?;
        return Ok(());
    }
    let chunks: [&[u8]; 3] = if request.starts_with(b"POST /odd ") {
        [b"1", b"\xff\xfe", b"x3"]
    } else {
        [b"1", b"2", b"3"]
    };
    stream.send(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]).await?;
    for chunk in chunks {
        time::sleep(UNIT).await;
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        stream.send(framed).await?;
    }
    time::sleep(UNIT).await;
    stream.send(&b"0\r\n\r\n"[..]).await?;
    Ok(())
}

async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let stream = listener.accept().await?;
        task::spawn(async { drop(answer(stream).await) }).detach();
    }
}

/// A connection, and what has arrived of it and is not used yet.
struct Incoming {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Incoming {
    /// Everything up to `mark`, which is taken off too; `None` if the connection ends before it.
    async fn until(&mut self, mark: &[u8]) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.bytes.windows(mark.len()).position(|window| window == mark) {
                let rest = self.bytes.split_off(at + mark.len());
                let mut found = std::mem::replace(&mut self.bytes, rest);
                found.truncate(at);
                return Ok(Some(found));
            }
            let Some(arrived) = self.stream.recv().await? else { return Ok(None) };
            self.bytes.extend_from_slice(&arrived);
        }
    }

    /// The next chunk of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(size) = self.until(b"\r\n").await? else { return Ok(None) };
        if size == b"0" {
            return Ok(None);
        }
        self.until(b"\r\n").await
    }
}

/// An answer: its status, and its body as it arrives.
struct Response {
    status: u16,
    incoming: Incoming,
}

impl Response {
    fn chunks(self) -> impl Stream<Item = Vec<u8>> {
        let mut incoming = self.incoming;
        stream::from_fn(async move || incoming.chunk().await.ok().flatten())
    }
}

async fn post(address: SocketAddr, path: &str, json: &str) -> Result<Response> {
    let stream = TcpStream::connect(address).await?;
    let length = json.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{json}"
    );
    stream.send(request.into_bytes()).await?;
    let mut incoming = Incoming { stream, bytes: Vec::new() };
    let head = incoming.until(b"\r\n\r\n").await?.unwrap_or_default();
    let status =
        String::from_utf8_lossy(&head).split(' ').nth(1).and_then(|text| text.parse().ok());
    Ok(Response { status: status.unwrap_or(0), incoming })
}

/// What is done with each chunk.
fn on_chunk(chunk: &[u8], after: &str, trace: &Trace) {
    match std::str::from_utf8(chunk).map(|text| (text, text.parse::<u32>())) {
        Ok((_, Ok(number))) => trace.say(format_args!("chunk {number} after {after}")),
        Ok((text, Err(error))) => trace.say(format_args!("chunk {text:?}: {error}")),
        Err(_) => trace.say(format_args!("chunk {chunk:?} is not UTF-8")),
    }
}

async fn program(trace: &Trace) -> Result<()> {
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    let server = task::spawn(serve(listener));
    for path in ["/stream", "/odd", "/missing"] {
        trace.say(format_args!("POST {path}"));
        let response = post(address, path, r#"{"question": 1}"#).await?;
        if response.status != 200 {
            trace.say(format_args!("status {}", response.status));
            continue;
        }
        let start = time::now();
        let mut chunks = std::pin::pin!(response.chunks());
        while let Some(chunk) = chunks.next().await {
            on_chunk(&chunk, &units_since(start), trace);
        }
        trace.say("end of the body");
    }
    server.abort();
    Ok(())
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Result<Vec<String>> {
    let trace = Trace::default();
    runtime.block_on(program(&trace))?;
    Ok(trace.lines())
}

fn main() -> Result<()> {
    run(&Runtime::builder().shards(1).build()?).map(drop)
}
