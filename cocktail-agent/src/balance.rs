//! Calls to another Unit, spread over the containers that serve.
//!
//! Start at [`Balancer`]. It follows which containers of a Unit are ready, and picks the one with the fewest calls of its own
//! under way. While whoever knows the endpoints is away it goes on with what was said last: workers run on, too.
//!
//! ```no_run
//! # async fn example(context: cocktail_agent::worker::Context) -> std::io::Result<()> {
//! let stock = context.balancer("stock", "http"); // once
//!
//! let pick = stock.pick().await; // for each call
//! match tokio::net::TcpStream::connect(pick.address()).await {
//!     Ok(connection) => { /* the call; it is under way until the pick is dropped */ }
//!     Err(_) => pick.fail(), // others are picked for a while
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::channel::{self, Pauses};
use crate::protocol::workers_client::WorkersClient;
use crate::protocol::{EndpointTable, TABLE_LIMIT, WatchRequest};

/// How long others are picked after a call has failed.
const ASIDE: Duration = Duration::from_secs(1);

/// The containers that serve at a port of a Unit. Cheap to clone; it follows until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Balancer {
    followed: Arc<Followed>,
    _ends: Arc<DropGuard>,
}

/// A container to call. The call is under way until this is dropped.
#[must_use = "the call is under way until it is dropped"]
pub struct Pick {
    backend: Arc<Backend>,
}

/// What a balancer and its task share.
#[derive(Debug)]
struct Followed {
    /// Full name of the Unit.
    unit: String,
    port: String,
    ring: Mutex<Ring>,
    /// Counts the changes of the ring.
    changes: watch::Sender<u64>,
}

/// The containers that serve.
#[derive(Debug, Default)]
struct Ring {
    backends: Vec<Arc<Backend>>,
    /// The Unit's service port, which waits with a call until a container serves.
    service: Option<Arc<Backend>>,
    /// Where the next search begins, so that those with equally few calls take turns.
    next: usize,
}

#[derive(Debug)]
struct Backend {
    container: String,
    address: SocketAddr,
    /// Calls under way.
    calls: AtomicUsize,
    /// Until when others are picked.
    aside: Mutex<Option<Instant>>,
}

impl Balancer {
    /// Follows a port of a Unit, which is named in full (`service/map/unit`). Within a worker
    /// [`Context::balancer`](crate::worker::Context::balancer) knows the rest; other programs find the socket in the data
    /// dir (`run/workers-standalone.sock`) and must be of its user. Must be called within a tokio runtime.
    ///
    /// Nothing has to be there yet, neither the Unit nor the socket: it is looked for until this is dropped. While no
    /// container serves, calls go to the Unit's service port, if it has one: there they wait, and wake a Unit that has gone
    /// to zero.
    pub fn follow(socket: impl Into<PathBuf>, unit: impl Into<String>, port: impl Into<String>) -> Self {
        let followed =
            Followed { unit: unit.into(), port: port.into(), ring: Mutex::default(), changes: watch::Sender::new(0) };
        if followed.unit.split('/').count() != 3 {
            tracing::warn!(unit = followed.unit, "no Unit is called that: its name is service/map/unit");
        }
        let followed = Arc::new(followed);
        let ends = CancellationToken::new();
        let (socket, task, ended) = (socket.into(), followed.clone(), ends.clone());
        tokio::spawn(async move { ended.run_until_cancelled(task.run(&socket)).await });
        Self { followed, _ends: Arc::new(ends.drop_guard()) }
    }

    /// The container with the fewest calls under way. While none serves: the Unit's service port, or this waits.
    pub async fn pick(&self) -> Pick {
        let mut changes = self.followed.changes.subscribe();
        loop {
            if let Some(pick) = self.try_pick() {
                return pick;
            }
            // The sender lives as long as this.
            _ = changes.changed().await;
        }
    }

    /// As [`Balancer::pick`], and `None` while none serves and there is no service port, or it is not known yet which do.
    pub fn try_pick(&self) -> Option<Pick> {
        let backend = self.followed.ring().least()?;
        Some(Pick { backend })
    }

