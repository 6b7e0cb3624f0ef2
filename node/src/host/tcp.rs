//! What the kernel says of TCP connections: how many segments each has sent again
//! ([sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html), `tcp_info` in `linux/tcp.h`).
//!
//! Any user may ask for the connections of its own network namespace. The messages are the kernel's own structures, in
//! the byte order of the machine except for ports and addresses; fields at their end may be missing in older kernels.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// One TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The kernel's number for it: another connection between the same ends has another one.
    pub inode: u32,
    /// Segments sent again since it was made, without those that the other end had already and said so (by a duplicate
    /// SACK, [RFC 2883](https://www.rfc-editor.org/rfc/rfc2883)): TCP's tail loss probe sends the last segment again when
    /// its acknowledgement is only delayed, and nothing was lost then. May fall by a few when that word comes.
    pub retransmitted: u32,
}

/// Connections by their other end. Of several with the same one, the newest.
pub type Sockets = HashMap<SocketAddr, Socket>;

/// The kernel fills at most this much at a time.
const CHUNK: usize = 32 << 10;
/// Most connections that are looked at: a host may have many that are not the agent's.
const MAX_SOCKETS: usize = 1 << 16;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const HEADER: usize = 16;
/// Length of `inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `inet_diag_msg`.
const MESSAGE: usize = 72;
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;
/// The set of the states asked for: `TCP_ESTABLISHED` alone.
const ESTABLISHED: u32 = 1 << 1;
/// Where `tcp_info` has `tcpi_total_retrans`.
const TOTAL_RETRANS: usize = 100;
/// Where it has `tcpi_dsack_dups`, since Linux 4.19.
const DSACK_DUPS: usize = 216;

/// All established TCP connections of this network namespace. Never waits: the kernel answers within the calls.
///
/// # Errors
/// If the kernel has no socket diagnostics, or a filter of system calls keeps us from them.
pub fn established() -> io::Result<Sockets> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut sockets = Sockets::new();
    for family in [number_of(AddressFamily::Inet), number_of(AddressFamily::Inet6)] {
        dump(&kernel, family, &mut sockets)?;
    }
    Ok(sockets)
}

/// Address families are small numbers.
fn number_of(family: AddressFamily) -> u8 {
    u8::try_from(family as i32).unwrap_or_default()
}

fn dump(kernel: &OwnedFd, family: u8, sockets: &mut Sockets) -> io::Result<()> {
    let sent = send(kernel.as_raw_fd(), &request(family), MsgFlags::empty())?;
    if sent != HEADER + REQUEST {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut chunk, MsgFlags::empty())?;
        let messages = chunk.get(..length).unwrap_or_default();
        if messages.is_empty() || parse(messages, sockets)? {
            return Ok(());
        }
    }
}

