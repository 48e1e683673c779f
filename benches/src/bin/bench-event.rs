//! What one death costs a Manager that knows many containers, and what it keeps of each.
//!
//! `bench-event UNITS CONTAINERS SERVERS DEATHS` makes a state of that many Units with that many containers together,
//! all ready, by the events that make one; then it lets containers die one by one. Of each death the turn is timed:
//! the exit is applied and the planner decides, which is the restart in place. The restart follows through its start
//! and its readiness, so that every death meets the same state. No store, no runtime: what is measured is state and
//! planner. One line of JSON goes to stdout.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cocktail_core::contract::{Exit, Handle, ProbeKind};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::{ContainerId, Epoch, Generation, Revision, ServerId, StoreId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::operation::OperationKind;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::scaling::Sample;
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::Resources;
use cocktail_core::time::WallTime;
use cocktail_core::{manifest, plan, state::State};

/// Containers that are made in one turn.
const BATCH: usize = 1000;
/// First port of each server.
const FIRST_PORT: u16 = 20_000;
/// Between two deaths.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [units, containers, servers, deaths] = args[..] else {
        bail!("usage: bench-event UNITS CONTAINERS SERVERS DEATHS");
    };
    ensure!(units > 0 && servers > 0 && containers >= units, "at least one server, Unit and container in each");
    let before = resident()?;
    let mut cluster = Cluster::new(units, containers / units, servers)?;
    cluster.fill()?;
    let bytes = resident()?.saturating_sub(before);
    let mut micros: Vec<f64> = Vec::with_capacity(deaths);
    for death in 0..deaths {
        micros.push(cluster.one_dies(death)?.as_secs_f64() * 1e6);
    }
    let count = cluster.ids.len();
    println!("{}", serde_json::json!({ "containers": count, "bytes": bytes, "micros": micros }));
    Ok(())
}

/// A State, and what the outside would say to it.
struct Cluster {
    state: State,
    unit_ids: Vec<UnitId>,
    of_each: usize,
    servers: Vec<ServerId>,
    ids: Vec<ContainerId>,
}

impl Cluster {
    fn new(units: usize, of_each: usize, servers: usize) -> Result<Self> {
        let mut state = State::new(StoreId::new("5e1f0c3d9a7b"));
        state.apply(&Event::ManagerStarted { epoch: Epoch(1), settings: Box::new(Settings::default()) });
        let servers: Vec<ServerId> = (0..servers).map(|number| ServerId::new(format!("server-{number:05}"))).collect();
        for id in &servers {
            state.apply(&Event::ServerSeen { server: Box::new(server(id)?) });
        }
        let mut text = "service = \"bench\"\n".to_owned();
        for unit in 0..units {
            text.push_str(&format!(
                "[maps.prod.units.web{unit}]\ncommand = [\"web\"]\nreplicas = 0\nports.http = {{}}\n\
                 ready = {{ http = \"/\" }}\nrestart = {{ base = \"0ms\" }}\n"
            ));
        }
        let parsed = manifest::parse(&text, Path::new("cocktail.toml"), Path::new("/srv"));
        let parsed = parsed.map_err(|problems| anyhow::anyhow!("the manifest is wrong: {problems:?}"))?;
        let service = parsed.service.context("the manifest names no service")?;
        state.apply(&Event::Applied { service: Box::new(service), actor: "bench".into() });
        let unit_ids = state.units.keys().cloned().collect();
        Ok(Self { state, unit_ids, of_each, servers, ids: Vec::new() })
    }

