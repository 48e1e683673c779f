//! Workers that know their Manager: their socket, their tokens, and what they say.
//!
//! The hub is opened with the server, or for the first worker. What a worker is to load is part of its launch, so that it is the same after a
//! restart of the Manager, when running workers come back with what they were given then.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use cocktail_agent::hub::{Hub, HubEvent, Keys, Limits, Order, Said};
use cocktail_agent::protocol::{
    Assign, Backend, Drain, Endpoint, EndpointTable, Microservice, Port, Severity, Unload, Usage,
};
use cocktail_core::contract::{
    EndpointSource, Launch, LaunchAssignment, LaunchPort, RuntimeEvent, UnloadOrder, WorkerSaid,
};
use cocktail_core::error::{Error, ErrorKind as Kind, Result};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::name::Name;
use cocktail_core::spec::MicroserviceSpec;
use cocktail_core::time::human;
use cocktail_core::view::{BackendView, EndpointView};
use futures_util::StreamExt as _;
use futures_util::future::ready;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::shared::{Shared, lock};

/// Words of workers that whoever waits for them has not taken yet.
const WORDS: usize = 256;
/// What the answer of a worker that needs its whole grace may take.
const SLACK: Duration = Duration::from_secs(2);
/// What a worker gets to close what it has loaded, after nothing is in flight any more.
const CLOSING: Duration = Duration::from_secs(10);
/// Bytes of the secret that tokens are derived from.
const SECRET: usize = 32;

/// The sessions of workers, once there was one.
#[derive(Debug)]
pub(crate) struct Workers {
    hub: std::sync::Mutex<Option<Hub>>,
    /// What workers say, for those who wait for it.
    words: broadcast::Sender<HubEvent>,
    /// Who knows the endpoints.
    endpoints: OnceLock<Arc<dyn EndpointSource>>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { hub: std::sync::Mutex::default(), words: broadcast::channel(WORDS).0, endpoints: OnceLock::new() }
    }
}

impl Workers {
    /// Expects a start of a worker, and returns what it has to find in its environment; nothing for a program that is none.
    ///
    /// # Errors
    /// `InvalidConfig` for a path that is too long for a socket and for a worker of another user; `Unavailable` when the
    /// socket or its secret cannot be made.
    pub(crate) fn expect(&self, shared: &Arc<Shared>, launch: &Launch) -> Result<BTreeMap<String, String>> {
        let Some(worker) = &launch.worker else { return Ok(BTreeMap::new()) };
        let hub = self.open(shared)?;
        let (container, generation) = (launch.container.as_str(), launch.generation.0);
        hub.expect(container, generation, false);
        match &worker.assignment {
            Some(assignment) => {
                hub.order(container, generation, Order::Assign(assign(shared, launch, assignment)));
            }
            // Its word may have been missed.
            None if hub.is_there(container) => {
                let (container, generation) = (launch.container.clone(), launch.generation);
                shared.emit(RuntimeEvent::Worker { container, generation, said: WorkerSaid::Waiting });
            }
            None => {}
        }
        let socket = socket(shared);
        let socket = socket.to_str().ok_or_else(|| Error::invalid("the path of the data dir is no text"))?;
        let mut env = BTreeMap::from([
            ("COCKTAIL_SOCKET".to_owned(), socket.to_owned()),
            ("COCKTAIL_TOKEN".to_owned(), hub.token(container, generation)),
        ]);
        if launch.env.contains_key("COCKTAIL_BOOTSTRAP") {
            // It may have to host the next Manager of it.
            env.insert("COCKTAIL_DATA_DIR".to_owned(), shared.fixed.data_dir.display().to_string());
        }
        Ok(env)
    }

    /// Tells the endpoints to whoever asks at the socket, which is opened for that; only the first time counts.
    pub(crate) fn learn_endpoints_from(&self, shared: &Arc<Shared>, source: Arc<dyn EndpointSource>) {
        _ = self.endpoints.set(source);
        if let Err(error) = self.open(shared) {
            // Programs that follow endpoints look for it again, and a worker's start says it once more.
            tracing::warn!(error = error.chain(), "endpoints cannot be followed at the socket of workers");
        }
    }

    /// Tells a worker what to load, now or as soon as it is there.
    ///
    /// # Errors
    /// `NotFound` for a worker that is not expected.
    pub(crate) fn assign(&self, shared: &Shared, launch: &Launch) -> Result<()> {
        let container = &launch.container;
        let Some(assignment) = launch.worker.as_ref().and_then(|worker| worker.assignment.as_ref()) else {
            return Err(Error::invalid(format!("nothing is assigned to {container}")));
        };
        let order = Order::Assign(assign(shared, launch, assignment));
        let told =
            lock(&self.hub).as_ref().is_some_and(|hub| hub.order(container.as_str(), launch.generation.0, order));
        if told { Ok(()) } else { Err(gone(container)) }
    }

