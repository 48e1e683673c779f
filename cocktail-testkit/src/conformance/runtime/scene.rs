//! What a case of a runtime works with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cocktail_core::contract::{
    Exit, Handle, Known, Launch, Listing, LogOptions, Runtime, RuntimeCapabilities, RuntimeEvent, Sighting, StopOrder,
};
use cocktail_core::id::{ContainerId, Generation};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::RuntimeFixture;
use crate::conformance::case::{Doing, Stop, Verdict, Waiting, clear_up, ensure, ensure_eq};
use crate::conformance::workers::{MARK, Occupied};

/// Longest time that a container has to end by itself where a case does not ask for less.
const GRACE: Duration = Duration::from_secs(20);

pub(crate) struct Scene<'f> {
    pub(crate) capabilities: RuntimeCapabilities,
    pub(crate) waiting: Waiting,
    fixture: &'f dyn RuntimeFixture,
    /// The runtime of the Manager that acts; none after it died.
    runtime: Mutex<Option<Arc<dyn Runtime>>>,
    /// Number of the running case: containers of two cases never share an id.
    case: usize,
    /// Newest generation of each container of the running case.
    used: Mutex<BTreeMap<ContainerId, Generation>>,
}

impl<'f> Scene<'f> {
    pub(super) async fn new(fixture: &'f dyn RuntimeFixture) -> Verdict<Self> {
        let (runtime, waiting) = (Mutex::default(), Waiting::default());
        let capabilities = RuntimeCapabilities::default();
        let scene = Self { capabilities, waiting, fixture, runtime, case: 0, used: Mutex::default() };
        let attached = scene.runtime().await?;
        Ok(Self { capabilities: attached.capabilities(), ..scene })
    }

    /// The next case begins.
    pub(super) fn begin(&mut self, number: usize) {
        self.case = number;
        self.waiting = Waiting::default();
    }

    /// The runtime of the Manager that acts; where there is none, the next one attaches.
    pub(crate) async fn runtime(&self) -> Verdict<Arc<dyn Runtime>> {
        let attached = locked(&self.runtime).clone();
        match attached {
            Some(runtime) => Ok(runtime),
            None => Ok(self.attach(&[]).await?.0),
        }
    }

    /// The Manager dies. Whoever still holds its runtime must drop it.
    pub(crate) fn leave(&self) {
        *locked(&self.runtime) = None;
    }

    /// The next Manager attaches.
    pub(crate) async fn attach(&self, known: &[Known]) -> Verdict<(Arc<dyn Runtime>, Listing)> {
        self.leave();
        let runtime = self.fixture.attach().await.doing("attach")?;
        let listing = runtime.recover(known).await.doing("recover")?;
        *locked(&self.runtime) = Some(Arc::clone(&runtime));
        Ok((runtime, listing))
    }

    /// The first start of a container of this case.
    pub(crate) fn launch(&self, name: &str, script: &str) -> Launch {
        self.launch_again(name, 1, script)
    }

    /// A start of a container of this case. It is remembered, so that it ends with the case.
    pub(crate) fn launch_again(&self, name: &str, generation: u64, script: &str) -> Launch {
        let container = ContainerId::new(format!("case{}-{name}", self.case));
        let mut launch = self.fixture.launch(&container, Generation(generation), script);
        let mark = format!("{}/{container}/{generation}", launch.store);
        launch.env.insert(MARK.to_owned(), mark);
        let mut used = locked(&self.used);
        let newest = used.entry(container).or_default();
        *newest = launch.generation.max(*newest);
        launch
    }

    pub(crate) fn occupy(&self) -> Verdict<Occupied> {
        self.fixture.occupy().ok_or_else(|| Stop::Skipped("the fixture cannot take a port".into()))
    }

    /// Prepares and starts.
    pub(crate) async fn run(&self, runtime: &dyn Runtime, launch: &Launch) -> Verdict<Handle> {
        runtime.prepare(launch).await.doing("prepare")?;
        runtime.start(launch).await.doing("start")
    }

    fn processes(&self, launch: &Launch) -> Option<usize> {
        self.fixture.processes(launch.env.get(MARK).map_or("", String::as_str))
    }

    /// Exactly one process of this start lives, and the runtime says so too. Its script must be a single process.
    pub(crate) async fn one_process(&self, runtime: &dyn Runtime, launch: &Launch, handle: &Handle) -> Verdict {
        let seen = self.sighting(runtime, launch).await?;
        ensure_eq!(seen, Some(Sighting::Running(handle.clone())), "what is listed");
        // The mark shows a moment after a start.
        let what = "the process to be seen from outside";
        let processes = self.waiting.find(what, || async { Ok(self.processes(launch).or(Some(1)).filter(|n| *n > 0)) });
        ensure_eq!(processes.await?, 1, "processes of one start");
        Ok(())
    }

