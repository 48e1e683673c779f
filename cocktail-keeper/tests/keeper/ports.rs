//! Ports: proved, held, handed over.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cocktail_keeper::protocol::{Adopt, AdoptContainer, PortSpec, Prepare, Refusal, StartOutcome, Started};
use libtest_mimic::Trial;

use crate::support::{Keeper, TERM, free_port, kill, local, replace, said_by, stands_still, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("ports::a_taken_port_is_refused_with_its_holder", a_taken_port),
        test("ports::a_prepared_port_is_the_workers_when_it_starts", the_workers_port),
        test("ports::two_keepers_on_one_host_exclude_each_other", two_keepers),
        test("ports::an_inherited_socket_accepts_and_survives_a_restart", an_inherited_socket),
        test("ports::old_and_new_accept_on_one_socket_and_no_connection_fails", both_accept),
        test("ports::what_waits_to_be_accepted_outlives_the_old_holder", queue_outlives),
        test("ports::a_release_that_comes_late_takes_no_port_away", a_release_that_comes_late),
        test("ports::a_socket_that_only_a_worker_has_is_handed_over_too", after_a_killed_keeper),
        test("ports::a_socket_that_cannot_be_had_is_refused_and_says_so", cannot_be_had),
    ]
}

fn prepare(container: &str, generation: u64, port: u16, inherit: bool) -> Prepare {
    let ports = vec![PortSpec { name: "http".to_owned(), port, inherit, address: None }];
    Prepare { container: container.to_owned(), generation, ports }
}

async fn a_taken_port() {
    let keeper = Keeper::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for inherit in [false, true] {
        let refused = keeper.client.prepare(prepare("a", 1, port, inherit)).await.unwrap_err();
        let Some(Refusal::PortTaken { port: taken, holder: Some(holder) }) = refused.refusal() else {
            panic!("{refused:?}")
        };
        assert_eq!(*taken, port);
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    }
    let listing = keeper.client.list().await.unwrap();
    assert_eq!((listing.ports, listing.containers), (vec![], vec![]), "nothing is held after a refusal");
    drop(listener);
    keeper.client.prepare(prepare("a", 1, port, false)).await.unwrap();
    keeper.client.prepare(prepare("a", 1, port, false)).await.unwrap();
    let other = keeper.client.prepare(prepare("b", 1, port, false)).await.unwrap_err();
    assert!(other.to_string().contains("container a"), "{other}");
}

async fn the_workers_port() {
    let keeper = Keeper::new().await;
    let port = free_port();
    keeper.client.prepare(prepare("a", 1, port, false)).await.unwrap();
    let serve = format!("exec python3 -m http.server {port} --bind 127.0.0.1");
    keeper.client.start(keeper.start("a", 1, &["sh", "-c", &serve])).await.unwrap();
    let running = keeper.client.prepare(prepare("b", 1, port, false)).await.unwrap_err();
    assert!(running.to_string().contains("container a"), "{running}");
    while std::net::TcpStream::connect(local(port)).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    keeper.client.stop("a", 1, TERM).await.unwrap();
    assert_eq!(keeper.client.list().await.unwrap().ports, [port], "held until it is released");
    keeper.client.prepare(prepare("b", 1, port, true)).await.expect("the one before has ended");
    keeper.client.prepare(prepare("b", 1, port, false)).await.expect("it is its own");
    keeper.client.prepare(prepare("a", 2, port, false)).await.expect_err("it is another's now");
    keeper.client.release_ports(vec![port, port, 1]).await.unwrap();
    assert_eq!(keeper.client.list().await.unwrap().ports, Vec::<u16>::new());
}

async fn two_keepers() {
    let (one, other) = (Keeper::new().await, Keeper::new().await);
    let port = free_port();
    one.client.prepare(prepare("a", 1, port, false)).await.unwrap();
    let refused = other.client.prepare(prepare("a", 1, port, false)).await.unwrap_err();
    assert!(matches!(refused.refusal(), Some(Refusal::PortTaken { .. })));
    one.client.release_ports(vec![port]).await.unwrap();
    one.client.remove("a", false).await.unwrap();
    other.client.prepare(prepare("a", 1, port, false)).await.unwrap();
}