    /// Where the containers listen that serve now, as far as it is known.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.followed.ring().backends.iter().map(|backend| backend.address).collect()
    }
}

impl Pick {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// Which container it is; empty for the service port.
    pub fn container(&self) -> &str {
        &self.backend.container
    }

    /// Says that the call failed, or was refused with 503 because the container is leaving: as long as there are others,
    /// they are picked for the next second.
    pub fn fail(self) {
        *lock(&self.backend.aside) = Some(Instant::now() + ASIDE);
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("container", &self.container())
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.backend.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backend {
    fn new(container: String, address: SocketAddr) -> Self {
        Self { container, address, calls: AtomicUsize::new(0), aside: Mutex::default() }
    }
}

impl Ring {
    /// The one with the fewest calls under way, counted with the next; one that failed lately only if all did.
    fn least(&mut self) -> Option<Arc<Backend>> {
        let count = self.backends.len();
        let now = Instant::now();
        let order = (0..count).map(|step| (self.next + step) % count);
        let best = order.min_by_key(|index| {
            let backend = &self.backends[*index];
            let aside = lock(&backend.aside).is_some_and(|until| until > now);
            (aside, backend.calls.load(Ordering::Relaxed))
        });
        let backend = match best {
            Some(best) => {
                self.next = best + 1;
                self.backends[best].clone()
            }
            None => self.service.clone()?,
        };
        // Under the lock of the ring: whoever picks next sees it.
        backend.calls.fetch_add(1, Ordering::Relaxed);
        Some(backend)
    }
}

impl Followed {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    async fn run(&self, socket: &Path) {
        let mut pauses = Pauses::new();
        loop {
            let mut lasted = false;
            if let Err(status) = self.session(socket, &mut lasted).await {
                tracing::debug!(unit = self.unit, error = %status, "the endpoints cannot be followed; it is tried again");
            }
            pauses.wait(lasted).await;
        }
    }

    async fn session(&self, socket: &Path, lasted: &mut bool) -> Result<(), Status> {
        let mut client = WorkersClient::new(channel::open(socket).await?).max_decoding_message_size(TABLE_LIMIT);
        let mut tables = client.watch(WatchRequest { unit: self.unit.clone() }).await?.into_inner();
        while let Some(table) = tables.message().await? {
            *lasted = true;
            self.set(&table);
        }
        Ok(())
    }

    /// Takes a table. Who was there before keeps what is known about it.
    fn set(&self, table: &EndpointTable) {
        let endpoint = table.endpoints.iter().find(|endpoint| {
            let own = [&endpoint.service, &endpoint.map, &endpoint.unit];
            endpoint.port_name == self.port && own.into_iter().eq(self.unit.split('/'))
        });
        if endpoint.is_none() {
            tracing::debug!(unit = self.unit, port = self.port, "there is no such endpoint");
        }
        let service = endpoint.and_then(|endpoint| endpoint.service_address.parse().ok());
        let mut ring = self.ring();
        ring.service = service.map(|address| Arc::new(Backend::new(String::new(), address)));
        let key = |known: Arc<Backend>| ((known.container.clone(), known.address), known);
        let mut known: HashMap<_, _> = std::mem::take(&mut ring.backends).into_iter().map(key).collect();
        let backends = endpoint.into_iter().flat_map(|endpoint| &endpoint.backends).filter_map(|backend| {
            let address = SocketAddr::new(backend.host.parse::<IpAddr>().ok()?, u16::try_from(backend.port).ok()?);
            let container = backend.container.clone();
            let known = known.remove(&(container.clone(), address));
            Some(known.unwrap_or_else(|| Arc::new(Backend::new(container, address))))
        });
        ring.backends = backends.collect();
        drop(ring);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are exchanged whole under each lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::{Backend as Told, Endpoint};

    fn balancer() -> Balancer {
        Balancer::follow("/nowhere", "shop/prod/stock", "http")
    }

    fn endpoint(map: &str, port_name: &str, containers: &[(&str, u32)]) -> Endpoint {
        let told = |(container, port): &(&str, u32)| Told {
            container: (*container).to_owned(),
            host: "127.0.0.1".into(),
            port: *port,
        };
        Endpoint {
            service: "shop".into(),
            map: map.into(),
            unit: "stock".into(),
            port_name: port_name.into(),
            backends: containers.iter().map(told).collect(),
            ..Endpoint::default()
        }
    }

    fn tell(balancer: &Balancer, containers: &[(&str, u32)]) {
        let endpoints = vec![
            endpoint("test", "http", &[("stock-t", 9)]),
            endpoint("prod", "admin", &[("stock-a", 8)]),
            endpoint("prod", "http", containers),
        ];
        balancer.followed.set(&EndpointTable { endpoints });
    }

    #[tokio::test]
    async fn the_one_with_the_fewest_calls_is_picked_and_equals_take_turns() {
        let stock = balancer();
        assert!(stock.try_pick().is_none());
        tell(&stock, &[("stock-a", 1), ("stock-b", 2), ("stock-c", 3)]);
        let picks: Vec<Pick> = (0..7).filter_map(|_| stock.try_pick()).collect();
        let mut calls = BTreeMap::new();
        for pick in &picks {
            *calls.entry(pick.container().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(calls.values().copied().collect::<Vec<_>>(), [3, 2, 2]);
        let (of_b, others): (Vec<Pick>, Vec<Pick>) = picks.into_iter().partition(|pick| pick.container() == "stock-b");
        drop(of_b);
        let next: Vec<String> = (0..2).filter_map(|_| Some(stock.try_pick()?.container().to_owned())).collect();
        assert_eq!(next, ["stock-b", "stock-b"], "each was dropped before the next");
        drop(others);
        let one_by_one: Vec<u16> = (0..6).filter_map(|_| Some(stock.try_pick()?.address().port())).collect();
        assert_eq!(one_by_one, [3, 1, 2, 3, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_is_left_alone_for_a_while_unless_all_did() {
        let stock = balancer();
        tell(&stock, &[("stock-a", 1), ("stock-b", 2)]);
        stock.pick().await.fail();
        let picked = |count: usize| -> Vec<u16> {
            (0..count).filter_map(|_| Some(stock.try_pick()?.address().port())).collect()
        };
        assert_eq!(picked(3), [2, 2, 2]);
        stock.pick().await.fail();
        assert_eq!(picked(2), [1, 2]);
        tokio::time::advance(ASIDE).await;
        assert_eq!(picked(2), [1, 2]);
    }

    #[tokio::test]
    async fn a_new_table_keeps_what_is_under_way_and_wakes_who_waits() {
        let stock = balancer();
        let waiting = tokio::spawn({
            let stock = stock.clone();
            async move { stock.pick().await }
        });
        tokio::task::yield_now().await;
        tell(&stock, &[("stock-a", 1)]);
        let first = waiting.await.expect("it does not panic");
        tell(&stock, &[("stock-b", 2), ("stock-a", 1)]);
        assert_eq!(stock.addresses().len(), 2);
        assert_eq!(stock.pick().await.container(), "stock-b", "the other one has a call");
        // It came back elsewhere: it is another one.
        tell(&stock, &[("stock-a", 5), ("stock-b", 2)]);
        let (one, other) = (stock.pick().await, stock.pick().await);
        assert_eq!((one.address().port(), other.address().port()), (2, 5));
        drop(first);
        tell(&stock, &[]);
        assert!(stock.try_pick().is_none());
    }

    #[tokio::test]
    async fn calls_wait_at_the_service_port_while_no_container_serves() {
        let stock = balancer();
        let with_service = |containers: &[(&str, u32)]| {
            let service_address = "[::1]:8080".into();
            EndpointTable { endpoints: vec![Endpoint { service_address, ..endpoint("prod", "http", containers) }] }
        };
        stock.followed.set(&with_service(&[]));
        let pick = stock.pick().await;
        assert_eq!((pick.address().to_string().as_str(), pick.container()), ("[::1]:8080", ""));
        stock.followed.set(&with_service(&[("stock-a", 1)]));
        assert_eq!(stock.pick().await.container(), "stock-a");
    }
}
