//! The echo server on glommio: one local executor in the calling thread.
//!
//! Invariant: glommio binds by itself; the address is announced only once it has.

use std::io;
use std::net::SocketAddr;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use super::BUFFER_BYTES;
use crate::say;

/// Locked memory for its buffers: the smallest that it accepts without falling back.
const IO_MEMORY_BYTES: usize = 1024 * 1024;

/// Echoes on `address` until the process ends.
pub(super) fn serve(address: SocketAddr) -> io::Result<()> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .make()
        .map_err(other)?;
    executor.run(async {
        let listener = TcpListener::bind(address).map_err(other)?;
        say(format_args!("listening on {}", listener.local_addr().map_err(other)?));
        loop {
            let stream = listener.accept().await.map_err(other)?;
            stream.set_nodelay(true).map_err(other)?;
            glommio::spawn_local(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len]).await?;
    }
}

/// glommio's errors are not `Sync`, so only their text travels.
fn other(error: glommio::GlommioError<()>) -> io::Error {
    io::Error::other(error.to_string())
}
