//! The echo server on annulus, with any of its engines: the contender that all of this is about.
//!
//! Invariant: one shard, which inherits the process's only core; the same code for every engine.

use std::io;
use std::net::TcpListener;

use annulus::net::{TcpStream, serve_connection};
use annulus::{Engine, Result, Runtime};

/// Echoes on `listener` until the process ends.
pub(super) fn serve(listener: TcpListener, engine: Engine) -> io::Result<()> {
    let runtime = Runtime::builder()
        .engine(engine)
        .shards(1)
        .cpu_cores(0)
        .build()
        .map_err(io::Error::other)?;
    let served: Result<()> = runtime.block_on(async {
        let listener = annulus::net::TcpListener::from_std(listener)?;
        loop {
            let stream = listener.accept().await?;
            serve_connection("echo", stream, |stream| async {
                // A peer that goes away is no concern of the server's.
                drop(echo(stream).await);
            })?;
        }
    });
    served.map_err(io::Error::other)
}

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send(chunk).await?;
    }
    Ok(())
}
