//! Ports: proved, held, handed over.

use std::net::TcpListener;

use cocktail_keeper::protocol::{PortSpec, Prepare, Refusal, StartOutcome};
use libtest_mimic::Trial;

use crate::support::{Keeper, TERM, free_port, local, said_by, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("ports::a_taken_port_is_refused_with_its_holder", a_taken_port),
        test("ports::a_prepared_port_is_the_workers_when_it_starts", the_workers_port),
        test("ports::two_keepers_on_one_host_exclude_each_other", two_keepers),
        test("ports::an_inherited_socket_accepts_and_survives_a_restart", an_inherited_socket),
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
    while std::net::TcpStream::connect(local(port)).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    keeper.client.stop("a", 1, TERM).await.unwrap();
    assert_eq!(keeper.client.list().await.unwrap().ports, [port], "held until it is released");
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
    // And from an old container to its replacement, while the old one still runs.
    keeper.client.prepare(prepare("b", 1, port, true)).await.unwrap();
    keeper.client.start(keeper.start("b", 1, &argv)).await.unwrap();
    keeper.client.kill("a", 2).await.unwrap();
    let said = tokio::task::spawn_blocking(move || said_by(local(port))).await.unwrap();
    assert!(said.starts_with("http "));
}
