//! The load of `forward`: `bench-load ADDRESS CONNECTIONS WARM_UP SECONDS [RATE]` prints a JSON summary.
//!
//! Without a rate the loop is closed, with one it is open; see `cocktail_benches::load`.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cocktail_benches::load::{self, Plan};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, warm_up, seconds, rate @ ..] = args.as_slice() else {
        bail!("usage: bench-load ADDRESS CONNECTIONS WARM_UP SECONDS [RATE]");
    };
    let time = |text: &str| -> Result<Duration> {
        Duration::try_from_secs_f64(text.parse()?).with_context(|| format!("{text} is not a time in seconds"))
    };
    let plan = Plan {
        address: address.parse().with_context(|| format!("{address} is not an address"))?,
        connections: connections.parse().context("CONNECTIONS is not a number")?,
        warm_up: time(warm_up)?,
        duration: time(seconds)?,
    };
    let summary = match rate.first() {
        Some(rate) => load::open(&plan, rate.parse().context("RATE is not a number")?)?,
        None => load::closed(&plan)?,
    };
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}
