//! The crash matrix, exhaustive: every kind of action, a crash of the Manager at every point of it, and every way in which
//! the next call can end; each call twice, each outcome missed, each listing stale. Whatever happens, all that was asked for
//! is there in the end and nothing else, nothing was done that was not durable before, and nothing was done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::command::{Command, Count};
use crate::container::ContainerState;
use crate::contract::{
    ClaimOutcome, Exit, Handle, Launch, Listing, Observation, Offering, OfferingKind, ServerListing, ServerObservation,
    Sighting, WorkerSaid,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Turn};
use crate::fleet::{FleetEvent, FleetLimits, Owner, ServerOperation, ServerOperationKind};
use crate::id::{ContainerId, Epoch, Generation, OperationId, ServerId, StoreId};
use crate::operation::{Failure, Operation, OperationKind};
use crate::plan;
use crate::quantity::{Bytes, CpuMillis};
use crate::server::ServerState;
use crate::settings::Settings;
use crate::spec::Resources;
use crate::state::State;
use crate::time::{ManagerTime, WallTime};
use crate::world::{actor, name, service};

const CLOUD: &str = "cloud";

/// What the action under test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Provision,
    Start,
    Stop,
    Remove,
    Assign,
    Unload,
    Clear,
    Terminate,
}

/// Where the Manager dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    BeforeIntent,
    AfterIntent,
    /// The request is under way, and arrives after the next Manager has sent it again.
    RequestSent,
    ReplyLost,
    BeforeCommit,
    AfterCommit,
    /// It does not die.
    Never,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Well,
    Badly,
    /// It acts, and nobody is told.
    Unknown,
}

/// What is doubled, missed or stale besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Besides {
    Nothing,
    Twice,
    Missed,
    StaleListing,
}

const ACTIONS: [Action; 8] = [
    Action::Provision,
    Action::Start,
    Action::Stop,
    Action::Remove,
    Action::Assign,
    Action::Unload,
    Action::Clear,
    Action::Terminate,
];
const POINTS: [Point; 7] = [
    Point::BeforeIntent,
    Point::AfterIntent,
    Point::RequestSent,
    Point::ReplyLost,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::Never,
];
const ENDS: [Ends; 3] = [Ends::Well, Ends::Badly, Ends::Unknown];
const BESIDES: [Besides; 4] = [Besides::Nothing, Besides::Twice, Besides::Missed, Besides::StaleListing];

/// A request as it was sent: it may arrive long after.
#[derive(Debug, Clone)]
enum Request {
    Container(Operation, Option<Box<Launch>>, Epoch),
    Servers(ServerOperation, String),
}

impl Request {
    fn is(&self, action: Action) -> bool {
        match self {
            Self::Container(operation, ..) => match operation.kind {
                OperationKind::Start => action == Action::Start,
                OperationKind::Stop { .. } => action == Action::Stop,
                OperationKind::Remove => action == Action::Remove,
                OperationKind::Assign => action == Action::Assign,
                OperationKind::Unload { .. } => action == Action::Unload,
            },
            Self::Servers(operation, _) => match operation.kind {
                ServerOperationKind::Provision { .. } => action == Action::Provision,
                ServerOperationKind::Clear => action == Action::Clear,
                ServerOperationKind::Terminate { .. } => action == Action::Terminate,
            },
        }
    }

    fn id(&self) -> OperationId {
        match self {
            Self::Container(operation, ..) => operation.id,
            Self::Servers(operation, _) => operation.id,
        }
    }
}

#[derive(Debug, Clone)]
enum Reply {
    Event(Event),
    Provisioned(OperationId, Result<Vec<ClaimOutcome>>),
    Cleared(OperationId, Result<()>),
    Terminated(OperationId, Result<()>),
}

