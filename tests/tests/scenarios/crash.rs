//! What survives when the Manager, its keeper, or both end without warning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use cocktail_tests::process::signal_pid;
use cocktail_tests::{Client, Home, Manager, Output, http};
use rustix::process::Signal;
use serde_json::Value;

use crate::workers::FAULTY;

/// Rounds of the long test; `COCKTAIL_CRASH_ROUNDS` says otherwise.
const ROUNDS: u64 = 50;

/// Units that the long test has at most at a time.
const MOST_UNITS: usize = 5;

/// Containers that it wants of one Unit at most.
const MOST_REPLICAS: u64 = 4;

/// Numbers that follow from a seed, so that a failure can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn throw(&mut self, below: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What the commands so far allow a Unit to be: a count, or absent. More than one after a command without an answer.
type Allowed = BTreeSet<Option<u64>>;

/// The Units that commands were given about.
#[derive(Default)]
struct Wanted {
    units: BTreeMap<String, Allowed>,
    made: u64,
    acknowledged: u64,
}

impl Wanted {
    /// Units of which is known that they are there, with their counts.
    fn certain(&self) -> Vec<(String, u64)> {
        let known = |(name, allowed): (&String, &Allowed)| match allowed.iter().collect::<Vec<_>>()[..] {
            [Some(count)] => Some((name.clone(), *count)),
            _ => None,
        };
        self.units.iter().filter_map(known).collect()
    }

    fn answered(&mut self, unit: &str, wanted: Option<u64>, output: &Output) {
        let allowed = self.units.entry(unit.to_owned()).or_insert_with(|| [None].into());
        match output.code() {
            0 => {
                *allowed = [wanted].into();
                self.acknowledged += 1;
            }
            // The Manager died before or after it acted, or was not there at all.
            1 | 6 => _ = allowed.insert(wanted),
            _ => panic!("a command was answered with neither yes nor silence: {output}"),
        }
    }

    /// Compares with what the Manager says, which from now on is certain.
    fn observed(&mut self, home: &Home) {
        let units = home.json(&["units"]);
        for (name, allowed) in &mut self.units {
            let view = units.as_array().unwrap().iter().find(|unit| unit["map"] == **name);
            // A Unit that is being removed is shown with nothing wanted until its last container is gone.
            let found = view.and_then(|unit| unit["desired"].as_u64());
            let removed = allowed.contains(&None) && matches!(found, None | Some(0));
            assert!(
                removed || allowed.contains(&found),
                "{name} is {found:?}, and commands allow {allowed:?}: {units}"
            );
            *allowed = [if removed { None } else { found }].into();
        }
    }
}

/// Sends one random command.
fn command(home: &Home, dice: &mut Dice, wanted: &mut Wanted) {
    let there = wanted.certain();
    let choice = if there.is_empty() { 0 } else { dice.throw(4) };
    if choice == 0 && there.len() < MOST_UNITS {
        wanted.made += 1;
        let (map, count) = (format!("m{}", wanted.made), 1 + dice.throw(MOST_REPLICAS));
        let unit = format!("[maps.{map}.units.u]\ncommand = [\"{FAULTY}\", \"serve\"]\nports.http = {{}}\n");
        let file = home.write(&format!("{map}.toml"), format!("service = \"shop\"\n{unit}replicas = {count}\n"));
        let output = home.run(&["apply", &file.to_string_lossy()]);
        wanted.answered(&map, Some(count), &output);
        return;
    }
    let Some((map, _)) = there.get(dice.throw(there.len() as u64) as usize) else { return };
    if choice == 1 {
        let output = home.run(&["rm", &format!("shop/{map}/u")]);
        wanted.answered(map, None, &output);
    } else {
        let count = dice.throw(MOST_REPLICAS + 1);
        let output = home.run(&["scale", &format!("shop/{map}/u"), &count.to_string()]);
        wanted.answered(map, Some(count), &output);
    }
}

/// Runs `test` while clients ask a service port, over connections that stay open and over new ones; none may fail.
fn while_asked<T>(port: u16, test: impl FnOnce() -> T) -> T {
    let clients = [
        Client::with_one_connection(port),
        Client::with_one_connection(port),
        Client::with_one_connection(port),
        Client::with_new_connections(port),
    ];
    let result = test();
    for client in clients {
        client.stop_after(10);
    }
    result
}

