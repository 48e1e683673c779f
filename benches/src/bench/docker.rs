//! `docker`: containers on a Docker engine, beside the engine's own API and beside Swarm on the same engine.
//!
//! Everything runs in a network of its own, with an engine there, so that nothing of the machine's is touched. What counts is what the engine's events say: a container runs when its `start` is told, and is gone with its
//! `destroy`. Bare is what a program does that knows everything beforehand: the bodies that we sent, byte for byte but for
//! the network's id, sent again by 1, 2, 4 or 8 threads, of which the best counts. Swarm comes last, since it leaves its
//! engine changed.

mod api;
mod bare;
mod recorder;
mod stage;
mod swarm;

use std::collections::BTreeMap;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::process::Signal;

use self::api::Api;
use self::bare::Bare;
use self::stage::Stage;
use self::swarm::Swarm;
use crate::report::{Report, median};
use crate::{Setup, drivers, proc};

/// Containers that are made, in the order of the measurements.
const COUNTS: [usize; 2] = [30, 100];
/// How many threads the bare program is tried with.
const PARALLEL: [usize; 4] = [1, 2, 4, 8];
/// Threads with which it ends them.
const DOWN: usize = 8;
/// How often we and the bare program take turns.
const ROUNDS: usize = 2;
/// Containers while their main processes are killed, and how often one is.
const VICTIMS: usize = 10;
const KILLS: usize = 11;
/// Containers of the rolling update, and how many are replaced at once.
const UPDATED: usize = 30;
const SURGE: usize = 2;
/// Containers at rest, and for how long they are looked at.
const STEADY: usize = 200;
const LOOK: Duration = Duration::from_secs(60);
/// What the end of one measurement leaves to be done is done by then.
const REST: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    // What the thread starts is in its network, too.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let own = unshare(CloneFlags::CLONE_NEWNET);
            own.context("the benchmark cannot have a network of its own, which only root can")?;
            drivers::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            measure(setup)
        });
        measuring.join().unwrap_or_else(|_| bail!("the benchmark panicked"))
    })
}

fn measure(setup: &Setup) -> Result<Report> {
    let program = setup.cocktail.as_deref().context("the program that is measured is missing: --cocktail")?;
    let mut report = Report::new("docker");
    let stage = Stage::start(setup, program)?;
    let mut figures = Figures::default();
    for count in COUNTS {
        ours_and_bare(&stage, count, &mut figures).with_context(|| format!("{count} containers"))?;
    }
    recover(&stage, &mut figures).context("recover")?;
    update(&stage, &mut figures).context("update")?;
    steady(&stage, &mut figures, &mut report).context("steady")?;
    swarm(stage, &mut figures).context("swarm")?;
    figures.tell(&mut report);
    Ok(report)
}

/// Seconds by what was measured: `ours_up_30`, `bare_up_30`.
#[derive(Default)]
struct Figures {
    seconds: BTreeMap<String, Vec<f64>>,
    /// Threads with which the bare program was fastest.
    best: usize,
    failed: u64,
}

impl Figures {
    fn add(&mut self, key: impl Into<String>, seconds: f64) {
        let key = key.into();
        // It takes minutes: whoever waits sees how far it is.
        eprintln!("docker: {key} {seconds:.3} s");
        self.seconds.entry(key).or_default().push(seconds);
    }

    fn median(&self, key: &str) -> Option<f64> {
        self.seconds.get(key).map(|seconds| median(seconds))
    }

    /// How much longer `other` took than `ours`.
    fn ratio(&self, ours: &str, other: &str) -> Option<f64> {
        Some(self.median(other)? / self.median(ours)?)
    }

