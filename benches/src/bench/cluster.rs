//! Simulated servers for the planner's benchmarks: states of any size, made by the same events as real ones.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow};
use cocktail_core::command::Command;
use cocktail_core::contract::{Actor, Handle};
use cocktail_core::event::Event;
use cocktail_core::id::{Epoch, ServerId, StoreId};
use cocktail_core::manifest;
use cocktail_core::name::Name;
use cocktail_core::operation::OperationKind;
use cocktail_core::plan;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::{Resources, ServiceSpec};
use cocktail_core::state::State;
use cocktail_core::time::WallTime;

/// Containers that the writer makes in one turn at most.
pub(crate) const CLAIMS: usize = 4096;

/// What a benchmark deploys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deployment {
    pub(crate) map: &'static str,
    pub(crate) units: u32,
    pub(crate) each: u32,
    /// Thousandths of a core.
    pub(crate) cpu: u32,
    pub(crate) memory_mib: u32,
    /// Each Unit keeps away from the next one, and has a port.
    pub(crate) apart: bool,
}

impl Deployment {
    pub(crate) fn count(self) -> usize {
        (self.units * self.each) as usize
    }

    pub(crate) fn service(self) -> Result<ServiceSpec> {
        let Self { map, units, each, cpu, memory_mib, apart } = self;
        let mut text = "service = \"bench\"\n".to_owned();
        for unit in 0..units {
            let (cores, next) = (f64::from(cpu) / 1000.0, (unit + 1) % units);
            writeln!(text, "[maps.{map}.units.u{unit}]\ncommand = [\"worker\"]\nreplicas = {each}")?;
            writeln!(text, "resources = {{ cpu = {cores}, memory = \"{memory_mib}MiB\" }}\nports.http = {{}}")?;
            if apart {
                writeln!(text, "place = {{ spread = \"server\", affinity = {{ apart = [\"u{next}\"] }} }}")?;
            }
        }
        let parsed = manifest::parse(&text, Path::new("cocktail.toml"), Path::new("/srv/bench"));
        let parsed = parsed.map_err(|problems| anyhow!("the manifest is not well: {problems:?}"))?;
        parsed.service.ok_or_else(|| anyhow!("the manifest names no service"))
    }
}

pub(crate) fn store() -> StoreId {
    StoreId::new("bench-store")
}

/// A server with that much cpu, in cores; memory is four times as many GiB.
pub(crate) fn server(number: u32, cores: u64) -> Result<Server> {
    let text = format!("server-{number:05}");
    Ok(Server {
        id: ServerId::new(text.clone()),
        provider: Name::new("simulated")?,
        provider_id: text,
        state: ServerState::Ready,
        reason: "simulated".into(),
        since: WallTime::default(),
        zone: Some(format!("zone-{}", number % 3)),
        offering: "large".into(),
        incarnation: "boot".into(),
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        capacity: Resources { cpu: CpuMillis(cores * 1000), memory: Bytes(cores << 32) },
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: cocktail_core::fleet::Tenure::default(),
    })
}

/// A state with that many empty servers.
pub(crate) fn state(servers: u32, cores: u64) -> Result<State> {
    let mut state = State::new(store());
    state.apply(&Event::ManagerStarted { epoch: Epoch(1), settings: Box::new(Settings::default()) });
    for number in 0..servers {
        state.apply(&Event::ServerSeen { server: Box::new(server(number, cores)?) });
    }
    plan::decide(&mut state);
    Ok(state)
}

/// Takes a deployment as the desired state; what follows is left to be decided.
pub(crate) fn apply(state: &mut State, deployment: Deployment) -> Result<Vec<Event>> {
    let command = Command::Apply(vec![deployment.service()?]);
    let events = state.command(&command, &Actor("bench".into())).map_err(|error| anyhow!(error.chain()))?.events;
    for event in &events {
        state.apply(event);
    }
    Ok(events)
}

/// Says that every start that was intended has happened.
pub(crate) fn start_all(state: &mut State) {
    let open: Vec<_> = state.operations.values().filter(|open| open.kind == OperationKind::Start).cloned().collect();
    for operation in open {
        let handle = Handle { pid: Some(1), start_time: 1, boot_id: "boot".into(), docker_id: None };
        let (container, generation) = (operation.container, operation.generation);
        state.apply(&Event::Started { container, generation, handle });
    }
    plan::decide(state);
}
