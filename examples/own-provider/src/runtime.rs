//! [`Runtime`]: containers of one server, as child processes of this program.
//!
//! A container and its generation name one start. Whatever is decided about it is decided and done under one lock, so
//! two calls of the same start cannot make two processes, and a call whose caller is lost is done or was never begun.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    ExecSession, ExecSpec, Exit, Handle, Known, Launch, Listing, LogOptions, LogStream, Observation, Runtime,
    RuntimeCapabilities, RuntimeEvent, Sighting, StopOrder, UsageReading,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::spec::Template;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::output::Output;
use crate::worker::Worker;
use crate::{exec, probe};

/// Time that workers have when the runtime is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// Containers of one server.
#[derive(Debug)]
pub(crate) struct FolderRuntime {
    events: broadcast::Sender<RuntimeEvent>,
    /// `None` once the runtime has ended.
    containers: Arc<Mutex<Option<Containers>>>,
}

type Containers = BTreeMap<ContainerId, Container>;

#[derive(Debug)]
struct Container {
    launch: Arc<Launch>,
    output: Arc<Output>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Its ports are proved to be free, and stay so.
    Prepared(Vec<TcpListener>),
    Running(Arc<Worker>),
    Ended(Exit, Handle),
}

impl FolderRuntime {
    pub(crate) fn new() -> Self {
        Self { events: broadcast::Sender::new(1024), containers: Arc::new(Mutex::new(Some(Containers::new()))) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.containers).is_none()
    }

    /// Looks at the containers, or changes them, while nobody else does.
    fn with<T>(&self, work: impl FnOnce(&mut Containers) -> Result<T>) -> Result<T> {
        let mut containers = lock(&self.containers);
        work(containers.as_mut().ok_or_else(|| Error::unavailable("the runtime has ended"))?)
    }

    fn find<T>(&self, id: &ContainerId, look: impl FnOnce(&Container) -> Result<T>) -> Result<T> {
        let missing = || Error::not_found("there is no such container").with("container", id);
        self.with(|containers| look(containers.get(id).ok_or_else(missing)?))
    }

    /// The worker of a container, if this generation, or an older one, runs.
    fn running(&self, id: &ContainerId, upto: Generation) -> Result<Option<Arc<Worker>>> {
        self.with(|containers| {
            let container = containers.get(id).filter(|container| container.launch.generation <= upto);
            Ok(container.and_then(|container| match &container.state {
                State::Running(worker) => Some(Arc::clone(worker)),
                State::Prepared(_) | State::Ended(..) => None,
            }))
        })
    }

    fn spawn(&self, container: &mut Container) -> Result<Handle> {
        let (containers, events) = (Arc::downgrade(&self.containers), self.events.clone());
        let (id, generation) = (container.launch.container.clone(), container.launch.generation);
        let told = move |exit| {
            if let Some(containers) = containers.upgrade()
                && let Some(container) = lock(&containers).as_mut().and_then(|all| all.get_mut(&id))
                && container.launch.generation == generation
                && let State::Running(worker) = &container.state
            {
                container.state = State::Ended(exit, worker.handle());
            }
            let _nobody_listens = events.send(RuntimeEvent::Exited { container: id, generation, exit });
        };
        let worker = Arc::new(Worker::start(&container.launch, Arc::clone(&container.output), told)?);
        probe::watch(&container.launch, &worker, &self.events);
        let handle = worker.handle();
        container.state = State::Running(worker);
        Ok(handle)
    }
}

