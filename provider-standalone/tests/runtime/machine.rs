//! A data dir with a provider on it, ended with everything in it, also when a test fails.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{
    Connection, Handle, Known, Launch, LaunchPort, LaunchProbe, Lease, ProbeKind, Provider, Runtime, RuntimeEvent,
    StopOrder,
};
use cocktail_core::error::Error;
use cocktail_core::id::{ContainerId, Epoch, Generation, StoreId};
use cocktail_core::name::Name;
use cocktail_core::spec::{Check, Resources};
use cocktail_provider_standalone::{StandaloneBuilder, StandaloneProvider};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use libtest_mimic::Trial;
use tempfile::TempDir;

/// What a test waits for at most. It is no measure: what it waits for comes, or the test is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One test on a machine of its own.
pub(crate) fn trial(name: &'static str, body: impl AsyncFn(&mut Machine) + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut machine = Machine::new().await;
            let ended = AssertUnwindSafe(tokio::time::timeout(PATIENCE * 2, body(&mut machine))).catch_unwind().await;
            machine.end().await;
            match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err("the test did not come to its end".into()),
                Err(panic) => resume_unwind(panic),
            }
        })
    })
}

/// Names a test after its function.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$($crate::machine::trial(concat!(module_path!(), "::", stringify!($name)), $name)),*]
        }
    };
}
pub(crate) use trials;

pub(crate) struct Machine {
    data: TempDir,
    pub(crate) cwd: TempDir,
    pub(crate) store: StoreId,
    pub(crate) epoch: Epoch,
    attached: Option<Attached>,
}

/// One Manager's view.
pub(crate) struct Attached {
    pub(crate) provider: StandaloneProvider,
    pub(crate) runtime: Arc<dyn Runtime>,
    events: BoxStream<'static, RuntimeEvent>,
}

impl Machine {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut machine = Self {
            // As unique as a store's id is.
            store: StoreId::new(data.path().file_name().unwrap().to_str().unwrap()),
            data,
            cwd: tempfile::tempdir().unwrap(),
            epoch: Epoch(1),
            attached: None,
        };
        machine.attach(&[]).await.unwrap();
        machine
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// A provider as another store or another epoch would make it.
    pub(crate) fn provider(&self, store: &StoreId, epoch: Epoch) -> StandaloneProvider {
        provider_in(self.data(), store, epoch)
    }

    /// Connects as a Manager does at its start.
    pub(crate) async fn attach(&mut self, known: &[Known]) -> Result<cocktail_core::contract::Listing, Error> {
        let provider = self.provider(&self.store, self.epoch);
        let Connection::Local(runtime) = provider.connect(&provider.server()).await? else { panic!("not local") };
        let events = runtime.events();
        let listing = runtime.recover(known).await?;
        self.attached = Some(Attached { provider, runtime, events });
        Ok(listing)
    }