/// What is outside: processes and servers.
#[derive(Debug, Clone, Default)]
struct Outside {
    processes: BTreeMap<ContainerId, (ServerId, Generation)>,
    started: BTreeMap<ContainerId, Generation>,
    /// What workers were told to load.
    told: BTreeMap<ContainerId, u64>,
    /// Servers by what made them.
    servers: BTreeMap<ServerId, String>,
    /// Servers that were given back: none of them comes again.
    ended: BTreeSet<ServerId>,
}

struct Rig {
    live: State,
    journal: Vec<Turn>,
    outside: Outside,
    now: ManagerTime,
    /// What was tried, for messages.
    what: String,
}

impl Rig {
    fn new(what: String) -> Self {
        let live = State::new(StoreId::new("store-1"));
        let mut rig = Self { live, journal: Vec::new(), outside: Outside::default(), now: ManagerTime(0), what };
        rig.start_manager();
        let limits = FleetLimits { idle: Duration::from_secs(60), ..FleetLimits::default() };
        let offering = |what: &str, price| Offering {
            name: what.into(),
            zone: None,
            kind: OfferingKind::OnDemand,
            price: Some(price),
            allocatable: Resources { cpu: CpuMillis(2000), memory: Bytes(4 << 30) },
            available: true,
        };
        let offerings = vec![offering("small", 0.1), offering("other", 0.2)];
        let seen = FleetEvent::ProviderSeen { provider: name(CLOUD), grows: true, limits, offerings, images: false };
        rig.commit(vec![seen.into()]);
        rig
    }

    fn start_manager(&mut self) {
        let epoch = Epoch(self.live.epoch.0 + 1);
        self.commit(vec![Event::ManagerStarted { epoch, settings: Box::new(Settings::default()) }]);
    }

    /// Applies, decides and makes durable. What is committed is all that a later Manager knows.
    fn commit(&mut self, events: Vec<Event>) {
        let events = self.decide(events);
        let turn = Turn { now: self.live.now, at: self.live.at, epoch: self.live.epoch, events };
        self.journal.push(turn);
        assert_eq!(self.live.take_anomalies(), Vec::<String>::new(), "{}", self.what);
        // A pass over everything finds nothing that this one missed.
        let mut again = self.live.clone();
        again.mark_all();
        assert_eq!(plan::decide(&mut again), [], "{}: the pass missed something", self.what);
    }

    fn decide(&mut self, mut events: Vec<Event>) -> Vec<Event> {
        self.live.advance(self.now, wall(self.now));
        events.iter().for_each(|event| self.live.apply(event));
        events.extend(plan::decide(&mut self.live));
        events
    }

    fn crash(&mut self) {
        self.live = self.replayed();
        self.start_manager();
    }

    fn replayed(&self) -> State {
        let mut state = State::new(StoreId::new("store-1"));
        self.journal.iter().for_each(|turn| state.replay(turn));
        state
    }

    /// The calls of all open operations whose time has come.
    fn requests(&self) -> Vec<Request> {
        let launch = |operation: &Operation| {
            let needs = matches!(operation.kind, OperationKind::Start | OperationKind::Assign);
            needs.then(|| Box::new(self.live.launch(&operation.container).expect("it can be launched")))
        };
        let containers = self.live.operations.values();
        let containers = containers.map(|it| Request::Container(it.clone(), launch(it), self.live.epoch));
        let due = |it: &&ServerOperation| it.not_before.is_none_or(|until| until <= self.now);
        let servers = self.live.server_operations.values().filter(due);
        let servers = servers.map(|it| Request::Servers(it.clone(), it.token(&self.live.store)));
        containers.chain(servers).collect()
    }

