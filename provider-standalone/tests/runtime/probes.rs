//! What probes find out, and what they say about it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use cocktail_core::contract::{Launch, LaunchPort, ProbeKind, RuntimeEvent};
use cocktail_core::id::ContainerId;
use cocktail_core::name::Name;
use cocktail_core::spec::Check;

use crate::machine::{Machine, free_port, http, kill, probe, signal, tcp, trials, until};

trials![
    a_worker_is_ready_when_it_can_be_connected_to,
    an_answer_of_500_is_not_ready_and_says_so,
    a_redirect_is_an_answer_and_is_not_followed,
    a_command_decides_and_may_change_its_mind,
    a_command_that_does_not_exist_is_named,
    a_worker_that_listens_elsewhere_is_explained,
    a_worker_that_listens_nowhere_is_explained,
    a_worker_that_stops_answering_turns_unready,
    liveness_waits_until_a_new_worker_was_ready,
    a_connection_that_nobody_accepts_is_no_sign_of_life,
    a_worker_is_not_ready_by_what_another_one_answers_at_the_same_socket,
    numbers_in_a_json_answer_are_reported_until_the_worker_says_none_or_ends,
];

async fn a_worker_is_ready_when_it_can_be_connected_to(machine: &mut Machine) {
    let port = free_port();
    let handle = machine.run(&machine.web("web-1", port, port, 200, tcp())).await;
    assert_eq!(machine.probed("web-1", true).await, format!("connected to 127.0.0.1:{port}"));
    signal(handle.pid.unwrap(), rustix::process::Signal::KILL);
    machine.exited("web-1").await;
}

async fn an_answer_of_500_is_not_ready_and_says_so(machine: &mut Machine) {
    let port = free_port();
    machine.run(&machine.web("web-1", port, port, 500, http("/health"))).await;
    let detail = loop {
        let detail = machine.probed("web-1", false).await;
        // The first looks may come before it listens.
        if !detail.contains("refused") {
            break detail;
        }
    };
    assert_eq!(detail, "GET /health answered 500");
}

async fn a_redirect_is_an_answer_and_is_not_followed(machine: &mut Machine) {
    let port = free_port();
    machine.run(&machine.web("web-1", port, port, 302, http("/"))).await;
    assert_eq!(machine.probed("web-1", true).await, "GET / answered 302");
}

async fn a_command_decides_and_may_change_its_mind(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sleep", "600"]);
    let check = Check::Exec { command: ["test", "-f", "flag"].map(str::to_owned).to_vec() };
    launch.probes.push(probe(ProbeKind::Ready, check, None));
    machine.run(&launch).await;
    assert_eq!(machine.probed("job-1", false).await, "test exited with code 1");
    let flag = machine.cwd.path().join("flag");
    std::fs::write(&flag, "").unwrap();
    assert_eq!(machine.probed("job-1", true).await, "test exited with code 0");
    std::fs::remove_file(&flag).unwrap();
    machine.probed("job-1", false).await;
}

async fn a_command_that_does_not_exist_is_named(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sleep", "600"]);
    let check = Check::Exec { command: vec!["no-such-probe".into()] };
    launch.probes.push(probe(ProbeKind::Ready, check, None));
    machine.run(&launch).await;
    let detail = machine.probed("job-1", false).await;
    assert!(detail.contains("no-such-probe"), "{detail}");
}

async fn a_worker_that_listens_elsewhere_is_explained(machine: &mut Machine) {
    let (told, elsewhere) = (free_port(), free_port());
    machine.run(&machine.web("web-1", told, elsewhere, 200, tcp())).await;
    let expected = format!("connection refused at 127.0.0.1:{told}; the process listens on {elsewhere} instead");
    while machine.probed("web-1", false).await != expected {}
}

async fn a_worker_that_listens_nowhere_is_explained(machine: &mut Machine) {
    let port = free_port();
    let mut launch = machine.web("web-1", port, port, 200, http("/"));
    launch.argv = vec!["sleep".into(), "600".into()];
    machine.run(&launch).await;
    let detail = machine.probed("web-1", false).await;
    assert_eq!(detail, format!("connection refused at 127.0.0.1:{port}; the process listens on no port"));
}

async fn a_worker_that_stops_answering_turns_unready(machine: &mut Machine) {
    let port = free_port();
    let mut launch = machine.web("web-1", port, port, 200, http("/"));
    launch.probes[0].timeout = Duration::from_millis(200);
    let pid = machine.run(&launch).await.pid.unwrap();
    machine.probed("web-1", true).await;
    signal(pid, rustix::process::Signal::STOP);
    let detail = machine.probed("web-1", false).await;
    assert!(detail.contains("did not answer within 200ms"), "{detail}");
    signal(pid, rustix::process::Signal::CONT);
    machine.probed("web-1", true).await;
}

async fn liveness_waits_until_a_new_worker_was_ready(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sleep", "600"]);
    let ready = Check::Exec { command: ["test", "-f", "ready"].map(str::to_owned).to_vec() };
    let live = Check::Exec { command: vec!["false".into()] };
    launch.probes = vec![probe(ProbeKind::Ready, ready, None), probe(ProbeKind::Live, live, None)];
    machine.run(&launch).await;
    // Not ready is told first, though liveness would have had as many looks.
    let kind = |event| match event {
        RuntimeEvent::Probe { kind, ok, .. } => Some((kind, ok)),
        _ => None,
    };
    assert_eq!(machine.event(kind).await, (ProbeKind::Ready, false));
    std::fs::write(machine.cwd.path().join("ready"), "").unwrap();
    assert_eq!(machine.event(kind).await, (ProbeKind::Ready, true));
    assert_eq!(machine.event(kind).await, (ProbeKind::Live, false));
}

