//! A worker that says when it runs: it sends its pid in a datagram to the address in its first argument, and waits.

use std::net::UdpSocket;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: bench-beacon ADDRESS")?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("cannot make a socket")?;
    socket.send_to(std::process::id().to_string().as_bytes(), &address).context("cannot send")?;
    drop(socket);
    loop {
        std::thread::park();
    }
}