    /// A request arrives. `None` where no answer comes back.
    fn arrives(&mut self, request: &Request, ends: Ends) -> Option<Reply> {
        let durable = self.replayed();
        let reply = match request {
            // Servers obey the Manager that they know last.
            Request::Container(.., epoch) if *epoch < durable.epoch => return None,
            Request::Container(operation, launch, _) => {
                let known = durable.last_operation >= operation.id;
                assert!(known, "{}: a call was sent before it was durable", self.what);
                self.container_call(operation, launch.as_deref(), ends).map(Reply::Event)
            }
            Request::Servers(operation, token) => {
                let known = durable.last_operation >= operation.id;
                assert!(known, "{}: a call was sent before it was durable", self.what);
                Some(self.server_call(operation, token, ends))
            }
        };
        // Who asks for containers repeats the call by itself; a provider's answer that got lost is an unknown outcome.
        match (reply, ends) {
            (Some(Reply::Event(_)), Ends::Unknown) => None,
            (reply, _) => reply,
        }
    }

    fn container_call(&mut self, operation: &Operation, launch: Option<&Launch>, ends: Ends) -> Option<Event> {
        let (container, generation) = (operation.container.clone(), operation.generation);
        match &operation.kind {
            OperationKind::Start => {
                let launch = launch.expect("a start has a launch");
                let handle = Handle { pid: Some(1), start_time: 1, boot_id: "boot".into(), docker_id: None };
                let started = Event::Started { container: container.clone(), generation, handle };
                if self.outside.started.get(&container).is_some_and(|last| *last >= generation) {
                    return Some(started);
                }
                if ends == Ends::Badly {
                    let (kind, message) = (ErrorKind::InvalidConfig, "no such program".into());
                    let failure = Failure { kind, message, port: None };
                    return Some(Event::StartFailed { operation: operation.id, failure });
                }
                assert!(!self.outside.processes.contains_key(&container), "{}: it runs twice", self.what);
                // A server that is gone runs nothing.
                let server = self.live.containers.get(&container).map(|record| record.server.clone())?;
                self.outside.started.insert(container.clone(), launch.generation);
                self.outside.told.remove(&container);
                self.outside.told.extend(assignment(launch).map(|number| (container.clone(), number)));
                self.outside.processes.insert(container, (server, generation));
                Some(started)
            }
            OperationKind::Assign => {
                let number = launch.and_then(assignment).expect("it is told something");
                let failure = (ends == Ends::Badly).then(|| said_no("it does not listen"));
                let runs = self.outside.processes.get(&container).is_some_and(|(_, last)| *last == generation);
                let known = self.outside.told.get(&container).copied().unwrap_or_default();
                if runs && failure.is_none() && known < number {
                    self.outside.told.insert(container, number);
                }
                Some(Event::Assigned { operation: operation.id, failure })
            }
            OperationKind::Unload { .. } => {
                let failure = (ends == Ends::Badly).then(|| said_no("it still serves"));
                if failure.is_none() {
                    self.outside.told.remove(&container);
                }
                Some(Event::Unloaded { operation: operation.id, failure })
            }
            // Ends and removals are repeated by whoever sends them until they succeed.
            _ if ends == Ends::Badly => None,
            OperationKind::Stop { .. } => {
                let runs = self.outside.processes.get(&container).is_some_and(|(_, last)| *last == generation);
                if runs {
                    self.outside.processes.remove(&container);
                }
                Some(Event::Exited { container, generation, exit: Exit::Signal(15) })
            }
            OperationKind::Remove => {
                assert!(!self.outside.processes.contains_key(&container), "{}: it is removed and runs", self.what);
                Some(Event::Removed { container })
            }
        }
    }

