//! What goes wrong: an engine that dies and comes back, containers that others remove, memory that runs out.

use std::path::PathBuf;
use std::time::Duration;

use cocktail_core::contract::{Exit, LogOptions, RuntimeEvent, Sighting};
use cocktail_core::error::ErrorKind;
use cocktail_core::quantity::Bytes;
use futures_util::StreamExt;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::machine::{self, Machine, PATIENCE, kill, known};

machine::trials![
    a_worker_that_takes_too_much_memory_is_out_of_memory_and_one_that_is_killed_is_not,
    a_container_that_somebody_removes_has_ended,
    what_has_ended_and_is_started_by_hand_ends_again,
    ends_are_heard_without_attaching_again,
    events_go_on_after_their_stream_was_cut,
    what_ends_while_an_engine_is_down_is_told_when_it_is_back,
    an_engine_that_keeps_its_containers_loses_none_of_them,
    an_engine_that_does_not_answer_says_nothing_about_its_containers,
];

async fn a_worker_that_takes_too_much_memory_is_out_of_memory_and_one_that_is_killed_is_not(machine: &mut Machine) {
    let mut launch = machine.launch("a", "head -c 268435456 /dev/zero | tail -n 1 > /dev/null");
    launch.resources.memory = Bytes(32 << 20);
    let id = machine.run(&launch).await.docker_id.unwrap();
    assert_eq!(machine.exited("a").await, Exit::OutOfMemory);
    let oom = machine.engine.docker(&["inspect", "--format", "{{.State.OOMKilled}}", &id]).unwrap();
    assert_eq!(oom, "true");
    // A child ends so, which the kernel is told to choose, and the main process goes on.
    let child = "sh -c 'echo 1000 > /proc/self/oom_score_adj; head -c 268435456 /dev/zero | tail -n 1 > /dev/null'; \
                 echo survived; exec sleep 600";
    let mut launch = machine.launch("b", child);
    launch.resources.memory = Bytes(32 << 20);
    machine.run(&launch).await;
    let mut lines =
        machine.runtime().logs(&launch.container, &LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    while lines.next().await.unwrap().unwrap().text != "survived" {}
    assert_eq!(machine.runtime().stop(&kill("b")).await.unwrap(), Exit::Code(137));
}

async fn a_container_that_somebody_removes_has_ended(machine: &mut Machine) {
    let id = machine.run(&machine.launch("a", "exec sleep 600")).await.docker_id.unwrap();
    machine.engine.docker(&["rm", "--force", &id]).unwrap();
    // Whether its code could still be read is a matter of luck.
    let exit = machine.exited("a").await;
    assert!(matches!(exit, Exit::Unknown | Exit::Code(137)), "{exit}");
    machine.runtime().remove(&machine.launch("a", "").container).await.unwrap();
}

async fn what_has_ended_and_is_started_by_hand_ends_again(machine: &mut Machine) {
    for name in ["stopped", "removed"] {
        let mut launch = machine.launch(name, "test -e /tmp/again && exec sleep 600; touch /tmp/again; exit 3");
        // What is in memory is gone with its process.
        launch.image.as_mut().unwrap().read_only = Some(false);
        let id = machine.run(&launch).await.docker_id.unwrap();
        assert_eq!(machine.exited(name).await, Exit::Code(3));
        machine.engine.docker(&["start", &id]).unwrap();
        if name == "stopped" {
            assert_eq!(machine.runtime().stop(&kill(name)).await.unwrap(), Exit::Code(137));
        }
        machine.runtime().remove(&launch.container).await.unwrap();
        assert!(machine.engine.docker(&["inspect", &id]).is_err(), "{name}");
    }
}

async fn ends_are_heard_without_attaching_again(machine: &mut Machine) {
    for name in ["a", "b", "c"] {
        machine.run(&machine.launch(name, "exit 5")).await;
        let heard = machine.event(|event| match event {
            RuntimeEvent::Exited { container, exit, .. } if container.as_str() == name => Some(Ok(exit)),
            RuntimeEvent::Resync { why } => Some(Err(why)),
            _ => None,
        });
        assert_eq!(heard.await, Ok(Exit::Code(5)), "of {name}");
        // Time in which a stream that cannot be followed would show.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A way to the engine that can be cut and goes on for who comes again.
struct Line {
    url: String,
    cut: watch::Sender<()>,
    _folder: tempfile::TempDir,
}

impl Line {
    fn to(socket: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let cut = watch::Sender::new(());
        let cuts = cut.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (socket, mut cuts) = (socket.clone(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = UnixStream::connect(socket).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { url: format!("unix://{}", path.display()), cut, _folder: folder }
    }
}

async fn events_go_on_after_their_stream_was_cut(machine: &mut Machine) {
    let line = Line::to(machine.engine.socket());
    machine.url = Some(line.url.clone());
    machine.attach(&[]).await;
    machine.run(&machine.launch("a", "exit 5")).await;
    assert_eq!(machine.exited("a").await, Exit::Code(5));
    machine.run(&machine.launch("b", "sleep 1; exit 6")).await;
    line.cut.send(()).unwrap();
    let (mut told, mut resynced) = (None, false);
    while told.is_none() || !resynced {
        machine
            .event(|event| match event {
                RuntimeEvent::Exited { exit, .. } => {
                    told = Some(exit);
                    Some(())
                }
                RuntimeEvent::Resync { .. } => {
                    resynced = true;
                    Some(())
                }
                _ => None,
            })
            .await;
    }
    assert_eq!(told, Some(Exit::Code(6)));
    machine.run(&machine.launch("c", "exit 7")).await;
    assert_eq!(machine.exited("c").await, Exit::Code(7));
}

/// Without live-restore the engine ends what it finds running.
async fn what_ends_while_an_engine_is_down_is_told_when_it_is_back(machine: &mut Machine) {
    let stays = machine.launch("stays", "exec sleep 600");
    let ends = machine.launch("ends", "trap 'exit 7' TERM; while :; do sleep 0.05; done");
    machine.run(&stays).await;
    machine.run(&ends).await;
    machine.engine.crash().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    machine.engine.start_again(&[]).unwrap();
    let mut left = vec!["stays", "ends"];
    let mut resynced = false;
    while !left.is_empty() || !resynced {
        machine
            .event(|event| match event {
                RuntimeEvent::Exited { container, .. } => {
                    left.retain(|name| *name != container.as_str());
                    Some(())
                }
                RuntimeEvent::Resync { .. } => {
                    resynced = true;
                    Some(())
                }
                _ => None,
            })
            .await;
    }
    // Events come again.
    machine.run(&machine.launch("next", "exit 5")).await;
    assert_eq!(machine.exited("next").await, Exit::Code(5));
}

async fn an_engine_that_keeps_its_containers_loses_none_of_them(machine: &mut Machine) {
    machine.engine.crash().unwrap();
    machine.engine.start_again(&["--live-restore"]).unwrap();
    machine.attach(&[]).await;
    let stays = machine.launch("stays", "exec sleep 600");
    let ends = machine.launch("ends", "sleep 3; exit 7");
    let (first, second) = (machine.run(&stays).await, machine.run(&ends).await);
    machine.engine.crash().unwrap();
    // The second one ends while nobody watches.
    let pid = second.pid.unwrap();
    let gone = async {
        while std::fs::exists(format!("/proc/{pid}")).unwrap() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    machine.engine.start_again(&["--live-restore"]).unwrap();
    assert_eq!(machine.exited("ends").await, Exit::Code(7));
    let seen = machine.attach(&[known(&stays, &first), known(&ends, &second)]).await;
    assert_eq!(seen.containers[&stays.container].sighting, Sighting::Running(first));
    assert_eq!(seen.containers[&ends.container].sighting, Sighting::Exited(Exit::Code(7)));
    assert!(matches!(machine.runtime().stop(&kill("stays")).await.unwrap(), Exit::Code(137)));
    machine.run(&machine.launch("next", "exit 5")).await;
    assert_eq!(machine.exited("next").await, Exit::Code(5));
}

async fn an_engine_that_does_not_answer_says_nothing_about_its_containers(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    let handle = machine.run(&launch).await;
    machine.engine.crash().unwrap();
    let listing = machine.attach(&[known(&launch, &handle)]).await;
    assert!(!listing.complete);
    assert_eq!(listing.containers[&launch.container].sighting, Sighting::Unknown);
    assert_eq!(*machine.runtime().list().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(machine.runtime().stop(&kill("a")).await.unwrap_err().kind().is_transient());
    machine.engine.start_again(&[]).unwrap();
    machine.event(|event| matches!(event, RuntimeEvent::Resync { .. }).then_some(())).await;
}
