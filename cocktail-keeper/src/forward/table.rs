//! Services, their listeners and backends, and the life of one connection.
//!
//! A connection goes to the backend with the fewest. One that refuses is ejected until the next table, and the same client
//! is carried to another. Without any the client waits. A backend that leaves the table, or dies, keeps what only it can
//! answer: a client that is idle goes on with another, and a request that it may get twice is sent there again, once.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc::UnboundedSender},
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    exchange::Traffic,
    lane::Lanes,
    relay::{Carried, Onward},
};
use crate::{
    procfs,
    protocol::{Backend, BackendInfo, BindOutcome, Event, Service, ServiceInfo, SetServices},
    sockets::bind,
};

/// How long a reserved address is held.
const RESERVED: Duration = Duration::from_secs(30);
/// How long a backend may take to accept.
const CONNECT: Duration = Duration::from_secs(3);
/// Clients of one service that wait for a backend.
const MOST_WAITING: u64 = 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often a request that had no answer is sent to another backend: one that ends whoever gets it ends no more.
const REPEATS: u32 = 1;
/// A pause when the machine is out of something.
const BREATH: Duration = Duration::from_millis(20);

pub(super) struct Table {
    services: BTreeMap<String, Rc<ServiceState>>,
    /// Left the table; their connections go on.
    leaving: Vec<Rc<ServiceState>>,
    reserved: BTreeMap<SocketAddr, (Socket, Instant)>,
    shared: Rc<Shared>,
}

struct Shared {
    events: UnboundedSender<Event>,
    busy: Arc<AtomicUsize>,
    lanes: Lanes,
}

struct ServiceState {
    key: String,
    max: Cell<u64>,
    hold: Cell<Duration>,
    listeners: RefCell<BTreeMap<SocketAddr, JoinHandle<()>>>,
    backends: RefCell<Vec<Rc<BackendState>>>,
    active: Cell<u64>,
    waiting: Cell<u64>,
    total: Cell<u64>,
    refused: Cell<u64>,
    picks: Cell<u64>,
    /// It left the table.
    gone: Cell<bool>,
    /// Requests of backends that are gone.
    answered: Cell<u64>,
    /// The backends changed.
    changed: Notify,
    /// A connection ended.
    ended: Notify,
    shared: Rc<Shared>,
}

struct BackendState {
    backend: Backend,
    active: Cell<u64>,
    total: Cell<u64>,
    refused: Cell<u64>,
    ejected: Cell<bool>,
    removed: Cell<bool>,
    last_pick: Cell<u64>,
    traffic: Arc<Traffic>,
}

fn add(cell: &Cell<u64>, by: i64) {
    cell.set(cell.get().saturating_add_signed(by));
}

impl Table {
    pub(super) fn new(events: UnboundedSender<Event>, busy: Arc<AtomicUsize>) -> Self {
        Self {
            services: BTreeMap::new(),
            leaving: Vec::new(),
            reserved: BTreeMap::new(),
            shared: Rc::new(Shared { events, busy, lanes: Lanes::default() }),
        }
    }

    /// Makes the services exactly those of the table.
    pub(super) async fn set(&mut self, table: SetServices) -> BTreeMap<String, BindOutcome> {
        let named: BTreeMap<String, Service> =
            table.services.into_iter().map(|service| (service.key.clone(), service)).collect();
        self.close_unnamed(&named).await;
        self.reserved.retain(|_, (_, until)| *until > Instant::now());
        let mut outcomes = BTreeMap::new();
        for (key, wanted) in named {
            let service = self.services.entry(key.clone()).or_insert_with(|| {
                self.shared.busy.fetch_add(1, Ordering::Relaxed);
                ServiceState::new(&key, &self.shared)
            });
            service.max.set(u64::from(wanted.max_connections.max(1)));
            service.hold.set(Duration::from_millis(wanted.hold_ms));
            service.set_backends(wanted.backends);
            let mut outcome = BindOutcome::Bound;
            for addr in wanted.listen {
                if service.listeners.borrow().contains_key(&addr) {
                    continue;
                }
                let reserved = self.reserved.remove(&addr).map(|(socket, _)| Ok(socket));
                match reserved.unwrap_or_else(|| bind(addr)).and_then(listen) {
                    Ok(listener) => {
                        let accepting = spawn_local(accept(Rc::clone(service), listener));
                        service.listeners.borrow_mut().insert(addr, accepting);
                    }
                    Err(e) => outcome = explain(addr, &e),
                }
            }
            service.ended.notify_waiters();
            outcomes.insert(key, outcome);
        }
        outcomes
    }

