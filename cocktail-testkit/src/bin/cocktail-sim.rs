//! Runs seeds of the simulated world: `cocktail-sim [--seeds N] [--from S] [--trace SEED] [--faulty SECONDS]
//! [--regressions] [--planted] [--json]`.
//!
//! Exit code 0 means that every seed came to rest without a breach (with `--planted`: that each planted bug was caught).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cocktail_testkit::sim::{Options, Outcome, REGRESSIONS, catch_all, run, run_many};
use lexopt::{Arg, ValueExt as _};

/// Seeds within which a planted bug has to be caught.
const WITHIN: u64 = 200;

struct Wanted {
    seeds: u64,
    from: u64,
    trace: Option<u64>,
    faulty: Option<u64>,
    regressions: bool,
    planted: bool,
    json: bool,
}

fn main() -> ExitCode {
    let wanted = match parse() {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("cocktail-sim: {error}");
            return ExitCode::from(2);
        }
    };
    let good = match wanted.trace {
        Some(seed) => trace(seed, wanted.options()),
        None if wanted.regressions => regressions(),
        None if wanted.planted => planted(),
        None => seeds(&wanted),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse() -> Result<Wanted, lexopt::Error> {
    let mut wanted =
        Wanted { seeds: 500, from: 1, trace: None, faulty: None, regressions: false, planted: false, json: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("seeds") => wanted.seeds = parser.value()?.parse()?,
            Arg::Long("from") => wanted.from = parser.value()?.parse()?,
            Arg::Long("trace") => wanted.trace = Some(parser.value()?.parse()?),
            Arg::Long("faulty") => wanted.faulty = Some(parser.value()?.parse()?),
            Arg::Long("regressions") => wanted.regressions = true,
            Arg::Long("planted") => wanted.planted = true,
            Arg::Long("json") => wanted.json = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(wanted)
}

impl Wanted {
    /// What a seed is run with.
    fn options(&self) -> Options {
        let usual = Options::default();
        Options { faulty: self.faulty.map_or(usual.faulty, Duration::from_secs), ..usual }
    }
}

fn trace(seed: u64, options: Options) -> bool {
    let outcome = run(seed, &Options { lines: true, ..options });
    for line in &outcome.lines {
        println!("{line}");
    }
    tell(&outcome);
    outcome.breach.is_none()
}

fn tell(outcome: &Outcome) {
    let Outcome { seed, events, hash, peak, breach, .. } = outcome;
    match breach {
        Some(breach) => println!("seed {seed}: {events} events, {peak} servers, {hash:016x}: {breach}"),
        None => println!("seed {seed}: {events} events, {peak} servers, {hash:016x}"),
    }
}

fn seeds(wanted: &Wanted) -> bool {
    let begun = Instant::now();
    let failed = |outcome: &Outcome| {
        if outcome.breach.is_some() {
            tell(outcome);
        }
    };
    let outcomes = run_many(wanted.from, wanted.seeds, threads(), &wanted.options(), &failed);
    let seconds = begun.elapsed().as_secs_f64();
    let mut events: Vec<u64> = outcomes.iter().map(|outcome| outcome.events).collect();
    let mut peaks: Vec<usize> = outcomes.iter().map(|outcome| outcome.peak).collect();
    events.sort_unstable();
    peaks.sort_unstable();
    let breaches = outcomes.iter().filter(|outcome| outcome.breach.is_some()).count();
    let median = events.get(events.len() / 2).copied().unwrap_or_default();
    let (least, middle) = (peaks.first().copied().unwrap_or_default(), peaks.get(peaks.len() / 2).copied());
    if wanted.json {
        let result = serde_json::json!({
            "seeds": outcomes.len(), "seconds": seconds, "seeds_500_s": seconds * 500.0 / outcomes.len().max(1) as f64,
            "events_per_seed": median, "servers_least": least, "breaches": breaches,
        });
        println!("{result}");
    } else {
        println!(
            "{} seeds in {seconds:.1} s, {median} events in the median, peaks of {least} to {} servers (median {}), \
             {breaches} breaches",
            outcomes.len(),
            peaks.last().copied().unwrap_or_default(),
            middle.unwrap_or_default(),
        );
    }
    breaches == 0
}

/// Runs that failed once, before anything else.
fn regressions() -> bool {
    let mut good = true;
    for regression in REGRESSIONS {
        let outcome = run(regression.seed, &regression.options());
        if outcome.breach.is_some() {
            tell(&outcome);
            good = false;
        }
    }
    println!("{} regressions, {}", REGRESSIONS.len(), if good { "all at rest" } else { "not all at rest" });
    good
}

/// Each planted bug, and which seed and invariant caught it.
fn planted() -> bool {
    println!("| bug | what it does | seed | caught by |\n| --- | --- | --- | --- |");
    let caught = catch_all(WITHIN, threads(), &Options::default());
    let all = caught.iter().all(|(_, outcome)| outcome.is_some());
    for (bug, outcome) in caught {
        let (seed, by) = outcome.map_or(("–".to_owned(), "not caught".to_owned()), |outcome| {
            let by = outcome.breach.map(|breach| breach.invariant.to_owned());
            (outcome.seed.to_string(), by.unwrap_or_default())
        });
        println!("| {} | {} | {seed} | {by} |", bug.number(), bug.what());
    }
    all
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
