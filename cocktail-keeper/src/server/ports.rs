//! Ports that containers hold on this host.
//!
//! A port is proved by binding it, on all addresses of both families; it stays bound, without listening, until the
//! worker is started. An abstract socket named after the port is held until the port is released, so that two data
//! directories on one host exclude each other also while neither is bound. Sockets that workers inherit stay open here,
//! so a restart gets the same one and no connection is refused meanwhile.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::OwnedFd, linux::net::SocketAddrExt, unix::net::UnixDatagram},
    sync::Arc,
};

use socket2::Socket;

use super::io_refusal;
use crate::{
    procfs,
    protocol::{PortSpec, Refusal},
    sockets::bind,
};

/// Connections that wait for a worker to accept them.
const BACKLOG: i32 = 1024;

/// The ports held, by number.
#[derive(Debug, Default)]
pub(super) struct PortTable {
    held: BTreeMap<u16, Held>,
}

#[derive(Debug)]
struct Held {
    container: String,
    /// Held for its name alone.
    _lock: UnixDatagram,
    inherited: Option<Inherited>,
}

#[derive(Debug)]
struct Inherited {
    addr: SocketAddr,
    socket: Arc<OwnedFd>,
}

/// Sockets that prove that ports are free. Dropping them lets the worker bind.
pub(super) type Proof = Vec<Socket>;

impl PortTable {
    /// Takes and proves ports for a container. On failure none is taken that was not held before.
    pub(super) fn prove(&mut self, container: &str, ports: &[PortSpec]) -> Result<Proof, Refusal> {
        let mut proof = Vec::new();
        let mut taken = Vec::new();
        for port in ports {
            let before = self.held.contains_key(&port.port);
            match self.prove_one(container, port, &mut proof) {
                Ok(()) if before => {}
                Ok(()) => taken.push(port.port),
                Err(refusal) => {
                    self.release(&taken);
                    return Err(refusal);
                }
            }
        }
        Ok(proof)
    }

    fn prove_one(&mut self, container: &str, port: &PortSpec, proof: &mut Proof) -> Result<(), Refusal> {
        let number = port.port;
        if number == 0 {
            return Err(Refusal::BadRequest { why: "port 0 cannot be held".to_owned() });
        }
        let taken = |holder: Option<String>| Refusal::PortTaken { port: number, holder };
        let addr = SocketAddr::new(port.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), number);
        if let Some(held) = self.held.get_mut(&number) {
            let same = held.inherited.as_ref().is_some_and(|inherited| inherited.addr == addr);
            if port.inherit && same {
                // The socket is handed from an old container to its replacement.
                container.clone_into(&mut held.container);
                return Ok(());
            }
            if held.container != container {
                return Err(taken(Some(format!("container {}", held.container))));
            }
        }
        let lock = if self.held.contains_key(&number) {
            None
        } else {
            let other = || Some("a container of another data directory on this host".to_owned());
            match lock(number) {
                Ok(lock) => Some(lock),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(taken(other())),
                Err(e) => return Err(io_refusal("locking the port")(e)),
            }
        };
        let bound = if port.inherit { bind(addr).map(|socket| vec![socket]) } else { bind_everywhere(number) };
        let mut bound = bound.map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => taken(procfs::port_holder(number)),
            _ => io_refusal("binding the port")(e),
        })?;
        let inherited = if port.inherit {
            bound.pop().map(|socket| Inherited { addr, socket: Arc::new(socket.into()) })
        } else {
            proof.append(&mut bound);
            None
        };
        match (self.held.get_mut(&number), lock) {
            (Some(held), _) => held.inherited = inherited,
            (None, Some(lock)) => {
                self.held.insert(number, Held { container: container.to_owned(), _lock: lock, inherited });
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// The sockets that a worker inherits, listening, with their names.
    pub(super) fn inherited(&self, ports: &[PortSpec]) -> io::Result<Vec<(String, Arc<OwnedFd>)>> {
        let mut sockets = Vec::new();
        for port in ports.iter().filter(|port| port.inherit) {
            let held = self.held.get(&port.port).and_then(|held| held.inherited.as_ref());
            let inherited = held.ok_or(io::ErrorKind::NotConnected)?;
            rustix::net::listen(&inherited.socket, BACKLOG)?;
            sockets.push((port.name.clone(), Arc::clone(&inherited.socket)));
        }
        Ok(sockets)
    }

    /// Holds an adopted container's port again, without proof: its worker uses it. `socket` is the worker's own, if it
    /// could be had.
    pub(super) fn adopt(&mut self, container: &str, port: &PortSpec, socket: Option<OwnedFd>) {
        if self.held.contains_key(&port.port) {
            return;
        }
        let addr = SocketAddr::new(port.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port.port);
        let inherited = socket.map(|socket| Inherited { addr, socket: Arc::new(socket) });
        // Another data directory that took the name meanwhile cannot be helped: the worker has the port itself.
        if let Ok(lock) = lock(port.port) {
            self.held.insert(port.port, Held { container: container.to_owned(), _lock: lock, inherited });
        }
    }

    /// Gives ports back.
    pub(super) fn release(&mut self, ports: &[u16]) {
        for port in ports {
            self.held.remove(port);
        }
    }

    /// The numbers of all held ports.
    pub(super) fn numbers(&self) -> Vec<u16> {
        self.held.keys().copied().collect()
    }
}

fn lock(port: u16) -> io::Result<UnixDatagram> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("cocktail-port-{port}"))?;
    UnixDatagram::bind_addr(&name)
}

fn bind_everywhere(port: u16) -> io::Result<Proof> {
    let mut proof = vec![bind((Ipv4Addr::UNSPECIFIED, port).into())?];
    match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(socket) => proof.push(socket),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(e),
        // A machine without IPv6 has nobody else on it either.
        Err(_) => {}
    }
    Ok(proof)
}
