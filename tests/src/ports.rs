//! Ports that no other test uses at the same time.
//!
//! [`Block`] takes a hundred ports, outside of the default `port_range` (20000-29999) and of the kernel's ephemeral
//! range (from 32768 on). An abstract socket holds the block against all tests on this machine, in other processes, too;
//! it goes with the process whatever happens. A block in which some other program has a port is left out: tests count the
//! ports that are taken at their end, and what is not theirs would look like something that they left.

use std::net::{Ipv4Addr, TcpListener};
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

/// How many there are.
const BLOCKS: u16 = (END - FIRST) / SIZE;

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
        // Tests that start at once begin to look in different places.
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
        Self::take_from(start)
    }

    /// The first that nobody has, from the block of that number on.
    fn take_from(start: u16) -> Self {
        for number in 0..BLOCKS {
            let first = FIRST + (start + number) % BLOCKS * SIZE;
            let name = SocketAddr::from_abstract_name(format!("cocktail-tests-ports-{first}")).expect("a short name");
            // Held before it is looked at, so that no other test binds ports of it meanwhile.
            if let Ok(held) = UnixListener::bind_addr(&name)
                && (first..first + SIZE).all(is_free)
            {
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
            if is_free(port) {
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

/// Whether nobody listens on a port, at any address.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_which_another_program_has_a_port_is_left_out() {
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(127, 0, 0, 9)] {
            let first = Block::take();
            // Another program knows nothing of who holds a block.
            let _other = TcpListener::bind((address, first.first + SIZE - 1)).unwrap();
            let number = (first.first - FIRST) / SIZE;
            let before = first.first;
            drop(first);
            assert_ne!(Block::take_from(number).first, before, "with {address}");
        }
    }

    #[test]
    fn two_blocks_have_no_port_in_common() {
        let (one, other) = (Block::take_from(3), Block::take_from(3));
        assert!(one.first.abs_diff(other.first) >= SIZE);
    }
}