fn request(family: u8) -> [u8; HEADER + REQUEST] {
    let mut message = [0; HEADER + REQUEST];
    let fields: [(usize, &[u8]); 6] = [
        (0, &((HEADER + REQUEST) as u32).to_ne_bytes()),
        (4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes()),
        (6, &DUMP.to_ne_bytes()),
        (HEADER, &[family, IPPROTO_TCP]),
        (HEADER + 2, &[1 << (INET_DIAG_INFO - 1)]),
        (HEADER + 4, &ESTABLISHED.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        for (slot, byte) in message.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    }
    message
}

/// Takes what one read gave. True at the end of the dump.
fn parse(mut rest: &[u8], sockets: &mut Sockets) -> io::Result<bool> {
    while rest.len() >= HEADER {
        let length = number(rest, 0).and_then(|length| usize::try_from(u32::from_ne_bytes(length)).ok());
        let message = length.and_then(|length| rest.get(..length));
        let Some(body) = message.and_then(|message| message.get(HEADER..)) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a netlink message is cut off",
            ));
        };
        match number(rest, 4).map(u16::from_ne_bytes) {
            Some(SOCK_DIAG_BY_FAMILY) => {
                if let Some((remote, socket)) = connection(body)
                    && sockets.len() < MAX_SOCKETS
                {
                    let newest = sockets.entry(remote).or_insert(socket);
                    if newest.inode < socket.inode {
                        *newest = socket;
                    }
                }
            }
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let code = number(body, 0).map_or(0, i32::from_ne_bytes);
                return Err(Errno::from_raw(code.saturating_neg()).into());
            }
            _ => {}
        }
        let padded = (HEADER + body.len()).next_multiple_of(4);
        rest = rest.get(padded..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg` with the attributes behind it.
fn connection(message: &[u8]) -> Option<(SocketAddr, Socket)> {
    let port = u16::from_be_bytes(number(message, 6)?);
    let ip: IpAddr = match i32::from(*message.first()?) {
        family if family == AddressFamily::Inet as i32 => Ipv4Addr::from(number::<4>(message, 24)?).into(),
        family if family == AddressFamily::Inet6 as i32 => Ipv6Addr::from(number::<16>(message, 24)?).into(),
        _ => return None,
    };
    let inode = u32::from_ne_bytes(number(message, 68)?);
    let info = attribute(message.get(MESSAGE..)?, INET_DIAG_INFO)?;
    let total = u32::from_ne_bytes(number(info, TOTAL_RETRANS)?);
    let needless = number(info, DSACK_DUPS).map_or(0, u32::from_ne_bytes);
    let retransmitted = total.saturating_sub(needless);
    let remote = SocketAddr::new(ip.to_canonical(), port);
    Some((remote, Socket { inode, retransmitted }))
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(number(rest, 0)?));
        let kind = u16::from_ne_bytes(number(rest, 2)?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernel_tells_of_our_own_connections() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                assert!(any.starts_with('['), "no IPv4");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let sockets = established().unwrap();
            let (there, back) = (
                sockets[&client.peer_addr().unwrap()],
                sockets[&server.peer_addr().unwrap()],
            );
            assert_ne!(there.inode, back.inode);
            assert_eq!((there.retransmitted, back.retransmitted), (0, 0));
            drop((client, server));
        }
    }

    /// One message of a dump, with what the kernel fills in.
    fn message(remote: [u8; 4], port: u16, inode: u32, retransmitted: u32, needless: u32) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body[0] = 2;
        body[6..8].copy_from_slice(&port.to_be_bytes());
        body[24..28].copy_from_slice(&remote);
        body[68..72].copy_from_slice(&inode.to_ne_bytes());
        // An attribute of another kind first, of a length that needs padding.
        body.extend(5_u16.to_ne_bytes());
        body.extend(8_u16.to_ne_bytes());
        body.extend([1, 0, 0, 0]);
        body.extend(236_u16.to_ne_bytes());
        body.extend(INET_DIAG_INFO.to_ne_bytes());
        let mut info = vec![0; 232];
        info[TOTAL_RETRANS..TOTAL_RETRANS + 4].copy_from_slice(&retransmitted.to_ne_bytes());
        info[DSACK_DUPS..DSACK_DUPS + 4].copy_from_slice(&needless.to_ne_bytes());
        body.extend(info);
        framed(SOCK_DIAG_BY_FAMILY, &body)
    }

    fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn counts_are_read_and_the_newest_connection_to_an_address_stands() {
        let mut sockets = Sockets::new();
        let mut read = message([10, 0, 0, 7], 4001, 50, 8, 5);
        read.extend(message([10, 0, 0, 7], 4001, 40, 9, 0));
        read.extend(message([10, 0, 0, 8], 4001, 60, 1, 2));
        assert!(!parse(&read, &mut sockets).unwrap());
        assert!(parse(&framed(NLMSG_DONE, &[0; 4]), &mut sockets).unwrap());
        let socket = |inode, retransmitted| Socket { inode, retransmitted };
        assert_eq!(sockets.len(), 2);
        assert_eq!(sockets[&"10.0.0.7:4001".parse().unwrap()], socket(50, 3));
        assert_eq!(sockets[&"10.0.0.8:4001".parse().unwrap()], socket(60, 0));
    }

    #[test]
    fn the_kernel_s_refusal_is_an_error() {
        let refusal = framed(NLMSG_ERROR, &(-libc_eperm()).to_ne_bytes());
        let error = parse(&refusal, &mut Sockets::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    fn libc_eperm() -> i32 {
        Errno::EPERM as i32
    }

    proptest! {
        #[test]
        fn noise_is_no_connection_and_no_panic(noise in prop::collection::vec(any::<u8>(), 0..400), cut in 0_usize..330) {
            let _ = parse(&noise, &mut Sockets::new());
            let whole = message([10, 0, 0, 7], 4001, 50, 8, 5);
            let mut sockets = Sockets::new();
            let _ = parse(&whole[..cut.min(whole.len() - 1)], &mut sockets);
            prop_assert!(sockets.is_empty());
        }
    }
}
