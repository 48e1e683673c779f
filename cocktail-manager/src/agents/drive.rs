//! Keeps the session of one server: passes on what comes, tells the state what it proves, and sends what follows.
//!
//! Start at [`run`]. What has to be remembered is durable before anything is sent that rests on it; everything else goes out
//! at once, so that a store that is slow ends nobody's lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use cocktail_core::contract::{Link, LinkSender, Runtime as _, RuntimeEvent};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::Event;
use cocktail_core::fleet::FleetEvent;
use cocktail_core::id::{ContainerId, Generation, OperationId};
use cocktail_core::server::{ServerState, ServerStep};
use cocktail_core::session::{
    AgentFrame, Answer, Ask, Attempt, BootId, Connection, Contact, Fact, Facts, Failure, ManagerEnd, ManagerFrame,
    ManagerOutput, Order, OrderError, Outcome, Phase, Refusal, ToAgent, ToManager, Values,
};
use cocktail_core::state::State;
use cocktail_core::time::{ManagerTime, human};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::Table;
use super::seat::{Input, Seat};
use crate::clock::Clock;
use crate::observe;
use crate::shared::{Attached, Found, Health, Observation, Shared};

/// Shortest time between two tables of who serves.
const TABLES: std::time::Duration = std::time::Duration::from_millis(100);
/// When an agent of another kind may ask again.
const OTHER_KIND: std::time::Duration = std::time::Duration::from_secs(5);
/// Pause before what runs on a server is asked for again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// One connection of the agent.
struct Connected {
    sender: Arc<dyn LinkSender>,
    peer: std::net::SocketAddr,
    facts: Option<Facts>,
}

struct Drive {
    shared: Shared,
    clock: Clock,
    seat: Arc<Seat>,
    end: ManagerEnd,
    links: BTreeMap<Connection, Connected>,
    last_link: u64,
    /// The connection of the session.
    live: Option<Connection>,
    last_order: u64,
    orders: BTreeMap<OperationId, oneshot::Sender<Result<Outcome>>>,
    last_call: u64,
    /// Calls without an answer, with the connection that they went over.
    calls: BTreeMap<u64, (Connection, oneshot::Sender<Result<Answer>>)>,
    /// For the starts that are ordered and not yet taken.
    values: BTreeMap<(ContainerId, Generation), Values>,
    /// Who serves.
    table: watch::Receiver<Table>,
    /// Why an agent got no session, as it was told last.
    refused: Option<String>,
}

/// Runs until the server is gone or the Manager ends.
pub(super) async fn run(
    shared: Shared,
    clock: Clock,
    seat: Arc<Seat>,
    end: ManagerEnd,
    mut inputs: mpsc::Receiver<Input>,
    mut table: watch::Receiver<Table>,
) {
    let ended = seat.ended.clone();
    let mut drive = Drive {
        shared,
        clock,
        seat,
        end,
        links: BTreeMap::new(),
        last_link: 0,
        live: None,
        last_order: 0,
        orders: BTreeMap::new(),
        last_call: 0,
        calls: BTreeMap::new(),
        values: BTreeMap::new(),
        table: table.clone(),
        refused: None,
    };
    let mut told = Instant::now();
    loop {
        let wake = drive.end.wake_at().map(|at| clock.instant(at));
        let sleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended.cancelled() => break,
            input = inputs.recv() => match input {
                Some(input) => drive.take(input).await,
                None => break,
            },
            () = sleep => {
                let out = drive.end.tick(clock.now());
                drive.act(out).await;
            }
            () = newest(&mut table, told) => {
                told = Instant::now();
                let newest = table.borrow_and_update().clone();
                newest.into_iter().for_each(|table| drive.send(ManagerFrame::Endpoints(table)));
            }
        }
    }
    for connected in drive.links.values() {
        connected.sender.close();
    }
}

/// Waits until there is a newer table than the one that was told then; each is told whole, so not each change by itself.
async fn newest(table: &mut watch::Receiver<Table>, told: Instant) {
    sleep_until(told + TABLES).await;
    if table.changed().await.is_err() {
        // The Manager is ending.
        std::future::pending().await
    }
}

