//! Containers that wait: paused when they are up, going on when they are needed, and ended like all others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use cocktail_core::contract::{Exit, Handle, Launch, LaunchProbe, ProbeKind, RuntimeEvent, StopOrder, WorkerSaid};
use cocktail_core::error::ErrorKind;
use cocktail_core::spec::Check;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};

use crate::machine::{self, IMAGE, Machine, known, port};
use crate::starts::{WEB, free_port, probe};

machine::trials![
    what_is_to_wait_is_paused_when_its_probe_is_good_and_serves_when_it_goes_on,
    the_next_manager_is_told_of_what_waits_and_has_it_go_on,
    what_is_not_up_is_not_paused_and_one_without_a_probe_is_after_a_moment,
    what_is_paused_hears_the_signal_that_ends_it,
    what_is_paused_and_killed_has_ended_and_cannot_go_on,
    what_serves_and_is_paused_by_hand_is_not_ready_and_not_touched,
    where_the_engine_pauses_nothing_that_is_said_once,
];

/// A container that is to wait.
fn to_wait(launch: &Launch) -> Launch {
    Launch { paused: true, ..launch.clone() }
}

fn web(machine: &Machine, container: &str) -> Launch {
    let leased = free_port();
    let mut launch = machine.launch(container, WEB);
    launch.ports.push(port(leased, Some(80)));
    launch.probes.push(probe(Check::Http { path: "/index.html".into(), port: None }, Some(leased)));
    launch
}

/// What a container says of itself first; its readiness is not told before.
async fn says(machine: &mut Machine, name: &str) -> WorkerSaid {
    machine
        .event(|event| match event {
            RuntimeEvent::Worker { container, said, .. } if container.as_str() == name => Some(said),
            RuntimeEvent::Probe { container, ok: true, .. } if container.as_str() == name => panic!("it waits"),
            _ => None,
        })
        .await
}

async fn waits(machine: &mut Machine, launch: &Launch) -> Handle {
    let handle = machine.run(&to_wait(launch)).await;
    assert_eq!(says(machine, launch.container.as_str()).await, WorkerSaid::Waiting);
    assert_eq!(status(machine, &handle), "paused");
    handle
}

fn status(machine: &Machine, handle: &Handle) -> String {
    let id = handle.docker_id.as_deref().unwrap();
    machine.engine.docker(&["inspect", "--format", "{{.State.Status}}", id]).unwrap()
}

fn get(launch: &Launch) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], launch.ports[0].port))).unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn what_is_to_wait_is_paused_when_its_probe_is_good_and_serves_when_it_goes_on(machine: &mut Machine) {
    let launch = web(machine, "web");
    let handle = waits(machine, &launch).await;
    for _ in 0..2 {
        machine.runtime().assign(&launch).await.unwrap();
        assert_eq!(status(machine, &handle), "running");
    }
    machine.probed("web", true).await;
    assert!(get(&launch).ends_with("hello\n"));
    assert_eq!(machine.run(&launch).await, handle, "it is the process that waited");
}

async fn the_next_manager_is_told_of_what_waits_and_has_it_go_on(machine: &mut Machine) {
    let launch = web(machine, "web");
    let handle = waits(machine, &launch).await;
    for _ in 0..2 {
        machine.attach(&[known(&to_wait(&launch), &handle)]).await;
        assert_eq!(says(machine, "web").await, WorkerSaid::Waiting);
    }
    // The last one died when it had decided that this one goes on.
    machine.attach(&[known(&launch, &handle)]).await;
    assert_eq!(status(machine, &handle), "paused", "nobody has said so yet");
    machine.runtime().assign(&launch).await.unwrap();
    machine.probed("web", true).await;
    assert!(get(&launch).ends_with("hello\n"));
}

async fn what_is_not_up_is_not_paused_and_one_without_a_probe_is_after_a_moment(machine: &mut Machine) {
    let mut slow = web(machine, "slow");
    slow.argv = ["sh", "-c", "sleep 600"].map(str::to_owned).to_vec();
    let handle = machine.run(&to_wait(&slow)).await;
    machine.probed("slow", false).await;
    assert_eq!(status(machine, &handle), "running");
    let plain = machine.launch("plain", "exec sleep 600");
    waits(machine, &plain).await;
    let ends = machine.launch("ends", "exit 5");
    machine.run(&to_wait(&ends)).await;
    assert_eq!(machine.exited("ends").await, Exit::Code(5));
}

