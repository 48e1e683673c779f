//! What the Orchestrator promises, each as a test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{Actor, EventFilter, Manager, ManifestSource, RearrangeOptions, ShutdownMode};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::settings::{ProviderSettings, Settings};
use cocktail_core::view::{ContainerView, EndpointView, UnitView};
use cocktail_manager::{Ended, Orchestrator};
use cocktail_store::MemoryStore;
use futures_util::StreamExt;

use crate::pretend::{Machine, Pretend};

pub(crate) fn manifest(text: &str) -> ManifestSource {
    ManifestSource { file: PathBuf::from("shop.toml"), base: PathBuf::from("/"), text: text.into() }
}

pub(crate) fn workers(count: u32) -> ManifestSource {
    manifest(&format!(
        "service = \"shop\"\n[maps.prod.units.worker]\ncommand = [\"sleep\", \"9\"]\nreplicas = {count}\n\
         restart = {{ base = \"0ms\" }}\n"
    ))
}

fn web() -> ManifestSource {
    manifest(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\", \"${PORT}\"]\nports.http = { service = 8080 }\n\
         ready = { exec = [\"true\"] }\n",
    )
}

pub(crate) fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(StoreId::new("store-1")))
}

pub(crate) async fn start(store: &Arc<MemoryStore>, machine: &Arc<Machine>) -> Orchestrator {
    let builder = Orchestrator::builder(store.clone());
    builder.with_provider(Arc::new(Pretend(machine.clone()))).start().await.expect("a manager")
}