    /// Closes listeners and services that the new table does not name, and waits until their addresses are free.
    async fn close_unnamed(&mut self, named: &BTreeMap<String, Service>) {
        let mut closed = Vec::new();
        let gone: Vec<String> = self.services.keys().filter(|key| !named.contains_key(*key)).cloned().collect();
        for (key, service) in &self.services {
            let wanted = named.get(key).map(|service| service.listen.as_slice()).unwrap_or_default();
            let mut listeners = service.listeners.borrow_mut();
            let unwanted: Vec<SocketAddr> = listeners.keys().filter(|addr| !wanted.contains(addr)).copied().collect();
            closed.extend(unwanted.iter().filter_map(|addr| listeners.remove(addr)));
        }
        for key in gone {
            if let Some(service) = self.services.remove(&key) {
                self.shared.busy.fetch_sub(1, Ordering::Relaxed);
                service.gone.set(true);
                service.set_backends(Vec::new());
                self.leaving.push(service);
            }
        }
        self.leaving.retain(|service| service.active.get() > 0);
        for task in closed {
            task.abort();
            // Aborted is what it is.
            let _ = task.await;
        }
    }

    /// Binds addresses and holds them for the next table.
    pub(super) fn reserve(&mut self, addrs: Vec<SocketAddr>) -> Vec<BindOutcome> {
        let now = Instant::now();
        self.reserved.retain(|_, (_, until)| *until > now);
        let outcomes = addrs.into_iter().map(|addr| {
            let ours = self.services.values().any(|service| service.listeners.borrow().contains_key(&addr));
            if ours {
                return BindOutcome::Bound;
            }
            let socket = match self.reserved.remove(&addr) {
                Some((socket, _)) => Ok(socket),
                None => bind(addr),
            };
            match socket {
                Ok(socket) => {
                    self.reserved.insert(addr, (socket, now + RESERVED));
                    BindOutcome::Bound
                }
                Err(e) => explain(addr, &e),
            }
        });
        outcomes.collect()
    }