impl Drive {
    fn now(&self) -> ManagerTime {
        self.clock.now()
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Link(link) => self.opened(*link),
            Input::Frame(connection, frame) => self.heard(connection, *frame).await,
            Input::Closed(connection) => {
                self.links.remove(&connection);
                let lost = self.calls.extract_if(.., |_, (of, _)| *of == connection);
                for (_, (_, reply)) in lost {
                    let _ = reply.send(Err(Error::new(ErrorKind::OutcomeUnknown, "the connection broke")));
                }
                let out = self.end.closed(self.now(), connection);
                self.act(out).await;
            }
            Input::Order { order, values, reply } => self.order(*order, values, reply).await,
            Input::Ask { ask, reply } => self.ask(ask, reply),
        }
    }

    /// A connection of our agent, or of whoever has its certificate: the hello tells.
    fn opened(&mut self, link: Link) {
        self.last_link += 1;
        let connection = Connection(self.last_link);
        let Link { server: _, peer, mut frames, sender } = link;
        self.links.insert(connection, Connected { sender, peer, facts: None });
        let inputs = self.seat.inputs();
        let ended = self.seat.ended.clone();
        self.shared.spawn(async move {
            let pass_on = async {
                while let Some(frame) = frames.next().await {
                    if inputs.send(Input::Frame(connection, Box::new(frame))).await.is_err() {
                        return;
                    }
                }
                // Without a task the Manager is ending.
                let _ = inputs.send(Input::Closed(connection)).await;
            };
            ended.run_until_cancelled(std::pin::pin!(pass_on)).await;
        });
    }

    async fn heard(&mut self, connection: Connection, frame: AgentFrame) {
        match frame {
            AgentFrame::Facts(facts) => {
                if let Some(connected) = self.links.get_mut(&connection) {
                    connected.facts = Some(facts);
                }
            }
            AgentFrame::Session(ToManager::Hello(hello)) if !self.is_alike(connection) => {
                self.refuse(connection, hello.attempt).await;
            }
            AgentFrame::Session(message) => {
                if matches!(message, ToManager::Hello(_)) {
                    self.fence().await;
                }
                let out = self.end.received(self.now(), connection, message);
                self.act(out).await;
            }
            // What is not of the session is of no session.
            _ if self.live != Some(connection) => {}
            AgentFrame::Runs { container, generation, handle } => self.seat.take_handle(container, generation, handle),
            AgentFrame::Event(RuntimeEvent::Exited { .. }) => {}
            AgentFrame::Event(event) => self.seat.emit(event),
            AgentFrame::Readings(readings) => self.seat.take_readings(readings),
            AgentFrame::Answer { call, answer } => {
                if let Some((_, reply)) = self.calls.remove(&call) {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer.map_err(Failure::into_error));
                }
            }
        }
    }

    /// Whether an agent runs what its server is to run.
    fn is_alike(&self, connection: Connection) -> bool {
        let facts = self.links.get(&connection).and_then(|connected| connected.facts.as_ref());
        facts.is_none_or(|facts| facts.images == self.seat.images)
    }

    /// An agent that runs something else gets no session, so that nothing is placed there in vain. What it may still run ends
    /// with its lease.
    async fn refuse(&mut self, connection: Connection, attempt: Attempt) {
        let why = Refusal::OtherKind { images: !self.seat.images };
        let because = format!("its agent gets no session: {why}");
        if let Some(connected) = self.links.get(&connection) {
            let message = ToAgent::Refused { attempt, why, retry_after: OTHER_KIND };
            connected.sender.send(ManagerFrame::Session { message, values: BTreeMap::new() });
        }
        if self.refused.as_ref() != Some(&because) {
            self.alert(because.clone()).await;
            self.refused = Some(because);
        }
    }

    /// What others have taken the place of ends when the server is back.
    async fn fence(&mut self) {
        let server = self.seat.server.clone();
        let fenced = self.shared.look(move |state, _: &Health| state.fenced_on(&server)).await.unwrap_or_default();
        for container in fenced {
            let out = self.end.fence(self.now(), &container);
            self.act(out).await;
        }
    }

    async fn order(&mut self, order: Order, values: Values, reply: oneshot::Sender<Result<Outcome>>) {
        self.last_order += 1;
        let operation = OperationId(self.last_order);
        if let (Order::Start { launch, .. }, false) = (&order, values.0.is_empty()) {
            self.values.insert((launch.container.clone(), launch.generation), values);
        }
        match self.end.order(self.now(), operation, order) {
            Ok(out) => {
                self.orders.insert(operation, reply);
                self.act(out).await;
            }
            Err(why) => {
                let kind = match why {
                    OrderError::NoSession => ErrorKind::Unavailable,
                    OrderError::Full { .. } => ErrorKind::Throttled { retry_after: None },
                    OrderError::Fenced | OrderError::OlderGeneration { .. } => ErrorKind::Conflict,
                };
                let _ = reply.send(Err(Error::new(kind, format!("{}: {why}", self.seat.server))));
            }
        }
    }

    fn ask(&mut self, ask: Ask, reply: oneshot::Sender<Result<Answer>>) {
        let Some((connection, connected)) = self.live.and_then(|live| Some((live, self.links.get(&live)?))) else {
            let away = Error::unavailable(format!("the agent of {} is not connected", self.seat.server));
            let _ = reply.send(Err(away));
            return;
        };
        self.last_call += 1;
        connected.sender.send(ManagerFrame::Call { call: self.last_call, ask: Box::new(ask) });
        self.calls.retain(|_, (_, reply)| !reply.is_closed());
        self.calls.insert(self.last_call, (connection, reply));
    }

    fn send(&self, frame: ManagerFrame) {
        if let Some(connected) = self.live.and_then(|live| self.links.get(&live)) {
            connected.sender.send(frame);
        }
    }

    /// Does what an output asks for, and what follows from its facts.
    async fn act(&mut self, out: ManagerOutput) {
        let ManagerOutput { facts, messages, hang_up } = out;
        let mut record = None;
        for fact in facts {
            if let Fact::Recorded(newest) = fact {
                record = Some(newest);
            } else {
                self.learn(fact).await;
            }
        }
        self.sit();
        let sends = messages.into_iter().filter_map(|(connection, message)| {
            let sender = self.links.get(&connection)?.sender.clone();
            Some((sender, self.frame(message)))
        });
        let sends: Vec<_> = sends.collect();
        let closes: Vec<_> =
            hang_up.iter().filter_map(|connection| Some(self.links.get(connection)?.sender.clone())).collect();
        let go = move || {
            sends.into_iter().for_each(|(sender, frame)| sender.send(frame));
            closes.iter().for_each(|sender| sender.close());
        };
        match record {
            None => go(),
            Some(record) => {
                let shared = self.shared.clone();
                let event = FleetEvent::SessionRecorded { server: self.seat.server.clone(), record: Box::new(record) };
                self.shared.spawn(async move {
                    if shared.durably(event.into()).await.is_ok() {
                        go();
                    }
                });
            }
        }
    }

    /// Says which connection is that of the session, if that has changed.
    fn sit(&mut self) {
        let live = self.end.session().and(self.live);
        self.live = live;
        let sender = live.and_then(|live| self.links.get(&live)).map(|connected| connected.sender.clone());
        self.seat.connected.send_if_modified(|current| {
            let same = match (&current, &sender) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (None, None) => true,
                _ => false,
            };
            *current = sender;
            !same
        });
    }

    fn frame(&self, message: ToAgent) -> ManagerFrame {
        let mut values = BTreeMap::new();
        if let ToAgent::Orders { orders, .. } = &message {
            for order in orders {
                let Order::Start { launch, .. } = order else { continue };
                let given = self.values.get(&(launch.container.clone(), launch.generation));
                values.extend(given.map(|given| (launch.container.clone(), given.clone())));
            }
        }
        ManagerFrame::Session { message, values }
    }

    async fn learn(&mut self, fact: Fact) {
        let server = self.seat.server.clone();
        match fact {
            Fact::Recorded(_) | Fact::Released { .. } => {}
            Fact::Joined { session, boot, rebooted, verdicts } => {
                self.refused = None;
                info!(%server, %session, rebooted, containers = verdicts.len(), "an agent has joined");
                self.joined(boot);
            }
            Fact::Silent => {
                let after = human(self.end.timing().spans().silent_after);
                let because = format!("nothing was heard from its agent for {after}");
                self.tell(FleetEvent::Quiet { server, because }).await;
            }
            Fact::Back => {
                self.tell(FleetEvent::Heard { server }).await;
                self.seat.emit(RuntimeEvent::Resync { why: "its server is heard again".into() });
            }
            Fact::Lost => {
                let because = "nothing was heard from its agent until its lease was over".to_owned();
                self.tell(FleetEvent::Stepped { server, step: ServerStep::Silent, because }).await;
            }
            Fact::Outcome { operation, outcome } => self.answer(operation, Ok(outcome)),
            Fact::Undecided { operation } => {
                let lost = Error::new(ErrorKind::OutcomeUnknown, format!("the session with {server} has ended"));
                self.answer(operation, Err(lost));
            }
            Fact::Changed { container, held } => {
                if let Phase::Ended(exit) = held.phase {
                    let (generation, exit) = (held.generation, exit.unwrap_or(cocktail_core::contract::Exit::Unknown));
                    self.seat.emit(RuntimeEvent::Exited { container, generation, exit });
                }
            }
            Fact::Contested { boot } => {
                let because = format!(
                    "boot {boot} asks to join while another one may be alive: the machine was rebooted, or there are two"
                );
                self.alert(because).await;
            }
            Fact::Twin { boot } => {
                let because = format!("boot {boot}, or a copy of it, asks to join after another took over: refused");
                self.alert(because).await;
            }
            Fact::Declined { why } => self.alert(format!("its agent does not follow this manager: {why}")).await,
        }
    }

    fn answer(&mut self, operation: OperationId, outcome: Result<Outcome>) {
        if let Some(reply) = self.orders.remove(&operation) {
            // Whoever ordered it may have gone.
            let _ = reply.send(outcome);
        }
        if self.orders.is_empty() {
            self.values.clear();
        }
    }

    async fn alert(&self, because: String) {
        warn!(server = %self.seat.server, because, "an agent is not as it should be");
        self.tell(FleetEvent::Alerted { server: self.seat.server.clone(), because }).await;
    }

    async fn tell(&self, event: FleetEvent) {
        self.shared.observe(Observation::Event(Event::from(event))).await;
    }

    /// A session has begun: what runs there is asked for, and the server takes containers.
    fn joined(&mut self, boot: BootId) {
        self.live = self.end.connection();
        debug_assert_eq!(self.end.contact(), Contact::Live);
        let Some(connected) = self.live.and_then(|live| self.links.get(&live)) else { return };
        let address = connected.peer.ip();
        let facts = connected.facts.clone();
        if let Some(table) = self.table.borrow().clone() {
            connected.sender.send(ManagerFrame::Endpoints(table));
        }
        let (shared, seat) = (self.shared.clone(), self.seat.clone());
        let sender = connected.sender.clone();
        self.shared.spawn(async move {
            let Some(facts) = facts else {
                warn!(server = %seat.server, "an agent did not say what it runs on");
                return sender.close();
            };
            let address = facts.address.unwrap_or(address);
            let is_current = || seat.connected.borrow().as_ref().is_some_and(|current| Arc::ptr_eq(current, &sender));
            // The session is current once this output was acted on.
            let mut connected = seat.connected.subscribe();
            while !is_current() {
                if tokio::time::timeout(AGAIN, connected.changed()).await.is_err() {
                    return;
                }
            }
            while is_current() {
                match attach(&shared, &seat, &facts, address, boot.as_str()).await {
                    Ok(()) => return,
                    Err(error) => {
                        debug!(server = %seat.server, error = error.chain(), "what runs on a server is not known yet");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
    }
}

/// Attaches to what runs on a server whose agent has joined.
async fn attach(shared: &Shared, seat: &Arc<Seat>, facts: &Facts, address: std::net::IpAddr, boot: &str) -> Result<()> {
    let server = seat.server.clone();
    let streamed = seat.events();
    let id = server.clone();
    let look = move |state: &State, _: &Health| {
        let before = observe::ids_on(state, &id);
        let record = state.servers.get(&id);
        let joins = record.is_some_and(|it| matches!(it.state, ServerState::Booting | ServerState::Lost));
        let described = record.map(|it| (it.capacity, it.address));
        (state.now, before, state.known(&id), joins, described)
    };
    let (asked, before, known, joins, described) = shared.look(look).await?;
    if !joins && described.is_some_and(|before| before != (facts.capacity, address)) {
        let event = FleetEvent::Described { server: server.clone(), capacity: facts.capacity, address };
        shared.observe(Observation::Event(event.into())).await;
    }
    let listing = seat.recover(&known).await?;
    let event = match joins {
        true => FleetEvent::Joined {
            server: server.clone(),
            incarnation: boot.to_owned(),
            capacity: facts.capacity,
            address,
        },
        false => FleetEvent::Heard { server: server.clone() },
    };
    shared.observe(Observation::Event(event.into())).await;
    let first = shared.servers.get(&server).is_none();
    let found = Found { server, asked, before, listing };
    let observation = match first {
        true => Observation::Connected { attached: Attached { runtime: seat.clone(), streamed }, found },
        false => Observation::Listed { found, attached: true },
    };
    shared.observe(observation).await;
    Ok(())
}
