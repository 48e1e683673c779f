//! The end of a run: nothing goes wrong any more, and everything has to come to rest.

use std::collections::BTreeSet;

use cocktail_core::container::ContainerState;
use cocktail_core::ports::PortLease;
use cocktail_core::server::ServerState;

use super::rates::Rates;
use super::turn::is_settled;
use super::world::{Happening, World};

impl World {
    /// All faults are off.
    pub(super) fn heal(&mut self) {
        self.trace.note(self.now, format_args!("nothing goes wrong any more"));
        self.healed = true;
        self.rates = Rates::calm();
        self.provider.in_stock.fill(true);
        self.provider.quota = self.limit as usize + 5;
        self.cuts.clear();
        for machine in self.machines.values_mut() {
            machine.paused = machine.paused.min(self.now);
        }
        if let Some(manager) = &mut self.manager {
            manager.dies = None;
        }
        let (now, store) = (self.now, self.store.id.clone());
        for object in self.provider.objects.values_mut() {
            if object.owner.as_ref().is_none_or(|owner| owner.store != store) || object.ending.is_some() {
                object.ended.get_or_insert(now);
            }
        }
        self.after(10_000, Happening::User);
    }

    /// V1 and V2: what was asked for is there, nothing else is, and nothing is under way.
    pub(super) fn check_rest(&mut self) {
        if let Some(found) = self.unrest() {
            self.breach("V1 rest", found);
        }
        let state = &self.replayed;
        let open = state.operations.values().map(|it| format!("operation {} on {}", it.id, it.container)).next();
        let open = open.or(state.server_operations.values().map(|it| format!("operation {} on servers", it.id)).next());
        if let Some(open) = open {
            self.breach("V2 every operation ends", format!("{open} is open"));
        }
    }

    fn unrest(&self) -> Option<String> {
        let state = &self.replayed;
        if self.manager.is_none() {
            return Some("no Manager runs".into());
        }
        for (id, unit) in &state.units {
            let there: Vec<_> = state.containers.values().filter(|it| it.unit == *id).collect();
            let good = |it: &&&cocktail_core::container::Container| {
                let done = unit.is_job() && it.is_done();
                let current = it.revision == unit.revision && it.replace.is_none();
                // A job's containers come and go until they are done.
                current && (done || it.state == ContainerState::Ready)
            };
            let ready = there.iter().filter(good).count();
            let waits = there.iter().filter(|it| it.state == ContainerState::Waiting && it.replace.is_none()).count();
            let warm = if unit.stopped { 0 } else { unit.spec.warm.count as usize };
            if ready != unit.goal() as usize
                || waits != warm
                || there.len() != ready + waits
                || !is_settled(unit.rollout.as_ref())
            {
                let odd = there
                    .iter()
                    .find(|it| !good(it) && it.state != ContainerState::Waiting)
                    .map(|it| format!("{} is {}: {}", it.id, it.state, it.reason));
                let odd = odd.unwrap_or_default();
                let rollout = unit.rollout.as_ref().map(|it| it.state.as_str()).unwrap_or_default();
                return Some(format!(
                    "{id} has {ready} of {} ready, {} in all, rollout {rollout}, held {:?}; {odd}",
                    unit.goal(),
                    there.len(),
                    unit.held
                ));
            }
        }
        self.stray_server().or_else(|| self.stray_process()).or_else(|| self.leaked_port())
    }

    fn stray_server(&self) -> Option<String> {
        let state = &self.replayed;
        for (id, object) in self.provider.ours() {
            match state.servers.get(&object.server) {
                Some(server) if server.state == ServerState::Ready && object.runs() => {}
                Some(server) => return Some(format!("{id} is {} {}: {}", server.id, server.state, server.reason)),
                None => return Some(format!("{id} is an orphan, once {}", object.server)),
            }
        }
        let now = self.manager_time();
        for server in state.servers.values() {
            if !self.provider.runs(&server.id) {
                return Some(format!("{} is {}, and nothing is there", server.id, server.state));
            }
            let limit = self.limits().idle + std::time::Duration::from_secs(60);
            if server.containers == 0 && server.tenure.empty.is_none_or(|since| since + limit < now) {
                return Some(format!("{} is of no use since {:?}", server.id, server.tenure.empty));
            }
        }
        None
    }

    fn stray_process(&self) -> Option<String> {
        let state = &self.replayed;
        for machine in self.machines.values() {
            for (id, process) in &machine.processes {
                let known = state.containers.get(id).is_some_and(|it| it.generation == process.generation);
                if !known {
                    return Some(format!("{id} runs on {} and is not known", machine.server));
                }
            }
        }
        let ready = state.containers.values().filter(|it| it.state == ContainerState::Ready);
        for container in ready {
            let runs = self.machines.get(&container.server).and_then(|it| it.processes.get(&container.id));
            if runs.is_none_or(|it| it.generation != container.generation) {
                return Some(format!("{} counts as ready and does not run", container.id));
            }
        }
        None
    }

    fn leaked_port(&self) -> Option<String> {
        let state = &self.replayed;
        for (server, pool) in &state.ports {
            let held: BTreeSet<u16> =
                pool.leases().filter(|(_, lease)| matches!(lease, PortLease::Held(_))).map(|(port, _)| port).collect();
            let on_it = state.containers.values().filter(|it| it.server == *server && it.holds_ports());
            let used: BTreeSet<u16> = on_it.flat_map(|it| it.port_numbers()).collect();
            if let Some(port) = held.symmetric_difference(&used).next() {
                return Some(format!("port {port} of {server} is leaked"));
            }
        }
        None
    }
}