    fn server_call(&mut self, operation: &ServerOperation, token: &str, ends: Ends) -> Reply {
        let (id, servers) = (operation.id, &operation.servers);
        let error = |kind| Error::new(kind, "no");
        match &operation.kind {
            ServerOperationKind::Provision { .. } => {
                let (offering, retry_after) = ("small".to_owned(), None);
                if ends == Ends::Badly && servers.iter().all(|server| !self.outside.servers.contains_key(server)) {
                    return Reply::Provisioned(
                        id,
                        Err(error(ErrorKind::InsufficientCapacity { offering, retry_after })),
                    );
                }
                for server in servers {
                    if self.outside.ended.contains(server) {
                        continue;
                    }
                    let made = self.outside.servers.entry(server.clone()).or_insert_with(|| token.to_owned());
                    assert_eq!(made, token, "{}: a claim has two calls", self.what);
                }
                if ends == Ends::Unknown {
                    return Reply::Provisioned(id, Err(error(ErrorKind::OutcomeUnknown)));
                }
                let outcome =
                    |server: &ServerId| ClaimOutcome { server: server.clone(), result: Ok(format!("i-{server}")) };
                Reply::Provisioned(id, Ok(servers.iter().map(outcome).collect()))
            }
            ServerOperationKind::Clear => Reply::Cleared(id, said(ends)),
            ServerOperationKind::Terminate { .. } => {
                if ends != Ends::Badly {
                    for server in servers {
                        let used = self.outside.processes.values().any(|(on, _)| on == server);
                        assert!(!used, "{}: {server} is given back while something runs there", self.what);
                        self.outside.servers.remove(server);
                        self.outside.ended.insert(server.clone());
                    }
                }
                Reply::Terminated(id, said(ends))
            }
        }
    }

    /// What an answer amounts to.
    fn events(&self, reply: Reply) -> Vec<Event> {
        match reply {
            Reply::Event(event) => match &event {
                Event::Started { container, generation, .. } | Event::Exited { container, generation, .. } => {
                    let known = self.live.containers.get(container);
                    let news = known.is_some_and(|it| it.generation == *generation && it.state.may_run());
                    news.then_some(event).into_iter().collect()
                }
                Event::StartFailed { operation, .. }
                | Event::Assigned { operation, .. }
                | Event::Unloaded { operation, .. } => {
                    self.live.operations.contains_key(operation).then_some(event).into_iter().collect()
                }
                Event::Removed { container } => {
                    self.live.containers.contains_key(container).then_some(event).into_iter().collect()
                }
                _ => vec![event],
            },
            Reply::Provisioned(id, answer) => self.live.provisioned(id, answer),
            Reply::Cleared(id, answer) => self.live.cleared(id, answer),
            Reply::Terminated(id, answer) => self.live.terminated(id, answer),
        }
    }

    fn told(&mut self, reply: Reply) {
        let events = self.events(reply);
        self.commit(events);
    }

    /// Everything that can be seen now.
    fn look(&self) -> Look {
        let owner = |token: &str| {
            let operation = token.split('-').next().and_then(|id| id.parse().ok()).map(OperationId);
            operation.map(|operation| Owner { store: StoreId::new("store-1"), operation })
        };
        let seen = |(server, token): (&ServerId, &String)| ServerObservation {
            server: server.clone(),
            provider_id: format!("i-{server}"),
            incarnation: "boot".into(),
            capacity: Resources { cpu: CpuMillis(2000), memory: Bytes(4 << 30) },
            zone: None,
            offering: "small".into(),
            address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            owner: owner(token),
            labels: BTreeMap::new(),
        };
        let servers = self.outside.servers.iter().map(seen).collect();
        let containers = self.outside.processes.iter().map(|(container, (server, generation))| {
            let handle = Handle { pid: Some(1), start_time: 1, boot_id: "boot".into(), docker_id: None };
            let seen = Observation { generation: *generation, sighting: Sighting::Running(handle) };
            (server.clone(), container.clone(), seen)
        });
        Look {
            asked: self.now,
            servers: ServerListing { servers, complete: true, as_of: wall(self.now) },
            containers: containers.collect(),
        }
    }

    /// What was seen is told, then or later.
    fn seen(&mut self, look: &Look) {
        let events = self.live.listed(&name(CLOUD), look.asked, &look.servers);
        self.commit(events);
        for server in self.live.servers.keys().cloned().collect::<Vec<_>>() {
            let there = look.servers.servers.iter().any(|seen| seen.server == server);
            if let (true, Some(record)) = (there, self.live.servers.get(&server))
                && record.state == ServerState::Booting
                && self.outside.servers.contains_key(&server)
            {
                let (incarnation, capacity, address) = ("boot".to_owned(), record.capacity, record.address);
                self.commit(vec![FleetEvent::Joined { server: server.clone(), incarnation, capacity, address }.into()]);
            }
            if there {
                let here = look.containers.iter().filter(|(on, ..)| *on == server);
                let containers = here.map(|(_, id, seen)| (id.clone(), seen.clone())).collect();
                let listing = Listing { containers, complete: true, ..Listing::default() };
                let events = self.live.found(&server, look.asked, &listing);
                self.commit(events);
            }
        }
    }

