//! Servers that are not this one: hosts in network namespaces, an agent on each, and witnesses of who lived when.
//!
//! Whatever happens to hosts, lines, agents and keepers: no container ever lives twice, there are never more than were
//! wanted, and in the end there are as many.

mod hostile;
mod images;
mod rack;
mod sdk;
mod urls;
mod use_of_them;

use std::time::{Duration, Instant};
use std::{fs, thread};

use cocktail_tests::Net;
use rustix::process::Signal;

use self::rack::Rack;

/// Containers on four servers.
const MANY: usize = 40;

/// How long packets vanish that nobody is told of.
const MINUTE: Duration = Duration::from_secs(60);

/// Whether the server is lost and all that ran there is replaced.
fn replaced(rack: &Rack, number: usize, count: usize) -> bool {
    let ready = rack.ready();
    rack.state(number) == "lost" && ready[number - 1] == 0 && ready.iter().sum::<usize>() == count
}

fn as_wanted(rack: &Rack, count: usize) {
    rack.home.eventually("all servers are back", || rack.states().iter().all(|state| state == "ready"));
    rack.settled(count);
}

#[test]
fn a_server_that_is_cut_off_past_the_deadline_is_replaced_and_fenced_when_it_is_back() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(4);
    rack.witnesses(MANY, "");
    assert_eq!(rack.ready(), [10, 10, 10, 10]);
    let before = rack.home.pids("witness");
    rack.net.drop_silently(2, true);
    rack.home.eventually("nobody is sent there", || rack.ready()[1] == 0);
    rack.home.eventually("what ran there is replaced", || replaced(&rack, 2, MANY));
    // Before anything was made elsewhere, everything there had ended by itself.
    assert!(rack.workers(2).is_empty());
    rack.net.heal(2);
    as_wanted(&rack, MANY);
    let after = rack.home.pids("witness");
    assert_eq!(
        before.iter().filter(|(id, pid)| after.get(*id) == Some(pid)).count(),
        30,
        "the others were not touched"
    );
    assert_eq!(rack.events("fenced").len(), 10);
    rack.finish(MANY);
}

/// The spans that everybody has who sets none: a server is lost after 40 s.
#[test]
fn packets_that_vanish_for_a_minute_are_survived_with_the_spans_that_nobody_set() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::with_spans(4, "");
    rack.witnesses(MANY, "");
    assert_eq!(rack.ready(), [10, 10, 10, 10]);
    let (before, since) = (rack.home.pids("witness"), Instant::now());
    rack.net.drop_silently(2, true);
    rack.home.eventually("what ran there is replaced", || replaced(&rack, 2, MANY));
    // Before anything was made elsewhere, everything there had ended by itself.
    assert!(rack.workers(2).is_empty());
    // The fault itself has a length; nothing is judged by it.
    thread::sleep(MINUTE.saturating_sub(since.elapsed()));
    assert_eq!(rack.state(2), "lost");
    rack.net.heal(2);
    as_wanted(&rack, MANY);
    let after = rack.home.pids("witness");
    assert_eq!(
        before.iter().filter(|(id, pid)| after.get(*id) == Some(pid)).count(),
        30,
        "the others were not touched"
    );
    assert_eq!(rack.events("fenced").len(), 10);
    let oracle = rack.oracle();
    assert_eq!(oracle.most_at_once().0, MANY, "{oracle}");
    assert_eq!(oracle.lives().len(), MANY + 10, "each was replaced once:\n{oracle}");
    // It has come back to serve.
    rack.home.ok(&["scale", "witness", &(MANY + 4).to_string()]);
    rack.settled(MANY + 4);
    assert!(rack.ready()[1] > 0, "{:?}", rack.ready());
    rack.finish(MANY + 4);
}

#[test]
fn a_line_that_fails_for_less_than_a_lease_costs_nothing_but_traffic() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(2);
    rack.witnesses(6, "");
    let before = rack.home.pids("witness");
    for fault in [Net::cut, |net: &Net, host| net.deaf(host, true), |net: &Net, host| net.mute(host, true)] {
        fault(&rack.net, 1);
        rack.home.eventually("nobody is sent there", || rack.ready() == [0, 3]);
        rack.net.heal(1);
        rack.home.eventually("it serves again", || rack.ready() == [3, 3]);
    }
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    rack.finish(6);
}

#[test]
fn an_agent_that_is_stopped_past_its_lease_leaves_nothing_running() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(4);
    rack.witnesses(MANY, "");
    rack.signal_agent(3, Signal::STOP);
    rack.home.eventually("its keeper has ended everything", || rack.workers(3).is_empty());
    rack.home.eventually("what ran there is replaced", || replaced(&rack, 3, MANY));
    rack.signal_agent(3, Signal::CONT);
    as_wanted(&rack, MANY);
    rack.finish(MANY);
}