async fn an_inherited_socket() {
    let keeper = Keeper::new().await;
    let port = free_port();
    let program = std::env::current_exe().unwrap();
    let argv = [program.to_str().unwrap(), "accept-inherited"];
    let mut pids = Vec::new();
    for generation in 1..=2 {
        keeper.client.prepare(prepare("a", generation, port, true)).await.unwrap();
        let outcome = keeper.client.start(keeper.start("a", generation, &argv)).await.unwrap();
        let StartOutcome::Started(started) = outcome else { panic!("{outcome:?}") };
        let said = tokio::task::spawn_blocking(move || said_by(local(port))).await.unwrap();
        assert_eq!(said, format!("http {}", started.pid));
        pids.push(started.pid);
    }
    assert_ne!(pids[0], pids[1]);
}

fn program(part: &str) -> [String; 2] {
    [std::env::current_exe().unwrap().to_str().unwrap().to_owned(), part.to_owned()]
}

/// Prepares and starts a container that inherits `port`, and plays `part`.
async fn serve(keeper: &Keeper, container: &str, port: u16, part: &str) -> Started {
    keeper.client.prepare(prepare(container, 1, port, true)).await.unwrap();
    let argv = program(part);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    match keeper.client.start(keeper.start(container, 1, &argv)).await.unwrap() {
        StartOutcome::Started(started) => started,
        StartOutcome::Exited(exit) => panic!("{exit:?}"),
    }
}

/// Who answers at a port.
async fn answers(port: u16) -> u32 {
    let said = tokio::task::spawn_blocking(move || said_by(local(port))).await.unwrap();
    said.strip_prefix("http ").unwrap_or_else(|| panic!("{said:?}")).parse().unwrap()
}

/// Waits until a worker answers at a port that it shares with others.
async fn until_answers(port: u16, worker: &Started) {
    while answers(port).await != worker.pid {}
}

async fn both_accept() {
    let keeper = Keeper::new().await;
    let port = free_port();
    let old = serve(&keeper, "a", port, "accept-until-term").await;
    let end = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let end = Arc::clone(&end);
            // Any connection that is refused, reset or closed without an answer ends the client.
            std::thread::spawn(move || {
                let mut answered = BTreeMap::<String, u64>::new();
                while !end.load(Ordering::Relaxed) {
                    let said = said_by(local(port));
                    assert!(said.starts_with("http "), "{said:?}");
                    *answered.entry(said).or_default() += 1;
                }
                answered
            })
        })
        .collect();
    until_answers(port, &old).await;
    let mut last = old;
    for (before, next) in [("a", "b"), ("b", "c")] {
        let new = serve(&keeper, next, port, "accept-until-term").await;
        until_answers(port, &new).await;
        until_answers(port, &last).await;
        keeper.client.stop(before, 1, TERM).await.unwrap();
        keeper.client.remove(before, false).await.unwrap();
        // The Manager has heard of one end of two; what it says of that one must not touch the other.
        keeper.client.release_ports(vec![port]).await.unwrap();
        until_answers(port, &new).await;
        last = new;
    }
    end.store(true, Ordering::Relaxed);
    let answered: Vec<_> = clients.into_iter().map(|client| client.join().expect("no connection failed")).collect();
    assert!(answered.iter().flat_map(BTreeMap::values).sum::<u64>() > 0);

    keeper.client.stop("c", 1, TERM).await.unwrap();
    TcpListener::bind(local(port)).expect_err("held until it is released");
    keeper.client.release_ports(vec![port]).await.unwrap();
    TcpListener::bind(local(port)).expect("the last holder is gone");
}

