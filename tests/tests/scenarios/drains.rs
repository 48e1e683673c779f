//! Very many containers that leave while clients ask without a pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use cocktail_tests::{Home, Load, Shape, http};

const WORKER: &str = env!("CARGO_BIN_EXE_sdk-worker");

/// Containers that leave in all, unless `COCKTAIL_DRAINS` says another number.
const DRAINS: u64 = 1_000;
/// Jobs that are handed out at least, however long each of them takes.
const JOBS: u64 = 1_000;
/// Who hands out jobs, one after the other.
const DISPATCHERS: u64 = 8;
const MANY: usize = 20;
const FEW: usize = 5;
/// Of those that leave, so many wait for the next time; the others end.
const WARM: usize = 8;

/// Jobs of different lengths, handed out until they are told to stop.
struct Jobs {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    dispatchers: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Jobs {
    fn hand_out(port: u16) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let dispatcher = |number: u64| {
            let (over, done) = (over.clone(), done.clone());
            thread::spawn(move || {
                let mut lost = Vec::new();
                for job in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    // Workers are busy for a while and idle for a while.
                    let millis = (number * 37 + job * 53) % 250;
                    match http::get(port, &format!("/slow?{millis}")) {
                        Ok(answer) if answer.status == 200 && answer.body == "slow\n" => {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        other => lost.push(format!("job {job} of {millis} ms: {other:?}")),
                    }
                }
                lost
            })
        };
        let dispatchers = (0..DISPATCHERS).map(dispatcher).collect();
        Self { over, done, dispatchers }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Jobs that were lost.
    fn stop(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.dispatchers.into_iter().flat_map(|it| it.join().unwrap()).collect()
    }
}

#[test]
fn whoever_leaves_drops_and_refuses_nothing_and_loses_no_job() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    // What waits is of those that have left: more there may not be.
    home.write(
        "m.toml",
        format!(
            "service = \"shop\"\nquota = {{ containers = {MANY} }}\n[maps.prod.units.orders]\nworker = \"{WORKER}\"\n\
             microservices = [\"orders\"]\nconfig.orders = {{ greeting = \"hi\" }}\nreplicas = {MANY}\nwarm = {WARM}\n\
             ports.http = {{ service = {port} }}\n"
        ),
    );
    home.ok(&["apply", "--wait", "m.toml"]);
    let wanted = std::env::var("COCKTAIL_DRAINS").ok().and_then(|text| text.parse().ok()).unwrap_or(DRAINS);
    let load = Load::of(port, Shape { kept_rate: 250, kept: 16, new_rate: 250, path: "/".into() });
    let jobs = Jobs::hand_out(port);
    let mut drains = 0;
    while drains < wanted || jobs.done() < JOBS {
        home.ok(&["scale", "orders", &FEW.to_string()]);
        home.eventually("few serve and the others wait or have ended", || {
            let all = home.look_at_containers("orders").unwrap_or_default();
            let ready = all.iter().filter(|it| it["state"] == "ready").count();
            let waiting = all.iter().filter(|it| it["state"] == "waiting").count();
            ready == FEW && waiting == WARM && all.len() == FEW + WARM
        });
        drains += (MANY - FEW) as u64;
        home.ok(&["scale", "orders", &MANY.to_string()]);
        home.eventually("all serve", || {
            let all = home.look_at_containers("orders").unwrap_or_default();
            all.len() == MANY && all.iter().all(|it| it["state"] == "ready")
        });
    }
    let lost = jobs.stop();
    assert!(lost.is_empty(), "{} jobs were lost: {:#?}", lost.len(), &lost[..lost.len().min(5)]);
    load.stop_after(drains);
    home.finish();
}