/// Waits until the containers report exactly this.
async fn until_reported(machine: &Machine, expected: &[(&str, &[(&str, f64)])]) {
    let numbers = |numbers: &[(&str, f64)]| numbers.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect();
    let expected: BTreeMap<_, BTreeMap<String, f64>> =
        expected.iter().map(|(container, reported)| (ContainerId::new(*container), numbers(reported))).collect();
    let runtime = machine.runtime();
    while runtime.reported().await.unwrap() != expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn numbers_in_a_json_answer_are_reported_until_the_worker_says_none_or_ends(machine: &mut Machine) {
    let (port, other) = (free_port(), free_port());
    let report = machine.cwd.path().join("report");
    let say = |text: &str| {
        let draft = report.with_extension("new");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &report).unwrap();
    };
    say(r#"{"queue": 7, "ok": true, "inner": {"queue": 1}}"#);
    let launch = machine.web("web-1", port, port, 200, http("/"));
    machine.run(&launch).await;
    // A liveness probe reports nothing.
    let mut live = machine.web("web-2", other, other, 200, http("/"));
    live.probes[0].kind = ProbeKind::Live;
    machine.run(&live).await;
    machine.probed("web-2", true).await;
    until_reported(machine, &[("web-1", &[("queue", 7.0)])]).await;
    say(r#"{"queue": 0.5, "load": -1}"#);
    until_reported(machine, &[("web-1", &[("load", -1.0), ("queue", 0.5)])]).await;
    // Longer than what is read, and still a good answer.
    say(&format!("{{\"queue\": 1, \"text\": \"{}\"}}", "x".repeat(64 << 10)));
    until_reported(machine, &[]).await;
    say(r#"{"queue": 3}"#);
    until_reported(machine, &[("web-1", &[("queue", 3.0)])]).await;
    fs::remove_file(&report).unwrap();
    until_reported(machine, &[]).await;
    say(r#"{"queue": 4}"#);
    until_reported(machine, &[("web-1", &[("queue", 4.0)])]).await;
    machine.runtime().stop(&kill("web-1")).await.unwrap();
    assert_eq!(machine.runtime().reported().await.unwrap(), BTreeMap::new());
}

/// Accepts from the socket that it inherited, and notes each connection in a file.
const INHERITS: &str = "import socket
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    client, _ = listener.accept()
    open('accepted', 'a').write('one\\n')
    if client.recv(4096):
        client.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n')
    client.close()
";

fn inheriting(machine: &Machine, container: &str, port: u16, argv: &[&str], check: Option<Check>) -> Launch {
    let mut launch = machine.launch(container, argv);
    launch.ports.push(LaunchPort { name: Name::new("http").unwrap(), port, inherit: true, container: None });
    launch.probes.extend(check.map(|check| probe(ProbeKind::Ready, check, Some(port))));
    launch
}

async fn a_connection_that_nobody_accepts_is_no_sign_of_life(machine: &mut Machine) {
    let port = free_port();
    let mut launch = inheriting(machine, "web-1", port, &["sleep", "600"], Some(tcp()));
    launch.probes[0].timeout = Duration::from_millis(100);
    machine.run(&launch).await;
    let detail = machine.probed("web-1", false).await;
    assert_eq!(detail, format!("nobody accepted a connection at 127.0.0.1:{port} within 100ms"));
    machine.runtime().stop(&kill("web-1")).await.unwrap();
    let launch = inheriting(machine, "web-2", port, &["python3", "-c", INHERITS], Some(tcp()));
    machine.run(&launch).await;
    assert_eq!(machine.probed("web-2", true).await, format!("connected to 127.0.0.1:{port}"));
}

async fn a_worker_is_not_ready_by_what_another_one_answers_at_the_same_socket(machine: &mut Machine) {
    let port = free_port();
    machine.run(&inheriting(machine, "web-1", port, &["python3", "-c", INHERITS], None)).await;
    let mut broken = inheriting(machine, "web-2", port, &["sleep", "600"], Some(http("/")));
    broken.probes[0].timeout = Duration::from_millis(500);
    machine.run(&broken).await;
    // The old one takes what the probe of the new one asks.
    let accepted = machine.cwd.path().join("accepted");
    until("many were accepted", || fs::read_to_string(&accepted).is_ok_and(|text| text.lines().count() >= 10)).await;
    machine.run(&inheriting(machine, "web-3", port, &["python3", "-c", INHERITS], Some(http("/")))).await;
    let broken = broken.container;
    let both = |event| match event {
        RuntimeEvent::Probe { container, ok, .. } => {
            assert!(container != broken || !ok, "it never accepted");
            (container != broken && ok).then_some(())
        }
        _ => None,
    };
    machine.event(both).await;
    for container in ["web-1", "web-3"] {
        machine.runtime().stop(&kill(container)).await.unwrap();
    }
    let alone = |event| match event {
        RuntimeEvent::Probe { container, ok, detail, .. } => (container == broken).then_some((ok, detail)),
        _ => None,
    };
    let (ok, detail) = machine.event(alone).await;
    assert!(!ok, "{detail}");
}
