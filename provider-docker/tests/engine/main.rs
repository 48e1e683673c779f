//! The provider on an engine of its own.
//!
//! The program runs itself once more in a network of its own, and starts an engine there: published ports, probes and what
//! takes ports from others meet on its loopback, and nothing of the machine's is touched. Tests run one after the other,
//! each with a store of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod builds;
mod conformance;
mod faults;
mod guard;
mod lines;
mod machine;
mod prune;
mod registries;
mod starts;
mod warm;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs, process};

use libtest_mimic::{Arguments, Trial};
use xtask::Condition;

/// Says that the program is in a network of its own.
const INSIDE: &str = "COCKTAIL_TEST_NETWORK";

fn main() {
    cocktail_provider_docker::guard::init();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if !arguments.list && !Condition::NoDockerEngine.holds() && env::var_os(INSIDE).is_none() {
        let program = fs::read_link("/proc/self/exe").expect("a program has a file");
        let mut inside = Command::new("unshare");
        inside.args(["--net", "--", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"]).arg(program);
        // What a Manager has in its environment: credential helpers and a password.
        let helpers = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/helpers");
        inside.env("PATH", format!("{helpers}:{}", env::var("PATH").unwrap_or_default()));
        inside.env(machine::PASSWORD_VARIABLE, xtask::registry::PASSWORD);
        // It is this process that goes on there.
        inside.env(lines::FOLDER, format!("/tmp/ckt-ssh-{}", process::id()));
        let error = inside.args(env::args_os().skip(1)).env(INSIDE, "1").exec();
        panic!("the tests cannot have a network of their own: {error}");
    }
    let suites = [
        conformance::trials(),
        starts::trials(),
        warm::trials(),
        registries::trials(),
        builds::trials(),
        prune::trials(),
        lines::trials(),
        guard::trials(),
        faults::trials(),
    ];
    let trials: Vec<Trial> = suites.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    machine::end_engine();
    process::exit(i32::from(conclusion.has_failed()) * 101);
}