    fn tell(&self, report: &mut Report) {
        for count in COUNTS {
            for who in ["ours", "bare", "swarm", "swarm_named"] {
                if let Some(seconds) = self.median(&format!("{who}_up_{count}")) {
                    let meaning = format!("containers that run a second, 0 to {count}, {who}");
                    report.figure(format!("{who}_up_{count}_per_s"), count as f64 / seconds, meaning);
                }
            }
        }
        let least =
            |keys: &[(&str, &str)]| keys.iter().filter_map(|(ours, other)| self.ratio(ours, other)).reduce(f64::min);
        let mut figure = |key: &str, value: Option<f64>, meaning: &str| {
            if let Some(value) = value {
                report.figure(key, value, meaning);
            }
        };
        let up = |who: &str| COUNTS.map(|count| (format!("ours_up_{count}"), format!("{who}_up_{count}")));
        for (key, who, meaning) in [
            ("up_vs_bare", "bare", "our rate as a share of that of the bare API, the lesser of both counts"),
            ("up_vs_swarm", "swarm", "our rate over that of Swarm, the lesser of both counts"),
            (
                "up_vs_swarm_named",
                "swarm_named",
                "our rate over that of Swarm where services have names for each other, too",
            ),
        ] {
            let pairs = up(who);
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(ours, other)| (ours.as_str(), other.as_str())).collect();
            figure(key, least(&pairs), meaning);
        }
        for who in ["ours", "bare", "swarm"] {
            let millis = self.median(&format!("{who}_recover")).map(|seconds| seconds * 1000.0);
            figure(&format!("{who}_recover_ms"), millis, "from kill -9 of a main process until its replacement runs");
        }
        let millis = self.median("ours_recover_warm").map(|seconds| seconds * 1000.0);
        figure("ours_recover_warm_ms", millis, "the same until one that waited paused goes on in its place");
        let inverse = |ours: &str, other: &str| self.ratio(ours, other).map(|ratio| 1.0 / ratio);
        figure("recover_vs_bare", inverse("ours_recover", "bare_recover"), "our time over that of the bare loop");
        figure("recover_vs_swarm", inverse("ours_recover", "swarm_recover"), "our time over that of Swarm");
        let warm = inverse("ours_recover_warm", "swarm_recover");
        figure("recover_warm_vs_swarm", warm, "our time with one that waits over that of Swarm");
        for who in ["ours", "swarm"] {
            let rate = self.median(&format!("{who}_update")).map(|seconds| UPDATED as f64 / seconds);
            figure(&format!("{who}_update_per_s"), rate, "replacements a second of a rolling update");
        }
        figure("update_vs_swarm", self.ratio("ours_update", "swarm_update"), "our rate over that of Swarm");
        figure("update_failed", Some(self.failed as f64), "requests that failed at the service port during ours");
        for who in ["ours", "bare"] {
            let rate = self.median(&format!("{who}_down")).map(|seconds| 100.0 / seconds);
            figure(&format!("{who}_down_per_s"), rate, "containers that are gone a second, 100 to 0");
        }
        figure("down_vs_bare", self.ratio("ours_down", "bare_down"), "our rate as a share of that of the bare API");
        report.compared(
            "up_vs_bare",
            format!(
                "POST create and start with the bodies that we sent, by the best of 1, 2, 4 and 8 threads ({} here)",
                self.best
            ),
        );
        report.compared("up_vs_swarm", "docker service create on the same engine, without a network of its own");
        report.compared("up_vs_swarm_named", "docker service create --network of the kind that Swarm has for names");
        report.compared(
            "recover_vs_bare",
            "a loop that follows the engine's events and creates and starts the same body",
        );
        report.compared("recover_vs_swarm", "docker service create --restart-delay 0s, on the same engine");
        report.compared(
            "update_vs_swarm",
            "docker service update, start-first, 2 at a time, without delay, monitor or health check",
        );
        report.compared("down_vs_bare", "POST stop and DELETE, by 8 threads");
    }
}

fn ours_and_bare(stage: &Stage, count: usize, figures: &mut Figures) -> Result<()> {
    for _ in 0..ROUNDS {
        let bodies = ours(stage, count, figures)?;
        let bare = Bare::new(&stage.api, bodies)?;
        if figures.best == 0 {
            figures.best = best(stage, &bare, count)?;
        }
        let (up, down) = bare_up_and_down(stage, &bare, count, figures.best)?;
        figures.add(format!("bare_up_{count}"), up);
        if count == 100 {
            figures.add("bare_down", down);
        }
        bare.end();
    }
    Ok(())
}

