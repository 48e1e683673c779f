//! What clients ask for: workers are busy or idle, and the Manager reads it.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::event::Soft;
use cocktail_core::id::ServerId;
use cocktail_core::scaling::{Sample, TrafficSample};

use super::manager::Input;
use super::user::BUSY;
use super::world::{Happening, World};

/// Pause between two readings.
pub(super) const SAMPLE: u64 = 10_000;
/// Most requests under way.
const MOST: u64 = 48;

impl World {
    /// Clients ask for more, or for less; what they ask for last stays.
    pub(super) fn load_changes(&mut self) {
        if !self.healed {
            self.user.load = self.chance.below(MOST + 1);
            self.trace.note(self.now, format_args!("{} requests are under way", self.user.load));
            self.again(self.rates.load, Happening::Load);
        }
    }

    /// The Manager reads what its containers do, where it reaches them.
    pub(super) fn sample(&mut self) {
        let life = self.life;
        self.after(SAMPLE, Happening::Sample { life });
        let Some(id) = self.replayed.unit_named(BUSY).ok() else { return };
        let ready: Vec<_> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.up && machine.paused <= self.now)
            .flat_map(|(server, machine)| {
                machine.processes.iter().filter(|(_, it)| it.ready).map(move |(container, _)| (server, container))
            })
            .filter(|(_, container)| self.replayed.containers.get(container).is_some_and(|it| it.unit == id))
            .map(|(server, container)| (server.clone(), container.clone()))
            .collect();
        let each = self.user.load.div_ceil(ready.len().max(1) as u64);
        let servers: BTreeSet<ServerId> = ready.iter().map(|(server, _)| server.clone()).collect();
        let mut answers = |server: &ServerId| self.way_back(server).is_some_and(|pause| pause < SAMPLE);
        let reached: BTreeSet<ServerId> = servers.into_iter().filter(|it| answers(it)).collect();
        let traffic = TrafficSample { connections: each, in_flight: each, ..TrafficSample::default() };
        let sample = Sample { traffic: Some(traffic), ..Sample::default() };
        let read = ready.into_iter().filter(|(server, _)| reached.contains(server));
        let samples: BTreeMap<_, _> = read.map(|(_, container)| (container, sample.clone())).collect();
        self.input(Input::Soft(Soft::Sampled(samples)));
    }
}
