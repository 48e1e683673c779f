//! Binding addresses, the same way for workers' ports and for services.

use std::{io, net::SocketAddr};

use socket2::{Domain, Socket, Type};

/// Binds an address without listening. IPv6 addresses do not take IPv4 ones along.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