    /// No process of this start lives.
    pub(crate) fn nothing_left(&self, launch: &Launch) -> Verdict {
        ensure_eq!(self.processes(launch).unwrap_or(0), 0, "processes that are left of {}", launch.container);
        Ok(())
    }

    /// Waits until no process of this start lives, where that can be seen from outside.
    pub(crate) async fn gone(&self, launch: &Launch) -> Verdict {
        let looking = self
            .waiting
            .find("every process to end", || async { Ok((self.processes(launch).unwrap_or(0) == 0).then_some(())) });
        looking.await
    }

    /// What the runtime lists of a container, if it lists this start of it.
    pub(crate) async fn sighting(&self, runtime: &dyn Runtime, launch: &Launch) -> Verdict<Option<Sighting>> {
        let listing = runtime.list().await.doing("list")?;
        let seen = listing.containers.get(&launch.container);
        Ok(seen.filter(|seen| seen.generation == launch.generation).map(|seen| seen.sighting.clone()))
    }

    /// Waits until a worker has written this line.
    pub(crate) async fn line(&self, runtime: &dyn Runtime, launch: &Launch, line: &str) -> Verdict {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut lines = runtime.logs(&launch.container, &options).await.doing("follow the output")?;
        self.waiting
            .on(&format!("the line {line:?}"), async {
                while let Some(found) = lines.next().await {
                    if found.doing("read the output")?.text == line {
                        return Ok(());
                    }
                }
                Err(Stop::Failed(format!("the output ends without the line {line:?}")))
            })
            .await
    }

    /// Waits for the end of a start to be told.
    pub(crate) async fn told(&self, runtime: &dyn Runtime, events: &mut Events, launch: &Launch) -> Verdict<Exit> {
        let coming = async {
            loop {
                match events.next().await? {
                    RuntimeEvent::Exited { container, generation, exit }
                        if container == launch.container && generation == launch.generation =>
                    {
                        return Ok(exit);
                    }
                    RuntimeEvent::Resync { .. } => {
                        let known = Known { launch: launch.clone(), handle: None };
                        let listing = runtime.recover(&[known]).await.doing("recover after a resync")?;
                        if let Some(Sighting::Exited(exit)) =
                            listing.containers.get(&launch.container).map(|seen| seen.sighting.clone())
                        {
                            return Ok(exit);
                        }
                    }
                    _ => {}
                }
            }
        };
        self.waiting.on(&format!("the end of {} to be told", launch.container), coming).await
    }

    /// Ends and removes the containers of the case. What cannot be ended here has failed a case already.
    pub(super) async fn clear(&self) {
        let used = std::mem::take(&mut *locked(&self.used));
        let clearing = async {
            let runtime = self.runtime().await?;
            for (container, generation) in used {
                let order = StopOrder { container, generation, signal: KILL, grace: Duration::ZERO };
                let _failed = runtime.stop(&order).await;
                let _failed = runtime.remove(&order.container).await;
            }
            Ok(())
        };
        clear_up(clearing, self.fixture.deadline()).await;
    }

    /// Leaves nothing behind.
    pub(super) async fn end(self) {
        let runtime = locked(&self.runtime).take();
        let ending = async {
            if let Some(runtime) = runtime {
                runtime.shutdown(true).await?;
            }
            Ok(())
        };
        clear_up(ending, self.fixture.deadline()).await;
    }
}

/// What happens to containers, from the subscription on.
pub(crate) struct Events(BoxStream<'static, RuntimeEvent>);

impl Events {
    pub(crate) fn of(runtime: &dyn Runtime) -> Self {
        Self(runtime.events())
    }

    pub(crate) async fn next(&mut self) -> Verdict<RuntimeEvent> {
        self.0.next().await.ok_or_else(|| Stop::Failed("the events ended while the runtime lives".into()))
    }
}

/// Asks a start to end.
pub(crate) fn stop(launch: &Launch) -> StopOrder {
    StopOrder { container: launch.container.clone(), generation: launch.generation, signal: TERM, grace: GRACE }
}

pub(crate) const TERM: i32 = 15;
pub(crate) const KILL: i32 = 9;

/// Where a shell or an engine stands between, a signal is told as a code.
pub(crate) fn ensure_signal(exit: Exit, signal: i32) -> Verdict {
    let is_it = exit == Exit::Signal(signal) || exit == Exit::Code(128 + signal);
    ensure!(is_it, "the end is told as {exit:?}, expected signal {signal}");
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