    /// Makes all containers, some in each turn. Where they go is said here and not by the planner, which would look for
    /// room: what is measured is what is known of them.
    fn fill(&mut self) -> Result<()> {
        let http = Name::new("http").context("a name")?;
        let all: Vec<(UnitId, u32)> = (1..=u32::try_from(self.of_each)?)
            .flat_map(|number| self.unit_ids.iter().map(move |unit| (unit.clone(), number)))
            .collect();
        for (unit, number) in &all {
            let count = self.ids.len();
            let port = FIRST_PORT + u16::try_from(count / self.servers.len())?;
            let container = ContainerId::new(format!("{}-{:06x}", unit.unit, scattered(count)));
            self.state.apply(&Event::Scaled { unit: unit.clone(), desired: *number, actor: "bench".into() });
            self.state.apply(&Event::Claimed {
                container: container.clone(),
                unit: unit.clone(),
                revision: Revision(1),
                server: self.servers[count % self.servers.len()].clone(),
                ports: vec![(http.clone(), port)],
                slot: None,
                spare: false,
                because: format!("{number} of {} wanted", self.of_each),
                considered: Vec::new(),
            });
            self.ids.push(container);
            if self.ids.len().is_multiple_of(BATCH) || self.ids.len() == all.len() {
                self.pass(PAUSE);
                self.start_claimed()?;
            }
        }
        // What was waited for has come, and what was watched has stayed well.
        self.pass(Duration::from_secs(600));
        self.decide_nothing()?;
        for ids in self.ids.chunks(BATCH) {
            let sample = Sample { cpu_millis: 20, memory_bytes: 30 << 20, ..Sample::default() };
            self.state.note(&Soft::Sampled(ids.iter().map(|id| (id.clone(), sample.clone())).collect()));
        }
        Ok(())
    }

    /// Starts what was claimed.
    fn start_claimed(&mut self) -> Result<()> {
        for event in plan::decide(&mut self.state) {
            let Event::Intended { operation } = event else { bail!("no start was decided, but {event:?}") };
            self.started(&operation.container, operation.generation);
        }
        self.decide_nothing()
    }

    fn decide_nothing(&mut self) -> Result<()> {
        let decided = plan::decide(&mut self.state);
        ensure!(decided.is_empty(), "more was decided than the starts: {:?}", decided.first());
        Ok(())
    }

    /// The runtime says that a container runs and answers its probe.
    fn started(&mut self, container: &ContainerId, generation: Generation) {
        let boot_id = "b5c7ad27-6f86-4f4a-9f33-0d6e45a8d0a1".into();
        let handle = Handle { pid: Some(4711), start_time: 123_456, boot_id, docker_id: None };
        self.state.apply(&Event::Started { container: container.clone(), generation, handle });
        self.state.apply(&Event::Probed {
            container: container.clone(),
            generation,
            probe: ProbeKind::Ready,
            ok: true,
            detail: "GET / answered 200".into(),
        });
    }

    /// One container dies, and comes back. Returns the time that the turn of its exit took.
    fn one_dies(&mut self, death: usize) -> Result<Duration> {
        self.pass(PAUSE);
        self.decide_nothing()?;
        let container = self.ids[scattered(death + self.ids.len()) as usize % self.ids.len()].clone();
        let generation = self.state.containers.get(&container).context("it is gone")?.generation;
        let exited = Event::Exited { container: container.clone(), generation, exit: Exit::Code(1) };
        let begin = Instant::now();
        self.state.apply(&exited);
        let decided = plan::decide(&mut self.state);
        let took = begin.elapsed();
        let [Event::Intended { operation }] = &decided[..] else { bail!("not one restart was decided: {decided:?}") };
        ensure!(operation.kind == OperationKind::Start && operation.container == container, "another restart");
        self.started(&container, operation.generation);
        self.decide_nothing()?;
        Ok(took)
    }

    fn pass(&mut self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        self.state.advance(self.state.now + span, WallTime(self.state.at.0.saturating_add(micros)));
    }
}

fn server(id: &ServerId) -> Result<Server> {
    Ok(Server {
        id: id.clone(),
        provider: Name::new("standalone").context("a name")?,
        provider_id: id.to_string(),
        state: ServerState::Ready,
        reason: "joined".into(),
        since: WallTime::default(),
        zone: None,
        offering: "machine".into(),
        incarnation: "boot".into(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        capacity: Resources { cpu: CpuMillis(1_000_000), memory: Bytes(1 << 40) },
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: cocktail_core::fleet::Tenure::default(),
    })
}

/// Each count once below 2^24, in an order that looks like chance.
fn scattered(count: usize) -> u64 {
    (count as u64).wrapping_mul(0x9e_3779_b97f_4a7d) & 0xff_ffff
}

/// Memory that this process has in use, what its allocator keeps for itself included.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("there is no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib << 10)
}
