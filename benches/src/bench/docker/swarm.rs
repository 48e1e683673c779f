//! Swarm on the same engine.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::engine::PrivateEngine;

use super::api::Api;
use super::stage::IMAGE;
use crate::proc;

const NAME: &str = "bench";
/// A network on which services reach each other by name.
const NETWORK: &str = "bench-names";

pub(super) struct Swarm<'a> {
    engine: &'a PrivateEngine,
}

impl<'a> Swarm<'a> {
    pub(super) fn begin(engine: &'a PrivateEngine) -> Result<Self> {
        engine.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"])?;
        engine.docker(&["network", "create", "--driver", "overlay", NETWORK])?;
        Ok(Self { engine })
    }

    /// Has containers made, `named` on a network on which they reach other services by name.
    pub(super) fn create(&self, count: usize, named: bool) -> Result<()> {
        let count = count.to_string();
        let mut arguments = vec!["service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", NAME];
        arguments.extend(["--replicas", &count, "--restart-delay", "0s", "--init", "--stop-grace-period", "10s"]);
        if named {
            arguments.extend(["--network", NETWORK]);
        }
        arguments.extend([IMAGE, "sleep", "36000"]);
        self.engine.docker(&arguments).map(drop)
    }

    /// Replaces all, a few at a time, each new one first.
    pub(super) fn update(&self, at_once: usize) -> Result<()> {
        let at_once = at_once.to_string();
        let mut arguments = vec!["service", "update", "--detach", "--quiet", "--no-resolve-image"];
        arguments.extend(["--update-order", "start-first", "--update-parallelism", &at_once]);
        arguments.extend(["--update-delay", "0s", "--update-monitor", "0s", "--env-add", "V=2", NAME]);
        self.engine.docker(&arguments).map(drop)
    }

    pub(super) fn is_updated(&self, api: &Api) -> Result<bool> {
        let service = api.call("GET", &format!("/services/{NAME}"), "")?;
        let state = service["UpdateStatus"]["State"].as_str().unwrap_or_default();
        ensure!(!state.contains("paused") && !state.contains("rollback"), "the update of Swarm is {state}");
        Ok(state == "completed")
    }

    pub(super) fn remove(&self, api: &Api) -> Result<()> {
        self.engine.docker(&["service", "rm", NAME])?;
        proc::wait_for("the end of a service", Duration::from_secs(300), || {
            let left = api.call("GET", "/containers/json?all=true", "");
            left.is_ok_and(|left| left.as_array().is_some_and(Vec::is_empty))
        })
    }
}