/// A Unit `web` of three containers behind a service port.
fn web(home: &Home, port: u16, probes: &str) {
    let unit = format!("[maps.prod.units.web]\ncommand = [\"{FAULTY}\", \"serve\"]\nreplicas = 3\n");
    let more = format!("ports.http = {{ service = {port} }}\nstop = {{ grace = \"2s\" }}\n{probes}");
    let file = home.write("web.toml", format!("service = \"shop\"\n{unit}{more}"));
    home.ok(&["apply", "--wait", &file.to_string_lossy()]);
}

/// A Home with `web` ready, its Manager, its service port and its processes.
fn with_web() -> (Home, Manager, u16, BTreeMap<String, u32>) {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    web(&home, port, "");
    let pids = home.settled("web", 3);
    (home, manager, port, pids)
}

#[test]
fn a_manager_that_is_killed_at_any_moment_ends_up_with_exactly_what_was_asked_for() {
    let rounds = number("COCKTAIL_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("COCKTAIL_CRASH_SEED").unwrap_or(now.as_secs());
    println!("COCKTAIL_CRASH_SEED={seed} COCKTAIL_CRASH_ROUNDS={rounds}");
    let mut dice = Dice::new(seed);

    let (home, manager, port, untouched) = with_web();
    let mut wanted = Wanted::default();
    let mut next = Some(manager);
    let manager = while_asked(port, || {
        for round in 0..rounds {
            let manager = next.take().unwrap_or_else(|| home.serve());
            wanted.observed(&home);
            assert_eq!(home.pids("web"), untouched, "in round {round}");
            let end = Instant::now() + Duration::from_millis(300 + dice.throw(1700));
            thread::scope(|scope| {
                let killer = scope.spawn(move || {
                    thread::sleep(end.saturating_duration_since(Instant::now()));
                    manager.kill();
                });
                while !killer.is_finished() {
                    command(&home, &mut dice, &mut wanted);
                }
            });
        }
        let manager = home.serve();
        wanted.observed(&home);
        exactly(&home, &wanted);
        assert_eq!(home.pids("web"), untouched);
        manager
    });
    assert!(wanted.acknowledged > rounds / 2, "only {} commands were acknowledged", wanted.acknowledged);
    home.finish();
    drop(manager);
}

/// Waits until exactly the wanted containers are there and nothing else, then looks at every process.
fn exactly(home: &Home, wanted: &Wanted) {
    let mut goal: BTreeMap<String, u64> = wanted.certain().into_iter().collect();
    goal.insert("prod".into(), 3);
    goal.retain(|_, count| *count > 0);
    let rows = home.until(&format!("exactly these are ready: {goal:?}"), || {
        let (rows, mut found) = (home.ps(), BTreeMap::new());
        for row in &rows {
            *found.entry(row["map"].as_str()?.to_owned()).or_insert(0) += 1;
        }
        (found == goal && rows.iter().all(|row| row["ready"] == true)).then_some(rows)
    });
    let known: BTreeSet<u64> = rows.iter().filter_map(|row| row["pid"].as_u64()).collect();
    let workers: BTreeSet<u64> = home.workers().iter().map(|process| u64::from(process.pid)).collect();
    assert_eq!(workers, known, "the processes are those of the containers, no more and no fewer");
    let ports: Vec<u16> = rows.iter().map(port_of).collect();
    let distinct: BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!(distinct.len(), ports.len(), "a port was given to two containers: {rows:?}");
    for row in &rows {
        assert_eq!(http::get(port_of(row), "/").unwrap().body, row["pid"].to_string(), "who answers at {row}");
    }
    assert_eq!(home.keepers().len(), 1);
    let open: Vec<Value> = home.json(&["ops"]).as_array().unwrap().clone();
    let open: Vec<_> = open.iter().filter(|op| op["state"] == "intended" || op["state"] == "issued").collect();
    assert!(open.is_empty(), "operations are left open: {open:?}");
}

fn port_of(row: &Value) -> u16 {
    u16::try_from(row["ports"][0]["port"].as_u64().unwrap()).unwrap()
}

/// The keeper's process id.
fn keeper(home: &Home) -> u32 {
    let all = home.keepers();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].pid
}

#[test]
fn workers_of_a_killed_keeper_live_and_are_adopted_by_the_next_one() {
    let (home, manager, port, before) = with_web();
    let first = keeper(&home);
    signal_pid(first, Signal::KILL);
    home.eventually("there is another keeper", || home.keepers().iter().any(|keeper| keeper.pid != first));
    home.eventually("the service port answers", || http::get(port, "/").is_ok());
    assert_eq!(home.settled("web", 3), before, "the same processes");
    still_cared_for(&home, &before);
    home.finish();
    drop(manager);
}

