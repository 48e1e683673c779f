//! `agents`: 1,000 agents with 20 containers each, and one Manager.
//!
//! The Manager is the real program with its real store, and a process of its own. The agents are the real ones, over real TLS
//! and gRPC on the loopback, all in one other process (`bench-agents`), and what they drive only acknowledges. They tell once
//! a second what each container uses, and hold their leases, as by default. At rest the Manager's processor time and memory
//! are taken. Then it is killed and started again: the journal says when each session began anew.
//!
//! The agents' folders lie in memory where that is possible: a thousand machines have a thousand disks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc::{self, Owned};
use crate::report::Report;

const SERVERS: usize = 1_000;
const EACH: usize = 20;
const AGENTS: &str = "bench-agents";
/// Agents that begin in a tenth of a second when they join for the first time: fewer than one address may have in the door.
const AT_ONCE: &str = "10";
const PATIENCE: Duration = Duration::from_secs(180);
/// Before anything is taken, and how long it is taken.
const SETTLE: Duration = Duration::from_secs(15);
const STEADY: Duration = Duration::from_secs(30);
/// Events of the journal that are looked at after a restart, from the end: what the restart itself has written, and more.
const EVENTS: usize = 3_000;

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let Some(program) = setup.cocktail.as_deref() else { bail!("only ours is measured here: --cocktail is missing") };
    let mut report = Report::new("agents");
    let load = proc::load()?;
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).context("cannot create a folder in memory")?,
        false => setup.folder("agents")?,
    };
    let folder_name = folder.path().to_string_lossy().into_owned();
    let mut ours = Cocktail::install(setup, program, (AGENTS, &folder_name))?;
    let address = format!("127.0.0.1:{}", drivers::free_port()?);
    let names: Vec<String> = (1..=SERVERS).map(|number| format!("rack-{number:04}")).collect();
    ours.settle(&format!(
        "[manager]\nlisten = \"{address}\"\n[providers.rack]\nkind = \"standalone\"\nservers = {names:?}\n"
    ))?;
    ours.serve()?;

    let begin = Instant::now();
    let agents = start(setup, &ours, &names, &address, &folder_name)?;
    wait("the servers take containers", || Ok(servers(&ours)? == SERVERS))?;
    report.figure("joined_s", begin.elapsed().as_secs_f64(), "from the first token until all servers take containers");
    let begin = Instant::now();
    let count = SERVERS * EACH;
    // A Unit has at most 10,000 containers.
    let unit =
        |name| format!("[maps.bench.units.{name}]\ncommand = [\"worker\"]\nreplicas = {}\ncwd = \"/\"\n", count / 2);
    let manifest = ours.manifest(&format!("service = \"bench\"\n{}{}", unit("left"), unit("right")))?;
    ours.apply(&manifest)?;
    wait("the containers are ready", || Ok(ready(&ours)? == count))?;
    report.figure("placed_s", begin.elapsed().as_secs_f64(), format!("from the apply until all {count} run"));

    thread::sleep(SETTLE);
    let manager = ours.manager()?;
    let (before, begin) = (proc::cpu_time(&[agents.pid()]), Instant::now());
    let cores = proc::cpu_percent(&[manager], STEADY) / 100.0;
    let theirs = proc::cpu_time(&[agents.pid()]).saturating_sub(before).as_secs_f64() / begin.elapsed().as_secs_f64();
    report.figure(
        "cores",
        cores,
        format!("processor time of the Manager over time, for {} s at rest", STEADY.as_secs()),
    );
    report.figure("agents_cores", theirs, "the same of all agents together");
    report.figure("mib", proc::rss_mib(manager)?, "resident memory of the Manager then");

    let there = generations(&ours)?;
    let killed = Timestamp::now();
    ours.kill_manager();
    ours.serve()?;
    report.figure("answers_s", seconds(killed, Timestamp::now()), "from its kill until the next one answers");
    let sessions = sessions(&ours, killed)?;
    let last = sessions.iter().max().copied().context("no session")?;
    report.figure(
        "back_s",
        seconds(killed, last),
        format!("from its kill until all {SERVERS} sessions are there again"),
    );
    report.figure("peak_joins_per_s", peak(sessions) as f64, "most of them that began within one second");
    wait("the containers are ready again", || Ok(ready(&ours)? == count))?;
    thread::sleep(SETTLE);
    let after = generations(&ours)?;
    let other = there.iter().filter(|(id, generation)| after.get(*id) != Some(*generation)).count();
    report.figure("restarted", other as f64, "containers that are others after that");
    report.figure("mib_after", proc::rss_mib(ours.manager()?)?, "resident memory of the Manager after that");
    report.note(format!(
        "{SERVERS} agents with {EACH} containers each, in one process on the same machine and from one address; load average \
         when it began: {load}"
    ));
    drop(agents);
    Ok(report)
}

