//! What a microservice is given.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use super::service::BoxError;
use super::sockets::Sockets;
use crate::balance::Balancer;
use crate::protocol::{self, Assign, CUSTOM_LIMIT, ErrorReport, ExtendRequest, Severity, from_worker::Kind};

/// Bytes of the name of a metric, as in a manifest.
const METRIC_LIMIT: usize = 128;

/// What a microservice is given: its configuration, its ports, and whom to tell.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
}

/// What the microservices of one assignment share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) container: String,
    /// Where whoever runs this worker listens.
    pub(super) socket: PathBuf,
    pub(super) assign: Assign,
    pub(super) in_flight: InFlight,
    pub(super) shutdown: CancellationToken,
    /// What is told to the Manager beside the states.
    pub(super) told: mpsc::Sender<Kind>,
    pub(super) numbers: Mutex<Numbers>,
    pub(super) tasks: Mutex<JoinSet<(String, Result<(), BoxError>)>>,
    /// A port that somebody else has.
    pub(super) taken: Mutex<Option<String>>,
    pub(super) sockets: Arc<Sockets>,
}

/// Numbers that a worker reports.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub(super) queue: u64,
    pub(super) custom: BTreeMap<String, f64>,
}

impl Context {
    /// The microservice's name, as it was registered.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.shared.container
    }

    /// The Unit's full name, `service/map/unit`.
    pub fn unit(&self) -> String {
        let Assign { service, map, unit, .. } = &self.shared.assign;
        format!("{service}/{map}/{unit}")
    }

    /// Which version of the Unit this is.
    pub fn revision(&self) -> u64 {
        self.shared.assign.revision
    }

    /// The microservice's part of the manifest.
    ///
    /// # Errors
    /// It is not what `T` can be read from; the text says where.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let own = self.shared.assign.microservices.iter().find(|microservice| microservice.name == self.name);
        serde_json::from_str(own.map_or("{}", |own| own.config.as_str()))
    }

    /// The number of a port of the Unit.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.find(name).and_then(|port| u16::try_from(port.port).ok())
    }

    /// Listens at a port of the Unit: at the socket that the worker inherited, or where the port was given.
    ///
    /// # Errors
    /// `NotFound` if the Unit has no such port; what the system says if it cannot be listened at.
    pub fn listener(&self, name: &str) -> io::Result<TcpListener> {
        let no_port = || {
            let ports: Vec<&str> = self.shared.assign.ports.iter().map(|port| port.name.as_str()).collect();
            let text = format!("the unit has no port {name:?}, but {}", ports.join(", "));
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let port = self.find(name).ok_or_else(no_port)?;
        let number = u16::try_from(port.port).map_err(io::Error::other)?;
        let address = match port.address.as_str() {
            "" => Ipv4Addr::LOCALHOST.into(),
            text => text.parse::<IpAddr>().map_err(io::Error::other)?,
        };
        let listener = match self.shared.sockets.inherited(port.inherited, number)? {
            Some(inherited) => inherited,
            None => std::net::TcpListener::bind(SocketAddr::new(address, number)).inspect_err(|error| {
                if error.kind() == io::ErrorKind::AddrInUse {
                    *self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
                }
            })?,
        };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Calls another Unit: a port of it, spread over the containers that serve. A name without its map and Service (`web`,
    /// `test/web`) is completed with those of this Unit. Balancers are cheap to clone, and each one that is made follows
    /// by a connection of its own: make one for each Unit that is called, not one for each call.
    pub fn balancer(&self, unit: &str, port: &str) -> Balancer {
        let Assign { service, map, .. } = &self.shared.assign;
        let unit = match unit.split('/').count() {
            1 => format!("{service}/{map}/{unit}"),
            2 => format!("{service}/{unit}"),
            _ => unit.to_owned(),
        };
        Balancer::follow(&self.shared.socket, unit, port)
    }

    /// Cancelled when the microservice is to end. Requests that are in flight have ended before, or had their time.
    pub fn shutdown(&self) -> CancellationToken {
        self.shared.shutdown.clone()
    }

    /// Counts requests, as a tower layer or one by one. All microservices of the worker share the count. A request that
    /// becomes another protocol (a WebSocket) is counted until it does: hold an [`InFlight::begin`] for what follows.
    pub fn in_flight(&self) -> InFlight {
        self.shared.in_flight.clone()
    }

    /// Runs a task that belongs to the microservice: it is ended with it, and what it fails with is reported as broken.
    pub fn spawn(&self, task: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        let name = self.name.clone();
        let mut tasks = self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move { (name, task.await) });
    }

    /// Asks for one more container of the Unit. Whether there is one, the Unit's bounds and the Manager decide; asking
    /// again while it is on its way changes nothing. What cannot be told now because very much was told is dropped.
    pub fn request_extension(&self, reason: impl Into<String>) {
        let (microservice, reason) = (self.name.clone(), protocol::shortened(reason.into()));
        _ = self.shared.told.try_send(Kind::ExtendRequest(ExtendRequest { microservice, reason }));
    }

    /// Says that something is wrong while the worker goes on serving.
    pub fn report_degraded(&self, error: impl ToString) {
        self.report(Severity::Degraded, error.to_string());
    }

    /// Says that the worker cannot serve: another container takes its place, and then it is drained.
    pub fn report_broken(&self, error: impl ToString) {
        self.report(Severity::Broken, error.to_string());
    }

    /// Says how much work waits in the worker.
    pub fn set_queue(&self, length: u64) {
        self.numbers(|numbers| numbers.queue = length);
    }

    /// Reports a number of the worker's own, to be scaled by. At most 64 names of up to 128 bytes are kept; a number that is
    /// none is not.
    pub fn set_metric(&self, name: &str, value: f64) {
        self.numbers(|numbers| {
            if value.is_finite()
                && name.len() <= METRIC_LIMIT
                && (numbers.custom.len() < CUSTOM_LIMIT || numbers.custom.contains_key(name))
            {
                numbers.custom.insert(name.to_owned(), value);
            }
        });
    }

    fn numbers(&self, set: impl FnOnce(&mut Numbers)) {
        set(&mut self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn find(&self, name: &str) -> Option<&protocol::Port> {
        self.shared.assign.ports.iter().find(|port| port.name == name)
    }

    fn report(&self, severity: Severity, error: String) {
        let report = ErrorReport {
            microservice: self.name.clone(),
            severity: severity.into(),
            error: protocol::shortened(error),
        };
        _ = self.shared.told.try_send(Kind::ErrorReport(report));
    }
}