#[async_trait]
impl Runtime for FolderRuntime {
    /// Containers are children of this process: they end with it, and nothing but their signals is ours to give.
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::default()
    }

    async fn prepare(&self, launch: &Launch) -> Result<()> {
        if launch.user.is_some() || !launch.secrets.is_empty() || !launch.volumes.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "users, secrets and volumes are not supported here"));
        }
        if let Some(worker) = self.running(&launch.container, Generation(launch.generation.0.saturating_sub(1)))? {
            worker.end(KILL, Duration::ZERO).await;
        }
        self.with(|containers| {
            match containers.get(&launch.container) {
                Some(before) if before.launch.generation == launch.generation => return Ok(()),
                Some(before) if before.launch.generation > launch.generation => return Err(overtaken(launch)),
                _ => {}
            }
            // Its own older generation may have them still.
            let output = containers.remove(&launch.container).map(|before| before.output);
            let output = output.unwrap_or_else(|| Output::new(launch.container.clone()));
            let ports = launch.ports.iter().map(|port| bind(port.port)).collect::<Result<_>>()?;
            let container = Container { launch: Arc::new(launch.clone()), output, state: State::Prepared(ports) };
            containers.insert(launch.container.clone(), container);
            Ok(())
        })
    }

    async fn start(&self, launch: &Launch) -> Result<Handle> {
        self.with(|containers| {
            let Entry::Occupied(mut entry) = containers.entry(launch.container.clone()) else {
                return Err(Error::new(ErrorKind::Conflict, "the container is not prepared"));
            };
            if entry.get().launch.generation != launch.generation {
                return Err(overtaken(launch));
            }
            match &mut entry.get_mut().state {
                State::Running(worker) => Ok(worker.handle()),
                State::Ended(exit, handle) => {
                    // Whoever asks has not heard of its end.
                    let (container, generation) = (launch.container.clone(), launch.generation);
                    let _nobody = self.events.send(RuntimeEvent::Exited { container, generation, exit: *exit });
                    Ok(handle.clone())
                }
                State::Prepared(ports) => {
                    ports.clear();
                    let started = self.spawn(entry.get_mut());
                    if started.is_err() {
                        // The next attempt prepares again, and proves the ports again.
                        entry.remove();
                    }
                    started
                }
            }
        })
    }

    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        if let Some(worker) = self.running(&order.container, order.generation)? {
            return Ok(worker.end(order.signal, order.grace).await);
        }
        self.with(|containers| {
            let Entry::Occupied(entry) = containers.entry(order.container.clone()) else { return Ok(Exit::Unknown) };
            match &entry.get().state {
                _ if entry.get().launch.generation != order.generation => Ok(Exit::Unknown),
                State::Ended(exit, _) => Ok(*exit),
                State::Prepared(_) => {
                    entry.remove();
                    Ok(Exit::Unknown)
                }
                State::Running(_) => Err(Error::unavailable("it was started at this moment")),
            }
        })
    }

    async fn remove(&self, container: &ContainerId) -> Result<()> {
        self.with(|containers| match containers.get(container) {
            Some(Container { state: State::Running(_), .. }) => {
                Err(Error::new(ErrorKind::Conflict, "the container still runs").with("container", container))
            }
            _ => {
                containers.remove(container);
                Ok(())
            }
        })
    }

    /// A port is ours from `prepare` to `start`, and the worker's after that. There is no hold-down to end.
    async fn release_ports(&self, _ports: &[u16]) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<Listing> {
        self.with(|containers| {
            let observe = |container: &Container| {
                let sighting = match &container.state {
                    State::Prepared(_) => Sighting::Prepared,
                    State::Running(worker) => Sighting::Running(worker.handle()),
                    State::Ended(exit, _) => Sighting::Exited(*exit),
                };
                Observation { generation: container.launch.generation, sighting }
            };
            let containers = containers.iter().map(|(id, container)| (id.clone(), observe(container))).collect();
            Ok(Listing { containers, complete: true, descended: false })
        })
    }

    /// All that runs was started by this value and is watched by it. So what is not here is not anywhere.
    async fn recover(&self, known: &[Known]) -> Result<Listing> {
        let mut listing = self.list().await?;
        for Launch { container, generation, .. } in known.iter().map(|known| &known.launch) {
            let absent = || Observation { generation: *generation, sighting: Sighting::Absent };
            listing.containers.entry(container.clone()).or_insert_with(absent);
        }
        Ok(listing)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        stream::unfold(self.events.subscribe(), |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((event, events)),
                Err(RecvError::Lagged(missed)) => {
                    Some((RuntimeEvent::Resync { why: format!("{missed} events were missed") }, events))
                }
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        self.with(|containers| {
            let reading = |(id, container): (&ContainerId, &Container)| match &container.state {
                State::Running(worker) => Some((id.clone(), worker.usage()?)),
                State::Prepared(_) | State::Ended(..) => None,
            };
            Ok(containers.iter().filter_map(reading).collect())
        })
    }

    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        self.find(container, |container| Ok(container.output.stream(options)))
    }

    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession> {
        let launch = self.find(container, |container| Ok(Arc::clone(&container.launch)))?;
        exec::session(&launch, spec)
    }

    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        let mut problems = Vec::new();
        if !template.cwd.is_dir() {
            problems.push(("cwd".to_owned(), format!("there is no folder {}", template.cwd.display())));
        }
        // What a substitution names is known only at the start.
        let program = template.command.first().filter(|program| !program.contains("${"));
        if let Some(program) = program.filter(|program| !exists(program, &template.cwd)) {
            problems.push(("command".to_owned(), format!("there is no program `{program}`")));
        }
        Ok(problems)
    }

    /// Nothing outlives this process, so whether it is to be stopped or left makes no difference.
    async fn shutdown(&self, _stop: bool) -> Result<()> {
        let Some(containers) = lock(&self.containers).take() else { return Ok(()) };
        let ending = containers.values().map(|container| async {
            if let State::Running(worker) = &container.state {
                worker.end(TERM, GRACE).await;
            }
        });
        join_all(ending).await;
        Ok(())
    }
}

const KILL: i32 = 9;
const TERM: i32 = 15;

fn overtaken(launch: &Launch) -> Error {
    let error = Error::new(ErrorKind::Conflict, "another generation of the container is here");
    error.with("container", &launch.container).with("generation", launch.generation)
}

/// Proves that a port is free, by taking it.
fn bind(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
        Error::new(ErrorKind::Conflict, "another program has the port").with("port", port).because(error)
    })
}

fn exists(program: &str, cwd: &Path) -> bool {
    if program.contains('/') {
        return cwd.join(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
