//! Service ports in the keeper.

use std::net::SocketAddr;

use cocktail_core::contract::{Backend, Provider, Route, RoutingTable, RuntimeEvent};
use cocktail_core::id::UnitId;
use cocktail_core::name::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::machine::{Machine, free_port, http, known, signal, trials};

trials![
    a_service_port_reaches_a_ready_container,
    an_address_that_another_program_has_is_named,
    the_table_is_given_to_a_keeper_that_was_started_anew,
];

fn table(service: u16, backends: &[(&str, u16)]) -> RoutingTable {
    let name = |text: &str| Name::new(text).unwrap();
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let backend = |(container, port): &(&str, u16)| Backend {
        container: cocktail_core::id::ContainerId::new(*container),
        address: address(*port),
    };
    let route = Route {
        unit: UnitId::new(name("shop"), name("prod"), name("web")),
        port_name: name("http"),
        listen: address(service),
        hold: std::time::Duration::ZERO,
        backends: backends.iter().map(backend).collect(),
    };
    RoutingTable { routes: vec![route] }
}

async fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn a_service_port_reaches_a_ready_container(machine: &mut Machine) {
    let (service, port) = (free_port(), free_port());
    machine.run(&machine.web("web-1", port, port, 200, http("/"))).await;
    machine.probed("web-1", true).await;
    let forwarder = machine.attached().provider.forwarder().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], service));
    assert!(forwarder.check(&[listen]).await.unwrap().is_empty());
    let outcomes = forwarder.set(&table(service, &[("web-1", port)])).await.unwrap();
    assert_eq!((outcomes[0].listen, &outcomes[0].error), (listen, &None));
    assert!(get(service).await.unwrap().ends_with("hello"));
    // What it serves already is free for it.
    assert!(forwarder.check(&[listen]).await.unwrap().is_empty());
    let traffic = forwarder.traffic().await.unwrap();
    assert_eq!((traffic[0].listen, traffic[0].total), (listen, 1));
}

async fn an_address_that_another_program_has_is_named(machine: &mut Machine) {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let forwarder = machine.attached().provider.forwarder().unwrap();
    let problems = forwarder.check(&[taken]).await.unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].0 == taken && problems[0].1.contains("is taken by"), "{problems:?}");
    let outcomes = forwarder.set(&table(taken.port(), &[])).await.unwrap();
    assert!(outcomes[0].error.as_ref().unwrap().contains("is taken by"), "{outcomes:?}");
}

async fn the_table_is_given_to_a_keeper_that_was_started_anew(machine: &mut Machine) {
    let (service, port) = (free_port(), free_port());
    let launch = machine.web("web-1", port, port, 200, http("/"));
    let handle = machine.run(&launch).await;
    machine.probed("web-1", true).await;
    let forwarder = machine.attached().provider.forwarder().unwrap();
    forwarder.set(&table(service, &[("web-1", port)])).await.unwrap();
    signal(machine.keeper_pid(), rustix::process::Signal::KILL);
    machine.event(|event| matches!(event, RuntimeEvent::Resync { .. }).then_some(())).await;
    // Nobody set it again.
    assert!(get(service).await.unwrap().ends_with("hello"));
    machine.runtime().recover(&[known(&launch, &handle)]).await.unwrap();
}
