//! Listening sockets: one per shard on the same address, so that the kernel spreads connections.
//!
//! Called before the shards start, so that a refusal is a plain message. SO_REUSEPORT lets shards
//! share a port, and would let a second daemon of the same user share it too.
//!
//! Invariant: the first socket binds and listens *without* SO_REUSEPORT, which fails if anybody has
//! the port. It gets the option afterwards, and only then do the others join it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::settings::Settings;
use crate::shard::ShardId;

/// Connections that wait for being accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// The listeners of all services, until the shards take theirs.
#[derive(Debug)]
pub struct Listeners {
    /// Where RESP listens, with the port that was taken.
    pub resp_address: Option<SocketAddr>,
    /// Where HTTP listens, with the port that was taken.
    pub http_address: Option<SocketAddr>,
    of_shards: Vec<OfShard>,
}

/// The listeners of one shard.
#[derive(Debug, Default)]
pub struct OfShard {
    /// For the Redis protocol.
    pub resp: Option<TcpListener>,
    /// For HTTP.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Opens what the settings ask for, for each of `shards` shards.
    pub fn open(settings: &Settings, shards: usize) -> Result<Self, ListenError> {
        let of_service = |service, address: Option<SocketAddr>| {
            address.map_or(Ok(Vec::new()), |address| listen(service, address, shards))
        };
        let resp = of_service("resp", settings.resp.listen)?;
        let http = of_service("http", settings.http.listen)?;
        let bound = |listeners: &[TcpListener]| listeners.first()?.local_addr().ok();
        let (resp_address, http_address) = (bound(&resp), bound(&http));
        let (mut resp, mut http) = (resp.into_iter(), http.into_iter());
        let of_shards =
            (0..shards).map(|_| OfShard { resp: resp.next(), http: http.next() }).collect();
        Ok(Self { resp_address, http_address, of_shards })
    }

    /// Hands a shard its listeners; they are handed out once.
    pub fn take(&mut self, shard: ShardId) -> OfShard {
        self.of_shards.get_mut(shard.index()).map(std::mem::take).unwrap_or_default()
    }
}

/// Why a service can not listen, with the remedy.
#[derive(Debug)]
pub struct ListenError {
    service: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Opens `count` listeners on `address` for `service` (its section in the configuration).
///
/// Port zero takes a free port, the same for all. The listeners are non-blocking.
pub fn listen(
    service: &'static str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let refused = |source| ListenError { service, address, source };
    let first = open(address).map_err(refused)?;
    let bound = first.set_reuse_port(true).and_then(|()| first.local_addr()).map_err(refused)?;
    let bound = bound.as_socket().unwrap_or(address);
    let mut listeners = vec![TcpListener::from(first)];
    for _ in 1..count {
        listeners.push(TcpListener::from(open_sharing(bound).map_err(refused)?));
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a daemon that has just ended may linger on the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // What is written is what is listened on; `::` does not silently include IPv4.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn open_sharing(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl fmt::Display for ListenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, address, source } = self;
        let port = address.port();
        write!(formatter, "cannot listen on {address} for {service}: ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                formatter,
                "the port is taken, perhaps by another annulus (`ss -ltnp sport = :{port}` shows \
                 by whom); stop it, or choose another address with --{service} or in [{service}]"
            ),
            io::ErrorKind::PermissionDenied => write!(
                formatter,
                "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; \
                 choose a port from 1024 up, or grant the capability (AmbientCapabilities= in the \
                 systemd unit)"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                formatter,
                "no interface of this host has the address {}; `ip address` lists those there are",
                address.ip()
            ),
            _ => match source.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    write!(formatter, "no file descriptor is left ({source}); raise `ulimit -n`")
                }
                _ => write!(formatter, "{source}"),
            },
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().expect("an address")
    }

    #[test]
    fn every_shard_listens_on_the_same_port() {
        let listeners = listen("resp", loopback(), 3).expect("a free port");
        let address = listeners[0].local_addr().expect("bound");
        assert!(listeners.iter().all(|one| one.local_addr().expect("bound") == address));
        TcpStream::connect(address).expect("somebody listens");
    }

    #[test]
    fn a_second_daemon_is_refused_although_the_first_shares_the_port_among_its_shards() {
        let listeners = listen("resp", loopback(), 2).expect("a free port");
        let address = listeners[0].local_addr().expect("bound");
        let error = listen("resp", address, 2).expect_err("taken").to_string();
        let wanted = format!("cannot listen on {address} for resp: the port is taken");
        assert!(error.starts_with(&wanted), "{error}");
        assert!(error.ends_with("choose another address with --resp or in [resp]"), "{error}");
    }

    #[test]
    fn the_port_is_free_again_once_the_listeners_are_closed() {
        let listeners = listen("resp", loopback(), 2).expect("a free port");
        let address = listeners[0].local_addr().expect("bound");
        drop(listeners);
        listen("resp", address, 2).expect("free again");
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let address = "192.0.2.1:6380".parse().expect("an address");
        let error = listen("http", address, 1).expect_err("not ours").to_string();
        assert!(error.contains("no interface of this host has the address 192.0.2.1"), "{error}");
    }
}
