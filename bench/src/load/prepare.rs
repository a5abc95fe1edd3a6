//! What has to be in a server before it is read: keys by SET, one path by PUT.
//!
//! Called before a run by `load::command` and `compare`. Blocking and plain: it is not measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::exchange::{HttpRequest, Values};
use crate::failure::Failure;

/// SETs sent before their replies are read.
const BATCH_COMMANDS: u64 = 256;
/// A server that takes longer for one batch has failed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let open = || -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(stream)
    };
    open().map_err(|error| Failure::failed(format!("cannot connect to {address}"), error))
}

/// Sets every key of `values`.
pub(crate) fn set_all(address: SocketAddr, values: &Values) -> Result<(), Failure> {
    const DONE: &[u8] = b"+OK\r\n";
    let mut stream = connect(address)?;
    let mut output = Vec::new();
    let mut key = 0;
    while key < values.keys() {
        output.clear();
        let end = values.keys().min(key + BATCH_COMMANDS);
        let count = (end - key) as usize;
        for key in key..end {
            values.write_set(key, &mut output);
        }
        let mut replies = vec![0; DONE.len() * count];
        stream
            .write_all(&output)
            .and_then(|()| stream.read_exact(&mut replies))
            .map_err(|error| Failure::failed(format!("cannot set keys at {address}"), error))?;
        if replies != DONE.repeat(count) {
            return Err(Failure::failed(
                format!("{address} refused a SET"),
                replies[..replies.len().min(80)].escape_ascii(),
            ));
        }
        key = end;
    }
    Ok(())
}

/// Puts `body` at `path`; any 2xx will do.
pub(crate) fn put(address: SocketAddr, path: &str, body: &[u8]) -> Result<(), Failure> {
    let request = HttpRequest::new("PUT", &address.to_string(), path, body, None);
    let mut stream = connect(address)?;
    let mut reply = [0; 1024];
    let mut filled = 0;
    stream.write_all(request.bytes()).map_err(|error| Failure::failed("PUT", error))?;
    // The status line is all that matters; the connection is dropped after it.
    while filled < "HTTP/1.1 200".len() {
        match stream.read(&mut reply[filled..]) {
            Ok(0) => return Err(Failure::failed("PUT", "the server closed the connection")),
            Ok(len) => filled += len,
            Err(error) => return Err(Failure::failed("PUT", error)),
        }
    }
    if reply.starts_with(b"HTTP/1.1 2") {
        return Ok(());
    }
    Err(Failure::failed(format!("{address} refused PUT {path}"), reply[..filled].escape_ascii()))
}
