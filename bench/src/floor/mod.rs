//! Floors: bare servers without any runtime, written as well as a competent engineer would.
//!
//! `annulus-bench floor` runs one; `compare` measures annulus against them. A floor is the limit on
//! a machine, so it does nothing that its protocol does not need, and checks nothing twice.

mod buffer_ring;
mod epoll;
mod resp;
mod ring_echo;
mod ring_resp;
mod ring_setup;
mod table;
mod threads;

use std::net::{SocketAddr, TcpListener};

use clap::{Args, ValueEnum};
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};

use crate::affinity;
use crate::failure::Failure;
use crate::say;

/// Connections that may wait for accept: the load generator opens thousands at once.
const BACKLOG_CONNECTIONS: i32 = 4096;

/// How a floor talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// A bare io_uring loop: multishot accept and receive, provided buffers, one enter per turn.
    Ring,
    /// A bare edge-triggered epoll loop.
    Epoll,
    /// One thread per connection, plain blocking calls.
    Threads,
}

/// What a floor serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Sends back what it receives.
    Echo,
    /// GET, SET, PING, INCR and MSET over a hash map.
    Resp,
}

/// Flags of `annulus-bench floor`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How to talk to the kernel.
    #[arg(long, value_enum, default_value = "ring")]
    engine: Engine,
    /// What to serve.
    #[arg(long, value_enum, default_value = "echo")]
    protocol: Protocol,
    /// Address to listen on; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Core to stay on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Runs the floor that `arguments` names until the process is killed.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(core) = arguments.cpu {
        affinity::pin(&[core])?;
    }
    let listener = listen(arguments.listen)?;
    let outcome = match (arguments.engine, arguments.protocol) {
        (Engine::Ring, Protocol::Echo) => ring_echo::serve(&listener),
        (Engine::Ring, Protocol::Resp) => ring_resp::serve(&listener),
        (Engine::Epoll, protocol) => epoll::serve(&listener, protocol),
        (Engine::Threads, protocol) => threads::serve(&listener, protocol),
    };
    outcome.map_err(|error| Failure::failed("floor", error))
}

/// A listening socket with nodelay, which accepted sockets inherit, announced on stdout as
/// `listening on ADDR` so that whoever started the server knows when and where to connect.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    raise_descriptor_limit();
    let bind = || -> std::io::Result<TcpListener> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(IpProtocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        Ok(socket.into())
    };
    let listener =
        bind().map_err(|error| Failure::failed(format!("cannot listen on {address}"), error))?;
    let address = listener.local_addr().map_err(|error| Failure::failed("listen", error))?;
    say(format_args!("listening on {address}"));
    Ok(listener)
}

/// Raises the soft limit of open descriptors to the hard one; best effort, accept reports the rest.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("annulus-bench: descriptor limit stays at {:?}: {error}", limit.current);
    }
}
