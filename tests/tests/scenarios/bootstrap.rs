//! Workers that host their own Manager.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cocktail_tests::{Home, http};
use rustix::process::{Pid, Signal, kill_process};

fn peer() -> PathBuf {
    cocktail_tests::program::example("cocktail-example-peers", "peer")
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn whoever_is_there_hosts_the_manager_and_the_next_one_takes_over() {
    let home = Home::new();
    let port = home.port();
    let program = home.root().join("peer");
    let body = format!(
        "[maps.prod.units.peer]\nworker = \"{}\"\nmicroservices = [\"peer\"]\nbootstrap = \"if-absent\"\n\
         replicas = 3\nports.http = {{ service = {port} }}\n",
        program.display()
    );
    let manifest = home.manifest("m.toml", &body);
    let start = |with_manifest: bool| {
        let mut command = std::process::Command::new(peer());
        home.settle(&mut command);
        command.env("COCKTAIL_BOOTSTRAP", "if-absent");
        if with_manifest {
            command.env("COCKTAIL_MANIFEST", &manifest);
        }
        home.spawn_command(command)
    };
    let first = start(true);
    let hosts = || home.manager_pid() == Some(first.pid());
    home.eventually("it hosts a manager", hosts);
    assert_eq!(home.json(&["units"]), serde_json::json!([]), "the program is not there yet");
    // Nothing of a Manager that has ended is left in the program: it hosts the next one.
    let mut manager = UnixStream::connect(home.data_dir().join("cocktail.sock")).unwrap();
    let body = "{\"mode\":\"leave\"}";
    let head = "POST /v1/shutdown HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length";
    write!(manager, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    manager.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    home.eventually("it hosts a manager again", hosts);
    // What could not be applied is applied when it can be.
    std::os::unix::fs::symlink(peer(), &program).unwrap();
    let second = start(false);
    let workers = home.settled("peer", 3);
    let answers = || assert_eq!(http::get(port, "/").unwrap().status, 200);
    answers();

    // One that waits takes over: started by hand or a worker, whoever looks first.
    let takes_over = |before: u32| home.until("another one hosts", || home.manager_pid().filter(|pid| *pid != before));
    let before = first.pid();
    first.kill();
    let mut host = takes_over(before);
    if host == second.pid() {
        second.kill();
        host = takes_over(host);
    } else {
        second.end(Signal::INT);
    }
    assert!(workers.values().any(|pid| *pid == host), "one of the workers hosts now: {workers:?}");
    assert_eq!(home.settled("peer", 3), workers, "none of them was touched");
    answers();

    // Its death is seen by the next one, which starts it again.
    kill(host);
    let next = takes_over(host);
    assert!(workers.values().any(|pid| *pid == next), "one of the workers hosts now: {workers:?}");
    home.eventually("it is back", || !home.settled("peer", 3).values().any(|pid| *pid == host));

    // One that is told to end hands over before.
    let container = home.settled("peer", 3).into_iter().find(|(_, pid)| *pid == next).unwrap().0;
    home.ok(&["restart", &container]);
    takes_over(next);
    home.eventually("it was replaced", || !home.settled("peer", 3).values().any(|pid| *pid == next));
    answers();
    // What they had to be started with is known to each of them.
    assert!(home.leases(u16::try_from(home.containers("peer")[0]["ports"][0]["port"].as_u64().unwrap()).unwrap()));
    // Each of them ends, and the Manager with the last one.
    home.expect_keepers();
    _ = home.run(&["down"]);
    home.finish();
}
