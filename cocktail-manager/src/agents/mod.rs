//! Servers that an agent drives: each has a [`Seat`], which is its runtime, and a task that keeps the session.
//!
//! Start at [`Agents::run`]. A connection that the gate lets in is given to the seat of its server; a server that the state
//! does not know gets none. What the session proves (`cocktail_core::session`) becomes events here; what is told to an
//! agent is sent when the facts that it rests on are durable.

mod admission;
mod drive;
mod events;
mod seat;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Once, PoisonError};

use cocktail_core::contract::{EndpointSource, Gate, Lease};
use cocktail_core::id::ServerId;
use cocktail_core::server::ServerState;
use cocktail_core::session::{Claim, ManagerEnd, Record, Timing};
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;
use cocktail_core::view::EndpointView;
use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::shared::{Health, Shared};

use self::admission::StateAdmission;
pub(crate) use self::seat::Seat;

/// Every seat.
#[derive(Debug, Clone)]
pub(crate) struct Agents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gate: Arc<dyn Gate>,
    lease: Lease,
    timing: Timing,
    clock: Clock,
    seats: Mutex<BTreeMap<ServerId, Arc<Seat>>>,
    /// Who serves, once there is a seat.
    table: watch::Sender<Table>,
    follows: Once,
}

/// Who serves, as it was told last.
type Table = Option<Arc<Vec<EndpointView>>>;

/// What a session goes on from.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    record: Record,
    claims: BTreeMap<cocktail_core::id::ContainerId, Claim>,
    now: ManagerTime,
    images: bool,
}

impl Before {
    /// What the state knows of a server; `None` of one that takes no agent.
    pub(crate) fn of(state: &State, server: &ServerId) -> Option<Self> {
        let known = state.servers.get(server)?;
        if matches!(known.state, ServerState::Gone | ServerState::Failed | ServerState::Claimed) {
            return None;
        }
        let record = known.tenure.session.as_deref().cloned().unwrap_or_default();
        Some(Self { record, claims: state.session_claims(server), now: state.now, images: known.images })
    }
}

impl Agents {
    pub(crate) fn new(gate: Arc<dyn Gate>, lease: Lease, timing: Timing, clock: Clock) -> Self {
        let (table, _) = watch::channel(None);
        Self(Arc::new(Inner { gate, lease, timing, clock, seats: Mutex::default(), table, follows: Once::new() }))
    }

    /// Where agents connect.
    pub(crate) fn gate(&self) -> Arc<dyn Gate> {
        self.0.gate.clone()
    }

    /// Takes connections until the Manager ends.
    pub(crate) async fn run(self, shared: Shared) {
        let admission = Arc::new(StateAdmission::new(shared.clone()));
        let mut links = self.0.gate.links(admission);
        while let Some(link) = links.next().await {
            if let Some(seat) = self.seat_of(&shared, &link.server).await {
                seat.give(link).await;
            } else {
                info!(server = %link.server, peer = %link.peer, "an agent of a server that is not known was turned away");
                link.sender.close();
            }
        }
        warn!("no agent can connect any more");
    }

    async fn seat_of(&self, shared: &Shared, server: &ServerId) -> Option<Arc<Seat>> {
        if let Some(seat) = self.get(server) {
            return Some(seat);
        }
        let asked = server.clone();
        let before = shared.look(move |state, _: &Health| Before::of(state, &asked)).await.ok()??;
        Some(self.seat(shared, server, before))
    }

    /// The seat of a server. One that was never taken waits for its agent.
    pub(crate) fn seat(&self, shared: &Shared, server: &ServerId, before: Before) -> Arc<Seat> {
        let mut seats = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = seats.get(server) {
            return seat.clone();
        }
        let Before { record, claims, now, images } = before;
        let end = ManagerEnd::new(self.0.timing, server.clone(), self.0.lease.clone(), record, claims, now);
        let (seat, inputs) = Seat::new(server.clone(), self.0.gate.clone(), shared.monitor.interval(), images);
        let seat = Arc::new(seat);
        self.0.follows.call_once(|| {
            let source = Arc::new(shared.endpoints.clone());
            shared.spawn(follow_endpoints(source, self.0.table.clone()));
        });
        seats.insert(server.clone(), seat.clone());
        let table = self.0.table.subscribe();
        shared.spawn(drive::run(shared.clone(), self.0.clock, seat.clone(), end, inputs, table));
        debug!(%server, "a server awaits its agent");
        seat
    }

    fn get(&self, server: &ServerId) -> Option<Arc<Seat>> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// Forgets a server that is gone.
    pub(crate) fn remove(&self, server: &ServerId) {
        let seat = self.0.seats.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
        if let Some(seat) = seat {
            seat.close();
        }
    }
}

/// Keeps the table of who serves for all seats: workers of their servers may ask.
async fn follow_endpoints(source: Arc<dyn EndpointSource>, table: watch::Sender<Table>) {
    let mut tables = source.watch(None);
    while let Some(Ok(newest)) = tables.next().await {
        table.send_replace(Some(Arc::new(newest)));
    }
}
