//! Ports that containers hold on this host.
//!
//! A port is proved by binding it, on all addresses of both families; it stays bound, without listening, until the
//! worker is started. An abstract socket named after the port is held until the port is released, so that two data
//! directories on one host exclude each other also while neither is bound. Sockets that workers inherit stay open here,
//! so whoever has the port next gets the same one, an old container and its replacement at the same time too, and no
//! connection is refused meanwhile. A port is given back when it is released and no worker uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::OwnedFd, linux::net::SocketAddrExt, unix::net::UnixDatagram},
    rc::Rc,
    sync::Arc,
};

use socket2::Socket;

use super::{
    Server,
    containers::{Container, Phase},
    handover, io_refusal,
};
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
    /// Who got it last.
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

/// Takes and proves ports for a container. On failure none is taken that was not held before.
pub(super) fn prove(server: &Server, container: &str, ports: &[PortSpec]) -> Result<Proof, Refusal> {
    let from_workers = |port: &PortSpec| handover::from_workers(server, port);
    // Who gets the port of one that has ended is the Manager's to say, and it may say so before it gives the port back.
    let ended = |holder: &str| {
        let phase = |holder: Rc<Container>| matches!(holder.record.borrow().phase, Phase::Exited(_));
        server.container(holder).map_or(true, phase)
    };
    let ways = Ways { ended: &ended, from: &from_workers };
    server.ports.borrow_mut().prove(container, ports, &ways)
}

/// The sockets that a worker inherits, listening, with their names.
pub(super) fn inherited(
    server: &Server,
    container: &str,
    ports: &[PortSpec],
) -> Result<Vec<(String, Arc<OwnedFd>)>, Refusal> {
    let ports: Vec<PortSpec> = ports.iter().filter(|port| port.inherit).cloned().collect();
    // A release for the holder before may have come after this container was prepared.
    prove(server, container, &ports)?;
    server.ports.borrow().listening(&ports).map_err(io_refusal("listening"))
}

/// Gives ports back, but for those that a worker uses: they are asked for again after its end.
pub(super) fn release(server: &Server, ports: &[u16]) {
    let mut rested: BTreeSet<u16> = ports.iter().copied().collect();
    for container in server.all_containers() {
        let record = container.record.borrow();
        match record.phase {
            Phase::Starting | Phase::Running(_) | Phase::Ending(_) => {
                rested.retain(|port| record.ports.iter().all(|used| used.port != *port));
            }
            Phase::Prepared | Phase::Exited(_) => {}
        }
    }
    server.ports.borrow_mut().release(rested);
}

/// What else is known here than who holds what.
struct Ways<'a> {
    /// Whether a container has ended, or is not here any more.
    ended: &'a dyn Fn(&str) -> bool,
    /// A way to the socket of an inherited port that a worker has and this keeper has not.
    from: &'a dyn Fn(&PortSpec) -> Result<OwnedFd, Option<String>>,
}

impl PortTable {
    fn prove(&mut self, container: &str, ports: &[PortSpec], ways: &Ways<'_>) -> Result<Proof, Refusal> {
        let mut proof = Vec::new();
        let mut taken = Vec::new();
        for port in ports {
            let before = self.held.contains_key(&port.port);
            match self.prove_one(container, port, &mut proof, ways) {
                Ok(()) if before => {}
                Ok(()) => taken.push(port.port),
                Err(refusal) => {
                    self.release(taken);
                    return Err(refusal);
                }
            }
        }
        Ok(proof)
    }

    fn prove_one(
        &mut self,
        container: &str,
        port: &PortSpec,
        proof: &mut Proof,
        ways: &Ways<'_>,
    ) -> Result<(), Refusal> {
        let number = port.port;
        if number == 0 {
            return Err(Refusal::BadRequest { why: "port 0 cannot be held".to_owned() });
        }
        let taken = |holder: Option<String>| Refusal::PortTaken { port: number, holder };
        let addr = port.socket_addr();
        let (mut handed, mut unhanded) = (None, None);
        if let Some(held) = self.held.get_mut(&number) {
            if port.inherit && held.inherited.as_ref().is_some_and(|inherited| inherited.addr == addr) {
                container.clone_into(&mut held.container);
                return Ok(());
            }
            let own = !port.inherit || held.inherited.is_none();
            if own && held.container != container && (ways.ended)(&held.container) {
                container.clone_into(&mut held.container);
                held.inherited = None;
            }
            if held.container != container {
                let holder = format!("container {}", held.container);
                if !port.inherit || held.inherited.is_some() {
                    return Err(taken(Some(holder)));
                }
                match (ways.from)(port) {
                    Ok(socket) => handed = Some(socket),
                    Err(None) => return Err(taken(Some(holder))),
                    // It may have closed it.
                    why => unhanded = why.err().flatten(),
                }
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
        let refusal = |e: io::Error| match e.kind() {
            io::ErrorKind::AddrInUse => taken(procfs::port_holder(number)),
            _ => io_refusal("binding the port")(e),
        };
        let inherited = match handed {
            Some(socket) => Some(socket),
            None if port.inherit => Some(match bind(addr) {
                Ok(socket) => socket.into(),
                Err(e) if e.kind() != io::ErrorKind::AddrInUse => return Err(refusal(e)),
                Err(_) if unhanded.is_some() => return Err(taken(unhanded)),
                // A worker whose record says nothing of ports may have it.
                Err(e) => (ways.from)(port).map_err(|_| refusal(e))?,
            }),
            None => {
                proof.append(&mut bind_everywhere(number).map_err(refusal)?);
                None
            }
        };
        let inherited = inherited.map(|socket| Inherited { addr, socket: Arc::new(socket) });
        match (self.held.get_mut(&number), lock) {
            (Some(held), _) => {
                container.clone_into(&mut held.container);
                held.inherited = inherited;
            }
            (None, Some(lock)) => {
                self.held.insert(number, Held { container: container.to_owned(), _lock: lock, inherited });
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn listening(&self, ports: &[PortSpec]) -> io::Result<Vec<(String, Arc<OwnedFd>)>> {
        let mut sockets = Vec::new();
        for port in ports {
            let held = self.held.get(&port.port).and_then(|held| held.inherited.as_ref());
            let inherited = held.ok_or(io::ErrorKind::NotConnected)?;
            rustix::net::listen(&inherited.socket, BACKLOG)?;
            sockets.push((port.name.clone(), Arc::clone(&inherited.socket)));
        }
        Ok(sockets)
    }

    /// Whether an adopted container's inherited port still lacks its socket here.
    pub(super) fn lacks_socket(&self, port: &PortSpec) -> bool {
        port.inherit && self.held.get(&port.port).is_none_or(|held| held.inherited.is_none())
    }

    /// Holds an adopted container's port again, without proof: its worker uses it. `socket` is the worker's own, if it
    /// could be had.
    pub(super) fn adopt(&mut self, container: &str, port: &PortSpec, socket: Option<OwnedFd>) {
        let inherited = socket.map(|socket| Inherited { addr: port.socket_addr(), socket: Arc::new(socket) });
        if let Some(held) = self.held.get_mut(&port.port) {
            // Several containers share an inherited port, and not every one still had the socket.
            held.inherited = held.inherited.take().or(inherited);
            return;
        }
        // Another data directory that took the name meanwhile cannot be helped: the worker has the port itself.
        if let Ok(lock) = lock(port.port) {
            self.held.insert(port.port, Held { container: container.to_owned(), _lock: lock, inherited });
        }
    }

    fn release(&mut self, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            self.held.remove(&port);
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
