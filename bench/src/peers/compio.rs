//! The echo server on compio, with its io_uring driver and the flags of a single-threaded ring.
//!
//! Invariant: the driver is io_uring or the peer does not start; no silent fall back to polling.

use std::io;
use std::net::TcpListener;

use compio::buf::BufResult;
use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::TcpStream;
use compio::runtime::Runtime;

use super::BUFFER_BYTES;

/// Echoes on `listener` until the process ends.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor
        .driver_type(DriverType::IoUring)
        .single_issuer(true)
        .defer_taskrun(true)
        .taskrun_flag(true);
    let runtime = Runtime::builder().with_proactor(proactor).build()?;
    runtime.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            compio::runtime::spawn(echo(stream)).detach();
        }
    })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let BufResult(len, filled) = stream.read(buffer).await;
        if len? == 0 {
            return Ok(());
        }
        let BufResult(sent, emptied) = stream.write_all(filled).await;
        sent?;
        buffer = emptied;
        buffer.clear();
    }
}
