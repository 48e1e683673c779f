//! Preparing, starting, ending and removing.

use std::path::Path;
use std::time::Duration;

use cocktail_core::contract::{Exit, LaunchPort, LaunchVolume, Sighting, StopOrder};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::name::Name;
use cocktail_core::spec::VolumeKind;

use crate::machine::{Machine, free_port, lives, signal, trials, until};

trials![
    a_start_is_one_process_however_often_it_is_asked_for,
    an_end_is_told_with_its_status,
    stopping_leaves_nothing_and_a_second_stop_is_success,
    a_taken_port_is_a_conflict_that_names_the_port,
    a_program_that_does_not_exist_is_an_invalid_config,
    a_missing_folder_is_an_invalid_config,
    volumes_are_told_to_the_worker_and_ephemeral_ones_go_with_it,
    usage_is_read_for_running_containers,
    a_stopped_runtime_leaves_no_process,
    problems_of_a_template_are_found_and_named,
];

fn stop(container: &str) -> StopOrder {
    let container = ContainerId::new(container);
    StopOrder { container, generation: Generation(1), signal: 15, grace: Duration::from_secs(20) }
}

async fn a_start_is_one_process_however_often_it_is_asked_for(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    let handle = machine.run(&launch).await;
    assert_eq!(machine.run(&launch).await, handle);
    let listing = machine.runtime().list().await.unwrap();
    assert!(listing.complete);
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Running(handle));
}

async fn an_end_is_told_with_its_status(machine: &mut Machine) {
    machine.run(&machine.launch("job-1", &["sh", "-c", "exit 7"])).await;
    assert_eq!(machine.exited("job-1").await, Exit::Code(7));
    let handle = machine.run(&machine.launch("job-2", &["sleep", "600"])).await;
    signal(handle.pid.unwrap(), rustix::process::Signal::KILL);
    assert_eq!(machine.exited("job-2").await, Exit::Signal(9));
}

async fn stopping_leaves_nothing_and_a_second_stop_is_success(machine: &mut Machine) {
    let handle = machine.run(&machine.launch("job-1", &["sleep", "600"])).await;
    assert_eq!(machine.runtime().stop(&stop("job-1")).await.unwrap(), Exit::Signal(15));
    assert!(!lives(handle.pid.unwrap()));
    assert_eq!(machine.runtime().stop(&stop("job-1")).await.unwrap(), Exit::Signal(15));
    let id = ContainerId::new("job-1");
    machine.runtime().remove(&id).await.unwrap();
    machine.runtime().remove(&id).await.unwrap();
    assert!(machine.runtime().list().await.unwrap().containers.is_empty());
    assert_eq!(machine.runtime().stop(&stop("job-1")).await.unwrap(), Exit::Unknown);
}

async fn a_taken_port_is_a_conflict_that_names_the_port(machine: &mut Machine) {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let mut launch = machine.launch("web-1", &["sleep", "600"]);
    launch.ports.push(LaunchPort { name: Name::new("http").unwrap(), port, inherit: false, container: None });
    let error = machine.runtime().prepare(&launch).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{}", error.chain());
    assert_eq!(error.context("port"), Some(port.to_string().as_str()));
    launch.ports[0].port = free_port();
    machine.runtime().prepare(&launch).await.unwrap();
    machine.runtime().prepare(&launch).await.unwrap();
}

async fn a_program_that_does_not_exist_is_an_invalid_config(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["no-such-program-here"]);
    machine.runtime().prepare(&launch).await.unwrap();
    let error = machine.runtime().start(&launch).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
    assert!(error.message().contains("no-such-program-here"), "{error}");
}

async fn a_missing_folder_is_an_invalid_config(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sleep", "600"]);
    launch.cwd = "/nowhere/at/all".into();
    machine.runtime().prepare(&launch).await.unwrap();
    let error = machine.runtime().start(&launch).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
    assert!(error.message().contains("/nowhere/at/all"), "{error}");
}

async fn volumes_are_told_to_the_worker_and_ephemeral_ones_go_with_it(machine: &mut Machine) {
    let script = "echo kept > data/file; echo lost > \"$COCKTAIL_VOLUME_TMP/file\"; sleep 600";
    let mut launch = machine.launch("job-1", &["sh", "-c", script]);
    let volume = |name: &str, path: &str, link: Option<&str>, kind| LaunchVolume {
        name: Name::new(name).unwrap(),
        path: path.into(),
        link: link.map(Into::into),
        kind,
    };
    launch.volumes = vec![
        volume("data", "shop/prod/job/data", Some("data"), VolumeKind::Shared),
        volume("tmp", "shop/prod/job/tmp.job-1", None, VolumeKind::Ephemeral),
    ];
    machine.run(&launch).await;
    let (kept, lost) = ("volumes/shop/prod/job/data/file", "volumes/shop/prod/job/tmp.job-1/file");
    let (kept, lost) = (machine.data().join(kept), machine.data().join(lost));
    until("both files are written", || kept.exists() && lost.exists()).await;
    machine.runtime().stop(&stop("job-1")).await.unwrap();
    machine.runtime().remove(&launch.container).await.unwrap();
    assert!(kept.exists() && !lost.parent().unwrap().exists());
    assert!(std::fs::symlink_metadata(machine.cwd.path().join("data")).is_err(), "the link is gone");
}

async fn usage_is_read_for_running_containers(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    machine.run(&launch).await;
    let runtime = machine.runtime();
    // A start is answered at the exec, and the new program has no memory for a moment.
    while runtime.usage().await.unwrap()[&launch.container].memory_bytes == 0 {}
}

async fn a_stopped_runtime_leaves_no_process(machine: &mut Machine) {
    let pid = machine.run(&machine.launch("job-1", &["sleep", "600"])).await.pid.unwrap();
    let keeper = machine.keeper_pid();
    machine.runtime().shutdown(true).await.unwrap();
    assert!(!lives(pid));
    until("the keeper has ended", || !lives(keeper)).await;
    let error = machine.runtime().list().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
}

async fn problems_of_a_template_are_found_and_named(machine: &mut Machine) {
    let text = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"slep\", \"1\"]\ncwd = \"missing\"\n\
                user = \"no-such-user\"\nenv_from = [\"NO_SUCH_VARIABLE_HERE\"]\n\
                secrets.KEY = { file = \"/no/such/file\" }\n";
    let parsed = cocktail_core::manifest::parse(text, Path::new("test.toml"), machine.cwd.path()).unwrap();
    let template =
        parsed.service.unwrap().maps.values().flat_map(|map| map.units.values()).next().unwrap().template.clone();
    let problems = machine.runtime().check(&template).await.unwrap();
    let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["cwd", "command", "user", "env_from", "secrets.KEY"], "{problems:?}");
    let program = &problems[1].1;
    assert!(program.contains("no program `slep` in PATH") && program.contains("did you mean `sleep`"), "{program}");
}
