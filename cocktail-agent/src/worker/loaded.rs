//! One assignment: loading it, serving it, closing it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Numbers, Shared};
use super::in_flight::InFlight;
use super::service::{MicroService, Register};
use super::sockets::Sockets;
use crate::protocol::{self, Assign, Failed, Usage, from_worker::Kind};

/// How long tasks of microservices may take to end after they were told.
const CLOSING: Duration = Duration::from_secs(5);

/// What was loaded for an assignment.
pub(super) struct Loaded {
    shared: Arc<Shared>,
    services: Vec<(String, Box<dyn MicroService>)>,
}

/// What the microservices of a worker are made with.
pub(super) struct Loader {
    pub(super) container: String,
    pub(super) socket: PathBuf,
    pub(super) register: Arc<Register>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) told: mpsc::Sender<Kind>,
}

impl Loader {
    /// What the microservices of an assignment will share.
    pub(super) fn share(&self, assign: Assign) -> Arc<Shared> {
        Arc::new(Shared {
            container: self.container.clone(),
            socket: self.socket.clone(),
            assign,
            in_flight: InFlight::default(),
            shutdown: CancellationToken::new(),
            told: self.told.clone(),
            numbers: Mutex::new(Numbers::default()),
            tasks: Mutex::new(JoinSet::new()),
            taken: Mutex::new(None),
            sockets: self.sockets.clone(),
        })
    }
}

/// Loads everything in order. Where one cannot be loaded, those before it are closed again.
pub(super) async fn load(register: Arc<Register>, shared: Arc<Shared>) -> Result<Loaded, Failed> {
    let mut loaded = Loaded { shared: shared.clone(), services: Vec::new() };
    for microservice in &shared.assign.microservices {
        let name = &microservice.name;
        let init = async {
            let Some(mut service) = register.make(name) else {
                let known: Vec<&str> = register.names().collect();
                return Err(format!("this worker has no microservice {name:?}, but {}", known.join(", ")));
            };
            let context = Context { name: name.clone(), shared: shared.clone() };
            service.init(context).await.map(|()| service).map_err(|error| error.to_string())
        };
        // Whoever is told to end does not wait for what a microservice waits for.
        let init = shared.shutdown.run_until_cancelled(AssertUnwindSafe(init).catch_unwind());
        let failed = match init.await {
            Some(Ok(Ok(service))) => {
                loaded.services.push((name.clone(), service));
                continue;
            }
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => format!("it panicked: {}", words(&*panic)),
            None => "it was told to end while it was loading".to_owned(),
        };
        let port_taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        loaded.close().await;
        let (assignment, microservice) = (shared.assign.assignment, name.clone());
        return Err(Failed { assignment, microservice, error: protocol::shortened(failed), port_taken });
    }
    Ok(loaded)
}

impl Loaded {
    /// Refuses new requests, and returns when nothing is in flight and every microservice has drained.
    pub(super) async fn drain(&mut self) {
        self.shared.in_flight.refuse();
        let drains = self.services.iter_mut().map(|(name, service)| async move {
            if AssertUnwindSafe(service.drain()).catch_unwind().await.is_err() {
                tracing::error!(microservice = %name, "drain panicked");
            }
        });
        join_all(drains).await;
        // Whoever unloads before that waits no longer.
        let (in_flight, shutdown) = (&self.shared.in_flight, &self.shared.shutdown);
        _ = shutdown.run_until_cancelled(in_flight.idle()).await;
    }

    /// Closes everything, the last that was loaded first.
    pub(super) async fn close(mut self) {
        self.shared.in_flight.refuse();
        self.shared.shutdown.cancel();
        for (name, service) in self.services.iter_mut().rev() {
            if AssertUnwindSafe(service.close()).catch_unwind().await.is_err() {
                tracing::error!(microservice = %name, "close panicked");
            }
        }
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSING, all).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "tasks did not end after their microservice was closed");
            tasks.shutdown().await;
        }
    }
}

impl Shared {
    /// Numbers about the assignment as they are now.
    pub(super) fn usage(&self) -> Usage {
        let Numbers { queue, custom } = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (in_flight, requests) = (self.in_flight.now(), self.in_flight.ever());
        Usage { in_flight, requests, queue, custom: custom.into_iter().collect() }
    }

    /// Reports tasks that ended although nobody told them to.
    pub(super) fn look_after_tasks(self: &Arc<Self>) {
        loop {
            let ended = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).try_join_next();
            let (name, error) = match ended {
                None => return,
                Some(Ok((name, Err(error)))) => (name, error.to_string()),
                Some(Err(error)) if error.is_panic() => {
                    (String::new(), format!("a task panicked: {}", words(&*error.into_panic())))
                }
                Some(Ok((_, Ok(()))) | Err(_)) => continue,
            };
            if !self.shutdown.is_cancelled() {
                Context { name, shared: self.clone() }.report_broken(error);
            }
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it said nothing".into())
}
