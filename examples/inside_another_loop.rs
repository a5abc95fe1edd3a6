//! annulus inside a loop that is not its own: a program that waits in poll(2) for its own events, as
//! a GUI's does, and serves an echo with annulus on the same thread in between.
//!
//! ```text
//! cargo run --example inside_another_loop [uring|epoll]
//! ```

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use annulus::net::{TcpListener, serve_connection};
use annulus::{Engine, Result, Runtime, clock, task};

/// Which of the descriptors are readable, after at most `timeout`.
fn poll(descriptors: [RawFd; 2], timeout: Option<Duration>) -> [bool; 2] {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let millis = timeout.map_or(-1, |timeout| timeout.as_micros().div_ceil(1000) as i32);
    // SAFETY: two entries, which are valid for the call.
    unsafe { libc::poll(polled.as_mut_ptr(), 2, millis) };
    polled.map(|polled| polled.revents != 0)
}

/// Starts a server of annulus while its loop does not run.
fn start_echo(runtime: &Runtime) -> Result<SocketAddr> {
    let _entered = runtime.enter()?;
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    let accepting = async move {
        while let Ok(stream) = listener.accept().await {
            let echo = |stream: annulus::net::TcpStream| async move {
                while let Ok(Some(chunk)) = stream.recv().await {
                    if stream.send(chunk).await.is_err() {
                        break;
                    }
                }
            };
            if serve_connection("echo", stream, echo).is_err() {
                break;
            }
        }
    };
    task::spawn(accepting).detach();
    Ok(address)
}

/// The user: asks the server for an echo, then presses the button that the other loop waits for.
fn click(mut button: UnixStream, address: SocketAddr) -> std::io::Result<()> {
    let mut peer = std::net::TcpStream::connect(address)?;
    for _ in 0..3 {
        peer.write_all(b"hello")?;
        peer.read_exact(&mut [0; 5])?;
        button.write_all(b"x")?;
    }
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let engine: Engine = std::env::args().nth(1).unwrap_or("auto".into()).parse()?;
    let runtime = Runtime::builder().engine(engine).shards(1).build()?;
    let descriptor = runtime.descriptor()?;
    let address = start_echo(&runtime)?;
    let (mut clicks, button) = UnixStream::pair()?;
    let user = thread::spawn(move || click(button, address));

    let (mut clicked, mut turns) = (0, 0);
    while clicked < 3 {
        let timeout = runtime.next_deadline().map(|deadline| deadline.since(clock::now()));
        let [is_own, _] = poll([clicks.as_raw_fd(), descriptor.as_raw_fd()], timeout);
        if is_own {
            clicks.read_exact(&mut [0])?;
            clicked += 1;
            println!("click {clicked}");
        }
        runtime.turn(Some(Duration::ZERO))?;
        turns += 1;
    }
    user.join().map_err(|_| "the user's thread panicked")??;
    println!("3 clicks, 3 echoes, {turns} turns of annulus in between");
    let report = runtime.close_within(Duration::from_secs(1))?;
    assert_eq!((report.cancelled, report.leaked.len()), (0, 0));
    Ok(())
}
