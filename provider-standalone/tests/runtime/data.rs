//! What containers leave behind: data that follows their Unit, and jobs that are done.

use std::collections::BTreeMap;
use std::fs;

use cocktail_core::contract::{Exit, Launch, LaunchVolume, LogOptions, RuntimeEvent, Sighting};
use cocktail_core::id::Generation;
use cocktail_core::name::Name;
use cocktail_core::spec::VolumeKind;
use futures_util::TryStreamExt;

use crate::machine::{Machine, content, kill, signal, trials};

trials![
    data_of_an_exclusive_volume_is_there_for_the_next_revision_and_stays_after_the_last,
    volumes_are_found_with_what_they_hold,
    a_bind_that_leads_elsewhere_is_a_problem_that_is_named,
    a_done_container_stays_what_it_is_with_its_logs,
];

/// A start with an exclusive volume of the Unit's first slot and an ephemeral one.
fn keeping(machine: &Machine, container: &str, script: &str) -> Launch {
    let volume = |name: &str, path: String, kind| LaunchVolume {
        name: Name::new(name).unwrap(),
        path: path.into(),
        link: Some(name.into()),
        kind,
    };
    let mut launch = machine.launch(container, &["sh", "-c", script]);
    launch.volumes = vec![
        volume("data", "shop/prod/web/data.0".into(), VolumeKind::Exclusive),
        volume("tmp", format!("shop/prod/web/tmp.{container}"), VolumeKind::Ephemeral),
    ];
    launch
}

async fn data_of_an_exclusive_volume_is_there_for_the_next_revision_and_stays_after_the_last(machine: &mut Machine) {
    let write = "echo first > data/file; echo scratch > \"$COCKTAIL_VOLUME_TMP/file\"; echo done > told; sleep 600";
    let first = keeping(machine, "web-1", write);
    machine.run(&first).await;
    content(machine.cwd.path().join("told")).await;
    let volumes = machine.data().join("volumes/shop/prod/web");
    assert!(volumes.join("tmp.web-1/file").exists());
    machine.runtime().stop(&kill("web-1")).await.unwrap();

    // The replacement begins before the old one is forgotten, and reads what that one wrote. Its first end is a crash.
    let read = "cat data/file >> seen; echo second >> \"$COCKTAIL_VOLUME_DATA/file\"; test -e again";
    let mut second = keeping(machine, "web-2", read);
    machine.run(&second).await;
    machine.runtime().remove(&first.container).await.unwrap();
    assert!(!volumes.join("tmp.web-1").exists(), "it went with its container");
    assert_eq!(machine.exited("web-2").await, Exit::Code(1));
    fs::write(machine.cwd.path().join("again"), "").unwrap();
    second.generation = Generation(2);
    machine.run(&second).await;
    assert_eq!(machine.exited("web-2").await, Exit::Code(0));
    assert_eq!(fs::read_to_string(machine.cwd.path().join("seen")).unwrap(), "first\nfirst\nsecond\n");

    machine.runtime().remove(&second.container).await.unwrap();
    assert_eq!(fs::read_to_string(volumes.join("data.0/file")).unwrap(), "first\nsecond\nsecond\n");
    assert_eq!(fs::read_dir(&volumes).unwrap().count(), 1, "nothing else is left");
    assert!(fs::symlink_metadata(machine.cwd.path().join("data")).is_err(), "nor a link to it");
}

async fn volumes_are_found_with_what_they_hold(machine: &mut Machine) {
    assert_eq!(machine.runtime().volumes().await.unwrap(), []);
    let write = "head -c 1048576 /dev/urandom > data/file; sync data/file; echo done > told; sleep 600";
    let launch = keeping(machine, "web-1", write);
    machine.run(&launch).await;
    content(machine.cwd.path().join("told")).await;
    let found = machine.runtime().volumes().await.unwrap();
    let paths: Vec<_> = found.iter().map(|volume| volume.path.clone()).collect();
    let expected: Vec<_> = launch.volumes.iter().map(|volume| volume.path.clone()).collect();
    assert_eq!(paths, expected);
    assert_eq!(found[0].location, machine.data().join("volumes/shop/prod/web/data.0"));
    assert!(found[0].used_bytes >= Some(1 << 20) && found[1].used_bytes < Some(64 << 10), "{found:?}");
    // Nobody has it any more, and it is found all the same.
    machine.runtime().stop(&kill("web-1")).await.unwrap();
    machine.runtime().remove(&launch.container).await.unwrap();
    let left = machine.runtime().volumes().await.unwrap();
    assert_eq!(left, found[..1]);
}

async fn a_bind_that_leads_elsewhere_is_a_problem_that_is_named(machine: &mut Machine) {
    let cwd = fs::canonicalize(machine.cwd.path()).unwrap();
    std::os::unix::fs::symlink("/etc", cwd.join("away")).unwrap();
    let text = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"1\"]\n\
                [maps.prod.units.web.volumes.away]\nmount = \"mounted\"\nkind = \"bind\"\nsource = \"./away\"\n";
    let parsed = cocktail_core::manifest::parse(text, std::path::Path::new("test.toml"), &cwd).unwrap();
    let service = parsed.service.unwrap();
    let template = &service.maps.values().flat_map(|map| map.units.values()).next().unwrap().template;
    let problems = machine.runtime().check(template).await.unwrap();
    let [(key, problem)] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(key, "volumes.away.source");
    assert!(problem.contains("leads to /etc") && problem.contains("manager.binds"), "{problem}");
}

/// The whole log of a container.
async fn log(machine: &Machine, launch: &Launch) -> Vec<String> {
    let lines = machine.runtime().logs(&launch.container, &LogOptions::default()).await.unwrap();
    lines.map_ok(|line| line.text).try_collect().await.unwrap()
}

async fn a_done_container_stays_what_it_is_with_its_logs(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sh", "-c", "echo result; echo trouble >&2"]);
    machine.run(&launch).await;
    assert_eq!(machine.exited("job-1").await, Exit::Code(0));
    let mut expected = log(machine, &launch).await;
    expected.sort();
    assert_eq!(expected, ["result", "trouble"]);

    // A Manager names what may run, and a done container is not among it.
    machine.drop_manager();
    machine.epoch = machine.epoch.next();
    let listing = machine.attach(&[]).await.unwrap();
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Exited(Exit::Code(0)));
    assert_eq!(machine.runtime().list().await.unwrap().containers, listing.containers);
    assert_eq!(log(machine, &launch).await.len(), 2);

    // A keeper that is started anew has not seen it; its log is on the disk.
    signal(machine.keeper_pid(), rustix::process::Signal::KILL);
    machine.event(|event| matches!(event, RuntimeEvent::Resync { .. }).then_some(())).await;
    let listing = machine.runtime().recover(&[]).await.unwrap();
    assert_eq!((listing.containers, listing.complete), (BTreeMap::new(), true));
    assert_eq!(log(machine, &launch).await.len(), 2);
    machine.runtime().remove(&launch.container).await.unwrap();
    let gone = machine.runtime().logs(&launch.container, &LogOptions::default()).await.map(drop).unwrap_err();
    assert_eq!(*gone.kind(), cocktail_core::error::ErrorKind::NotFound);
}
