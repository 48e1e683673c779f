//! The worker `witness` and the oracle that reads what it writes, without a Manager and with one.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cocktail_tests::oracle::{self, Oracle};
use cocktail_tests::{Home, Life, Process, process};
use rustix::process::Signal;

/// A worker that testifies that it runs; see its source.
const WITNESS: &str = env!("CARGO_BIN_EXE_witness");

/// Far more than it takes a witness to write, also on a busy machine.
const LONG: Duration = Duration::from_secs(1);

/// A witness of that container, ended when dropped.
struct Witness(Child);

impl Witness {
    fn start(home: &Home, container: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(WITNESS);
        home.settle(&mut command);
        command.arg(home.base().join("out")).env("COCKTAIL_CONTAINER", container);
        command.env("COCKTAIL_UNIT", "shop/prod/web").env("COCKTAIL_SERVER", "srv-1").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let witness = Self(command.spawn().unwrap());
        home.eventually("it testifies", || witness.life(home).is_some());
        witness
    }

    fn life(&self, home: &Home) -> Option<Life> {
        read(home).lives().iter().find(|life| life.who.pid == self.0.id()).cloned()
    }

    fn signal(&self, signal: Signal) {
        process::signal_pid(self.0.id(), signal);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn state(witness: &Witness) -> Option<char> {
    Some(Process::find(witness.0.id())?.state)
}

fn read(home: &Home) -> Oracle {
    Oracle::read(&home.base().join("out"))
}

#[test]
fn a_witness_tells_who_it_is_and_when_it_lives() {
    let home = Home::new();
    let before = oracle::now();
    let witness = Witness::start(&home, "web-1", &[]);
    sleep(LONG);
    let life = witness.life(&home).unwrap();
    assert_eq!((&*life.who.container, &*life.who.server, &*life.who.unit), ("web-1", "srv-1", "shop/prod/web"));
    assert_eq!(life.who.revision, "-", "it was not told");
    assert!(before < life.first && life.first < life.last && life.last < oracle::now(), "{life}");
    assert!(life.records > 20, "{life}");
    drop(witness);
    home.finish();
}

#[test]
fn one_that_is_killed_ends_and_one_that_takes_its_place_does_not_meet_it() {
    let home = Home::new();
    let first = Witness::start(&home, "web-1", &[]);
    let killed = oracle::now();
    first.signal(Signal::KILL);
    // Nobody has waited for it: it has ended all the same.
    home.eventually("it has ended", || state(&first) == Some('Z'));
    let life = first.life(&home).unwrap();
    assert_eq!(first.life(&home).unwrap(), life, "it does not live on");
    drop(first);
    let second = Witness::start(&home, "web-1", &[]);
    let oracle = read(&home);
    assert_eq!(oracle.lives().len(), 2, "{oracle}");
    oracle.nobody_met_themselves();
    assert_eq!(oracle.most_at_once().0, 1);
    // The time between is there to be seen.
    let gaps = oracle.gaps_below(1, oracle.lives()[0].first, oracle.lives()[1].last);
    assert!(matches!(gaps[..], [(begin, end)] if begin < end && end > killed), "{gaps:?}\n{oracle}");
    drop(second);
    home.finish();
}

#[test]
fn two_of_one_container_at_once_are_found() {
    let home = Home::new();
    let witnesses = [Witness::start(&home, "web-1", &[]), Witness::start(&home, "web-1", &[])];
    let other = Witness::start(&home, "web-2", &[]);
    let oracle = read(&home);
    assert_eq!(oracle.overlaps().len(), 1, "{oracle}");
    assert_eq!(oracle.most_at_once().0, 3, "{oracle}");
    drop((witnesses, other));
    home.finish();
}

#[test]
fn one_that_is_stopped_lives_on_with_a_pause() {
    let home = Home::new();
    let witness = Witness::start(&home, "web-1", &[]);
    witness.signal(Signal::STOP);
    sleep(LONG / 10);
    let records = || witness.life(&home).unwrap().records;
    let (stopped, at) = (records(), oracle::now());
    sleep(LONG);
    assert_eq!(records(), stopped, "it is stopped");
    assert!(witness.life(&home).unwrap().at(at), "it is there all the same");
    witness.signal(Signal::CONT);
    home.eventually("it goes on", || records() > stopped);
    let life = witness.life(&home).unwrap();
    assert!(life.longest_pause > LONG / 2, "{life}");
    assert_eq!(read(&home).gaps_below(1, life.first, life.last), [], "it was there all the time");
    drop(witness);
    home.finish();
}

#[test]
fn a_term_ends_it_at_once_or_after_the_time_that_it_lingers() {
    let home = Home::new();
    let mut prompt = Witness::start(&home, "web-1", &[]);
    prompt.signal(Signal::TERM);
    assert_eq!(prompt.0.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));

    let mut slow = Witness::start(&home, "web-2", &[("LINGERS", "700")]);
    let (begin, told) = (Instant::now(), oracle::now());
    slow.signal(Signal::TERM);
    assert!(slow.0.wait().unwrap().success());
    assert!(begin.elapsed() >= Duration::from_millis(700));
    let life = slow.life(&home).unwrap();
    assert!(life.last > told + Duration::from_millis(350), "it testifies to its end: told at {told:?}, {life}");
    home.finish();
}

#[test]
fn one_that_nobody_listens_to_any_more_goes_on() {
    let home = Home::new();
    let mut command = Command::new("sh");
    home.settle(&mut command);
    // Its output is a pipe whose reader has gone.
    let line = format!("{WITNESS} '{}' 2>&1 & echo $! >&2", home.base().join("out").display());
    command.args(["-c", &line]).env("COCKTAIL_CONTAINER", "web-1").env("PORT", home.port().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    drop(shell.stdout.take());
    let output = shell.wait_with_output().unwrap();
    let pid: u32 = String::from_utf8(output.stderr).unwrap().trim().parse().unwrap();
    let records = || read(&home).lives().first().map_or(0, |life| life.records);
    home.eventually("it testifies", || records() > 0);
    sleep(LONG);
    let before = records();
    home.eventually("it goes on", || records() > before);
    process::signal_pid(pid, Signal::TERM);
    home.eventually("it has ended", || home.processes().is_empty());
    home.finish();
}

#[test]
fn workers_of_a_unit_are_ready_and_are_seen_with_what_they_were_told() {
    let home = Home::new();
    let port = home.port();
    let folder = home.base().join("tmp/seen");
    std::fs::create_dir(&folder).unwrap();
    let file = home.manifest(
        "shop.toml",
        &format!(
            "[maps.prod.units.web]\ncommand = [\"{WITNESS}\", \"{}\"]\nreplicas = 2\n\
             ports.http = {{ service = {port} }}\nready = {{ http = \"/\", every = \"100ms\" }}\n",
            folder.display()
        ),
    );
    let _manager = home.serve();
    home.ok(&["apply", "--wait", &file.to_string_lossy()]);
    let first = home.settled("web", 2);
    let oracle = Oracle::read(&folder).of_unit("shop/prod/web");
    let pids = oracle.lives().iter().map(|life| (life.who.container.clone(), life.who.pid));
    assert_eq!(pids.collect::<std::collections::BTreeMap<_, _>>(), first);

    let (killed, at) = (*first.values().next().unwrap(), oracle::now());
    process::signal_pid(killed, Signal::KILL);
    home.eventually("another one has taken its place", || {
        let pids = home.pids("web");
        pids.len() == 2 && pids.values().all(|pid| *pid != killed)
    });
    let ready = oracle::now();
    let oracle = Oracle::read(&folder);
    assert_eq!(oracle.lives().len(), 3, "{oracle}");
    oracle.nobody_met_themselves();
    assert_eq!(oracle.most_at_once().0, 2, "{oracle}");
    assert_eq!(oracle.gaps_below(2, at, ready).len(), 1, "{oracle}");

    home.finish();
}