    pub(super) fn connections(&mut self) -> Vec<ServiceInfo> {
        self.leaving.retain(|service| service.active.get() > 0);
        self.services.values().chain(&self.leaving).map(|service| service.info()).collect()
    }
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn explain(addr: SocketAddr, e: &io::Error) -> BindOutcome {
    match e.kind() {
        io::ErrorKind::AddrInUse => BindOutcome::AddrInUse { addr, holder: procfs::port_holder(addr.port()) },
        _ => BindOutcome::Denied { addr, errno: e.raw_os_error().unwrap_or(0) },
    }
}

impl ServiceState {
    fn new(key: &str, shared: &Rc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            key: key.to_owned(),
            max: Cell::new(1),
            hold: Cell::default(),
            listeners: RefCell::default(),
            backends: RefCell::default(),
            active: Cell::new(0),
            waiting: Cell::new(0),
            total: Cell::new(0),
            refused: Cell::new(0),
            picks: Cell::new(0),
            gone: Cell::new(false),
            answered: Cell::new(0),
            changed: Notify::new(),
            ended: Notify::new(),
            shared: Rc::clone(shared),
        })
    }

    fn tell(&self, event: Event) {
        // The keeper is ending when nobody listens.
        let _ = self.shared.events.send(event);
    }

    fn set_backends(&self, wanted: Vec<Backend>) {
        let mut backends = self.backends.borrow_mut();
        for known in backends.iter() {
            let stays = wanted.contains(&known.backend);
            if !stays && !known.removed.get() && known.active.get() == 0 {
                let (service, container) = (self.key.clone(), known.backend.container.clone());
                self.tell(Event::BackendIdle { service, container });
            }
            known.removed.set(!stays);
            known.ejected.set(false);
        }
        backends.retain(|known| {
            let kept = !known.removed.get() || known.active.get() > 0;
            if !kept {
                self.retire(known);
            }
            kept
        });
        for backend in wanted {
            if !backends.iter().any(|known| known.backend == backend) {
                backends.push(Rc::new(BackendState {
                    backend,
                    active: Cell::new(0),
                    total: Cell::new(0),
                    refused: Cell::new(0),
                    ejected: Cell::new(false),
                    removed: Cell::new(false),
                    last_pick: Cell::new(0),
                    traffic: Arc::default(),
                }));
            }
        }
        let known = backends.clone();
        drop(backends);
        self.changed.notify_waiters();
        // Only now is there another that idle clients can go on with.
        for known in known {
            known.traffic.leave(known.removed.get());
        }
    }

    /// Keeps the count of a backend that goes.
    fn retire(&self, backend: &BackendState) {
        self.answered.set(self.answered.get() + backend.traffic.requests.load(Ordering::Relaxed));
    }

    /// The backend with the fewest connections; among equals the one that waited longest. `last` only without another.
    fn pick(&self, last: Option<&Rc<BackendState>>) -> Option<Rc<BackendState>> {
        let backends = self.backends.borrow();
        let usable = backends.iter().filter(|backend| !backend.ejected.get() && !backend.removed.get());
        let is_last = |backend: &Rc<BackendState>| last.is_some_and(|last| Rc::ptr_eq(last, backend));
        let best = usable.min_by_key(|backend| (is_last(backend), backend.active.get(), backend.last_pick.get()))?;
        add(&self.picks, 1);
        best.last_pick.set(self.picks.get());
        Some(Rc::clone(best))
    }

    /// Waits until an idle client sends something; false when it has ended instead, or the service has.
    async fn hears(&self, client: &TcpStream) -> bool {
        let mut first = [0];
        loop {
            let changed = self.changed.notified();
            if self.gone.get() {
                return false;
            }
            tokio::select! {
                heard = client.peek(&mut first) => return matches!(heard, Ok(1)),
                () = changed => {}
            }
        }
    }

    fn info(&self) -> ServiceInfo {
        let backends = self.backends.borrow();
        let info = |known: &Rc<BackendState>| BackendInfo {
            container: known.backend.container.clone(),
            addr: known.backend.addr,
            active: known.active.get(),
            total: known.total.get(),
            refused: known.refused.get(),
            ejected: known.ejected.get(),
            removed: known.removed.get(),
            in_flight: known.traffic.in_flight.load(Ordering::Relaxed),
            requests: known.traffic.requests.load(Ordering::Relaxed),
            latencies: known.traffic.latencies.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        };
        ServiceInfo {
            key: self.key.clone(),
            listen: self.listeners.borrow().keys().copied().collect(),
            active: self.active.get(),
            waiting: self.waiting.get(),
            total: self.total.get(),
            refused: self.refused.get(),
            requests: self.answered.get()
                + backends.iter().map(|known| known.traffic.requests.load(Ordering::Relaxed)).sum::<u64>(),
            backends: backends.iter().map(info).collect(),
        }
    }
}

/// Counts one client for as long as it lives.
struct Client(Rc<ServiceState>);

impl Client {
    fn new(service: &Rc<ServiceState>) -> Self {
        add(&service.active, 1);
        add(&service.total, 1);
        service.shared.busy.fetch_add(1, Ordering::Relaxed);
        Self(Rc::clone(service))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        add(&self.0.active, -1);
        self.0.shared.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_waiters();
    }
}

/// Counts one connection of a backend, and tells when the last one of a removed backend ended.
struct Use<'a> {
    service: &'a ServiceState,
    backend: Rc<BackendState>,
}

impl<'a> Use<'a> {
    fn new(service: &'a ServiceState, backend: Rc<BackendState>) -> Self {
        add(&backend.active, 1);
        Self { service, backend }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let backend = &self.backend;
        add(&backend.active, -1);
        if backend.removed.get() && backend.active.get() == 0 {
            let (service, container) = (self.service.key.clone(), backend.backend.container.clone());
            self.service.tell(Event::BackendIdle { service, container });
            self.service.retire(backend);
            self.service.backends.borrow_mut().retain(|known| !Rc::ptr_eq(known, backend));
        }
    }
}