#[test]
fn a_killed_agent_is_followed_by_one_that_adopts_what_runs_within_the_lease_and_by_nobody_after_it() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(4);
    rack.witnesses(MANY, "");
    let before = rack.home.pids("witness");
    let sessions = rack.sessions(1);
    rack.kill_agent(1);
    rack.start(1);
    rack.home.eventually("the next one has joined", || rack.sessions(1) > sessions);
    rack.settled(MANY);
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    // This time nobody follows.
    rack.kill_agent(1);
    rack.home.eventually("its keeper has ended everything", || rack.workers(1).is_empty());
    rack.home.eventually("what ran there is replaced", || replaced(&rack, 1, MANY));
    rack.start(1);
    as_wanted(&rack, MANY);
    rack.finish(MANY);
}

#[test]
fn a_killed_keeper_is_followed_by_one_that_adopts_what_runs() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(2);
    rack.witnesses(6, "");
    let before = rack.home.pids("witness");
    let keeper = rack.keeper(1).unwrap();
    keeper.signal(Signal::KILL);
    rack.home.eventually("there is another one", || rack.keeper(1).is_some_and(|other| other.pid != keeper.pid));
    thread::sleep(Duration::from_secs(8));
    rack.settled(6);
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    // The new one knows the lease.
    rack.signal_agent(1, Signal::STOP);
    rack.home.eventually("it ends everything in time", || rack.workers(1).is_empty());
    rack.signal_agent(1, Signal::CONT);
    as_wanted(&rack, 6);
    rack.finish(6);
}

#[test]
fn a_server_that_boots_anew_starts_what_it_ran_and_is_told_from_one_that_was_away() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(2);
    rack.witnesses(6, "");
    // Everything of it goes, as with the power.
    let keeper = rack.keeper(1).unwrap();
    rack.kill_agent(1);
    keeper.signal(Signal::KILL);
    rack.workers(1).iter().for_each(|worker| worker.signal(Signal::KILL));
    let boot = rack.home.write("boot-id", "11111111-2222-3333-4444-555555555555\n");
    let command = rack.command(1, 1, &rack.agent_dir(1), Some(&boot));
    rack.agents[1] = Some(rack.home.spawn_command(command));
    rack.home.eventually("the new boot has joined", || {
        let servers = rack.home.json(&["servers"]);
        servers[0]["incarnation"].as_str().unwrap().starts_with("11111111-2222")
    });
    as_wanted(&rack, 6);
    // Another boot while the first may be alive: it waits, and somebody is told.
    assert!(!rack.events("server-alert").is_empty());
    rack.finish(6);
}

#[test]
fn two_agents_never_serve_as_the_same_server() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(3);
    rack.witnesses(9, "");
    let before = rack.home.pids("witness");
    // With the same folder the second one does not begin.
    let command = rack.command(1, 1, &rack.agent_dir(1), None);
    let said = rack.home.spawn_command(command).wait().fails(4);
    assert!(said.contains("agent-1"), "{said}");
    // A copy of the folder, on another host, is told from the original and turned away.
    let copy = rack.home.base().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").args([&rack.agent_dir(1), &copy]).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(copy.join("run")).unwrap();
    let boot = rack.home.write("boot-id", "22222222-2222-3333-4444-555555555555\n");
    let command = rack.elsewhere(1, 3, &copy, &boot);
    let mut twin = rack.home.spawn_command(command);
    rack.home.eventually("somebody is told", || !rack.events("server-alert").is_empty());
    thread::sleep(Duration::from_secs(3));
    twin.must_run();
    twin.kill();
    rack.settled(9);
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    rack.agents[0] = None;
    rack.finish(9);
}

#[test]
fn a_managers_restart_replaces_nothing_and_a_long_absence_ends_what_nobody_answers_for() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(4);
    rack.witnesses(MANY, "");
    let before = rack.home.pids("witness");
    for signal in [Signal::TERM, Signal::KILL] {
        rack.end_manager(signal);
        rack.serve();
        rack.home.eventually("all are back", || rack.ready() == [10, 10, 10, 10]);
    }
    thread::sleep(Duration::from_secs(10));
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    rack.finish(MANY);
}

#[test]
fn an_older_copy_of_the_store_commands_nobody() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(2);
    rack.witnesses(4, "");
    rack.end_manager(Signal::TERM);
    let (dir, old) = (rack.home.data_dir(), rack.home.base().join("old"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&dir, &old);
    rack.serve();
    rack.settled(4);
    rack.home.ok(&["scale", "witness", "6"]);
    rack.settled(6);
    let before = rack.home.pids("witness");
    rack.end_manager(Signal::TERM);
    let newer = rack.home.base().join("newer");
    fs::rename(&dir, &newer).unwrap();
    fs::rename(&old, &dir).unwrap();
    rack.serve();
    rack.home.eventually("no agent follows it", || {
        rack.events("server-alert").iter().any(|event| event["reason"].as_str().unwrap().contains("older copy"))
    });
    assert_eq!(rack.home.workers().len(), 6, "nothing was touched");
    rack.end_manager(Signal::TERM);
    fs::rename(&dir, &old).unwrap();
    fs::rename(&newer, &dir).unwrap();
    rack.serve();
    rack.settled(6);
    assert_eq!(rack.home.pids("witness"), before);
    rack.finish(6);
}