    /// Time passes, and all that is open ends well, until nothing is left to do.
    fn settle(&mut self, until: impl Fn(&Self) -> bool) {
        for _ in 0..400 {
            let look = self.look();
            self.now = self.now + Duration::from_millis(1);
            self.seen(&look);
            let requests = self.requests();
            for request in &requests {
                if let Some(reply) = self.arrives(request, Ends::Well) {
                    self.told(reply);
                }
            }
            self.workers_say();
            let open = !self.live.operations.is_empty() || !self.live.server_operations.is_empty();
            if requests.is_empty() && !open && until(self) {
                return;
            }
            if requests.is_empty() {
                let soon = self.now + Duration::from_secs(30);
                self.now = self.live.wake_at().map_or(soon, |due| due.min(soon).max(self.now));
            }
            self.commit(Vec::new());
        }
        panic!("{}: it does not come to rest: {:#?}\n{:#?}", self.what, self.live.server_operations, self.live.servers);
    }

    /// What workers say that is new.
    fn workers_say(&mut self) {
        let mut events = Vec::new();
        for (container, (_, generation)) in &self.outside.processes {
            let said = match self.outside.told.get(container) {
                None => WorkerSaid::Waiting,
                Some(assignment) => WorkerSaid::Ready { assignment: *assignment },
            };
            events.extend(self.live.worker_said(container, *generation, &said));
        }
        self.commit(events);
    }

    fn waiting(&self) -> usize {
        self.live.containers.values().filter(|it| it.state == ContainerState::Waiting).count()
    }

    /// A Unit whose workers wait.
    fn pool(&mut self, count: u32) {
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.web]\nworker = \"web\"\nmicroservices = [\"web\"]\n\
             replicas = {count}\nresources = {{ cpu = 0.5 }}\nwarm = 1\n"
        );
        self.command(&Command::Apply(vec![service(&text)]));
    }

    fn running(&self) -> usize {
        self.live.containers.values().filter(|it| it.state == ContainerState::Ready).count()
    }

    fn web(&mut self, count: u32) {
        let text = format!(
            "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\n\
             resources = {{ cpu = 1 }}\n"
        );
        self.command(&Command::Apply(vec![service(&text)]));
    }

    fn command(&mut self, command: &Command) {
        let events = self.live.command(command, &actor()).expect("it is not refused").events;
        self.commit(events);
    }
}

/// A look at everything, told now or later.
#[derive(Debug, Clone)]
struct Look {
    asked: ManagerTime,
    servers: ServerListing,
    containers: Vec<(ServerId, ContainerId, Observation)>,
}

fn assignment(launch: &Launch) -> Option<u64> {
    launch.worker.as_ref()?.assignment.as_ref().map(|assignment| assignment.number)
}

fn said_no(message: &str) -> Failure {
    Failure { kind: ErrorKind::Unavailable, message: message.into(), port: None }
}

fn said(ends: Ends) -> Result<()> {
    match ends {
        Ends::Well => Ok(()),
        Ends::Badly => Err(Error::refused("protected")),
        Ends::Unknown => Err(Error::new(ErrorKind::OutcomeUnknown, "no answer")),
    }
}

fn wall(now: ManagerTime) -> WallTime {
    WallTime(i64::try_from(now.0).expect("short") * 1000)
}

