//! Datagrams: what an operation owns to send one or to receive some, and how a received one lies in
//! memory.
//!
//! All drivers leave a received datagram in one layout, the one that the kernel gives a multishot
//! recvmsg (`struct io_uring_recvmsg_out` of <linux/io_uring.h>): a header of four words, room for
//! the sender's name, the payload. Whoever takes it reads the name then, not the driver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddress;

use socket2::SockAddr;

use crate::buffer::{Lease, Payload, ReadBuffer};

/// Bytes of `struct io_uring_recvmsg_out`: lengths of name, control data and payload, and flags.
pub(crate) const HEADER_BYTES: usize = 16;

/// Room for a sender's name.
pub(crate) const NAME_BYTES: usize = size_of::<libc::sockaddr_storage>();

/// Where the payload begins.
pub(crate) const PAYLOAD_OFFSET: usize = HEADER_BYTES + NAME_BYTES;

/// The header of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name_length: u32,
    pub(crate) payload_length: u32,
    pub(crate) flags: u32,
}

impl Header {
    /// As it lies in memory; there is no control data.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let words = [self.name_length, 0, self.payload_length, self.flags];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let mut words = [0; 4];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([place[0], place[1], place[2], place[3]]);
        }
        let [name_length, _, payload_length, flags] = words;
        Self { name_length, payload_length, flags }
    }
}

/// A received datagram in its layout, taken apart.
pub(crate) struct Parcel {
    pub(crate) payload: Lease,
    pub(crate) sender: Sender,
    /// Whether its end was cut off for want of room (MSG_TRUNC, recv(2)).
    pub(crate) truncated: bool,
}

impl Parcel {
    /// Takes apart what a driver has left.
    pub(crate) fn open(mut lease: Lease) -> Self {
        let (header, rest) = lease.split_first_chunk().expect("a driver leaves whole layouts");
        let header = Header::from_bytes(*header);
        let sender = Sender::read(&rest[..NAME_BYTES], header.name_length as usize);
        lease.advance(PAYLOAD_OFFSET);
        Self { payload: lease, sender, truncated: header.flags & libc::MSG_TRUNC as u32 != 0 }
    }
}

/// Who sent a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A socket without a name, or with one of a family that is not known here.
    Nameless,
    Inet(SocketAddr),
    /// The bytes of `sun_path` (unix(7)): a path, or a zero byte and an abstract name.
    Unix(Box<[u8]>),
}

impl Sender {
    /// From a `sockaddr` of `length` bytes at the start of `name` (ip(7), ipv6(7), unix(7)).
    pub(crate) fn read(name: &[u8], length: usize) -> Self {
        let name = &name[..length.min(name.len())];
        let Some((family, rest)) = name.split_first_chunk::<2>() else { return Sender::Nameless };
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET => Self::read_v4(rest),
            libc::AF_INET6 => Self::read_v6(rest),
            libc::AF_UNIX => {
                let is_abstract = rest.first() == Some(&0);
                let end = rest.iter().position(|byte| *byte == 0).filter(|_| !is_abstract);
                match &rest[..end.unwrap_or(rest.len())] {
                    [] => Sender::Nameless,
                    path => Sender::Unix(path.into()),
                }
            }
            _ => Sender::Nameless,
        }
    }

    fn read_v4(rest: &[u8]) -> Self {
        let Some((port, rest)) = rest.split_first_chunk::<2>() else { return Sender::Nameless };
        let Some((address, _)) = rest.split_first_chunk::<4>() else { return Sender::Nameless };
        let address = IpAddr::V4(Ipv4Addr::from(*address));
        Sender::Inet(SocketAddr::new(address, u16::from_be_bytes(*port)))
    }

    fn read_v6(rest: &[u8]) -> Self {
        let Some((port, rest)) = rest.split_first_chunk::<2>() else { return Sender::Nameless };
        let Some((flow, rest)) = rest.split_first_chunk::<4>() else { return Sender::Nameless };
        let Some((address, rest)) = rest.split_first_chunk::<16>() else { return Sender::Nameless };
        let Some((scope, _)) = rest.split_first_chunk::<4>() else { return Sender::Nameless };
        // The flow is kept as it is on the wire, as `std` does; port and flow are big-endian.
        Sender::Inet(SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(*address),
            u16::from_be_bytes(*port),
            u32::from_ne_bytes(*flow),
            u32::from_ne_bytes(*scope),
        )))
    }

    pub(crate) fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            Sender::Inet(address) => Some(*address),
            Sender::Nameless | Sender::Unix(_) => None,
        }
    }

    /// As an address of `std`; one without a name where there is none.
    pub(crate) fn to_unix(&self) -> std::io::Result<UnixAddress> {
        match self {
            Sender::Unix(path) => match path.split_first() {
                Some((0, name)) => UnixAddress::from_abstract_name(name),
                _ => UnixAddress::from_pathname(std::ffi::OsStr::from_bytes(path)),
            },
            Sender::Nameless | Sender::Inet(_) => UnixAddress::from_pathname(""),
        }
    }
}

/// Which datagrams a stream of them takes, and in what layout: the header that a multishot recvmsg
/// reads. It is the same for all: room for a name, no control data.
pub(crate) struct Shape(libc::msghdr);