/// Waits until the Units are as wanted; virtual time makes the limit cheap.
pub(crate) async fn until(manager: &Orchestrator, what: &str, wanted: impl Fn(&[UnitView], &[ContainerView]) -> bool) {
    for _ in 0..2000 {
        let units = manager.units().await.expect("units");
        let containers = manager.containers().await.expect("containers");
        if wanted(&units, &containers) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}: {:#?}", manager.containers().await);
}

pub(crate) async fn ready(manager: &Orchestrator, count: u32) {
    until(manager, "ready", |units, containers| {
        units.iter().all(|unit| unit.ready == count && unit.desired == count) && containers.len() == count as usize
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_applied_unit_becomes_ready_and_the_same_again_changes_nothing() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let applied = manager.apply(&[workers(3)], &Actor::embedder()).await.expect("applied");
    assert_eq!(applied.changed.len(), 1);
    ready(&manager, 3).await;
    let before = machine.running();
    let again = manager.apply(&[workers(3)], &Actor::embedder()).await.expect("applied");
    assert!(again.changed.is_empty(), "{again:?}");
    assert_eq!(manager.plan(&[workers(3)]).await.expect("plan").actions, []);
    assert_eq!(machine.running(), before);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_finds_before_the_start_is_known_is_not_lost() {
    let (store, machine) = (store(), Machine::new());
    *machine.hasty.lock().expect("unpoisoned") = true;
    let manager = start(&store, &machine).await;
    manager.apply(&[web()], &Actor::embedder()).await.expect("applied");
    // The probe has told what it found, and tells it no more.
    ready(&manager, 1).await;
    assert_eq!(machine.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_container_restarts_in_place() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let id = machine.running().into_keys().next().expect("one");
    machine.crash(&id, 7);
    until(&manager, "restarted", |_, containers| {
        containers.iter().any(|container| container.id == id.as_str() && container.generation == 2 && container.ready)
    })
    .await;
    let why = manager.why(id.as_str()).await.expect("why");
    assert!(why.iter().any(|why| why.because.contains("exited with code 7")), "{why:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_manager_adopts_what_runs_without_touching_it() {
    let (store, machine) = (store(), Machine::new());
    let first = start(&store, &machine).await;
    first.apply(&[workers(3)], &Actor::embedder()).await.expect("applied");
    ready(&first, 3).await;
    let before = machine.running();
    first.shutdown(ShutdownMode::Leave).await.expect("left");
    assert_eq!(first.ended().await, Ended::Shutdown);
    let second = start(&store, &machine).await;
    ready(&second, 3).await;
    assert_eq!(machine.running(), before);
    assert_eq!(machine.starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_server_stays_so_for_the_next_manager_until_it_is_uncordoned() {
    let (store, machine) = (store(), Machine::new());
    let first = start(&store, &machine).await;
    let server = first.servers().await.expect("servers")[0].id.clone();
    let cordoned = first.cordon(&server, &Actor::embedder()).await.expect("it is cordoned");
    assert_eq!((cordoned.state.as_str(), cordoned.reason.as_str()), ("cordoned", "embedder cordoned it"));
    first.shutdown(ShutdownMode::Leave).await.expect("it ends");
    drop(first);
    let second = start(&store, &machine).await;
    assert_eq!(second.servers().await.expect("servers")[0], cordoned);
    second.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    let waits =
        |units: &[UnitView]| units.iter().any(|unit| unit.reason == "no room on the only server: it is cordoned");
    until(&second, "told why", |units, _| waits(units)).await;
    second.uncordon(&server, &Actor::embedder()).await.expect("it is uncordoned");
    ready(&second, 1).await;

    let options = RearrangeOptions { deadline: Some(Duration::from_secs(60)), ..RearrangeOptions::default() };
    let emptied = second.rearrange(&server, options, &Actor::embedder()).await.expect("it shall be empty");
    assert!(emptied.rearrangement.is_some(), "{emptied:?}");
    let why = second.why(&server).await.expect("why");
    assert!(why.iter().any(|why| why.because.contains("no room on the only server: it is draining")), "{why:#?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    let kept = &second.servers().await.expect("servers")[0];
    assert_eq!((kept.state.as_str(), kept.containers, &kept.rearrangement), ("ready", 1, &None));
    assert_eq!(machine.starts(), 1);
    second.shutdown(ShutdownMode::Leave).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_no_manager_ran_is_restarted() {
    let (store, machine) = (store(), Machine::new());
    let first = start(&store, &machine).await;
    first.apply(&[workers(2)], &Actor::embedder()).await.expect("applied");
    ready(&first, 2).await;
    first.shutdown(ShutdownMode::Leave).await.expect("left");
    let id = machine.running().into_keys().next().expect("one");
    machine.crash(&id, 1);
    let second = start(&store, &machine).await;
    ready(&second, 2).await;
    assert_eq!(machine.starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn shutdown_with_stop_leaves_nothing_and_the_next_manager_starts_it_again() {
    let (store, machine) = (store(), Machine::new());
    let first = start(&store, &machine).await;
    first.apply(&[workers(2)], &Actor::embedder()).await.expect("applied");
    ready(&first, 2).await;
    first.shutdown(ShutdownMode::Stop).await.expect("stopped");
    assert!(machine.running().is_empty());
    let second = start(&store, &machine).await;
    ready(&second, 2).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_store_fails_commands_are_refused_and_it_goes_on_by_itself() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    store.fail_writes(Some(ErrorKind::Unavailable));
    let id = machine.running().into_keys().next().expect("one");
    machine.crash(&id, 1);
    for _ in 0..1000 {
        if manager.about().await.expect("about").state == "degraded" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(machine.starts(), 1, "no effect without a durable intent");
    let refused = manager.scale("worker", 2, &Actor::embedder()).await.expect_err("refused");
    assert_eq!(*refused.kind(), ErrorKind::Refused, "{refused}");
    store.fail_writes(None);
    ready(&manager, 1).await;
    for _ in 0..1000 {
        if manager.about().await.expect("about").state == "running" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    manager.scale("worker", 2, &Actor::embedder()).await.expect("taken again");
    ready(&manager, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_whose_lease_was_taken_acts_no_more() {
    let (store, machine) = (store(), Machine::new());
    let first = start(&store, &machine).await;
    first.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&first, 1).await;
    let second = start(&store, &machine).await;
    let refused = first.scale("worker", 5, &Actor::embedder()).await.expect_err("no lease");
    assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Refused), "{refused}");
    assert!(matches!(first.ended().await, Ended::LeaseLost(_)));
    ready(&second, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_left_alone_and_another_is_used() {
    let (store, machine) = (store(), Machine::new());
    machine.taken.lock().expect("unpoisoned").push(20_000);
    let manager = start(&store, &machine).await;
    manager.apply(&[web()], &Actor::embedder()).await.expect("applied");
    until(&manager, "another port", |_, containers| {
        containers
            .iter()
            .any(|container| container.ports.iter().any(|port| port.port == 20_001) && container.pid.is_some())
    })
    .await;
    let restarts: u64 =
        manager.containers().await.expect("containers").iter().map(|container| container.restarts).sum();
    assert_eq!(restarts, 0, "a taken port is no crash");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_cannot_work_here_changes_nothing() {
    let (store, machine) = (store(), Machine::new());
    machine.taken.lock().expect("unpoisoned").push(8080);
    let manager = start(&store, &machine).await;
    let before = manager.about().await.expect("about").seq;
    let missing = manifest("service = \"shop\"\n[maps.prod.units.worker]\ncommand = [\"missing\"]\n");
    for source in [missing, web()] {
        let refused = manager.apply(&[source], &Actor::embedder()).await.expect_err("refused");
        assert_eq!(*refused.kind(), ErrorKind::InvalidConfig);
        let first = refused.diagnostics().first().expect("a place");
        assert!(first.line > 0, "{first:?}");
    }
    assert_eq!(manager.about().await.expect("about").seq, before);
}

/// Between what the journal had and what comes live nothing is left out, whenever somebody begins to follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_the_journal_while_it_grows_misses_nothing() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let growing = tokio::spawn({
        let manager = manager.clone();
        async move {
            for count in 0..400 {
                manager.scale("worker", 1 + count % 2, &Actor::embedder()).await.expect("scaled");
            }
        }
    });
    while !growing.is_finished() {
        let filter = EventFilter { follow: true, tail: Some(3), ..EventFilter::default() };
        let mut events = manager.events(&filter).await.expect("events");
        let mut seen: Vec<u64> = Vec::new();
        while seen.len() < 12 && !growing.is_finished() {
            let next = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
            let Ok(Some(event)) = next else { break };
            seen.push(event.expect("an event").seq);
        }
        let gap = seen.windows(2).find(|pair| pair[1] > pair[0] + 1);
        assert_eq!(gap, None, "{seen:?}");
    }
    growing.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn followers_see_the_journal_and_then_what_happens() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let filter = EventFilter { follow: true, ..EventFilter::default() };
    let mut events = manager.events(&filter).await.expect("events");
    let mut kinds = Vec::new();
    while let Some(event) = events.next().await {
        let event = event.expect("an event");
        kinds.push(event.kind.clone());
        if event.kind == "started" {
            machine.crash(&ContainerId::new(event.object), 3);
        }
        if event.kind == "exited" {
            break;
        }
    }
    for kind in ["manager-started", "applied", "claimed", "start-intended", "started", "exited"] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} is missing in {kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_managers_live_in_one_process() {
    let (one, other) = (Machine::new(), Machine::new());
    let (first, second) = (start(&store(), &one).await, start(&store(), &other).await);
    first.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    second.apply(&[workers(2)], &Actor::embedder()).await.expect("applied");
    ready(&first, 1).await;
    ready(&second, 2).await;
    assert_eq!((one.running().len(), other.running().len()), (1, 2));
}

/// More starts than are on their way at once, on a machine that answers none of them.
#[tokio::test(start_paused = true)]
async fn a_machine_that_answers_no_start_keeps_those_of_another_waiting_for_nothing() {
    let (silent, other) = (Machine::named("silent"), Machine::named("other"));
    *silent.silent.lock().expect("unpoisoned") = true;
    let providers = [silent.clone(), other.clone()].map(|machine| Arc::new(Pretend(machine)));
    let [first, second] = providers;
    let mut settings = Settings::default();
    for name in ["silent", "other"] {
        let kind = Name::new("standalone").expect("a name");
        let provider = ProviderSettings { kind, options: BTreeMap::new() };
        settings.providers.insert(Name::new(name).expect("a name"), provider);
    }
    let builder = Orchestrator::builder(store()).with_settings(settings).with_provider(first).with_provider(second);
    let manager = builder.start().await.expect("a manager");
    let unit = |name: &str, provider: &str, replicas: u32| {
        format!(
            "[maps.prod.units.{name}]\ncommand = [\"sleep\", \"9\"]\nprovider = \"{provider}\"\nreplicas = {replicas}\n"
        )
    };
    let shop = |rest: &str| manifest(&format!("service = \"shop\"\n{}{rest}", unit("many", "silent", 2000)));
    manager.apply(&[shop("")], &Actor::embedder()).await.expect("applied");
    let all = |_: &[UnitView], containers: &[ContainerView]| containers.len() == 2000;
    until(&manager, "all are decided", all).await;
    manager.apply(&[shop(&unit("few", "other", 300))], &Actor::embedder()).await.expect("applied");
    until(&manager, "few run", |_, _| other.running().len() == 300).await;
    assert_eq!(silent.running().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_revision_is_ready_before_the_old_one_goes() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(3)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 3).await;
    let other = manifest("service = \"shop\"\n[maps.prod.units.worker]\ncommand = [\"sleep\", \"10\"]\nreplicas = 3\n");
    let plan = manager.plan(std::slice::from_ref(&other)).await.expect("plan");
    assert_eq!(plan.actions.len(), 1, "{plan:?}");
    manager.apply(&[other], &Actor::embedder()).await.expect("applied");
    until(&manager, "replaced", |units, containers| {
        let running = containers.iter().filter(|container| container.ready).count();
        assert!(running >= 3, "the floor was broken: {containers:#?}");
        assert!(running <= 4, "the surge was exceeded: {containers:#?}");
        containers.len() == 3 && units[0].updated == 3 && containers.iter().all(|container| container.revision == 2)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_what_runs_is_refused_and_touches_nothing() {
    let (store, machine) = (store(), Machine::new());
    machine.plant(&ContainerId::new("web-newer"));
    let builder = Orchestrator::builder(store.clone()).with_provider(Arc::new(Pretend(machine.clone())));
    let error = builder.start().await.expect_err("refused");
    assert_eq!(*error.kind(), ErrorKind::Refused);
    for part in ["web-newer", "older copy", "not touched", "cocktail adopt", "cocktail release"] {
        assert!(error.message().contains(part), "no {part:?} in {error}");
    }
    assert_eq!(machine.running().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn containers_that_nobody_knows_are_shown_with_their_server_and_never_ended() {
    let (store, machine) = (store(), Machine::new());
    *machine.descended.lock().expect("unpoisoned") = true;
    let (first, later) = (ContainerId::new("web-first"), ContainerId::new("web-later"));
    machine.plant(&first);
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(2)], &Actor::embedder()).await.expect("applied");
    ready_units(&manager, 2).await;
    let unknown = async || manager.inspect("here").await.expect("inspected")["unknown"].clone();
    let shown = |id: &ContainerId| serde_json::json!({ "id": id, "generation": 1, "state": "running", "pid": 7 });
    assert_eq!(unknown().await, serde_json::json!([shown(&first)]));
    // One that turns up while the Manager runs is found by a later listing, and one that is gone is shown no more.
    machine.crash(&first, 0);
    machine.plant(&later);
    until_inspected(async || unknown().await == serde_json::json!([shown(&later)])).await;
    manager.down(&Actor::embedder()).await.expect("down");
    until(&manager, "gone", |_, containers| containers.is_empty()).await;
    assert_eq!(machine.running().into_keys().collect::<Vec<_>>(), [later]);
}

#[tokio::test(start_paused = true)]
async fn containers_that_come_and_go_are_never_taken_for_strangers() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    for count in [3, 1, 4, 0, 2] {
        manager.apply(&[workers(count)], &Actor::embedder()).await.expect("applied");
        // Longer than the pause between two listings.
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(manager.inspect("here").await.expect("inspected")["unknown"], serde_json::json!([]));
    }
}

async fn ready_units(manager: &Orchestrator, count: u32) {
    until(manager, "ready", |units, _| units.iter().all(|unit| unit.ready == count)).await;
}

async fn until_inspected(wanted: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if wanted().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never as wanted");
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_told_as_they_are_after_each_change_and_only_those_that_were_asked_for() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let mut web_only = manager.watch_endpoints(Some("prod/web")).await.expect("a stream");
    let mut of_another = manager.watch_endpoints(Some("test/web")).await.expect("a stream");
    let mut all = manager.watch_endpoints(None).await.expect("a stream");
    assert_eq!(web_only.next().await.expect("a table").expect("no error"), [], "there is no such unit yet");
    assert_eq!(of_another.next().await.expect("a table").expect("no error"), []);
    manager.apply(&[web()], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let backends = |table: &[EndpointView]| table.iter().map(|it| it.backends.len()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    while seen != [1] {
        seen = backends(&web_only.next().await.expect("a table").expect("no error"));
    }
    // One that did not read until now gets what is so now.
    assert_eq!(all.next().await.expect("a table").expect("no error"), manager.endpoints().await.expect("endpoints"));
    let container = manager.containers().await.expect("containers").remove(0);
    machine.crash(&ContainerId::new(&container.id), 1);
    assert_eq!(backends(&web_only.next().await.expect("a table").expect("no error")), [0]);
    // Nobody who follows keeps a Manager alive.
    manager.shutdown(ShutdownMode::Leave).await.expect("ended");
    while let Some(table) = web_only.next().await {
        table.expect("no error");
    }
    assert!(of_another.next().await.is_none(), "nothing was to be told");
}
