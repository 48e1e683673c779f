//! A hub on a socket of its own, and workers that talk to it.

use std::path::PathBuf;
use std::time::Duration;

use cocktail_agent::hub::{Hub, HubEvent, Keys, Limits, Order, Said};
use cocktail_agent::protocol::{Assign, Microservice, Port};
use cocktail_agent::worker::{Error, Place, Worker};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

/// How long anything in these tests may take; nothing of it is waited for where it comes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A hub, and what it tells.
pub(crate) struct House {
    pub(crate) hub: Hub,
    pub(crate) events: mpsc::Receiver<HubEvent>,
    pub(crate) folder: TempDir,
}

/// A worker that runs until it is told to end.
pub(crate) struct Running {
    end: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

impl House {
    pub(crate) fn open() -> Self {
        Self::with(Limits { usage: Duration::from_millis(100), ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("workers.sock")).unwrap();
        let (hub, events) = Hub::open(listener, Keys::new(&[7; 32]), limits);
        Self { hub, events, folder }
    }

    /// The same house after its hub has died and another one has come.
    pub(crate) fn again(self) -> Self {
        let Self { hub, events, folder } = self;
        drop((hub, events));
        std::fs::remove_file(folder.path().join("workers.sock")).unwrap();
        let listener = UnixListener::bind(folder.path().join("workers.sock")).unwrap();
        let (hub, events) = Hub::open(listener, Keys::new(&[7; 32]), Limits::default());
        Self { hub, events, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("workers.sock")
    }

    pub(crate) fn place(&self, container: &str, generation: u64) -> Place {
        let token = self.hub.token(container, generation);
        Place { socket: self.socket(), token, container: container.to_owned() }
    }

    /// Starts a worker that is expected.
    pub(crate) fn start(&self, container: &str, worker: Worker) -> Running {
        self.hub.expect(container, 1, false);
        let place = self.place(container, 1);
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(worker.run_at(place, async {
            _ = ended.await;
        }));
        Running { end: Some(end), task }
    }

    /// What is told next about any container.
    pub(crate) async fn next(&mut self) -> HubEvent {
        timeout(LONG, self.events.recv()).await.expect("something is told").expect("the hub lives")
    }

    /// What a container says next.
    pub(crate) async fn said(&mut self, container: &str) -> Said {
        loop {
            let event = self.next().await;
            if event.container == container {
                return event.said;
            }
        }
    }

    pub(crate) fn assign(&self, container: &str, assign: Assign) {
        assert!(self.hub.order(container, 1, Order::Assign(assign)), "{container} is expected");
    }
}

impl Running {
    pub(crate) async fn end(mut self) -> Result<(), Error> {
        _ = self.end.take().expect("it was not ended yet").send(());
        timeout(LONG, &mut self.task).await.expect("it ends").expect("it does not panic")
    }
}

/// An assignment of some microservices with one port.
pub(crate) fn assignment(number: u64, microservices: &[&str], port: u16) -> Assign {
    let microservices = microservices
        .iter()
        .map(|name| Microservice { name: (*name).to_owned(), config: format!("{{\"greeting\": \"hi from {name}\"}}") });
    Assign {
        assignment: number,
        service: "shop".into(),
        map: "prod".into(),
        unit: "web".into(),
        revision: 3,
        microservices: microservices.collect(),
        ports: vec![Port { name: "http".into(), port: port.into(), ..Port::default() }],
    }
}

/// A connection to a house.
pub(crate) async fn channel(house: &House) -> Channel {
    Endpoint::from_shared(format!("unix://{}", house.socket().display())).unwrap().connect().await.unwrap()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
