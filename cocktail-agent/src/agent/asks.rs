//! Carries out what the Manager asks for beside the session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocktail_core::contract::{Known, Launch, Login, Runtime, RuntimeEvent};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::session::{AgentFrame, Answer, Ask, Failure};
use cocktail_core::spec::Template;
use tokio_util::sync::CancellationToken;

use super::drive::Tools;
use super::link::Sender;

/// Answers one call. `said` is what probes and workers said last.
pub(super) async fn answer(tools: Tools, sender: Sender, call: u64, ask: Ask, said: Vec<RuntimeEvent>) {
    let recovers = matches!(ask, Ask::Recover(_));
    let answer = carry_out(&tools, &sender, ask).await;
    if recovers && answer.is_ok() {
        for event in said {
            sender.send(AgentFrame::Event(event));
        }
    }
    let answer = answer.map_err(|error| Failure::from(&error));
    sender.send(AgentFrame::Answer { call, answer });
}

async fn carry_out(tools: &Tools, sender: &Sender, ask: Ask) -> Result<Answer> {
    let runtime = &tools.runtime;
    match ask {
        Ask::Recover(known) => recover(tools, known).await,
        Ask::List => Ok(Answer::Listing(runtime.list().await?)),
        Ask::Volumes => Ok(Answer::Volumes(runtime.volumes().await?)),
        Ask::Fetch { launch, login } => fetch(tools, &launch, login).await,
        Ask::GiveUp { container, generation } => {
            tools.fetching.give_up(&container, generation);
            Ok(Answer::Done)
        }
        Ask::Resolve { reference, service, login } => {
            runtime.lend(&reference, &service, login);
            runtime.resolve(&reference, &service).await.map(Answer::Resolved)
        }
        Ask::Check(template) => check(runtime, *template).await,
        Ask::ReleasePorts(ports) => runtime.release_ports(&ports).await.map(|()| Answer::Done),
        Ask::Assign(launch) => runtime.assign(&launch).await.map(|()| Answer::Done),
        Ask::Unload(order) => runtime.unload(&order).await.map(|()| Answer::Done),
        Ask::Logs { container, options, aside } => {
            let lines = runtime.logs(&container, &options).await?;
            sender.carry_logs(aside, lines);
            Ok(Answer::Done)
        }
        Ask::Exec { container, spec, aside } => {
            let session = runtime.exec(&container, &spec).await?;
            sender.carry_exec(aside, session);
            Ok(Answer::Done)
        }
    }
}

/// What is being fetched for starts.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetching(Arc<Mutex<BTreeMap<(ContainerId, Generation), CancellationToken>>>);

impl Fetching {
    /// Something is fetched for a start until this ends. A repeated call takes the place of the one before.
    fn begin(&self, launch: &Launch) -> CancellationToken {
        let given_up = CancellationToken::new();
        self.lock().insert((launch.container.clone(), launch.generation), given_up.clone());
        given_up
    }

    fn give_up(&self, container: &ContainerId, generation: Generation) {
        if let Some(fetching) = self.lock().remove(&(container.clone(), generation)) {
            fetching.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ContainerId, Generation), CancellationToken>> {
        // Single inserts and removals are all that happens under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches what a start comes from, until nobody wants it any more. What its registry is shown stays in memory.
async fn fetch(tools: &Tools, launch: &Launch, login: Option<Login>) -> Result<Answer> {
    if let Some(image) = &launch.image {
        tools.runtime.lend(&image.reference, &image.unit.service, login);
    }
    let given_up = tools.fetching.begin(launch);
    let fetched = given_up.run_until_cancelled(tools.runtime.fetch(launch)).await;
    if !given_up.is_cancelled() {
        tools.fetching.lock().remove(&(launch.container.clone(), launch.generation));
    }
    fetched.unwrap_or_else(|| Err(Error::unavailable("it is not wanted any more"))).map(|()| Answer::Done)
}

/// What this machine can say about a template: nothing about variables of the Manager's host, nor about files that come
/// with an artifact.
async fn check(runtime: &Arc<dyn Runtime>, mut template: Template) -> Result<Answer> {
    template.env_from.clear();
    template.secrets.clear();
    let comes = template.artifact.is_some();
    let of_files = |key: &str| matches!(key, "cwd" | "command" | "worker");
    let mut problems = runtime.check(&template).await?;
    problems.retain(|(key, _)| !(comes && of_files(key)));
    Ok(Answer::Problems(problems))
}

/// Has the runtime watch what it does not watch yet, and says what runs.
async fn recover(tools: &Tools, known: Vec<Known>) -> Result<Answer> {
    let is_new = |known: &Known| {
        let watched = tools.watched.borrow();
        let before = watched.get(&known.launch.container).map(|launch| launch.generation);
        before != Some(known.launch.generation)
    };
    let mut new: Vec<Known> = known.into_iter().filter(is_new).collect();
    for known in &mut new {
        // They are of the Manager's host: what runs has them, and what is started has them from its order.
        known.launch.env_from.clear();
        known.launch.secrets.clear();
    }
    if new.is_empty() {
        return Ok(Answer::Listing(tools.runtime.list().await?));
    }
    let seen = tools.runtime.recover(&new).await?;
    let watched: BTreeMap<ContainerId, Arc<_>> =
        new.into_iter().map(|known| (known.launch.container.clone(), Arc::new(known.launch))).collect();
    tools.watched.send_modify(|all| all.extend(watched));
    Ok(Answer::Listing(seen))
}
