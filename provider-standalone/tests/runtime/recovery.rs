//! The Manager dies, the keeper dies, and a data dir that is not what it was.

use cocktail_core::contract::{Connection, Exit, Known, Provider, RuntimeEvent, Sighting};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Epoch, StoreId};
use cocktail_core::name::Name;
use cocktail_provider_standalone::{KeeperMode, StandaloneBuilder, StandaloneConfig, StandaloneProvider, Worker};

use crate::machine::{Machine, free_port, http, known, lease, lives, provider_in, signal, trials, until};

trials![
    a_new_manager_finds_the_same_processes_and_probes_them,
    what_ended_while_nobody_watched_is_told_with_its_status,
    a_start_whose_answer_was_lost_is_found,
    a_killed_keeper_costs_no_worker,
    a_lost_keeper_refuses_calls_until_its_workers_are_attached,
    another_store_is_refused_and_touches_nothing,
    a_copy_of_the_data_dir_is_refused_while_the_workers_of_the_original_run,
    an_older_epoch_is_refused_and_says_what_to_do,
    a_manager_that_was_overtaken_can_do_nothing_more,
    an_older_copy_is_refused_at_any_epoch_and_says_what_to_do,
    an_older_copy_that_is_adopted_goes_on_with_what_runs,
    a_release_names_what_runs_and_ends_it_with_its_keeper,
    a_release_finds_workers_whose_keeper_is_gone,
    workers_of_a_keeper_in_this_process_end_with_the_runtime,
];

async fn a_new_manager_finds_the_same_processes_and_probes_them(machine: &mut Machine) {
    let port = free_port();
    let launch = machine.web("web-1", port, port, 200, http("/"));
    let handle = machine.run(&launch).await;
    machine.probed("web-1", true).await;
    machine.drop_manager();
    assert!(lives(handle.pid.unwrap()));

    machine.epoch = machine.epoch.next();
    let listing = machine.attach(&[known(&launch, &handle)]).await.unwrap();
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Running(handle.clone()));
    machine.probed("web-1", true).await;
    signal(handle.pid.unwrap(), rustix::process::Signal::TERM);
    assert_eq!(machine.exited("web-1").await, Exit::Signal(15));
}

async fn what_ended_while_nobody_watched_is_told_with_its_status(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sh", "-c", "while ! test -f end; do sleep 0.01; done; exit 3"]);
    let handle = machine.run(&launch).await;
    machine.drop_manager();
    std::fs::write(machine.cwd.path().join("end"), "").unwrap();
    until("it has ended", || !lives(handle.pid.unwrap())).await;
    machine.epoch = machine.epoch.next();
    let listing = machine.attach(&[known(&launch, &handle)]).await.unwrap();
    match &listing.containers[&launch.container].sighting {
        Sighting::Exited(exit) => assert_eq!(*exit, Exit::Code(3)),
        // The keeper is still looking for what it left behind.
        Sighting::Running(_) => assert_eq!(machine.exited("job-1").await, Exit::Code(3)),
        other => panic!("{other:?}"),
    }
}

async fn a_start_whose_answer_was_lost_is_found(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    let port = free_port();
    let never = machine.web("web-1", port, port, 200, http("/"));
    let handle = machine.run(&launch).await;
    machine.drop_manager();
    machine.epoch = machine.epoch.next();
    let lost = |launch: &cocktail_core::contract::Launch| Known { launch: launch.clone(), handle: None };
    let listing = machine.attach(&[lost(&launch), lost(&never)]).await.unwrap();
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Running(handle));
    assert_eq!(listing.containers[&never.container].sighting, Sighting::Absent);
    // A start that comes after the look is watched as any other.
    machine.run(&never).await;
    machine.probed("web-1", true).await;
}

/// Attaches again when the runtime asks for it.
async fn resync(machine: &mut Machine, known: &[Known]) -> cocktail_core::contract::Listing {
    loop {
        machine.event(|event| matches!(event, RuntimeEvent::Resync { .. }).then_some(())).await;
        if let Ok(listing) = machine.runtime().recover(known).await {
            return listing;
        }
    }
}