async fn queue_outlives() {
    let keeper = Keeper::new().await;
    let port = free_port();
    let old = serve(&keeper, "a", port, "accept-inherited").await;
    until_answers(port, &old).await;
    kill(old.pid, 19);
    // What it accepts before it stands still would end with it.
    until(|| stands_still(old.pid).then_some(())).await;
    let waiting: Vec<_> = (0..20).map(|_| TcpStream::connect(local(port)).unwrap()).collect();
    keeper.client.prepare(prepare("b", 1, port, true)).await.unwrap();
    keeper.client.kill("a", 1).await.unwrap();
    let new = serve(&keeper, "b", port, "accept-inherited").await;
    let said = tokio::task::spawn_blocking(move || {
        let read = |mut stream: TcpStream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        waiting.into_iter().map(read).collect::<Result<Vec<_>, _>>()
    });
    // What waited when the old one was stopped is answered by the new one, all of it.
    assert_eq!(said.await.unwrap().unwrap(), vec![format!("http {}", new.pid); 20]);
}

async fn a_release_that_comes_late() {
    let keeper = Keeper::new().await;
    let port = free_port();
    keeper.client.prepare(prepare("a", 1, port, true)).await.unwrap();
    keeper.client.release_ports(vec![port]).await.unwrap();
    let started = serve(&keeper, "a", port, "accept-inherited").await;
    assert_eq!(answers(port).await, started.pid);
    assert_eq!(keeper.client.list().await.unwrap().ports, [port]);
}

fn known(container: &str, started: &Started, port: u16) -> AdoptContainer {
    AdoptContainer {
        container: container.to_owned(),
        generation: 1,
        pid: started.pid,
        start_time: started.start_time,
        boot_id: started.boot_id.clone(),
        ports: prepare(container, 1, port, true).ports,
        ..AdoptContainer::default()
    }
}

async fn after_a_killed_keeper() {
    // The descriptor is where it was given, or elsewhere; the worker is known, or its start was never acknowledged.
    for (part, is_known) in [("accept-inherited", true), ("accept-moved", true), ("accept-moved", false)] {
        let mut keeper = Keeper::new().await;
        let port = free_port();
        let old = serve(&keeper, "a", port, part).await;
        until_answers(port, &old).await;
        replace(&mut keeper).await;
        let containers = if is_known { vec![known("a", &old, port)] } else { Vec::new() };
        let adoption = keeper.client.adopt(Adopt { containers }).await.unwrap();
        assert_eq!(adoption.found.len(), usize::from(!is_known), "{adoption:?}");
        let new = serve(&keeper, "b", port, part).await;
        until_answers(port, &new).await;
        until_answers(port, &old).await;
        keeper.client.kill("a", 1).await.unwrap();
        assert_eq!(answers(port).await, new.pid);
        keeper.client.kill("b", 1).await.unwrap();
        keeper.client.release_ports(vec![port]).await.unwrap();
        TcpListener::bind(local(port)).expect("the last holder is gone");
    }
}

async fn cannot_be_had() {
    let mut keeper = Keeper::new().await;
    let port = free_port();
    keeper.client.prepare(prepare("a", 1, port, true)).await.unwrap();
    // The socket goes to a process that shows by nothing but its marks whose it is.
    let script = "setsid sleep 600 & exec 3>&-; while ! test -e go; do sleep 0.01; done; exit";
    let outcome = keeper.client.start(keeper.start("a", 1, &["sh", "-c", script])).await.unwrap();
    let StartOutcome::Started(started) = outcome else { panic!("{outcome:?}") };
    let fd = format!("/proc/{}/fd/3", started.pid);
    until(|| (!std::fs::exists(&fd).unwrap()).then_some(())).await;
    replace(&mut keeper).await;
    let containers = vec![known("a", &started, port)];
    keeper.client.adopt(Adopt { containers }).await.unwrap();
    let refused = keeper.client.prepare(prepare("b", 1, port, true)).await.unwrap_err();
    let Some(Refusal::PortTaken { holder: Some(holder), .. }) = refused.refusal() else { panic!("{refused:?}") };
    assert_eq!(holder, "container a, whose listening socket could not be had");
    // When that worker is gone, so is what stood in the way.
    keeper.client.kill("a", 1).await.unwrap();
    keeper.client.release_ports(vec![port]).await.unwrap();
    keeper.client.prepare(prepare("b", 1, port, true)).await.unwrap();
}