/// Accepts until aborted. Above the limit clients wait in the kernel's queue.
async fn accept(service: Rc<ServiceState>, listener: TcpListener) {
    loop {
        loop {
            let ended = service.ended.notified();
            if service.active.get() < service.max.get() {
                break;
            }
            ended.await;
        }
        match listener.accept().await {
            Ok((client, _)) => {
                let counted = Client::new(&service);
                spawn_local(serve(counted, client));
            }
            // Out of descriptors or a client that went away: the listener stays.
            Err(_) => sleep(BREATH).await,
        }
    }
}

async fn serve(counted: Client, client: TcpStream) {
    let service = &counted.0;
    // Both only tune the connection.
    let _ = client.set_nodelay(true);
    let _ = SockRef::from(&client).set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)));
    let mut onward = Onward { client, request: Vec::new(), repeated: false, answered: false };
    let (mut repeats, mut failed) = (0, None);
    loop {
        let Some((backend, stream)) = find(service, failed.as_ref()).await else {
            add(&service.refused, 1);
            return;
        };
        let _ = stream.set_nodelay(true);
        add(&backend.backend.total, 1);
        let Onward { client, request, .. } = onward;
        // Either side may break off; there is nobody to tell but the other side, whose socket closes now.
        let carried = service.shared.lanes.carry(client, stream, request, &backend.backend.traffic).await;
        let state = Rc::clone(&backend.backend);
        drop(backend);
        let Ok(Carried::Again(next)) = carried else { return };
        // A process that dies closes its listener last: for a moment it takes connections as if nothing had happened, and
        // has fewer of them than all others.
        failed = next.repeated.then_some(state);
        if next.answered {
            repeats = 0;
        }
        repeats += u32::from(next.repeated);
        // One whose backend ended before a word was said need not be the one who speaks first.
        let idles = next.request.is_empty() && !next.repeated;
        if repeats > REPEATS || idles && !service.hears(&next.client).await {
            return;
        }
        onward = next;
    }
}

/// A connection to a backend, but for `last` if there is another. Waits for one; `None` when that takes too long.
async fn find<'a>(service: &'a ServiceState, last: Option<&Rc<BackendState>>) -> Option<(Use<'a>, TcpStream)> {
    let mut held = Held { service, since: None };
    loop {
        let changed = service.changed.notified();
        let Some(backend) = service.pick(last) else {
            if held.since.is_none() && service.waiting.get() == 0 {
                service.tell(Event::ClientWaiting { service: service.key.clone() });
            }
            timeout_at(held.until()?, changed).await.ok()?;
            continue;
        };
        let used = Use::new(service, backend);
        let backend = &used.backend;
        match timeout(CONNECT, TcpStream::connect(backend.backend.addr)).await {
            Ok(Ok(stream)) => return Some((used, stream)),
            Ok(Err(e)) if is_ours(&e) => {
                let until = held.until().filter(|until| *until > Instant::now())?;
                drop(used);
                sleep(BREATH.min(until.saturating_duration_since(Instant::now()))).await;
            }
            Ok(Err(_)) | Err(_) => {
                add(&backend.refused, 1);
                if !backend.ejected.replace(true) {
                    let (service_key, container) = (service.key.clone(), backend.backend.container.clone());
                    service.tell(Event::BackendRefused { service: service_key, container });
                }
            }
        }
    }
}

/// Whether a connect failed for want of something on this machine rather than because of the backend.
fn is_ours(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN)
    )
}

/// A client that waits for a backend.
struct Held<'a> {
    service: &'a ServiceState,
    since: Option<Instant>,
}

impl Held<'_> {
    /// Until when it may wait; `None` when too many wait already.
    fn until(&mut self) -> Option<Instant> {
        let since = match self.since {
            Some(since) => since,
            None => {
                if self.service.waiting.get() >= MOST_WAITING {
                    return None;
                }
                add(&self.service.waiting, 1);
                *self.since.insert(Instant::now())
            }
        };
        Some(since + self.service.hold.get())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.since.is_some() {
            add(&self.service.waiting, -1);
        }
    }
}
