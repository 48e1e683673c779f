//! A load that outgrows a Unit and goes away again, while workers wait for it.
//!
//! Each answer takes 100 ms and next to no CPU, so what is in flight is known: the rate times that. The Unit's target is five in
//! flight for each container. Every 20 ms the ready containers are counted; `pressure` is the most that was in flight for each
//! of them, over the target.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cocktail_benches::wave::{self, Phase};

use super::{WORKER, call};
use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc;

const ANSWER: Duration = Duration::from_millis(100);
const TARGET: u32 = 5;
const MOST: u32 = 8;
/// Requests a second: one container, and what five are needed for.
const LOW: f64 = 20.0;
const HIGH: f64 = 240.0;
const LOOK: Duration = Duration::from_millis(20);

/// What became of the load.
pub(super) struct Overload {
    pub(super) sent: u64,
    pub(super) failures: Vec<String>,
    /// Most that was in flight for each ready container, over the target.
    pub(super) pressure: f64,
    pub(super) most: u32,
    pub(super) least_after: u32,
}

const fn phases() -> [Phase; 5] {
    [
        Phase::steady(LOW, Duration::from_secs(3)),
        Phase { from: LOW, to: HIGH, lasts: Duration::from_secs(20) },
        Phase::steady(HIGH, Duration::from_secs(3)),
        Phase { from: HIGH, to: LOW, lasts: Duration::from_secs(10) },
        Phase::steady(LOW, Duration::from_secs(10)),
    ]
}

pub(super) fn overload(setup: &Setup, program: &Path) -> Result<Overload> {
    let marker = proc::unique_sleep();
    let mut ours = Cocktail::install(setup, program, (WORKER, &marker))?;
    let port = drivers::free_port()?;
    let file = ours.manifest(&format!(
        "service = \"bench\"\n[manager]\nusage = \"250ms\"\n[maps.bench.units.web]\n\
         worker = [\"{}\", \"{marker}\"]\nmicroservices = [\"web\"]\nconfig.web = {{ takes_ms = {} }}\nwarm = 2\n\
         scale = {{ min = 1, max = {MOST}, in_flight = {TARGET}, down = {{ stabilize = \"3s\" }} }}\n\
         ports.http = {{ service = {port} }}\n",
        setup.program(WORKER).display(),
        ANSWER.as_millis(),
    ))?;
    ours.serve()?;
    ours.apply_and_wait(&file)?;
    let socket = ours.data_dir().join("cocktail.sock");
    let (phases, begin, over) = (phases(), Instant::now(), AtomicBool::new(false));
    let look = || -> Result<(f64, u32, u32)> {
        let (mut pressure, mut most, mut last) = (0.0_f64, 0, 0);
        while !over.load(Ordering::Relaxed) {
            let units = call(&socket, "GET", "/v1/units", "")?;
            let ready = units[0]["ready"].as_u64().and_then(|it| u32::try_from(it).ok()).context("a unit is ready")?;
            let in_flight = wave::rate_at(&phases, begin.elapsed()) * ANSWER.as_secs_f64();
            pressure = pressure.max(in_flight / f64::from(ready * TARGET));
            most = most.max(ready);
            last = ready;
            thread::sleep(LOOK);
        }
        Ok((pressure, most, last))
    };
    let (outcome, looked) = thread::scope(|scope| {
        let looking = scope.spawn(look);
        let outcome = wave::run(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &phases, begin);
        over.store(true, Ordering::Relaxed);
        (outcome, looking.join())
    });
    let outcome = outcome?;
    let (pressure, most, least_after) = looked.map_err(|_| anyhow::anyhow!("who looks has panicked"))??;
    ours.down()?;
    Ok(Overload { sent: outcome.sent, failures: outcome.failures, pressure, most, least_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_asks_for_more_containers_than_one_and_fewer_than_there_may_be() {
        let containers = |rate: f64| (rate * ANSWER.as_secs_f64() / f64::from(TARGET)).ceil();
        assert_eq!(containers(LOW), 1.0);
        assert!((2.0..f64::from(MOST)).contains(&containers(HIGH)));
    }
}