async fn what_is_paused_hears_the_signal_that_ends_it(machine: &mut Machine) {
    // An engine has a container go on by itself where the signal is that of its image, and only then.
    let other = "cocktail-signal:1";
    machine.engine.docker(&["create", "--name", "signal", "--stop-signal", "USR1", IMAGE, "true"]).unwrap();
    machine.engine.docker(&["commit", "signal", other]).unwrap();
    machine.engine.docker(&["rm", "signal"]).unwrap();
    for (name, image) in [("a", IMAGE), ("b", other)] {
        let mut launch = machine.launch(name, "trap 'exit 7' TERM; while :; do sleep 0.05; done");
        image.clone_into(&mut launch.image.as_mut().unwrap().reference);
        waits(machine, &launch).await;
        let (container, generation) = (launch.container.clone(), launch.generation);
        let order = StopOrder { container, generation, signal: 15, grace: machine::PATIENCE };
        assert_eq!(machine.runtime().stop(&order).await.unwrap(), Exit::Code(7), "{image}");
        machine.runtime().remove(&launch.container).await.unwrap();
    }
    machine.engine.docker(&["rmi", other]).unwrap();
    assert_eq!(machine.left()[0].len(), 0);
}

async fn what_is_paused_and_killed_has_ended_and_cannot_go_on(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    let id = waits(machine, &launch).await.docker_id.unwrap();
    machine.engine.docker(&["kill", &id]).unwrap();
    assert_eq!(machine.exited("a").await, Exit::Code(137));
    let refused = machine.runtime().assign(&launch).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::NotFound, "{refused}");
    machine.runtime().remove(&launch.container).await.unwrap();
    assert_eq!(machine.left()[0].len(), 0);
}

async fn what_serves_and_is_paused_by_hand_is_not_ready_and_not_touched(machine: &mut Machine) {
    let mut launch = web(machine, "web");
    let LaunchProbe { kind, timeout, .. } = &mut launch.probes[0];
    (*kind, *timeout) = (ProbeKind::Ready, Duration::from_millis(300));
    let handle = machine.run(&launch).await;
    machine.probed("web", true).await;
    machine.engine.docker(&["pause", handle.docker_id.as_deref().unwrap()]).unwrap();
    machine.probed("web", false).await;
    assert_eq!(status(machine, &handle), "paused");
}

/// A way to the engine that refuses to pause anything, as one without a freezer does.
fn without_freezer(socket: PathBuf, path: &std::path::Path) {
    const BODY: &str = "{\"message\":\"cannot pause container: cgroups: no freezer\"}\n";
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let Ok(far) = UnixStream::connect(socket).await else { return };
                let ((mut from, mut to), (mut answers, mut asks)) = (near.into_split(), far.into_split());
                let mut bytes = vec![0; 65_536];
                loop {
                    // An answer, or the next part of what is asked.
                    tokio::select! {
                        _ = copy(&mut answers, &mut to) => return,
                        read = from.read(&mut bytes) => {
                            let Ok(count @ 1..) = read else { return };
                            let pauses = bytes[..count].windows(11).any(|part| part == b"/pause HTTP");
                            let written = if pauses {
                                let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n";
                                let all = format!("{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
                                to.write_all(all.as_bytes()).await
                            } else {
                                asks.write_all(&bytes[..count]).await
                            };
                            if written.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
}

async fn where_the_engine_pauses_nothing_that_is_said_once(machine: &mut Machine) {
    let folder = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp").unwrap();
    let path = folder.path().join("s");
    without_freezer(machine.engine.socket(), &path);
    machine.url = Some(format!("unix://{}", path.display()));
    machine.attach(&[]).await;
    let launch = machine.launch("a", "exec sleep 600");
    let handle = machine.run(&to_wait(&launch)).await;
    let WorkerSaid::Unfit { error } = says(machine, "a").await else { panic!("it waits") };
    assert!(error.starts_with("the engine cannot pause it: ") && error.ends_with("no freezer"), "{error}");
    assert_eq!(status(machine, &handle), "running");
    let (container, generation) = (launch.container.clone(), launch.generation);
    let order = StopOrder { container, generation, signal: 9, grace: Duration::ZERO };
    assert_eq!(machine.runtime().stop(&order).await.unwrap(), Exit::Code(137));
    machine.runtime().remove(&launch.container).await.unwrap();
    assert_eq!(machine.left()[0].len(), 0);
}
