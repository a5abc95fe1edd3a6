//! Host names to addresses, off the shard.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::blocking;
use crate::error::{Error, Result};

/// The addresses of `host`, each with `port`, in the order in which to try them (getaddrinfo(3),
/// RFC 6724), without doubles.
///
/// The system's resolver may wait for a name server, so it runs on a helper thread; a literal
/// address (`127.0.0.1`, `::1`, `[::1]`, `fe80::1%2`) needs none and is ready at once. Cancel-safe:
/// a lookup that has begun ends on its thread and is dropped.
///
/// # Errors
/// `is_unresolved` if there is no such host or no name server, named with the host; `is_config` for
/// an empty host.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if let Some(address) = literal(host, port) {
        return Ok(vec![address]);
    }
    if host.is_empty() {
        return Err(Error::config("a host to resolve needs a name"));
    }
    let name = host.to_owned();
    // The job ends with its lookup; the order of the answer is kept.
    let lookup = move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let found = blocking::run(lookup).await?;
    let found = found.map_err(|error| Error::unresolved(host, error))?;
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(found.len());
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Error::unresolved(host, "it has no addresses"));
    }
    Ok(addresses)
}

fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port));
    }
    // With a numeric scope, which only a socket address has.
    let scoped = bare.contains('%').then(|| format!("[{bare}]:{port}").parse());
    scoped.and_then(std::result::Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_address_needs_no_resolver() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1:80"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("fe80::1%2", "[fe80::1%2]:80"),
        ] {
            assert_eq!(literal(host, 80), Some(address.parse().unwrap()), "{host}");
        }
        for host in ["localhost", "1.2.3", "127.0.0.1:80", "[::1", "fe80::1%eth0", "", "%"] {
            assert_eq!(literal(host, 80), None, "{host}");
        }
    }
}
