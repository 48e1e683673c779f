//! The keeper as its users see it: real processes, a real socket.
//!
//! This program calls `init()` first, so it becomes its own keeper, and it plays workers too (`support::play`). Each test
//! has a directory and a keeper of its own; whatever it started is gone when it ends, also when it failed.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod adopt;
mod exec;
mod forward;
mod life;
mod logs;
mod ports;
mod safety;
mod stop;
mod support;

use libtest_mimic::{Arguments, Trial};

fn main() {
    cocktail_keeper::init();
    support::play();
    let arguments = Arguments::from_args();
    let tests: Vec<Trial> = [
        life::tests(),
        stop::tests(),
        logs::tests(),
        exec::tests(),
        adopt::tests(),
        ports::tests(),
        forward::tests(),
        safety::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, tests).exit();
}
