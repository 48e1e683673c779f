//! Ports that no other test uses at the same time.
//!
//! [`Block`] takes a hundred ports, outside of the default `port_range` (20000-29999) and of the kernel's ephemeral
//! range (from 32768 on). An abstract socket holds the block against all tests on this machine, in other processes, too;
//! it goes with the process whatever happens.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// First ports of the blocks.
const FIRST: u16 = 10_000;
/// End of the last block.
const END: u16 = 20_000;
/// Ports of a block.
const SIZE: u16 = 100;
/// Those of them that tests name themselves, at the beginning; the rest is for the Manager to lease.
const NAMED: u16 = 20;

/// A hundred ports.
#[derive(Debug)]
pub struct Block {
    first: u16,
    given: u16,
    _held: UnixListener,
}

impl Block {
    /// Takes a block that nobody has.
    ///
    /// # Panics
    /// When all are taken.
    pub fn take() -> Self {
        let blocks = (END - FIRST) / SIZE;
        // Tests that start at once begin to look in different places.
        let start = u16::try_from(std::process::id() % u32::from(blocks)).unwrap_or_default();
        for number in 0..blocks {
            let first = FIRST + (start + number) % blocks * SIZE;
            let name = SocketAddr::from_abstract_name(format!("cocktail-tests-ports-{first}")).expect("a short name");
            if let Ok(held) = UnixListener::bind_addr(&name) {
                return Self { first, given: 0, _held: held };
            }
        }
        panic!("all blocks of ports are taken");
    }

    /// A free port that is not for leases; another one each time.
    ///
    /// # Panics
    /// When there is none left.
    pub fn port(&mut self) -> u16 {
        while self.given < NAMED {
            let port = self.first + self.given;
            self.given += 1;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
        panic!("no free port is left from {} to {}", self.first, self.first + NAMED);
    }

    /// The part that a Manager leases from, as `[manager] port_range` takes it.
    pub fn range(&self) -> String {
        format!("{}-{}", self.first + NAMED, self.first + SIZE - 1)
    }

    /// Whether a port is in the part that a Manager leases from.
    pub fn leases(&self, port: u16) -> bool {
        (self.first + NAMED..self.first + SIZE).contains(&port)
    }
}
