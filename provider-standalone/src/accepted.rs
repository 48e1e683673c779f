//! Who accepted a connection to a listening socket that several processes share.
//!
//! The kernel is asked for exactly that connection: its table may have tens of thousands. It knows the inode of the
//! accepting end, which the processes that have it open show in `/proc`. Where the kernel does not answer, it cannot be
//! told.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Result;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, recv, send, socket_with,
};

use crate::sockets::{members, socket_inodes};

/// Who has the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A process of the session that was asked about.
    Own,
    /// A process of one of the other sessions.
    Other,
    /// Nobody yet: it waits in the queue.
    Waits,
    /// It cannot be told; it may be closed already.
    Unknown,
}

/// Who accepted the connection from `ours` to `at`: the session that `own` leads, or one of `others`.
pub(crate) fn accepted(at: SocketAddr, ours: SocketAddr, own: u32, others: &[u32]) -> Accepted {
    let inode = match established(at, ours) {
        Err(_) | Ok(None) => return Accepted::Unknown,
        // The kernel gives it a file only when it is accepted.
        Ok(Some(0)) => return Accepted::Waits,
        Ok(Some(inode)) => u64::from(inode),
    };
    let has = |session: u32| members(session).into_iter().any(|pid| socket_inodes(pid).contains(&inode));
    if has(own) {
        Accepted::Own
    } else if others.iter().any(|other| has(*other)) {
        Accepted::Other
    } else {
        Accepted::Unknown
    }
}

/// Lengths of the kernel's `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const LENGTHS: (usize, usize, usize) = (16, 56, 72);
/// `SOCK_DIAG_BY_FAMILY`, the type of request and answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`: one answer, no listing.
const REQUEST: u16 = 1;
const ESTABLISHED: u8 = 1;

/// The inode of the end of an established connection that is at `local`, as this network namespace knows it. `None` where
/// there is no such connection.
fn established(local: SocketAddr, remote: SocketAddr) -> Result<Option<u32>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    send(&socket, &request(local, remote), SendFlags::empty())?;
    let mut answer = [0_u8; 1024];
    // The kernel answers before the request returns.
    let (length, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    Ok(inode(answer.get(..length).unwrap_or_default()))
}

fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let length = u32::try_from(LENGTHS.0 + LENGTHS.1).unwrap_or_default();
    let mut text = Vec::with_capacity(LENGTHS.0 + LENGTHS.1);
    text.extend(length.to_ne_bytes());
    text.extend([BY_FAMILY, REQUEST].map(u16::to_ne_bytes).concat());
    // Number and sender, which this socket needs not to tell answers apart.
    text.extend([0; 8]);
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    // Family, TCP, no extras, padding; then states, of which all will do.
    text.extend([family, 6, 0, 0]);
    text.extend([0xff; 4]);
    text.extend([local.port(), remote.port()].map(u16::to_be_bytes).concat());
    for address in [local.ip(), remote.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        text.extend(bytes);
    }
    // Any interface, and no cookie.
    text.extend([0; 4]);
    text.extend([0xff; 8]);
    text
}

fn inode(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let message = answer.get(LENGTHS.0..LENGTHS.0 + LENGTHS.2)?;
    // Without such a connection the kernel names the socket that listens, or says that there is none.
    if kind != BY_FAMILY || message.get(1) != Some(&ESTABLISHED) {
        return None;
    }
    Some(u32::from_ne_bytes(message.last_chunk::<4>().copied()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sockets::session_of;

    #[test]
    fn a_connection_is_told_by_who_accepted_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let ours = client.local_addr().unwrap();
            let session = session_of(std::process::id()).filter(|session| *session != 0).unwrap_or(std::process::id());
            let nobody = u32::MAX;
            assert_eq!(accepted(at, ours, session, &[]), Accepted::Waits);
            let server = listener.accept().unwrap();
            assert_eq!(accepted(at, ours, session, &[]), Accepted::Own);
            assert_eq!(accepted(at, ours, nobody, &[nobody - 1, session]), Accepted::Other);
            assert_eq!(accepted(at, ours, nobody, &[]), Accepted::Unknown);
            drop(server);
            assert_eq!(accepted(at, ours, session, &[]), Accepted::Unknown);
            drop(client);
            assert_eq!(accepted(at, ours, session, &[]), Accepted::Unknown);
        }
    }

    #[test]
    fn an_answer_of_another_form_says_nothing() {
        for length in 0..LENGTHS.0 + LENGTHS.2 {
            assert_eq!(inode(&vec![1; length]), None);
        }
        assert_eq!(inode(&[0; 200]), None);
    }
}
