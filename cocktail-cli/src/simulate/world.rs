//! Time, and the answers to what the planner intends: servers that are bought come up, containers that are started serve.
//!
//! Start at [`World::run`]. It goes from one moment at which something happens to the next; between two of them everything
//! is even. Each thing that happens is a turn, as a Manager would take it: applied, then decided, then acted on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cocktail_core::command::Command;
use cocktail_core::container::{Container, ContainerState};
use cocktail_core::contract::{Actor, ClaimOutcome, Exit, Handle, ProbeKind, ServerListing, ServerObservation};
use cocktail_core::event::{Event, Soft};
use cocktail_core::fleet::{FleetEvent, Owner, ServerOperation, ServerOperationKind, Tenure};
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, ServerId, StoreId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::operation::OperationKind;
use cocktail_core::plan;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::scaling::Sample;
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::Resources;
use cocktail_core::state::State;
use cocktail_core::time::{ManagerTime, WallTime};
use cocktail_core::unit::Unit;

use super::Input;
use super::flow::{Flow, Servers};
use super::load::Load;
use super::prices::Prices;
use super::record::{Decision, Point, Record, Summary, UnitPoint, UnitSummary, rounded};
use crate::failure::{Failure, Outcome};

/// How long a call to a provider takes.
const CALL: u64 = 1_000;
/// Time until a worker that waits has been told what to load.
const TOLD: u64 = 5;
/// How long a container takes to end, and what is left of it to go.
const END: u64 = 100;
/// Points at most.
const POINTS: u64 = 500;
/// The one server where nothing can be bought: room for everything.
const HERE: (&str, &str) = ("here", "standalone");
const ROOM: Resources = Resources { cpu: CpuMillis(1_000_000_000), memory: Bytes(1 << 50) };

/// Something that happens at a time.
#[derive(Debug, Clone)]
enum Happening {
    /// A call about a container is done.
    Done(OperationId),
    /// The readiness probe of a container passes.
    Ready(ContainerId, Generation),
    /// The last connection of a container has ended.
    Drained(ContainerId),
    /// A provider answers.
    Answered(OperationId),
    /// A server has come up.
    Up(ServerId),
    /// Providers are listed.
    List,
    /// Containers are read.
    Sample,
    /// It is written down where everything stands.
    Point,
}

/// A server that is paid for.
#[derive(Debug)]
struct Bought {
    provider: Name,
    offering: String,
    zone: Option<String>,
    capacity: Resources,
    price: f64,
    owner: Owner,
    up: bool,
}

/// Everything, at one time.
pub(super) struct World {
    state: State,
    settings: Settings,
    start: u64,
    prices: Prices,
    load: Load,
    now: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    last: u64,
    bought: BTreeMap<ServerId, Bought>,
    flows: BTreeMap<UnitId, Flow>,
    /// Units at whose port somebody waits, as far as the planner was told.
    waiting: BTreeSet<UnitId>,
    most_ready: BTreeMap<UnitId, u32>,
    cost: f64,
    server_ms: u64,
    most_servers: u32,
    points: Vec<Point>,
    decisions: Vec<Decision>,
    notes: Vec<String>,
}

