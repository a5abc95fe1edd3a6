//! The floor on plain threads: one per connection, blocking reads and writes, nothing else.
//!
//! Invariant: a connection's bytes are touched by its own thread only; the map is behind one lock,
//! taken once per batch of commands.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::Protocol;
use super::resp::{Answer, Store};

/// The read buffer of a connection.
const BUFFER_BYTES: usize = 16 * 1024;
/// Small stacks: a thousand connections are a thousand threads.
const STACK_BYTES: usize = 128 * 1024;

/// Serves on `listener` until the process ends.
pub(super) fn serve(listener: &TcpListener, protocol: Protocol) -> io::Result<()> {
    let store = Arc::new(Mutex::new(Store::default()));
    loop {
        let (stream, _) = listener.accept()?;
        let store = Arc::clone(&store);
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // A connection that fails ends; there is nobody to tell.
            let _ = match protocol {
                Protocol::Echo => echo(stream),
                Protocol::Resp => resp(stream, &store),
            };
        })?;
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len])?;
    }
}

fn resp(mut stream: TcpStream, store: &Mutex<Store>) -> io::Result<()> {
    let mut input = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    let mut output = Vec::with_capacity(BUFFER_BYTES);
    loop {
        if filled == input.len() {
            input.resize(input.len() * 2, 0);
        }
        let len = stream.read(&mut input[filled..])?;
        if len == 0 {
            return Ok(());
        }
        filled += len;
        let answer = store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .answer(&input[..filled], &mut output);
        stream.write_all(&output)?;
        output.clear();
        match answer {
            Answer::Consumed(consumed) => {
                input.copy_within(consumed..filled, 0);
                filled -= consumed;
            }
            Answer::Broken => return Ok(()),
        }
    }
}