/// Has us make containers and end them; what we told the engine for that.
fn ours(stage: &Stage, count: usize, figures: &mut Figures) -> Result<Vec<String>> {
    let events = stage.api.events(&["start", "destroy"])?;
    stage.recorder.clear();
    let begin = Instant::now();
    stage.apply("up", &stage::sleepers(count))?;
    figures.add(format!("ours_up_{count}"), (events.wait("start", count, PATIENCE)? - begin).as_secs_f64());
    stage.settle("up", count)?;
    let mut bodies = stage.recorder.bodies();
    ensure!(bodies.len() >= count, "{} bodies of {count} were seen", bodies.len());
    thread::sleep(REST);
    let begin = Instant::now();
    stage.ours.json(&["rm", "up"])?;
    let down = (events.wait("destroy", count, PATIENCE)? - begin).as_secs_f64();
    if count == 100 {
        figures.add("ours_down", down);
    }
    thread::sleep(REST);
    bodies.truncate(count);
    Ok(bodies)
}

/// With how many threads the bare program is fastest.
fn best(stage: &Stage, bare: &Bare, count: usize) -> Result<usize> {
    let mut best = (f64::MAX, 1);
    for threads in PARALLEL {
        let (up, _) = bare_up_and_down(stage, bare, count, threads)?;
        if up < best.0 {
            best = (up, threads);
        }
    }
    Ok(best.1)
}

fn bare_up_and_down(stage: &Stage, bare: &Bare, count: usize, threads: usize) -> Result<(f64, f64)> {
    let events = stage.api.events(&["start", "destroy"])?;
    let begin = Instant::now();
    bare.up(threads)?;
    let up = (events.wait("start", count, PATIENCE)? - begin).as_secs_f64();
    thread::sleep(REST);
    let begin = Instant::now();
    bare.down(DOWN)?;
    let down = (events.wait("destroy", count, PATIENCE)? - begin).as_secs_f64();
    thread::sleep(REST);
    Ok((up, down))
}

fn recover(stage: &Stage, figures: &mut Figures) -> Result<()> {
    stage.recorder.clear();
    stage.apply("up", &stage::sleepers(VICTIMS))?;
    stage.settle("up", VICTIMS)?;
    let bodies = stage.recorder.bodies();
    kill_some(&stage.api, figures, "ours_recover")?;
    stage.ours.json(&["rm", "up"])?;
    stage.gone()?;
    recover_warm(stage, figures).context("with one that waits")?;
    let bare = Bare::new(&stage.api, bodies.into_iter().take(VICTIMS).collect())?;
    bare.up(2)?;
    let watching = bare.restart_what_dies()?;
    thread::sleep(REST);
    kill_some(&stage.api, figures, "bare_recover")?;
    drop(watching);
    bare.down(DOWN)?;
    bare.end();
    Ok(())
}

/// The same with a container that is up and paused, which goes on in the place of the one that was killed.
fn recover_warm(stage: &Stage, figures: &mut Figures) -> Result<()> {
    let paused = stage.api.events(&["pause"])?;
    stage.apply("up", &format!("{}warm = 1\n", stage::sleepers(VICTIMS)))?;
    paused.wait("pause", 1, PATIENCE)?;
    stage.settle("up", VICTIMS)?;
    thread::sleep(REST);
    for round in 0..KILLS {
        let running = stage.api.serving()?;
        let victim = running.get(round % running.len().max(1)).context("nothing runs")?;
        let pid = stage.api.pid(victim)?;
        let events = stage.api.events(&["unpause", "pause"])?;
        let begin = Instant::now();
        proc::signal(pid, Signal::KILL);
        figures.add("ours_recover_warm", (events.wait("unpause", 1, PATIENCE)? - begin).as_secs_f64());
        // The next one is killed when another one waits.
        events.wait("pause", 1, PATIENCE)?;
        thread::sleep(REST / 2);
    }
    stage.ours.json(&["rm", "up"])?;
    stage.gone()
}

/// Kills main processes, one after the other, and waits each time until another one runs.
fn kill_some(api: &Api, figures: &mut Figures, key: &str) -> Result<()> {
    thread::sleep(REST);
    for round in 0..KILLS {
        let running = api.running()?;
        let victim = running.get(round % running.len().max(1)).context("nothing runs")?;
        let pid = api.pid(victim)?;
        let events = api.events(&["start"])?;
        let begin = Instant::now();
        proc::signal(pid, Signal::KILL);
        figures.add(key, (events.wait("start", 1, PATIENCE)? - begin).as_secs_f64());
        // The next one is killed when nothing is left to be done for this one.
        thread::sleep(REST / 2);
    }
    Ok(())
}