    /// The Manager dies: nothing of it is left, and nobody was told.
    pub(crate) fn drop_manager(&mut self) {
        self.attached = None;
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.attached.as_ref().unwrap().runtime)
    }

    pub(crate) fn attached(&self) -> &Attached {
        self.attached.as_ref().unwrap()
    }

    /// The first event that `wanted` takes; others are dropped.
    pub(crate) async fn event<T>(&mut self, mut wanted: impl FnMut(RuntimeEvent) -> Option<T>) -> T {
        let events = &mut self.attached.as_mut().unwrap().events;
        let found = async {
            loop {
                let event = events.next().await.unwrap();
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the event comes")
    }

    /// Waits until a probe says `ok`; what it saw.
    pub(crate) async fn probed(&mut self, container: &str, ok: bool) -> String {
        let id = ContainerId::new(container);
        self.event(|event| match event {
            RuntimeEvent::Probe { container, ok: said, detail, .. } if container == id && said == ok => Some(detail),
            _ => None,
        })
        .await
    }

    /// Waits for the end of a container.
    pub(crate) async fn exited(&mut self, container: &str) -> cocktail_core::contract::Exit {
        let id = ContainerId::new(container);
        self.event(|event| match event {
            RuntimeEvent::Exited { container, exit, .. } if container == id => Some(exit),
            _ => None,
        })
        .await
    }

    pub(crate) fn launch(&self, container: &str, argv: &[&str]) -> Launch {
        Launch {
            container: ContainerId::new(container),
            generation: Generation(1),
            store: self.store.clone(),
            epoch: self.epoch,
            argv: argv.iter().map(ToString::to_string).collect(),
            env: BTreeMap::from([("COCKTAIL_CONTAINER".to_owned(), container.to_owned())]),
            env_from: Vec::new(),
            secrets: BTreeMap::new(),
            cwd: self.cwd.path().to_owned(),
            user: None,
            ports: Vec::new(),
            resources: Resources::default(),
            rlimits: BTreeMap::new(),
            volumes: Vec::new(),
            probes: Vec::new(),
            worker: None,
            paused: false,
            outlives_lease: false,
            image: None,
            artifact: None,
        }
    }

    /// A worker that is told one port and listens on another (or the same), with a readiness probe.
    pub(crate) fn web(&self, container: &str, told: u16, listens: u16, status: u16, check: Check) -> Launch {
        let argv = crate::worker::argv(listens, status);
        let port = LaunchPort { name: Name::new("http").unwrap(), port: told, inherit: false, container: None };
        Launch {
            argv,
            ports: vec![port],
            probes: vec![probe(ProbeKind::Ready, check, Some(told))],
            ..self.launch(container, &[])
        }
    }

    pub(crate) async fn run(&self, launch: &Launch) -> Handle {
        self.runtime().prepare(launch).await.unwrap();
        self.runtime().start(launch).await.unwrap()
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        // The keeper is the only process that has its lock open.
        let lock = self.data().join("run/keeper.lock");
        let holders =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        holders.into_iter().find(|&pid: &u32| pid != std::process::id() && holds(pid, &lock)).unwrap()
    }

    async fn end(&mut self) {
        if self.attached.is_none() {
            // A test may have ended in the middle of a change of Managers.
            self.epoch = Epoch(self.epoch.0 + 100);
            let _refused = self.attach(&[]).await;
        }
        if let Some(attached) = self.attached.take() {
            let _failed = tokio::time::timeout(PATIENCE, attached.runtime.shutdown(true)).await;
        }
    }
}

/// The lease of that epoch in a store that was never copied.
pub(crate) fn lease(store: &StoreId, epoch: Epoch) -> Lease {
    let earlier = (epoch.0.saturating_sub(256)..epoch.0).map(|number| number.to_string()).collect();
    Lease { store: store.clone(), epoch, key: epoch.to_string(), earlier }
}

pub(crate) fn provider_in(data: &Path, store: &StoreId, epoch: Epoch) -> StandaloneProvider {
    let provider = StandaloneBuilder::new(Name::new("standalone").unwrap(), data).build().unwrap();
    provider.lead(&lease(store, epoch));
    provider
}

fn holds(pid: u32, file: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
}

pub(crate) fn probe(kind: ProbeKind, check: Check, port: Option<u16>) -> LaunchProbe {
    let (every, timeout) = (Duration::from_millis(100), Duration::from_secs(10));
    LaunchProbe { kind, check, port, every, timeout, failures: 2 }
}

pub(crate) fn http(path: &str) -> Check {
    Check::Http { path: path.into(), port: None }
}

pub(crate) fn tcp() -> Check {
    Check::Tcp { port: None }
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The order that ends a container at once.
pub(crate) fn kill(container: &str) -> StopOrder {
    let (container, generation) = (ContainerId::new(container), Generation(1));
    StopOrder { container, generation, signal: 9, grace: Duration::ZERO }
}

pub(crate) fn known(launch: &Launch, handle: &Handle) -> Known {
    Known { launch: launch.clone(), handle: Some(handle.clone()) }
}

pub(crate) fn lives(pid: u32) -> bool {
    // A zombie has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("it never holds: {what}"));
}

/// Waits for a file to have content.
pub(crate) async fn content(path: PathBuf) -> String {
    until("the file has content", || std::fs::metadata(&path).is_ok_and(|meta| meta.len() > 0)).await;
    std::fs::read_to_string(path).unwrap()
}