/// Starts all agents with tokens of their own.
fn start(setup: &Setup, ours: &Cocktail, names: &[String], manager: &str, folder: &str) -> Result<Owned> {
    let tokens: Vec<String> = names.iter().map(|name| ours.token(name)).collect::<Result<_>>()?;
    let mut command = Command::new(setup.program(AGENTS));
    command.args([manager, folder, AT_ONCE]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut agents = Owned(command.spawn().context("cannot start the agents")?);
    let mut input = agents.0.stdin.take().context("the agents have no input")?;
    input.write_all((tokens.join("\n") + "\n").as_bytes()).context("the agents take no tokens")?;
    Ok(agents)
}

/// Looks once in a while: each look costs the Manager something.
fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

fn all(ours: &Cocktail, path: &str) -> Result<Vec<Value>> {
    match ours.call("GET", path, "")? {
        Value::Array(all) => Ok(all),
        other => bail!("{path} is no array: {other}"),
    }
}

/// Servers that take containers.
fn servers(ours: &Cocktail) -> Result<usize> {
    Ok(all(ours, "/v1/servers")?.iter().filter(|server| server["state"] == "ready").count())
}

/// Containers of all Units that are ready.
fn ready(ours: &Cocktail) -> Result<usize> {
    let counts = all(ours, "/v1/units")?;
    Ok(counts.iter().filter_map(|unit| usize::try_from(unit["ready"].as_u64()?).ok()).sum())
}

/// Which start of each container runs.
fn generations(ours: &Cocktail) -> Result<BTreeMap<String, u64>> {
    let all = all(ours, "/v1/containers")?;
    let one = |it: &Value| Some((it["id"].as_str()?.to_owned(), it["generation"].as_u64()?));
    all.iter().map(|it| one(it).context("a container has no generation")).collect()
}

/// When the first session of each server began after a moment, as the journal has it; waits until all have.
fn sessions(ours: &Cocktail, after: Timestamp) -> Result<Vec<Timestamp>> {
    let events = ours.follow_from(EVENTS)?;
    let until = Instant::now() + PATIENCE;
    let (mut seen, mut times) = (BTreeSet::new(), Vec::new());
    while times.len() < SERVERS {
        let event = events.next(until).with_context(|| {
            let there = servers(ours).unwrap_or_default();
            format!("the journal tells of {} sessions, and {there} of {SERVERS} servers take containers", times.len())
        })?;
        if event.kind == "session-recorded" && event.happened > after && seen.insert(event.object) {
            times.push(event.happened);
        }
    }
    Ok(times)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Most of the moments that lie within one second.
fn peak(mut moments: Vec<Timestamp>) -> usize {
    moments.sort_unstable();
    let within = |(at, from): (usize, &Timestamp)| {
        moments.get(at..).unwrap_or_default().iter().take_while(|moment| seconds(*from, **moment) < 1.0).count()
    };
    moments.iter().enumerate().map(within).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_of_any_second_and_not_of_the_clocks() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        assert_eq!(peak(vec![at(2_500), at(100), at(900), at(1_050), at(1_100), at(1_899)]), 4);
        assert_eq!(peak(Vec::new()), 0);
    }
}