impl Rig {
    /// Brings everything to just before the action is decided.
    fn before(action: Action, what: String) -> Self {
        let mut rig = Self::new(what);
        if action == Action::Provision {
            return rig;
        }
        if matches!(action, Action::Assign | Action::Unload) {
            let count = if action == Action::Assign { 1 } else { 2 };
            rig.pool(count);
            rig.settle(|rig| rig.running() == count as usize && rig.waiting() == 1);
            if action == Action::Unload {
                // It is away for a moment, so that another one may wait instead.
                let waits = rig.live.containers.values().find(|it| it.state == ContainerState::Waiting);
                let (container, generation) = waits.map(|it| (it.id.clone(), it.generation)).expect("one waits");
                rig.outside.processes.remove(&container);
                rig.commit(vec![Event::Exited { container, generation, exit: Exit::Code(1) }]);
            }
            return rig;
        }
        rig.web(1);
        rig.settle(|rig| rig.running() == 1);
        match action {
            Action::Provision | Action::Start | Action::Stop | Action::Assign | Action::Unload => {}
            Action::Remove => rig.scale(0),
            Action::Clear | Action::Terminate => {
                rig.scale(0);
                while !rig.live.containers.is_empty() {
                    for request in rig.requests() {
                        if let Some(reply) = rig.arrives(&request, Ends::Well) {
                            rig.told(reply);
                        }
                    }
                }
                if action == Action::Terminate {
                    rig.pass(61);
                }
            }
        }
        rig
    }

    fn scale(&mut self, count: u32) {
        self.command(&Command::Scale { unit: "web".into(), count: Count::Exactly(count) });
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.commit(Vec::new());
    }

    /// What makes the Manager decide on the action.
    fn trigger(&mut self, action: Action) -> Vec<Event> {
        let command = match action {
            Action::Provision => {
                let text = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nresources = { cpu = 1 }\n";
                Command::Apply(vec![service(text)])
            }
            Action::Start | Action::Assign => Command::Scale { unit: "web".into(), count: Count::Exactly(2) },
            Action::Unload => Command::Scale { unit: "web".into(), count: Count::Exactly(1) },
            Action::Stop => Command::Scale { unit: "web".into(), count: Count::Exactly(0) },
            Action::Remove | Action::Terminate => {
                let before = if action == Action::Remove { Action::Stop } else { Action::Clear };
                let requests = self.requests();
                let request = requests.iter().find(|request| request.is(before)).expect("the step before is open");
                let Some(reply) = self.arrives(request, Ends::Well) else { return Vec::new() };
                return self.events(reply);
            }
            Action::Clear => {
                self.now = self.now + Duration::from_secs(61);
                return Vec::new();
            }
        };
        self.live.command(&command, &actor()).expect("it is not refused").events
    }

    fn is_done(&self, action: Action) -> bool {
        // What a late call has made is found by listings and given back.
        let known = self.outside.servers.keys().all(|server| self.live.servers.contains_key(server));
        let seen = self.live.providers.values().all(|provider| provider.orphans.is_empty());
        known
            && seen
            && match action {
                Action::Provision => self.running() == 1,
                Action::Start => self.running() == 2,
                Action::Assign => self.running() == 2 && self.waiting() == 1,
                Action::Unload => self.running() == 1 && self.waiting() == 1,
                Action::Stop | Action::Remove => self.live.containers.is_empty(),
                Action::Clear | Action::Terminate => self.live.servers.is_empty(),
            }
    }

    /// Sends what is open about the action; the first call ends as it shall.
    fn next_call(&mut self, action: Action, ends: Ends, besides: Besides) {
        let requests = self.requests();
        let Some(request) = requests.iter().find(|request| request.is(action)) else { return };
        let times = if besides == Besides::Twice { 2 } else { 1 };
        for _ in 0..times {
            let reply = self.arrives(request, ends);
            for reply in reply.into_iter().filter(|_| besides != Besides::Missed) {
                for _ in 0..times {
                    self.told(reply.clone());
                }
            }
        }
    }

