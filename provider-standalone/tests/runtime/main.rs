//! The runtime on real processes, with a real keeper.
//!
//! A program becomes its own keeper by running itself again, so this test has a `main` of its own; and it is its own
//! worker as well (`worker.rs`), so that nothing needs to be installed.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod conformance;
mod data;
mod exec;
mod forwarding;
mod lifecycle;
mod machine;
mod probes;
mod recovery;
mod secrets;
mod worker;

use libtest_mimic::{Arguments, Trial};

fn main() {
    cocktail_keeper::init();
    if worker::is_one() {
        return worker::run();
    }
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [
        lifecycle::trials(),
        data::trials(),
        probes::trials(),
        recovery::trials(),
        secrets::trials(),
        exec::trials(),
        forwarding::trials(),
        conformance::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
