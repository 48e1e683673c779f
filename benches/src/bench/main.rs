//! `cocktail-bench`: measures cocktail beside its peers and prints what came out.
//!
//! Started by `cargo xtask bench`, which builds everything and says where the peers are. Each benchmark is a module with
//! a `run` that returns a [`Report`]; `drivers` holds how cocktail and the peers are started and ended, `proc` how
//! processes are observed from outside. Everything compared runs in the same run, in turns (ours, peer, ours, peer), so
//! that a busy machine is busy for both. A bar that is missed is printed, not an error.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod agents;
mod autoscale;
mod cluster;
mod docker;
mod drivers;
mod embed;
mod event;
mod forward;
mod managed;
mod place;
mod proc;
mod remote;
mod report;
mod respawn;
mod rss;
mod scale;
mod sim;
mod spawn;
mod steady;
mod update;
mod warm;
mod zero;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::report::Report;

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The `cocktail` program; without it only the peers are measured.
    pub(crate) cocktail: Option<PathBuf>,
    haproxy: Option<PathBuf>,
    supervisord: Option<PathBuf>,
    pm2: Option<PathBuf>,
    /// The folder of our own programs.
    programs: PathBuf,
    /// Where data dirs are made. On a disk, because commits are synced there.
    pub(crate) work_dir: PathBuf,
    /// The workspace, for `embed`.
    pub(crate) source: PathBuf,
    rounds: Option<u32>,
}

impl Setup {
    /// One of the programs of this package.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub(crate) fn haproxy(&self) -> Result<&Path> {
        installed(self.haproxy.as_deref(), "haproxy")
    }

    pub(crate) fn supervisord(&self) -> Result<&Path> {
        installed(self.supervisord.as_deref(), "supervisord")
    }

    pub(crate) fn pm2(&self) -> Result<&Path> {
        installed(self.pm2.as_deref(), "pm2")
    }

    /// How many rounds to do, where `usual` is what the benchmark thinks enough.
    pub(crate) fn rounds(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(usual).max(1)
    }

    /// A fresh folder that goes away with the value.
    pub(crate) fn folder(&self, name: &str) -> Result<tempfile::TempDir> {
        fs::create_dir_all(&self.work_dir).with_context(|| format!("cannot create {}", self.work_dir.display()))?;
        let prefix = format!("{name}-");
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.work_dir).context("cannot create a folder")
    }
}

fn installed<'a>(program: Option<&'a Path>, name: &str) -> Result<&'a Path> {
    program.with_context(|| format!("{name} is not installed: cargo xtask bench --setup installs it"))
}

type Bench = fn(&Setup) -> Result<Report>;

const BENCHES: [(&str, Bench); 18] = [
    ("spawn", spawn::run),
    ("respawn", respawn::run),
    ("forward", forward::run),
    ("rss", rss::run),
    ("update", update::run),
    ("autoscale", autoscale::run),
    ("zero", zero::run),
    ("warm", warm::warm),
    ("extend", warm::extend),
    ("embed", embed::run),
    ("place", place::run),
    ("event", event::run),
    ("sim", sim::run),
    ("scale", scale::run),
    ("steady", steady::run),
    ("agents", agents::run),
    ("remote", remote::run),
    ("docker", docker::run),
];

fn main() -> Result<()> {
    let mut name = None;
    let mut json = None;
    let own = std::env::current_exe().context("cannot find this program")?;
    let programs = own.parent().context("this program lies in no folder")?.to_owned();
    let mut setup = Setup {
        cocktail: None,
        haproxy: None,
        supervisord: None,
        pm2: None,
        programs,
        work_dir: std::env::temp_dir(),
        source: PathBuf::from("."),
        rounds: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        use lexopt::{Arg, ValueExt};
        match arg {
            Arg::Value(value) if name.is_none() => name = Some(value.string()?),
            Arg::Long("json") => json = Some(PathBuf::from(parser.value()?)),
            Arg::Long("cocktail") => setup.cocktail = Some(parser.value()?.into()),
            Arg::Long("haproxy") => setup.haproxy = Some(parser.value()?.into()),
            Arg::Long("supervisord") => setup.supervisord = Some(parser.value()?.into()),
            Arg::Long("pm2") => setup.pm2 = Some(parser.value()?.into()),
            Arg::Long("work-dir") => setup.work_dir = parser.value()?.into(),
            Arg::Long("source") => setup.source = parser.value()?.into(),
            Arg::Long("rounds") => setup.rounds = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }

    let chosen: Vec<_> = BENCHES.iter().filter(|(bench, _)| name.as_ref().is_none_or(|name| name == bench)).collect();
    if chosen.is_empty() {
        bail!("there is no such benchmark, but {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    let mut results = Vec::new();
    let mut failed = Vec::new();
    for (bench, run) in chosen {
        let before = proc::stolen();
        match run(&setup) {
            Ok(mut report) => {
                if let Some(percent) = proc::stolen_since(before).filter(|percent| *percent >= 1.0) {
                    report.note(format!(
                        "{percent:.0} % of this machine's processor time went to others on its host: measure again"
                    ));
                }
                print!("{}", report.table());
                results.push(report.json()?);
            }
            // One peer that is missing does not keep the other benchmarks from running.
            Err(error) => {
                eprintln!("{bench}: {error:#}");
                failed.push(*bench);
            }
        }
    }
    if let Some(file) = json
        && let Some(first) = results.first()
    {
        let value = if name.is_some() { first.clone() } else { serde_json::Value::Array(results) };
        let text = serde_json::to_string_pretty(&value)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}
