//! Connecting to a host by whichever of its addresses answers first (RFC 8305, happy eyeballs).
//!
//! Addresses are tried in an order that alternates between the families, each after a delay from
//! the one before, or at once when that has failed. The first connection wins; the others are given
//! up and their sockets closed.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use socket2::{Domain, SockRef, Socket, Type};

use super::connection::Connection;
use super::{TcpStream, resolve};
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::op::SocketOptions;
use crate::time;

/// How to connect to a host.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The most that resolving and connecting may take together; no limit by default.
    pub timeout: Option<Duration>,
    /// How long an attempt is waited for before the next address is tried beside it: 250 ms by
    /// default (RFC 8305, section 5), at least 10 ms.
    pub attempt_delay: Duration,
    /// The address of this end; its port may be 0. Addresses of the other family are left out.
    pub bind: Option<SocketAddr>,
    /// The options of the connection.
    pub socket: SocketOptions,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: None,
            attempt_delay: Duration::from_millis(limits::ATTEMPT_DELAY_MS_DEFAULT),
            bind: None,
            socket: SocketOptions::default(),
        }
    }
}

impl TcpStream {
    /// Connects to `host`, a name or an address, by whichever of its addresses answers first.
    /// Dropping the future gives all attempts up.
    ///
    /// # Errors
    /// As [`TcpStream::connect_to_with`].
    pub async fn connect_to(host: &str, port: u16) -> Result<Self> {
        Self::connect_to_with(host, port, &ConnectOptions::default()).await
    }

    /// [`TcpStream::connect_to`] with options.
    ///
    /// Dropping the future gives all attempts up and leaves no socket behind.
    ///
    /// # Errors
    /// Those of [`resolve()`]; `is_timed_out` at [`ConnectOptions::timeout`]; otherwise the error
    /// number of the last attempt (connect(2)), with each address and how it failed in the message.
    pub async fn connect_to_with(host: &str, port: u16, options: &ConnectOptions) -> Result<Self> {
        let what = format!("connecting to {host} port {port}");
        within(options, &what, async {
            let addresses = resolve(host, port).await?;
            race(&what, &addresses, options).await
        })
        .await
    }

    /// [`TcpStream::connect_to_with`] for addresses that are known.
    ///
    /// Dropping the future gives all attempts up and leaves no socket behind.
    ///
    /// # Errors
    /// As [`TcpStream::connect_to_with`]; `is_config` without an address.
    pub async fn connect_any(addresses: &[SocketAddr], options: &ConnectOptions) -> Result<Self> {
        let what = "connecting";
        within(options, what, race(what, addresses, options)).await
    }
}

async fn within(
    options: &ConnectOptions,
    what: &str,
    connecting: impl Future<Output = Result<TcpStream>>,
) -> Result<TcpStream> {
    match options.timeout {
        None => connecting.await,
        Some(limit) => match time::timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::timed_out(what)),
        },
    }
}

/// Alternates between the families, beginning with that of the first address; in each, the order
/// stays (RFC 8305, section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut preferred, mut others): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    preferred.reverse();
    others.reverse();
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(preferred.pop());
        order.extend(others.pop());
    }
    order
}

async fn race(what: &str, addresses: &[SocketAddr], options: &ConnectOptions) -> Result<TcpStream> {
    let is_reachable =
        |address: &&SocketAddr| options.bind.is_none_or(|own| own.is_ipv4() == address.is_ipv4());
    let reachable: Vec<SocketAddr> = addresses.iter().filter(is_reachable).copied().collect();
    if reachable.is_empty() {
        return Err(Error::config(match options.bind {
            Some(own) => format!("{what}: no address of the family of {own}, the one to bind to"),
            None => format!("{what}: there is no address to try"),
        }));
    }
    let delay = options.attempt_delay.max(Duration::from_millis(limits::ATTEMPT_DELAY_MS_MIN));
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    for address in interleave(&reachable) {
        attempts.push(attempt(address, options));
        let begun = time::sleep(delay);
        let mut begun = std::pin::pin!(begun);
        // Until the delay is over, or nothing is being tried any more.
        while !attempts.is_empty() {
            match select(attempts.next(), begun.as_mut()).await {
                Either::Left((Some(Ok(stream)), _)) => return Ok(stream),
                Either::Left((Some(Err(failure)), _)) => {
                    let is_last = failure.0 == address;
                    failures.push(failure);
                    if is_last {
                        break;
                    }
                }
                Either::Left((None, _)) | Either::Right(_) => break,
            }
        }
    }
    while let Some(ended) = attempts.next().await {
        match ended {
            Ok(stream) => return Ok(stream),
            Err(failure) => failures.push(failure),
        }
    }
    Err(all_failed(what, &failures))
}

type Failure = (SocketAddr, Error);

async fn attempt(
    address: SocketAddr,
    options: &ConnectOptions,
) -> std::result::Result<TcpStream, Failure> {
    let making = |error| (address, Error::io("making a socket", Errno::from_io(&error)));
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None).map_err(making)?;
    options.socket.apply(SockRef::from(&socket)).map_err(making)?;
    if let Some(own) = options.bind {
        socket.bind(&own.into()).map_err(|error| {
            (address, Error::io(format!("binding to {own}"), Errno::from_io(&error)))
        })?;
    }
    let connection = Connection::connect(socket, address.into()).await;
    connection.map(|connection| TcpStream { connection }).map_err(|error| (address, error))
}

/// The error of all attempts, in the order in which they failed: the number is the last one's.
fn all_failed(what: &str, failures: &[Failure]) -> Error {
    let Some((_, last)) = failures.last() else {
        return Error::config(format!("{what}: there is no address to try"));
    };
    let mut text = format!("{what}: ");
    for (index, (_, error)) in failures.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let _ = write!(text, "{separator}{error}");
    }
    last.clone().with_message(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let order = interleave(&parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(order, parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        let order = interleave(&parse(&["1.1.1.1:1", "1.1.1.2:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(order, parse(&["1.1.1.1:1", "[::1]:1", "1.1.1.2:1", "[::2]:1"]));
        assert_eq!(interleave(&[]), []);
    }
}