/// Adopted workers are logged, their exits are noticed, and they are stopped like any other.
fn still_cared_for(home: &Home, workers: &BTreeMap<String, u32>) {
    for row in &home.containers("web") {
        http::get(port_of(row), "/say?adopted-and-heard").unwrap();
    }
    for container in workers.keys() {
        home.eventually("what an adopted worker says is in its log", || {
            home.ok(&["logs", container]).stdout.contains("adopted-and-heard")
        });
    }
    let (container, pid) = workers.first_key_value().unwrap();
    signal_pid(*pid, Signal::KILL);
    home.eventually("the exit of an adopted worker is noticed", || generation(home, container) == 2);
    assert_eq!(home.settled("web", 3).iter().filter(|(id, pid)| workers.get(*id) == Some(pid)).count(), 2);
    home.ok(&["scale", "--wait", "web", "1"]);
    home.settled("web", 1);
    home.eventually("one process is left", || home.workers().len() == 1);
}

/// Number of the container's starts.
fn generation(home: &Home, container: &str) -> u64 {
    let rows = home.ps();
    let row = rows.iter().find(|row| row["id"] == container);
    row.and_then(|row| row["generation"].as_u64()).unwrap_or_default()
}

#[test]
fn workers_live_when_manager_and_keeper_are_killed_and_the_next_manager_adopts_them() {
    let (home, manager, port, before) = with_web();
    let first = keeper(&home);
    manager.kill();
    signal_pid(first, Signal::KILL);
    home.eventually("the keeper is gone", || home.keepers().is_empty());
    let manager = home.serve();
    home.eventually("the service port answers", || http::get(port, "/").is_ok());
    assert_eq!(home.settled("web", 3), before, "the same processes");
    still_cared_for(&home, &before);
    home.finish();
    drop(manager);
}

#[test]
fn a_worker_that_died_while_no_manager_ran_is_restarted_and_how_it_ended_is_known() {
    let (home, manager, _, before) = with_web();
    manager.kill();
    let (container, pid) = before.first_key_value().unwrap();
    signal_pid(*pid, Signal::KILL);
    let manager = home.serve();
    home.eventually("the dead one is restarted", || generation(&home, container) == 2);
    let after = home.settled("web", 3);
    assert_eq!(after.iter().filter(|(id, pid)| before.get(*id) == Some(pid)).count(), 2, "the others are as they were");
    let exits = home.run(&["-o", "json", "events", container]).json_lines();
    let exits: Vec<_> = exits.iter().filter(|event| event["kind"] == "exited").collect();
    assert_eq!(exits.len(), 1);
    assert_eq!(exits[0]["reason"], "killed by signal 9", "{exits:?}");
    home.finish();
    drop(manager);
}

#[test]
fn a_manager_that_is_asked_to_end_leaves_its_workers_to_the_next_one() {
    let (home, manager, port, before) = with_web();
    let manager = while_asked(port, || {
        manager.end(Signal::TERM).ok();
        assert!(!home.data_dir().join("cocktail.sock").exists(), "no socket is left");
        let alive: BTreeSet<u32> = home.workers().iter().map(|process| process.pid).collect();
        assert_eq!(alive, before.values().copied().collect());
        for _ in 0..20 {
            http::get(port, "/").unwrap();
        }
        let manager = home.serve();
        assert_eq!(home.pids("web"), before, "adopted as they were");
        manager
    });
    home.finish();
    drop(manager);
}

#[test]
fn a_manager_that_stands_still_for_a_while_restarts_nothing_when_it_goes_on() {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    let probe = "http = \"/healthy\", every = \"100ms\", timeout = \"300ms\"";
    web(&home, port, &format!("ready = {{ {probe} }}\nlive = {{ {probe}, failures = 2 }}\n"));
    let before = home.settled("web", 3);
    let seq = home.seq();
    while_asked(port, || {
        for _ in 0..2 {
            manager.signal(Signal::STOP);
            // The stretch of time is what is tested: several probes fall due and several run out of time.
            thread::sleep(Duration::from_secs(2));
            manager.signal(Signal::CONT);
            assert_eq!(home.pids("web"), before);
        }
        // As long again in motion: what it thinks it has missed it would act on now.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(home.pids("web"), before);
    });
    assert_eq!(home.seq(), seq, "something was decided: {}", home.ok(&["events", "--tail", "5"]));
    home.finish();
    drop(manager);
}
