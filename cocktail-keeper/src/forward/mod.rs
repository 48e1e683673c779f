//! Service ports: TCP connections from stable addresses to whichever containers are ready.
//!
//! Start at [`Forwarder`], the handle; [`table`] holds services and backends, [`relay`] moves the bytes, on one of the two
//! [`lane`]s. The table has a thread and a runtime of its own, begun with the first service, so that traffic and commands
//! do not delay each other; the second lane has another. The forwarder knows only the last table that it was given and
//! goes on with it when nobody commands the keeper any more.

mod exchange;
mod lane;
mod relay;
mod table;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::{
    mpsc::{self, UnboundedReceiver, UnboundedSender},
    oneshot,
};

use crate::protocol::{BindOutcome, Event, Refusal, ServiceInfo, SetServices};
use table::Table;

/// Services and addresses of one table.
const MOST: usize = 4096;

enum Order {
    Set(SetServices, oneshot::Sender<BTreeMap<String, BindOutcome>>),
    Reserve(Vec<SocketAddr>, oneshot::Sender<Vec<BindOutcome>>),
    Connections(oneshot::Sender<Vec<ServiceInfo>>),
}

/// Handle of the forwarder's threads, which end when the handle is dropped.
pub(crate) struct Forwarder {
    orders: Mutex<Option<UnboundedSender<Order>>>,
    events: UnboundedSender<Event>,
    /// Services and open connections: what there is to keep the keeper for.
    busy: Arc<AtomicUsize>,
}

impl Forwarder {
    /// A forwarder without services, and where its events come out.
    pub(crate) fn new() -> (Self, UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { orders: Mutex::default(), events, busy: Arc::default() }, receiver)
    }

    /// Whether any service is set or any connection is open.
    pub(crate) fn has_services(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Replaces the table.
    pub(crate) async fn set(&self, services: SetServices) -> Result<BTreeMap<String, BindOutcome>, Refusal> {
        let addresses: usize = services.services.iter().map(|service| service.listen.len()).sum();
        if services.services.len().max(addresses) > MOST {
            return Err(Refusal::Limit { what: "services".to_owned() });
        }
        let (tell, outcomes) = oneshot::channel();
        self.send(Order::Set(services, tell))?;
        outcomes.await.map_err(|_| Refusal::Ending)
    }

    /// Holds addresses for the next table.
    pub(crate) async fn reserve(&self, addrs: Vec<SocketAddr>) -> Result<Vec<BindOutcome>, Refusal> {
        if addrs.len() > MOST {
            return Err(Refusal::Limit { what: "addresses".to_owned() });
        }
        let (tell, outcomes) = oneshot::channel();
        self.send(Order::Reserve(addrs, tell))?;
        outcomes.await.map_err(|_| Refusal::Ending)
    }

    /// Counts by service and backend.
    pub(crate) async fn connections(&self) -> Vec<ServiceInfo> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(orders) = orders else { return Vec::new() };
        let (tell, services) = oneshot::channel();
        if orders.send(Order::Connections(tell)).is_err() {
            return Vec::new();
        }
        services.await.unwrap_or_default()
    }

    fn send(&self, order: Order) -> Result<(), Refusal> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match &*orders {
            Some(sender) => sender,
            None => orders.insert(self.begin()?),
        };
        sender.send(order).map_err(|_| Refusal::Ending)
    }

    fn begin(&self) -> Result<UnboundedSender<Order>, Refusal> {
        let refuse = |e: io::Error| Refusal::Io {
            what: "starting the forwarder".to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
        };
        let (sender, orders) = mpsc::unbounded_channel();
        let (events, busy) = (self.events.clone(), Arc::clone(&self.busy));
        run_beside("forwarder", || obey(Table::new(events, busy), orders)).map_err(refuse)?;
        Ok(sender)
    }
}

/// Begins a thread with a runtime of its own. Both end with the future that is made there, and so do the tasks it spawned.
fn run_beside<F: Future>(name: &str, make: impl FnOnce() -> F + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024);
    builder.spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async { make().await });
    })?;
    Ok(())
}

async fn obey(mut table: Table, mut orders: UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        // Whoever asked may be gone.
        match order {
            Order::Set(services, tell) => _ = tell.send(table.set(services).await),
            Order::Reserve(addrs, tell) => _ = tell.send(table.reserve(addrs)),
            Order::Connections(tell) => _ = tell.send(table.connections()),
        }
    }
}