    /// Has a worker finish what is in flight, and close what it has loaded.
    ///
    /// # Errors
    /// `NotFound` for a worker that is not expected; `Deadline` when it takes too long.
    pub(crate) async fn unload(&self, order: &UnloadOrder) -> Result<()> {
        let UnloadOrder { container, generation, assignment, grace } = order;
        let hub = lock(&self.hub).clone().ok_or_else(|| gone(container))?;
        let mut words = self.words.subscribe();
        let deadline_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let assignment = *assignment;
        let drain = || Order::Drain(Drain { assignment, deadline_ms });
        let drained = |said: &Said| matches!(said, Said::Drained { assignment: of } if *of == assignment);
        // What could not be loaded is unloaded.
        let unloaded = |said: &Said| match said {
            Said::Unloaded { assignment: of } => *of == assignment,
            Said::Failed(failed) => failed.assignment == assignment,
            _ => false,
        };
        let both = |said: &Said| drained(said) || unloaded(said);
        let told = |order| hub.order(container.as_str(), generation.0, order);
        let said = until(&mut words, (container, *generation), *grace + SLACK, both, || told(drain())).await?;
        if unloaded(&said) {
            return Ok(());
        }
        let unload = || Order::Unload(Unload { assignment });
        until(&mut words, (container, *generation), CLOSING, unloaded, || told(unload())).await?;
        Ok(())
    }

    /// A worker ended, or is forgotten.
    pub(crate) fn forget(&self, container: &ContainerId) {
        if let Some(hub) = &*lock(&self.hub) {
            hub.forget(container.as_str());
        }
    }

    /// What workers said of their use.
    pub(crate) fn usage(&self) -> BTreeMap<String, Usage> {
        lock(&self.hub).as_ref().map(Hub::usage).unwrap_or_default()
    }

    /// Ends all sessions; workers run on.
    pub(crate) fn close(&self, shared: &Shared) {
        if lock(&self.hub).take().is_some()
            && let Err(error) = fs::remove_file(socket(shared))
        {
            tracing::debug!(%error, "the socket of workers could not be removed");
        }
    }

    fn open(&self, shared: &Arc<Shared>) -> Result<Hub> {
        let mut open = lock(&self.hub);
        if let Some(hub) = &*open {
            return Ok(hub.clone());
        }
        let unavailable = |error| Error::unavailable("the socket of workers cannot be made").because(error);
        let keys = Keys::new(&secret(&shared.fixed.data_dir).map_err(unavailable)?);
        let path = socket(shared);
        // Nobody else is here: the data dir is locked. What lies there is from an earlier Manager.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unavailable(error)),
            _ => {}
        }
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unavailable)?;
        }
        let listener = UnixListener::bind(&path).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                let text = format!("the socket {} has a path longer than 107 bytes: move the data dir", path.display());
                Error::invalid(text).because(error)
            }
            _ => unavailable(error),
        })?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(unavailable)?;
        let (hub, events) = Hub::open(listener, keys, Limits::default());
        tokio::spawn(pass_on(Arc::downgrade(shared), events));
        if let Some(source) = self.endpoints.get().cloned() {
            hub.learn_endpoints_from(Arc::new(move |unit| {
                let named = (!unit.is_empty()).then_some(unit);
                // An error is the end: whoever follows comes again.
                let tables = source.watch(named).take_while(|table| ready(table.is_ok()));
                tables.filter_map(|table| ready(table.ok().map(|views| table_of(&views)))).boxed()
            }));
        }
        *open = Some(hub.clone());
        Ok(hub)
    }
}

fn socket(shared: &Shared) -> PathBuf {
    shared.fixed.data_dir.join("run").join(format!("workers-{}.sock", shared.fixed.name))
}

