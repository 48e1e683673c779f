//! Listening sockets that the worker was started with.
//!
//! They stay open as long as the worker lives, because what is unloaded may be loaded again.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// Inherited sockets by port.
#[derive(Debug, Default)]
pub(super) struct Sockets(BTreeMap<u16, TcpListener>);

impl Sockets {
    /// Takes what the environment names (`LISTEN_FDS`).
    pub(super) fn take() -> io::Result<Self> {
        let mut all = ListenFd::from_env();
        let mut sockets = BTreeMap::new();
        for index in 0..all.len() {
            if let Some(socket) = all.take_tcp_listener(index)? {
                sockets.insert(socket.local_addr()?.port(), socket);
            }
        }
        Ok(Self(sockets))
    }

    /// The inherited socket of a port, if it is one.
    pub(super) fn inherited(&self, inherited: bool, port: u16) -> io::Result<Option<TcpListener>> {
        if !inherited {
            return Ok(None);
        }
        match self.0.get(&port) {
            Some(socket) => socket.try_clone().map(Some),
            None => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("the socket of port {port} was not inherited")))
            }
        }
    }
}