fn update(stage: &Stage, figures: &mut Figures) -> Result<()> {
    stage.apply("web", &stage.servers(1))?;
    stage.settle("web", UPDATED)?;
    let load = stage.load()?;
    let events = stage.ours.follow()?;
    thread::sleep(REST);
    let begin = Instant::now();
    stage.apply("web", &stage.servers(2))?;
    let ended = ["rollout-finished", "rolling-back", "rollout-paused"];
    let end = events.wait(&ended, "bench/bench/web", PATIENCE)?;
    ensure!(end.kind == "rollout-finished", "the rollout did not end well: {}: {}", end.kind, end.reason);
    figures.add("ours_update", (end.at - begin).as_secs_f64());
    let (answered, failed) = load.stop()?;
    ensure!(answered > 0, "the load asked nothing");
    figures.failed = failed;
    drop(events);
    stage.ours.json(&["rm", "web"])?;
    stage.gone()
}

fn steady(stage: &Stage, figures: &mut Figures, report: &mut Report) -> Result<()> {
    let _ = figures;
    stage.apply("up", &stage::sleepers(STEADY))?;
    stage.settle("up", STEADY)?;
    thread::sleep(REST * 4);
    let manager = [stage.ours.manager()?];
    let engine = stage.engine_processes();
    let before = (proc::cpu_time(&manager), proc::cpu_time(&engine));
    thread::sleep(LOOK);
    let after = (proc::cpu_time(&manager), proc::cpu_time(&engine));
    stage.freeze(true)?;
    thread::sleep(REST);
    let alone = proc::cpu_time(&engine);
    thread::sleep(LOOK);
    let alone = proc::cpu_time(&engine).saturating_sub(alone);
    stage.freeze(false)?;
    let percent = |time: Duration| time.as_secs_f64() / LOOK.as_secs_f64() * 100.0;
    let caused = percent(after.1.saturating_sub(before.1)) - percent(alone);
    report.figure(
        "manager_cpu_percent",
        percent(after.0.saturating_sub(before.0)),
        "of a core, 200 containers at rest",
    );
    report.figure(
        "dockerd_cpu_percent",
        caused.max(0.0),
        "of a core, what dockerd and containerd do more because of us",
    );
    report.compared("dockerd_cpu_percent", "the same engine while the Manager is stopped by SIGSTOP");
    stage.ours.json(&["rm", "up"])?;
    stage.gone()
}

fn swarm(stage: Stage, figures: &mut Figures) -> Result<()> {
    let (engine, api) = stage.without_us()?;
    let swarm = Swarm::begin(&engine)?;
    for (who, named) in [("swarm", false), ("swarm_named", true)] {
        for count in COUNTS {
            let events = api.events(&["start", "destroy"])?;
            let begin = Instant::now();
            swarm.create(count, named)?;
            figures.add(format!("{who}_up_{count}"), (events.wait("start", count, PATIENCE)? - begin).as_secs_f64());
            swarm.remove(&api)?;
            thread::sleep(REST);
        }
    }
    swarm.create(VICTIMS, false)?;
    proc::wait_for("the service", PATIENCE, || api.running().is_ok_and(|running| running.len() == VICTIMS))?;
    kill_some(&api, figures, "swarm_recover")?;
    swarm.remove(&api)?;
    swarm.create(UPDATED, false)?;
    proc::wait_for("the service", PATIENCE, || api.running().is_ok_and(|running| running.len() == UPDATED))?;
    thread::sleep(REST);
    let begin = Instant::now();
    swarm.update(SURGE)?;
    let until = Instant::now() + PATIENCE;
    while !swarm.is_updated(&api)? {
        if Instant::now() > until {
            bail!("the update of Swarm does not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
    figures.add("swarm_update", begin.elapsed().as_secs_f64());
    swarm.remove(&api)?;
    Ok(())
}

/// A name that nothing else has, of this run or another one: what had it may still be there.
fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{name}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
