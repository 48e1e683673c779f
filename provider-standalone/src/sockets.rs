//! Where a process listens, for people whose worker listens elsewhere than it was told.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most places that a sentence names.
const NAMED: usize = 5;

/// What to add to "nobody answers at `expected`": where the processes of the session that `pid` leads listen.
pub(crate) fn explain(pid: u32, expected: SocketAddr) -> String {
    explain_with(&listening(pid), expected)
}

fn explain_with(listening: &BTreeSet<SocketAddr>, expected: SocketAddr) -> String {
    if listening.is_empty() {
        return "; the process listens on no port".into();
    }
    let same: Vec<String> =
        listening.iter().filter(|at| at.port() == expected.port()).map(ToString::to_string).take(NAMED).collect();
    if !same.is_empty() {
        return format!("; the process listens at {} instead", same.join(", "));
    }
    let ports: BTreeSet<u16> = listening.iter().map(SocketAddr::port).collect();
    let ports: Vec<String> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    format!("; the process listens on {} instead", ports.join(", "))
}

/// Addresses that the processes of a session listen on. What cannot be read is left out.
fn listening(session: u32) -> BTreeSet<SocketAddr> {
    let inodes: BTreeSet<u64> = members(session).into_iter().flat_map(socket_inodes).collect();
    if inodes.is_empty() {
        return BTreeSet::new();
    }
    // The tables of that process, for it may live in another network namespace.
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{session}/net/{table}")).ok())
        .flat_map(|table| listeners(&table).into_iter().collect::<Vec<_>>())
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(address, _)| address)
        .collect()
}

/// Processes of a session.
pub(crate) fn members(session: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![session] };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid == session || session_of(pid) == Some(session))
        .collect()
}

pub(crate) fn session_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; state, parent, group and session follow it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

pub(crate) fn socket_inodes(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Listening sockets of a table as in `/proc/net/tcp`, with their inodes.
fn listeners(table: &str) -> Vec<(SocketAddr, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (*state == "0A").then_some(())?;
            Some((address(local)?, inode.parse().ok()?))
        })
        .collect()
}

/// `0100007F:1F90`: words in the machine's byte order, port in the network's.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..ip.len())
        .step_by(8)
        .map(|at| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        [a, b, c, d] => {
            let bytes: [u8; 16] = [*a, *b, *c, *d].concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn at(texts: &[&str]) -> BTreeSet<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_worker_that_listens_elsewhere_is_told_apart_from_one_that_does_not_listen() {
        let expected = "127.0.0.1:20003".parse().unwrap();
        assert_eq!(explain_with(&at(&[]), expected), "; the process listens on no port");
        let elsewhere = at(&["0.0.0.0:8000", "[::]:8000"]);
        assert_eq!(explain_with(&elsewhere, expected), "; the process listens on 8000 instead");
        let same_port = at(&["[::1]:20003", "0.0.0.0:9"]);
        assert_eq!(explain_with(&same_port, expected), "; the process listens at [::1]:20003 instead");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("nonsense"), None);
        assert_eq!(address("0100007F01:1F90"), None);
    }

    #[test]
    fn our_own_listener_is_found_through_our_session() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let session = session_of(std::process::id()).unwrap();
        // The leader may be gone; our own tables are as good.
        let session = if session == 0 { std::process::id() } else { session };
        let inodes = socket_inodes(std::process::id());
        let tables = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let found = listeners(&tables)
            .into_iter()
            .any(|(address, inode)| address == listener.local_addr().unwrap() && inodes.contains(&inode));
        assert!(found && members(session).contains(&std::process::id()));
    }
}
