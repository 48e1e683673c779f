//! Tests of the session: each rule by itself, and random histories of a small cluster.

mod histories;
mod host;
mod machine;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseEnd, Order, Spans, Timing};
use crate::contract::{Launch, Lease};
use crate::id::{ContainerId, Epoch, Generation, StoreId};
use crate::spec::Resources;

/// Spans that are as tight as they may be, so that whatever is a little early is seen.
fn spans() -> Spans {
    Spans {
        beat: Duration::from_millis(500),
        lease: Duration::from_millis(3_000),
        fence: Duration::from_millis(500),
        clock_ppm: 500,
        margin: Duration::from_millis(50),
        silent_after: Duration::from_millis(1_200),
        replace_after: Duration::from_millis(3_554),
    }
}

fn timing() -> Timing {
    Timing::new(spans()).unwrap()
}

fn lease(epoch: u64, keys: &[String]) -> Lease {
    let (key, earlier) = keys.split_last().unwrap();
    Lease { store: StoreId::new("store"), epoch: Epoch(epoch), key: key.clone(), earlier: earlier.to_vec() }
}

fn start(container: &ContainerId, generation: u64, at_lease_end: LeaseEnd) -> Order {
    let launch = Launch {
        container: container.clone(),
        generation: Generation(generation),
        store: StoreId::new("store"),
        epoch: Epoch(1),
        argv: vec!["work".to_owned()],
        env: BTreeMap::new(),
        env_from: Vec::new(),
        secrets: BTreeMap::new(),
        cwd: PathBuf::from("/"),
        user: None,
        ports: Vec::new(),
        resources: Resources::default(),
        rlimits: BTreeMap::new(),
        volumes: Vec::new(),
        probes: Vec::new(),
        worker: None,
        paused: false,
        outlives_lease: false,
        image: None,
        artifact: None,
    };
    Order::Start { launch: Arc::new(launch), at_lease_end }
}
