//! Development commands: `cargo xtask check | test | bench | sim | fuzz | mutants | picture | emulators`.
//!
//! Each command is a module with a `run`. Exit code 0 means that everything passed, 1 that something failed, 2 that the
//! command was not understood.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod bench;
mod check;
mod context;
mod emulators;
mod fuzz;
mod mutants;
mod picture;
mod setup;
mod sim;
mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::ValueExt;

const USAGE: &str = "\
usage: cargo xtask check
       cargo xtask test [--setup] [FILTER]
       cargo xtask bench [NAME] [--json FILE] [--setup] [--rounds N]
       cargo xtask sim [--seeds N] [--from S] [--trace SEED] [--faulty SECONDS] [--planted]
       cargo xtask fuzz [TARGET] [--seconds N]
       cargo xtask mutants [--from N] [--count N]
       cargo xtask picture
       cargo xtask emulators docker

check   format, lints, docs, features, licences, bans, sources, advisories, lock file
test    every test and doctest; --setup first installs what they need, as CI=true does
bench   spawn, respawn, forward, rss, embed against their peers, event; all of them without NAME.
        --json writes one object, or an array of them without NAME; --setup first installs the peers
sim     what failed once and then seeds of the simulated world; --trace tells all of one, --faulty shortens its faults,
        --planted writes the table in docs/testing.md
fuzz    every fuzz target for N seconds (60) on seeds of the repository; fails on a finding
mutants the core's tests on N (150) small changes of its decisions, the same ones each time, without the first ones
        that --from names; fails if more than 10 % are noticed by no test
picture draws the terminal in the README anew, from a run of the example
emulators  a Docker engine of its own, until its input ends; installs what it needs";

enum Task {
    Help,
    Check,
    Test { setup: bool, filter: Option<String> },
    Bench(bench::Options),
    Sim(sim::Options),
    Fuzz(fuzz::Options),
    Mutants { from: usize, count: usize },
    Picture,
    Emulators(Option<String>),
}

fn main() -> ExitCode {
    let task = match parse() {
        Ok(task) => task,
        Err(error) => {
            eprintln!("xtask: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let context = context::Context::new()?;
    match task {
        Task::Help => println!("{USAGE}"),
        Task::Check => check::run(&context)?,
        Task::Test { setup, filter } => test::run(&context, setup, filter.as_deref())?,
        Task::Bench(options) => bench::run(&context, &options)?,
        Task::Sim(options) => sim::run(&context, &options)?,
        Task::Fuzz(options) => fuzz::run(&context, &options)?,
        Task::Mutants { from, count } => mutants::run(&context, from, count)?,
        Task::Picture => picture::run(&context)?,
        Task::Emulators(name) => emulators::run(&context, name.as_deref())?,
    }
    Ok(())
}

fn parse() -> Result<Task, lexopt::Error> {
    use lexopt::Arg::{Long, Short, Value};

    let mut parser = lexopt::Parser::from_env();
    let mut command: Option<OsString> = None;
    let mut name: Option<String> = None;
    let mut setup = false;
    let mut json: Option<PathBuf> = None;
    let mut rounds: Option<u32> = None;
    let mut seconds: u32 = 60;
    let (mut skipped, mut count): (usize, usize) = (0, 150);
    let mut simulated = sim::Options::default();
    while let Some(arg) = parser.next()? {
        let is = |name: &str| command.as_ref().is_some_and(|command| command == name);
        let (bench, sim, fuzz, mutants) = (is("bench"), is("sim"), is("fuzz"), is("mutants"));
        let set_up = bench || is("test");
        let named = set_up || fuzz || is("emulators");
        match arg {
            Short('h') | Long("help") => return Ok(Task::Help),
            Long("setup") if set_up => setup = true,
            Long("json") if bench => json = Some(parser.value()?.into()),
            Long("rounds") if bench => rounds = Some(parser.value()?.parse()?),
            Long("seeds") if sim => simulated.seeds = Some(parser.value()?.parse()?),
            Long("from") if sim => simulated.from = Some(parser.value()?.parse()?),
            Long("trace") if sim => simulated.trace = Some(parser.value()?.parse()?),
            Long("faulty") if sim => simulated.faulty = Some(parser.value()?.parse()?),
            Long("planted") if sim => simulated.planted = true,
            Value(value) if command.is_none() => command = Some(value),
            Long("seconds") if fuzz => seconds = parser.value()?.parse()?,
            Long("from") if mutants => skipped = parser.value()?.parse()?,
            Long("count") if mutants => count = parser.value()?.parse()?,
            Value(value) if named && name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match command.as_ref().and_then(|command| command.to_str()) {
        Some("check") => Ok(Task::Check),
        Some("test") => Ok(Task::Test { setup, filter: name }),
        Some("bench") => Ok(Task::Bench(bench::Options { name, json, setup, rounds })),
        Some("sim") => Ok(Task::Sim(simulated)),
        Some("fuzz") => Ok(Task::Fuzz(fuzz::Options { target: name, seconds })),
        Some("mutants") => Ok(Task::Mutants { from: skipped, count }),
        Some("picture") => Ok(Task::Picture),
        Some("emulators") => Ok(Task::Emulators(name)),
        Some(other) => Err(format!("there is no command {other:?}").into()),
        None => Err("a command is missing".into()),
    }
}