impl World {
    /// A Manager that has just started and applied the manifests.
    ///
    /// # Errors
    /// What an apply is refused for.
    pub(super) fn new(input: &Input, prices: Prices) -> Outcome<Self> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let mut world = Self {
            state: State::new(StoreId::new(format!("simulated-{}", input.seed))),
            settings: input.settings.clone(),
            start: millis(input.start),
            prices,
            load: Load::default(),
            now: 0,
            happenings: BTreeMap::new(),
            last: 0,
            bought: BTreeMap::new(),
            flows: BTreeMap::new(),
            waiting: BTreeSet::new(),
            most_ready: BTreeMap::new(),
            cost: 0.0,
            server_ms: 0,
            most_servers: 0,
            points: Vec::new(),
            decisions: Vec::new(),
            notes: Vec::new(),
        };
        let settings = Box::new(input.settings.clone());
        let mut events = vec![Event::ManagerStarted { epoch: Epoch(1), settings }];
        for (provider, prices) in &world.prices {
            let offerings = prices.iter().map(|price| price.offering.clone()).collect();
            let (provider, limits) = (provider.clone(), input.limits.clone());
            events.push(FleetEvent::ProviderSeen { provider, grows: true, limits, offerings, images: false }.into());
        }
        if world.prices.is_empty() {
            events.push(Event::ServerSeen { server: Box::new(here()?) });
        }
        world.turn(events);
        let actor = Actor("simulate".into());
        let commanded = world.state.command(&Command::Apply(input.services.clone()), &actor)?;
        world.turn(commanded.events);
        world.say_what_is_missing();
        Ok(world)
    }

    /// What the planner knows.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Goes through the whole load.
    ///
    /// # Errors
    /// A load that ends where it begins.
    pub(super) fn run(mut self, load: Load) -> Outcome<Record> {
        let end = load.end();
        if end == 0 {
            return Err(Failure::Usage(
                "the load ends where it begins: its last row says when the simulation ends".into(),
            ));
        }
        self.load = load;
        let step = super::step(end, POINTS);
        for at in (0..end).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            self.at(at, Happening::Point);
        }
        self.after(millis(self.settings.usage), Happening::Sample);
        if !self.prices.is_empty() {
            self.after(millis(self.settings.relist), Happening::List);
        }
        loop {
            while let Some(((at, _), _)) = self.happenings.first_key_value()
                && *at <= self.now
            {
                let Some((_, happening)) = self.happenings.pop_first() else { break };
                self.happen(happening);
            }
            self.tell_who_waits();
            if self.now >= end {
                break;
            }
            let next = self.happenings.first_key_value().map(|((at, _), _)| *at);
            let wake = self.state.wake_at().map(|at| at.0);
            let next = [next, wake, self.load.next(self.now)].into_iter().flatten().min();
            self.pass(next.unwrap_or(end).max(self.now + 1).min(end));
            self.turn(Vec::new());
        }
        self.point();
        Ok(self.record())
    }

    /// Time passes up to the next moment at which something happens.
    fn pass(&mut self, to: u64) {
        let span = to - self.now;
        let ids: Vec<UnitId> = self.state.units.keys().cloned().collect();
        for id in ids {
            let demand = self.load.demand(&id, self.now);
            let servers = self.servers_of(&id);
            self.flows.entry(id).or_default().pass(span, demand, servers);
        }
        let hours = span as f64 / 3_600_000.0;
        self.cost += self.bought.values().map(|server| server.price * hours).sum::<f64>();
        self.server_ms = self.server_ms.saturating_add(span.saturating_mul(self.bought.len() as u64));
        self.now = to;
        let wall = WallTime(i64::try_from(to.saturating_mul(1_000)).unwrap_or(i64::MAX));
        self.state.advance(ManagerTime(to), wall);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Done(operation) => {
                let event = self.done(operation);
                self.turn(event.into_iter().collect());
            }
            Happening::Ready(container, generation) => {
                let loading = |it: &Container| it.generation == generation && it.state == ContainerState::Loading;
                let waits = self.state.containers.get(&container).is_some_and(Container::is_spare);
                if self.state.containers.get(&container).is_some_and(loading) && waits {
                    self.turn(vec![Event::Registered { container, generation }]);
                } else if self.state.containers.get(&container).is_some_and(loading) {
                    let (probe, detail) = (ProbeKind::Ready, "it is simulated".to_owned());
                    self.turn(vec![Event::Probed { container, generation, probe, ok: true, detail }]);
                }
            }
            Happening::Drained(container) => {
                self.state.note(&Soft::Drained { container });
                self.turn(Vec::new());
            }
            Happening::Answered(operation) => {
                let events = self.answered(operation);
                self.turn(events);
            }
            Happening::Up(server) => {
                let events = self.up(&server).into_iter().collect();
                self.turn(events);
            }
            Happening::List => {
                let events = self.list();
                self.turn(events);
                self.after(millis(self.settings.relist), Happening::List);
            }
            Happening::Sample => {
                let samples = self.sample();
                self.state.note(&Soft::Sampled(samples));
                self.turn(Vec::new());
                // Whoever still waits says so again.
                self.waiting.clear();
                self.after(millis(self.settings.usage), Happening::Sample);
            }
            Happening::Point => self.point(),
        }
    }

    /// One turn: what happened is applied, the planner decides, and what it intends is under way.
    fn turn(&mut self, mut events: Vec<Event>) {
        for event in &events {
            self.state.apply(event);
        }
        let decided = plan::decide(&mut self.state);
        for (index, event) in decided.iter().enumerate() {
            // What a turn says last about a Unit that waits is what holds.
            let again = |later: &Event| match (event, later) {
                (Event::Held { unit, .. }, Event::Held { unit: other, .. }) => unit == other,
                _ => false,
            };
            if !decided.iter().skip(index + 1).any(again) {
                self.write_down(event);
            }
        }
        events.extend(decided);
        for event in &events {
            self.act(event);
        }
        // Nobody has a ledger, a forwarder or a log here.
        self.state.take_ended_server_operations();
        self.state.take_rested_ports();
        self.state.take_routes_changed();
        for anomaly in self.state.take_anomalies() {
            self.notes.push(format!("the planner reports what should be impossible: {anomaly}"));
        }
        let ids: Vec<UnitId> = self.state.units.keys().cloned().collect();
        for id in ids {
            let ready = count(self.servers_of(&id).ready);
            let most = self.most_ready.entry(id).or_default();
            *most = ready.max(*most);
        }
    }

    fn act(&mut self, event: &Event) {
        match event {
            Event::Intended { operation } => {
                let span = match operation.kind {
                    OperationKind::Start => self.longer("start", operation.container.as_str(), self.start),
                    OperationKind::Assign => TOLD,
                    OperationKind::Stop { .. } | OperationKind::Remove | OperationKind::Unload { .. } => END,
                };
                self.after(span, Happening::Done(operation.id));
            }
            Event::DrainBegun { container, .. } => self.after(END, Happening::Drained(container.clone())),
            Event::Fleet { event } => {
                if let FleetEvent::Intended { operation } = &**event {
                    self.after(CALL, Happening::Answered(operation.id));
                }
            }
            _ => {}
        }
    }

    /// What a call about a container has led to.
    fn done(&mut self, id: OperationId) -> Option<Event> {
        let operation = self.state.operations.get(&id)?;
        let (container, generation) = (operation.container.clone(), operation.generation);
        Some(match operation.kind {
            OperationKind::Start => {
                self.after(1, Happening::Ready(container.clone(), generation));
                let handle = Handle { pid: None, start_time: self.now, boot_id: "simulated".into(), docker_id: None };
                Event::Started { container, generation, handle }
            }
            OperationKind::Stop { .. } => Event::Exited { container, generation, exit: Exit::Code(0) },
            OperationKind::Remove => Event::Removed { container },
            OperationKind::Assign => {
                self.after(1, Happening::Ready(container, generation));
                Event::Assigned { operation: id, failure: None }
            }
            OperationKind::Unload { .. } => Event::Unloaded { operation: id, failure: None },
        })
    }

    fn answered(&mut self, id: OperationId) -> Vec<Event> {
        let Some(operation) = self.state.server_operation(id).cloned() else { return Vec::new() };
        match &operation.kind {
            ServerOperationKind::Provision { spec } => {
                let of_provider = self.prices.get(&operation.provider).into_iter().flatten();
                let mut matching = of_provider
                    .filter(|price| price.offering.name == spec.offering && price.offering.zone == spec.zone);
                let Some(price) = matching.next().cloned() else { return Vec::new() };
                let mut outcomes = Vec::new();
                for server in &operation.servers {
                    let bought = Bought {
                        provider: operation.provider.clone(),
                        offering: spec.offering.clone(),
                        zone: spec.zone.clone(),
                        capacity: price.offering.allocatable,
                        price: price.offering.price.unwrap_or_default(),
                        owner: Owner { store: self.state.store.clone(), operation: id },
                        up: false,
                    };
                    self.bought.insert(server.clone(), bought);
                    let boot = self.longer("boot", server.as_str(), millis(price.boot));
                    self.after(boot.saturating_sub(CALL), Happening::Up(server.clone()));
                    outcomes.push(ClaimOutcome { server: server.clone(), result: Ok(format!("i-{server}")) });
                }
                self.most_servers = self.most_servers.max(count(self.bought.len()));
                self.state.provisioned(id, Ok(outcomes))
            }
            ServerOperationKind::Clear => self.state.cleared(id, Ok(())),
            ServerOperationKind::Terminate { .. } => {
                self.bought.retain(|server, _| !operation.servers.contains(server));
                self.state.terminated(id, Ok(()))
            }
        }
    }

    fn up(&mut self, server: &ServerId) -> Option<Event> {
        let bought = self.bought.get_mut(server)?;
        bought.up = true;
        let joins = self.state.servers.get(server).is_some_and(|it| it.state == ServerState::Booting);
        let (incarnation, capacity) = ("simulated".to_owned(), bought.capacity);
        joins.then(|| FleetEvent::Joined { server: server.clone(), incarnation, capacity, address: ADDRESS }.into())
    }

    /// What every provider lists, which is how a server that was given back is known to be gone.
    fn list(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for provider in self.prices.keys() {
            let of_provider = self.bought.iter().filter(|(_, server)| server.provider == *provider);
            let seen = of_provider.map(|(id, server)| ServerObservation {
                server: id.clone(),
                provider_id: format!("i-{id}"),
                incarnation: if server.up { "simulated".into() } else { String::new() },
                capacity: server.capacity,
                zone: server.zone.clone(),
                offering: server.offering.clone(),
                address: ADDRESS,
                owner: Some(server.owner.clone()),
                labels: BTreeMap::new(),
            });
            let listing = ServerListing { servers: seen.collect(), complete: true, as_of: self.state.at };
            events.extend(self.state.listed(provider, self.state.now, &listing));
        }
        events
    }

    /// What every ready container did since the last reading.
    fn sample(&mut self) -> BTreeMap<ContainerId, Sample> {
        let mut samples = BTreeMap::new();
        for (id, unit) in &self.state.units {
            let servers = servers(&self.state, unit);
            let demand = self.load.demand(id, self.now);
            let sample = self.flows.entry(id.clone()).or_default().sample(demand, servers);
            samples.extend(ready(&self.state, unit).map(|container| (container, sample.clone())));
        }
        samples
    }

    /// Clients wait at the ports of Units without a ready container, which is what brings one back from zero.
    fn tell_who_waits(&mut self) {
        let mut told = Vec::new();
        for (id, unit) in &self.state.units {
            let asked = self.load.demand(id, self.now).rps > 0.0 || self.flows.get(id).is_some_and(|it| it.queue > 0.0);
            if servers(&self.state, unit).ready > 0 {
                self.waiting.remove(id);
            } else if asked && self.waiting.insert(id.clone()) {
                told.push(id.clone());
            }
        }
        if told.is_empty() {
            return;
        }
        for unit in told {
            self.state.note(&Soft::Demand { unit });
        }
        self.turn(Vec::new());
    }

    fn write_down(&mut self, event: &Event) {
        let (kind, mut object, mut because) = event.describe();
        match event {
            Event::Autoscaled { .. } | Event::BoundsSet { .. } | Event::Held { .. } | Event::Froze { .. } => {}
            Event::Fleet { event } => match &**event {
                FleetEvent::Intended { operation } => {
                    object = names(operation);
                    if let ServerOperationKind::Provision { spec } = &operation.kind {
                        because = format!("{} of {}: {because}", spec.offering, operation.provider);
                    }
                }
                FleetEvent::BuyingStopped { .. } | FleetEvent::Rearranging { .. } => {}
                _ => return,
            },
            _ => return,
        }
        self.decisions.push(Decision { at_ms: self.now, kind: kind.into(), object, because });
    }

    fn point(&mut self) {
        let units = self.state.units.iter().map(|(id, unit)| UnitPoint {
            unit: id.to_string(),
            requests_per_s: rounded(self.load.demand(id, self.now).rps),
            wanted: unit.goal(),
            ready: count(servers(&self.state, unit).ready),
            queue: self.flows.get(id).map_or(0.0, |flow| rounded(flow.queue)),
        });
        let point = Point {
            at_ms: self.now,
            servers: count(self.bought.len()),
            cost: rounded(self.cost),
            units: units.collect(),
        };
        self.points.push(point);
    }

    fn record(self) -> Record {
        let hours = |millis: f64| rounded(millis / 3_600_000.0);
        let units = self.flows.iter().map(|(id, flow)| UnitSummary {
            unit: id.to_string(),
            requests: flow.arrived.round(),
            longest_queue: rounded(flow.longest),
            time_with_queue: rounded(flow.queued / self.now as f64),
            container_hours: hours(flow.ready),
            most_ready: self.most_ready.get(id).copied().unwrap_or_default(),
        });
        let summary = Summary {
            duration_ms: self.now,
            cost: rounded(self.cost),
            server_hours: hours(self.server_ms as f64),
            most_servers: self.most_servers,
            decisions: self.decisions.len(),
            units: units.collect(),
        };
        Record { summary, points: self.points, decisions: self.decisions, notes: self.notes }
    }

    /// What manifests can ask for and is not simulated.
    fn say_what_is_missing(&mut self) {
        for (id, unit) in &self.state.units {
            if unit.is_job() {
                self.notes.push(format!("{id} is a job: here its containers run for ever"));
            }
            let Some(scaling) = &unit.spec.replicas.scaling else { continue };
            if !scaling.schedule.is_empty() {
                self.notes.push(format!("{id} has a schedule, which is not simulated: its bounds stay as they are"));
            }
            let known = |metric: &str| matches!(metric, "cpu" | "rps" | "in_flight" | "connections");
            for metric in scaling.targets.keys().filter(|metric| !known(metric)) {
                self.notes
                    .push(format!("{id} scales by {metric}, of which a load says nothing: it asks for nothing here"));
            }
        }
    }

    fn servers_of(&self, id: &UnitId) -> Servers {
        self.state.units.get(id).map_or(Servers { ready: 0, cores: 1.0 }, |unit| servers(&self.state, unit))
    }

    /// A span and up to a tenth more, as the seed has it.
    fn longer(&self, what: &str, whose: &str, span: u64) -> u64 {
        span + self.state.chance(&format!("{what} {whose}"), self.now) % (span / 10 + 1)
    }

    fn after(&mut self, span: u64, happening: Happening) {
        self.at(self.now.saturating_add(span.max(1)), happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.last += 1;
        self.happenings.insert((at, self.last), happening);
    }
}