    /// Nothing is left over, nothing is missing, and the journal tells the same.
    fn assert_clean(&self) {
        let Self { live, outside, what, .. } = self;
        assert!(live.operations.is_empty() && live.server_operations.is_empty(), "{what}: an operation is open");
        let known: BTreeMap<&ContainerId, Generation> = live
            .containers
            .values()
            .filter(|record| record.state.may_run())
            .map(|record| (&record.id, record.generation))
            .collect();
        let runs: BTreeMap<&ContainerId, Generation> =
            outside.processes.iter().map(|(id, (_, generation))| (id, *generation)).collect();
        assert_eq!(known, runs, "{what}: what runs is not what is known");
        let known: BTreeSet<&ServerId> = live.servers.keys().collect();
        assert_eq!(known, outside.servers.keys().collect(), "{what}: what is paid for is not what is known");
        let orphans: usize = live.providers.values().map(|provider| provider.orphans.len()).sum();
        assert_eq!(orphans, 0, "{what}");
        let replayed = self.replayed().to_snapshot().expect("a state can be written");
        assert_eq!(
            live.to_snapshot().expect("a state can be written"),
            replayed,
            "{what}: the journal tells another tale"
        );
    }
}

/// One case of the matrix.
fn case(action: Action, point: Point, ends: Ends, besides: Besides) {
    let what = format!("{action:?}, dies {point:?}, ends {ends:?}, besides {besides:?}");
    let mut rig = Rig::before(action, what.clone());
    let stale = rig.look();
    rig.now = rig.now + Duration::from_millis(1);
    let events = rig.trigger(action);
    let mut late = None;
    if point == Point::BeforeIntent {
        rig.decide(events);
        rig.crash();
        // Nobody was answered, so a user asks again; what was observed is observed again.
        if !matches!(action, Action::Remove | Action::Clear | Action::Terminate) {
            let events = rig.trigger(action);
            rig.commit(events);
        }
    } else {
        rig.commit(events);
        let requests = rig.requests();
        let request = requests.into_iter().find(|request| request.is(action));
        let request = request.unwrap_or_else(|| panic!("{what}: nothing was decided"));
        match point {
            Point::BeforeIntent | Point::Never => {}
            Point::AfterIntent => rig.crash(),
            Point::RequestSent => {
                rig.crash();
                late = Some(request);
            }
            Point::ReplyLost => {
                rig.arrives(&request, Ends::Well);
                rig.crash();
            }
            Point::BeforeCommit => {
                if let Some(reply) = rig.arrives(&request, Ends::Well) {
                    let events = rig.events(reply);
                    rig.decide(events);
                }
                rig.crash();
            }
            Point::AfterCommit => {
                if let Some(reply) = rig.arrives(&request, Ends::Well) {
                    rig.told(reply);
                }
                assert!(rig.requests().iter().all(|open| open.id() != request.id()), "{what}: it was answered");
                rig.crash();
            }
        }
    }
    rig.next_call(action, ends, besides);
    if let Some(request) = late {
        // Its answer goes to a Manager that is gone.
        rig.arrives(&request, Ends::Well);
    }
    if besides == Besides::StaleListing {
        rig.seen(&stale);
        rig.seen(&stale);
    }
    rig.settle(|rig| rig.is_done(action));
    rig.assert_clean();
    // What failed for sure, and was made all the same by a call that came late, is the one thing that is bought in vain.
    let in_vain = usize::from(action == Action::Provision && point == Point::RequestSent && ends == Ends::Badly);
    let bought = rig.outside.servers.len() + rig.outside.ended.len();
    assert!(bought <= 1 + in_vain, "{what}: {bought} servers were bought for what one holds");
}

#[test]
fn wherever_the_manager_dies_and_however_the_next_call_ends_all_comes_to_what_was_asked_for() {
    let mut cases = 0;
    for action in ACTIONS {
        for point in POINTS {
            for ends in ENDS {
                for besides in BESIDES {
                    case(action, point, ends, besides);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 672);
}