async fn a_killed_keeper_costs_no_worker(machine: &mut Machine) {
    let port = free_port();
    let launch = machine.web("web-1", port, port, 200, http("/"));
    let handle = machine.run(&launch).await;
    machine.probed("web-1", true).await;
    let keeper = machine.keeper_pid();
    signal(keeper, rustix::process::Signal::KILL);
    let listing = resync(machine, &[known(&launch, &handle)]).await;
    assert_ne!(machine.keeper_pid(), keeper);
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Running(handle.clone()));
    // The new keeper watches it.
    signal(handle.pid.unwrap(), rustix::process::Signal::KILL);
    let exit = machine.exited("web-1").await;
    assert!(matches!(exit, Exit::Signal(9) | Exit::Unknown), "{exit:?}");
}

async fn a_lost_keeper_refuses_calls_until_its_workers_are_attached(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    let handle = machine.run(&launch).await;
    signal(machine.keeper_pid(), rustix::process::Signal::KILL);
    machine.event(|event| matches!(event, RuntimeEvent::Resync { .. }).then_some(())).await;
    // A keeper that knows nothing yet must not be believed that nothing runs.
    let order = cocktail_core::contract::StopOrder {
        container: launch.container.clone(),
        generation: launch.generation,
        signal: 15,
        grace: std::time::Duration::ZERO,
    };
    assert_eq!(*machine.runtime().stop(&order).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*machine.runtime().list().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(lives(handle.pid.unwrap()));
    machine.runtime().recover(&[known(&launch, &handle)]).await.unwrap();
    machine.runtime().stop(&order).await.unwrap();
    assert!(!lives(handle.pid.unwrap()));
}

async fn another_store_is_refused_and_touches_nothing(machine: &mut Machine) {
    let handle = machine.run(&machine.launch("job-1", &["sleep", "600"])).await;
    machine.drop_manager();
    let other = machine.provider(&StoreId::new("otherstore"), Epoch(1));
    let error = other.connect(&other.server()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused, "{}", error.chain());
    for part in [format!("another store ({})", machine.store).as_str(), "were not touched", "use another data dir"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(lives(handle.pid.unwrap()));
}

async fn a_copy_of_the_data_dir_is_refused_while_the_workers_of_the_original_run(machine: &mut Machine) {
    let handle = machine.run(&machine.launch("job-1", &["sleep", "600"])).await;
    let pid = handle.pid.unwrap();
    // A start is answered at the exec, and the kernel shows the environment a moment later.
    until("it has its environment", || std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| !env.is_empty()))
        .await;
    let copy = tempfile::tempdir().unwrap();
    let other = provider_in(copy.path(), &machine.store, machine.epoch.next());
    let error = other.connect(&other.server()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused, "{}", error.chain());
    for part in [format!("job-1 with pid {pid}").as_str(), "is a copy", "were not touched", "end them first"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(lives(pid) && !copy.path().join("run").exists());
}

async fn an_older_epoch_is_refused_and_says_what_to_do(machine: &mut Machine) {
    machine.drop_manager();
    machine.epoch = Epoch(9);
    machine.attach(&[]).await.unwrap();
    let handle = machine.run(&machine.launch("job-1", &["sleep", "600"])).await;
    machine.drop_manager();
    let older = machine.provider(&machine.store, Epoch(4));
    let error = older.connect(&older.server()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused, "{}", error.chain());
    for part in ["epoch 9", "older copy", "were not touched", "put the newer copy back"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(lives(handle.pid.unwrap()));
}

/// A provider on a copy that was made at the first epoch and started `starts` times since.
fn older_copy(machine: &Machine, starts: u64) -> StandaloneProvider {
    let provider = machine.provider(&machine.store, machine.epoch);
    let mut lease = lease(&machine.store, Epoch(1 + starts));
    lease.earlier = std::iter::once("1".to_owned()).chain((1..starts).map(|start| format!("copy-{start}"))).collect();
    lease.key = format!("copy-{starts}");
    provider.lead(&lease);
    provider
}

/// The workers of a keeper that has obeyed a lease that no copy knows.
async fn with_newer_workers(machine: &mut Machine) -> u32 {
    machine.drop_manager();
    machine.epoch = Epoch(2);
    machine.attach(&[]).await.unwrap();
    let pid = machine.run(&machine.launch("job-1", &["sleep", "600"])).await.pid.unwrap();
    machine.drop_manager();
    pid
}

async fn an_older_copy_is_refused_at_any_epoch_and_says_what_to_do(machine: &mut Machine) {
    let pid = with_newer_workers(machine).await;
    for starts in 1..5 {
        let copy = older_copy(machine, starts);
        let error = copy.connect(&copy.server()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Refused, "{}", error.chain());
        for part in ["older copy", "not touched", "put the newer copy back", "cocktail adopt", "cocktail release"] {
            assert!(error.message().contains(part), "no {part:?} after {starts} starts: {error}");
        }
    }
    assert!(lives(pid));
    machine.epoch = Epoch(3);
    let listing = machine.attach(&[]).await.unwrap();
    assert!(listing.descended && listing.containers.len() == 1, "{listing:?}");
}

async fn an_older_copy_that_is_adopted_goes_on_with_what_runs(machine: &mut Machine) {
    let pid = with_newer_workers(machine).await;
    let held = older_copy(machine, 1).adopt().await.unwrap();
    assert_eq!(held, [Worker { container: "job-1".into(), pid: Some(pid) }]);
    let copy = older_copy(machine, 2);
    let Connection::Local(runtime) = copy.connect(&copy.server()).await.unwrap() else { panic!("not local") };
    let listing = runtime.recover(&[]).await.unwrap();
    assert!(listing.descended, "nobody needs to be asked again");
    assert!(lives(pid));
    // The newer one has become the older.
    let newer = machine.provider(&machine.store, Epoch(9));
    assert_eq!(*newer.connect(&newer.server()).await.unwrap_err().kind(), ErrorKind::Refused);
    runtime.shutdown(true).await.unwrap();
    assert!(!lives(pid));
}

async fn a_release_names_what_runs_and_ends_it_with_its_keeper(machine: &mut Machine) {
    let pid = with_newer_workers(machine).await;
    // Whoever asks needs no lease, and may have another store by now.
    let other = StandaloneBuilder::new(Name::new("standalone").unwrap(), machine.data()).build().unwrap();
    let release = other.release().await.unwrap().expect("a keeper runs");
    assert_eq!(release.workers(), [Worker { container: "job-1".into(), pid: Some(pid) }]);
    let keeper = release.keeper();
    assert!(lives(pid), "naming ends nothing");
    release.end().await.unwrap();
    assert!(!lives(pid));
    until("the keeper has ended", || !lives(keeper)).await;
    assert!(other.release().await.unwrap().is_none());
}

async fn a_release_finds_workers_whose_keeper_is_gone(machine: &mut Machine) {
    let pid = with_newer_workers(machine).await;
    let keeper = machine.keeper_pid();
    signal(keeper, rustix::process::Signal::KILL);
    until("the keeper has ended", || !lives(keeper)).await;
    let copy = older_copy(machine, 1);
    let release = copy.release().await.unwrap().expect("a worker runs");
    assert_eq!(release.workers(), [Worker { container: "job-1".into(), pid: Some(pid) }]);
    release.end().await.unwrap();
    assert!(!lives(pid));
    assert!(copy.release().await.unwrap().is_none(), "nothing is left, and nothing was started to say so");
}

async fn a_manager_that_was_overtaken_can_do_nothing_more(machine: &mut Machine) {
    let newer = machine.provider(&machine.store, machine.epoch.next());
    newer.connect(&newer.server()).await.unwrap();
    let error = machine.runtime().remove(&ContainerId::new("job-1")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::OutcomeUnknown | ErrorKind::Unavailable), "{error}");
    drop(newer);
    machine.drop_manager();
    machine.epoch = Epoch(machine.epoch.0 + 1);
}

async fn workers_of_a_keeper_in_this_process_end_with_the_runtime(machine: &mut Machine) {
    let data = tempfile::tempdir().unwrap();
    let config = StandaloneConfig { keeper: KeeperMode::InProcess, ..StandaloneConfig::default() };
    let builder = StandaloneBuilder::new(Name::new("inside").unwrap(), data.path()).with_config(config);
    let provider = builder.build().unwrap();
    provider.lead(&lease(&StoreId::new("inside"), Epoch(1)));
    let Connection::Local(runtime) = provider.connect(&provider.server()).await.unwrap() else { panic!("not local") };
    assert!(!runtime.capabilities().outlives_manager);
    runtime.recover(&[]).await.unwrap();
    let launch = machine.launch("job-1", &["sleep", "600"]);
    runtime.prepare(&launch).await.unwrap();
    let pid = runtime.start(&launch).await.unwrap().pid.unwrap();
    assert!(lives(pid));
    runtime.shutdown(false).await.unwrap();
    until("the worker has ended", || !lives(pid)).await;
}
