//! One engine for all tests, and a Manager's view of it for each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cocktail_core::contract::{
    Connection, Exit, Handle, Known, Launch, LaunchImage, LaunchPort, Lease, Listing, Provider, Runtime, RuntimeEvent,
    StopOrder,
};
use cocktail_core::id::{ContainerId, Epoch, Generation, StoreId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::settings::RegistrySettings;
use cocktail_core::spec::Resources;
use cocktail_provider_docker::{DockerBuilder, DockerConfig, DockerProvider, EngineConfig, EngineTls};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use libtest_mimic::Trial;
use tempfile::TempDir;
use xtask::engine::{Network, PrivateEngine};
use xtask::{Condition, skip};

/// What a test waits for at most. It is no measure: what it waits for comes, or the test is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The image that containers are made from: a busybox.
pub(crate) const IMAGE: &str = "cocktail-test:1";

/// The variable that holds the password of registries.
pub(crate) const PASSWORD_VARIABLE: &str = "CKT_PASSWORD";

static ENGINE: Mutex<Option<(PrivateEngine, TempDir)>> = Mutex::new(None);

/// The engine, which is started when it is first asked for.
pub(crate) fn engine() -> Engine {
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    if engine.is_none() {
        // The path of a socket must be short.
        let folder = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap();
        let started = PrivateEngine::start(folder.path(), Network::Ours).unwrap();
        started.import_busybox(IMAGE).unwrap();
        *engine = Some((started, folder));
    }
    Engine(engine)
}

/// The engine, in the hands of one test.
pub(crate) struct Engine(MutexGuard<'static, Option<(PrivateEngine, TempDir)>>);

impl std::ops::Deref for Engine {
    type Target = PrivateEngine;
    fn deref(&self) -> &PrivateEngine {
        &self.0.as_ref().unwrap().0
    }
}

impl std::ops::DerefMut for Engine {
    fn deref_mut(&mut self) -> &mut PrivateEngine {
        &mut self.0.as_mut().unwrap().0
    }
}

pub(crate) fn end_engine() {
    drop(ENGINE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// One test with a store of its own.
pub(crate) fn trial(name: &'static str, body: impl AsyncFn(&mut Machine) + Send + 'static) -> Trial {
    Trial::test(name, move || {
        if Condition::NoDockerEngine.holds() {
            skip::report(name, Condition::NoDockerEngine.name());
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut machine = Machine::new().await;
            let ended = AssertUnwindSafe(tokio::time::timeout(PATIENCE * 8, body(&mut machine))).catch_unwind().await;
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

/// A Manager's view of the engine.
pub(crate) struct Machine {
    pub(crate) engine: Engine,
    pub(crate) store: StoreId,
    /// Where the engine is reached, if not at its own socket.
    pub(crate) url: Option<String>,
    /// How both ends prove who they are there.
    pub(crate) tls: Option<EngineTls>,
    /// Registries that want to know who asks.
    pub(crate) registries: BTreeMap<Name, RegistrySettings>,
    epoch: u64,
    attached: Option<Attached>,
}

struct Attached {
    runtime: Arc<dyn Runtime>,
    events: BoxStream<'static, RuntimeEvent>,
}

impl Machine {
    async fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let store = StoreId::new(format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut machine = Self {
            engine: engine(),
            store,
            url: None,
            tls: None,
            registries: BTreeMap::new(),
            epoch: 0,
            attached: None,
        };
        machine.attach(&[]).await;
        machine
    }

    /// Connects as a Manager does at its start; the one before is gone then.
    pub(crate) async fn attach(&mut self, known: &[Known]) -> Listing {
        self.attached = None;
        self.epoch += 1;
        let lease = Lease {
            store: self.store.clone(),
            epoch: Epoch(self.epoch),
            key: self.epoch.to_string(),
            earlier: (1..self.epoch).map(|number| number.to_string()).collect(),
        };
        let url = self.url.clone().unwrap_or_else(|| self.engine.url());
        let engine = EngineConfig { url, tls: self.tls.clone(), ..EngineConfig::local() };
        let provider = provider(engine, &lease, &self.registries);
        let server = provider.servers().next().unwrap().clone();
        let Connection::Local(runtime) = provider.connect(&server).await.unwrap() else { panic!("not local") };
        let events = runtime.events();
        let listing = runtime.recover(known).await.unwrap();
        self.attached = Some(Attached { runtime, events });
        listing
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.attached.as_ref().unwrap().runtime)
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

    /// Waits for the end of a container.
    pub(crate) async fn exited(&mut self, container: &str) -> Exit {
        let id = ContainerId::new(container);
        self.event(|event| match event {
            RuntimeEvent::Exited { container, exit, .. } if container == id => Some(exit),
            _ => None,
        })
        .await
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

    pub(crate) fn launch(&self, container: &str, script: &str) -> Launch {
        launch(&self.store, Epoch(self.epoch), &ContainerId::new(container), Generation(1), script)
    }

    pub(crate) async fn run(&self, launch: &Launch) -> Handle {
        self.runtime().prepare(launch).await.unwrap();
        self.runtime().start(launch).await.unwrap()
    }

    /// What the engine has of this store: containers, networks and volumes.
    pub(crate) fn left(&self) -> [Vec<String>; 3] {
        let filter = format!("label=cocktail.store={}", self.store);
        let lines = |arguments: &[&str]| -> Vec<String> {
            self.engine.docker(arguments).unwrap().lines().map(str::to_owned).collect()
        };
        [
            lines(&["ps", "-aq", "--filter", &filter]),
            lines(&["network", "ls", "-q", "--filter", &filter]),
            lines(&["volume", "ls", "-q", "--filter", &filter]),
        ]
    }

    async fn end(&mut self) {
        if self.engine.docker(&["version"]).is_err() {
            self.engine.start_again(&[]).unwrap();
        }
        if let Some(attached) = self.attached.take() {
            let _failed = tokio::time::timeout(PATIENCE, attached.runtime.shutdown(true)).await;
        }
    }
}

pub(crate) fn provider(
    engine: EngineConfig,
    lease: &Lease,
    registries: &BTreeMap<Name, RegistrySettings>,
) -> DockerProvider {
    let config = DockerConfig { engines: vec![engine], ..DockerConfig::default() };
    let provider = DockerBuilder::new(Name::new("docker").unwrap()).with_config(config);
    let provider = provider.with_registries(registries.clone()).build().unwrap();
    provider.lead(lease);
    provider
}

pub(crate) fn launch(
    store: &StoreId,
    epoch: Epoch,
    container: &ContainerId,
    generation: Generation,
    script: &str,
) -> Launch {
    let name = |text: &str| Name::new(text).unwrap();
    Launch {
        container: container.clone(),
        generation,
        store: store.clone(),
        epoch,
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("COCKTAIL_CONTAINER".to_owned(), container.to_string())]),
        env_from: Vec::new(),
        secrets: BTreeMap::new(),
        cwd: PathBuf::new(),
        user: None,
        ports: Vec::new(),
        resources: Resources::default(),
        rlimits: BTreeMap::new(),
        volumes: Vec::new(),
        probes: Vec::new(),
        worker: None,
        paused: false,
        outlives_lease: false,
        image: Some(LaunchImage {
            reference: IMAGE.into(),
            entrypoint: None,
            read_only: None,
            unit: UnitId::new(name("shop"), name("test"), name("web")),
        }),
        artifact: None,
    }
}

pub(crate) fn port(port: u16, container: Option<u16>) -> LaunchPort {
    LaunchPort { name: Name::new("http").unwrap(), port, inherit: false, container }
}

/// The order that ends a container at once.
pub(crate) fn kill(container: &str) -> StopOrder {
    let (container, generation) = (ContainerId::new(container), Generation(1));
    StopOrder { container, generation, signal: 9, grace: Duration::ZERO }
}

pub(crate) fn known(launch: &Launch, handle: &Handle) -> Known {
    Known { launch: launch.clone(), handle: Some(handle.clone()) }
}