/// The secret of this data dir, made when it is first needed.
fn secret(data_dir: &Path) -> std::io::Result<[u8; SECRET]> {
    let path = data_dir.join("workers.key");
    let mut secret = [0; SECRET];
    match fs::File::open(&path) {
        Ok(mut file) => {
            file.read_exact(&mut secret)?;
            return Ok(secret);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut filled = 0;
    while filled < SECRET {
        filled += rustix::rand::getrandom(&mut secret[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    // Written beside and moved, so that no half of it is ever read.
    let beside = data_dir.join("workers.key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    Ok(secret)
}

fn gone(container: &ContainerId) -> Error {
    Error::not_found(format!("no worker {container} runs here"))
}

/// Gives an order, and again where words were missed, until the worker says what is waited for.
async fn until(
    words: &mut broadcast::Receiver<HubEvent>,
    of: (&ContainerId, Generation),
    limit: Duration,
    wanted: impl Fn(&Said) -> bool,
    order: impl Fn() -> bool,
) -> Result<Said> {
    let (container, generation) = of;
    let said = async {
        if !order() {
            return Err(gone(container));
        }
        loop {
            match words.recv().await {
                Ok(word) if word.container != container.as_str() || word.generation != generation.0 => {}
                Ok(word) if wanted(&word.said) => return Ok(word.said),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) if order() => {}
                Err(_) => return Err(gone(container)),
            }
        }
    };
    let late = || Error::new(Kind::Deadline, format!("{container} did not do it within {}", human(limit)));
    tokio::time::timeout(limit, said).await.unwrap_or_else(|_| Err(late()))
}

fn assign(shared: &Shared, launch: &Launch, assignment: &LaunchAssignment) -> Assign {
    let LaunchAssignment { number, unit, revision, microservices } = assignment;
    let microservice = |it: &MicroserviceSpec| Microservice { name: it.name.to_string(), config: it.config.clone() };
    let port = |it: &LaunchPort| Port {
        name: it.name.to_string(),
        port: it.port.into(),
        inherited: it.inherit,
        address: shared.fixed.config.address.to_string(),
    };
    Assign {
        assignment: *number,
        service: unit.service.to_string(),
        map: unit.map.to_string(),
        unit: unit.unit.to_string(),
        revision: revision.0,
        microservices: microservices.iter().map(microservice).collect(),
        ports: launch.ports.iter().map(port).collect(),
    }
}

fn service_address(view: &EndpointView) -> Option<SocketAddr> {
    let address: IpAddr = view.address.parse().ok()?;
    // Whoever listens everywhere is found here.
    let address = match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(SocketAddr::new(address, view.service_port?))
}

fn table_of(views: &[EndpointView]) -> EndpointTable {
    let backend = |view: &BackendView| Backend {
        container: view.container.clone(),
        host: view.host.clone(),
        port: view.port.into(),
    };
    let endpoint = |view: &EndpointView| Endpoint {
        service: view.service.clone(),
        map: view.map.clone(),
        unit: view.unit.clone(),
        port_name: view.port_name.clone(),
        service_address: service_address(view).map(|address| address.to_string()).unwrap_or_default(),
        backends: view.backends.iter().map(backend).collect(),
    };
    EndpointTable { endpoints: views.iter().map(endpoint).collect() }
}

/// Passes on what workers say, until the hub or the runtime is gone.
async fn pass_on(shared: Weak<Shared>, mut events: mpsc::Receiver<HubEvent>) {
    while let Some(HubEvent { container, generation, said }) = events.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        // Nobody may be waiting for it.
        _ = shared.workers.words.send(HubEvent { container: container.clone(), generation, said: said.clone() });
        let (container, generation) = (ContainerId::new(container), Generation(generation));
        if matches!(said, Said::Ready { .. }) {
            shared.came_up(&container, generation);
        }
        if let Some(event) = told(container, generation, said) {
            shared.emit(event);
        }
    }
}

fn told(container: ContainerId, generation: Generation, said: Said) -> Option<RuntimeEvent> {
    let worker = |container, said| Some(RuntimeEvent::Worker { container, generation, said });
    match said {
        Said::Ready { assignment } => worker(container, WorkerSaid::Ready { assignment }),
        Said::Failed(failed) => {
            let what = if failed.microservice.is_empty() { "it" } else { failed.microservice.as_str() };
            let error = format!("{what} cannot be loaded: {}", failed.error);
            let port_taken = Name::new(failed.port_taken).ok();
            worker(container, WorkerSaid::Failed { assignment: failed.assignment, error, port_taken })
        }
        // It counts where nothing is to be loaded; otherwise it is being told what.
        Said::Resumed { .. } | Said::Unloaded { .. } => worker(container, WorkerSaid::Waiting),
        Said::Extend(asked) => worker(container, WorkerSaid::Extend { reason: asked.reason }),
        Said::Report(report) => {
            let broken = report.severity() == Severity::Broken;
            let error = match report.microservice.as_str() {
                "" => report.error,
                name => format!("{name}: {}", report.error),
            };
            let said = if broken { WorkerSaid::Broken { error } } else { WorkerSaid::Degraded { error } };
            worker(container, said)
        }
        Said::Refused { because } => {
            tracing::warn!(%container, because, "the session of a worker was refused");
            worker(container, WorkerSaid::Degraded { error: format!("its session was refused: {because}") })
        }
        Said::Registered { build, .. } => {
            tracing::debug!(%container, build, "a worker has registered");
            worker(container, WorkerSaid::Waiting)
        }
        // It is not stopped before nothing is in flight, and what it was told before a restart of ours is what it is.
        _ => None,
    }
}