impl Shape {
    pub(crate) fn new() -> Self {
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        Self(header)
    }

    pub(crate) fn header(&self) -> *const libc::msghdr {
        &raw const self.0
    }
}

/// A datagram to one address or to the connected peer, and what the kernel reads to send it.
pub(crate) struct Letter {
    pub(crate) payload: Payload,
    address: Option<SockAddr>,
    /// Whether a peer without room is its sender's to wait for.
    at_once: bool,
    vector: libc::iovec,
    header: libc::msghdr,
}

impl Letter {
    /// A letter that waits for room in the own socket.
    pub(crate) fn new(payload: Payload, address: SockAddr) -> Box<Self> {
        Self::with(payload, Some(address), false)
    }

    /// A letter that fails with EAGAIN where it cannot be sent at once: for Unix sockets, whose
    /// peer may be without room.
    ///
    /// An unconnected socket has no readiness that tells of its peer. And the ring would not send
    /// what it was given: the kernel has taken the payload when it finds that the peer has no room,
    /// and sends an empty datagram when it tries again (seen on Linux 6.18).
    pub(crate) fn at_once(payload: Payload, address: Option<SockAddr>) -> Box<Self> {
        Self::with(payload, address, true)
    }

    fn with(payload: Payload, address: Option<SockAddr>, at_once: bool) -> Box<Self> {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { payload, address, at_once, vector, header })
    }

    pub(crate) fn is_at_once(&self) -> bool {
        self.at_once
    }

    /// The header for sendmsg(2), valid as long as the letter stays where it is.
    pub(crate) fn header(&mut self) -> *const libc::msghdr {
        self.vector.iov_base = self.payload.as_ptr().cast_mut().cast();
        self.vector.iov_len = self.payload.len();
        if let Some(address) = &self.address {
            self.header.msg_name = address.as_ptr().cast_mut().cast();
            self.header.msg_namelen = address.len();
        }
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        &raw const self.header
    }
}

/// Room of the caller's for one datagram, and what the kernel fills in with it.
pub(crate) struct Reception {
    pub(crate) buffer: ReadBuffer,
    name: [u8; NAME_BYTES],
    vector: libc::iovec,
    header: libc::msghdr,
}

impl Reception {
    pub(crate) fn new(buffer: ReadBuffer) -> Box<Self> {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { buffer, name: [0; NAME_BYTES], vector, header })
    }

    /// The header for recvmsg(2), valid as long as the reception stays where it is.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        let (start, length) = self.buffer.spare();
        self.vector.iov_base = start.as_ptr().cast();
        self.vector.iov_len = length;
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_namelen = NAME_BYTES as libc::socklen_t;
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// Who sent what has been received.
    pub(crate) fn sender(&self) -> Sender {
        Sender::read(&self.name, self.header.msg_namelen as usize)
    }

    /// Whether its end was cut off for want of room.
    pub(crate) fn is_truncated(&self) -> bool {
        self.header.msg_flags & libc::MSG_TRUNC != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of an address, as the kernel would write them.
    fn bytes_of(address: &SockAddr) -> Vec<u8> {
        // SAFETY: the address has that many bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize)
        };
        bytes.to_vec()
    }

    #[test]
    fn a_senders_address_is_read_as_the_kernel_writes_it() {
        for text in ["127.0.0.1:80", "255.1.2.3:65535", "[::1]:1", "[fe80::1%7]:4000"] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = bytes_of(&address.into());
            assert_eq!(Sender::read(&bytes, bytes.len()), Sender::Inet(address), "{text}");
            for cut in 0..bytes.len() {
                // One field short of an address is none; it is no reason to fail.
                let _ = Sender::read(&bytes, cut);
            }
        }
        assert_eq!(Sender::read(&[], 0), Sender::Nameless);
        assert_eq!(Sender::read(&[255, 255, 1], 3), Sender::Nameless);
    }

    #[test]
    fn a_unix_senders_name_is_read_as_the_kernel_writes_it() {
        let read = |address: SockAddr| {
            let bytes = bytes_of(&address);
            Sender::read(&bytes, bytes.len())
        };
        let path = read(SockAddr::unix("/tmp/socket").unwrap());
        assert_eq!(path, Sender::Unix(b"/tmp/socket".as_slice().into()));
        assert_eq!(path.to_unix().unwrap().as_pathname().unwrap().to_str(), Some("/tmp/socket"));
        let name = read(SockAddr::unix("\0hidden").unwrap());
        assert_eq!(name, Sender::Unix(b"\0hidden".as_slice().into()));
        assert_eq!(name.to_unix().unwrap().as_abstract_name(), Some(&b"hidden"[..]));
        let nameless = Sender::read(&(libc::AF_UNIX as u16).to_ne_bytes(), 2);
        assert_eq!(nameless, Sender::Nameless);
        assert!(nameless.to_unix().unwrap().is_unnamed());
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let header = Header { name_length: 16, payload_length: 70_000, flags: 0x20 };
        assert_eq!(Header::from_bytes(header.to_bytes()), header);
    }
}