/// Nothing is ever sent there.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The one server where nothing can be bought.
fn here() -> Outcome<Server> {
    let (id, provider) = HERE;
    Ok(Server {
        id: ServerId::new(id),
        provider: Name::new(provider).map_err(|error| Failure::Failed(error.to_string()))?,
        provider_id: id.into(),
        state: ServerState::Ready,
        reason: "it has room for everything".into(),
        since: WallTime::default(),
        zone: None,
        offering: id.into(),
        incarnation: "simulated".into(),
        address: ADDRESS,
        capacity: ROOM,
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: Tenure::default(),
    })
}

fn ready<'a>(state: &'a State, unit: &'a Unit) -> impl Iterator<Item = ContainerId> {
    state.of(unit).filter(|it| it.state == ContainerState::Ready).map(|it| it.id.clone())
}

/// The containers of a Unit that serve. One without a reservation has a whole core.
fn servers(state: &State, unit: &Unit) -> Servers {
    let cpu = unit.spec.template.resources.cpu.0;
    let cores = if cpu == 0 { 1.0 } else { cpu as f64 / 1000.0 };
    Servers { ready: ready(state, unit).count(), cores }
}

fn names(operation: &ServerOperation) -> String {
    operation.servers.iter().map(ServerId::as_str).collect::<Vec<_>>().join(" ")
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
