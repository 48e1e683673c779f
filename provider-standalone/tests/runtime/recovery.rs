//! The Manager dies, the keeper dies, and a data dir that is not what it was.

use cocktail_core::contract::{Exit, Known, Provider, RuntimeEvent, Sighting};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Epoch, StoreId};

use crate::machine::{Machine, free_port, http, known, lives, provider_in, signal, trials, until};

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
    let never = machine.launch("job-2", &["sleep", "600"]);
    let handle = machine.run(&launch).await;
    machine.drop_manager();
    machine.epoch = machine.epoch.next();
    let lost = |launch: &cocktail_core::contract::Launch| Known { launch: launch.clone(), handle: None };
    let listing = machine.attach(&[lost(&launch), lost(&never)]).await.unwrap();
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Running(handle));
    assert_eq!(listing.containers[&never.container].sighting, Sighting::Absent);
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

async fn a_manager_that_was_overtaken_can_do_nothing_more(machine: &mut Machine) {
    let newer = machine.provider(&machine.store, machine.epoch.next());
    newer.connect(&newer.server()).await.unwrap();
    let error = machine.runtime().remove(&ContainerId::new("job-1")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::OutcomeUnknown | ErrorKind::Unavailable), "{error}");
    drop(newer);
    machine.drop_manager();
    machine.epoch = Epoch(machine.epoch.0 + 1);
}
