//! What is left of which server, in order, which Units are where, and which containers: kept while they change, so that a
//! place is found by looking at a few servers among thousands, and what is about one server costs what is on it.
//!
//! Derived: [`State::count_rooms`] makes it anew, and the simulated world compares the two after every step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::container::Container;
use crate::id::{ContainerId, ServerId, UnitId};
use crate::lookup::Lookup;
use crate::name::Name;
use crate::server::{Server, ServerState};
use crate::spec::Resources;

/// Servers that share a provider and a zone, and whether they run images or programs.
pub(crate) type Yard = (Name, Option<String>, bool);

/// A server in the order of what is left of it: [`share`] first, then the order of ids from the back.
pub(crate) type Rank = (u32, Reverse<ServerId>);

/// How many containers a Unit has on which server.
pub(crate) type Spots = Lookup<UnitId, Lookup<ServerId, u32>>;

/// Containers by server.
pub(super) type Here = Lookup<ServerId, BTreeSet<ContainerId>>;

/// Servers that take containers, by what is left of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rooms {
    yards: BTreeMap<Yard, BTreeSet<Rank>>,
    ranks: Lookup<ServerId, (Yard, u32)>,
}

impl Rooms {
    /// Puts a server where it belongs now.
    pub(crate) fn set(&mut self, server: &Server, left: Resources) {
        let takes = server.state == ServerState::Ready && server.tenure.quiet.is_none();
        let rank = takes.then(|| share(left, server.capacity));
        if let Some((yard, before)) = self.ranks.get_mut(&server.id) {
            let stays = is_in(server, yard);
            if Some(*before) == rank && stays {
                return;
            }
            if let Some(ranked) = self.yards.get_mut(yard) {
                ranked.remove(&(*before, Reverse(server.id.clone())));
                if let (Some(rank), true) = (rank, stays) {
                    ranked.insert((rank, Reverse(server.id.clone())));
                    *before = rank;
                    return;
                }
                if ranked.is_empty() {
                    self.yards.remove(yard);
                }
            }
            self.ranks.remove(&server.id);
        }
        let Some(rank) = rank else { return };
        let yard = (server.provider.clone(), server.zone.clone(), server.images);
        self.yards.entry(yard.clone()).or_default().insert((rank, Reverse(server.id.clone())));
        self.ranks.insert(server.id.clone(), (yard, rank));
    }

    fn forget(&mut self, server: &ServerId) {
        let Some((yard, rank)) = self.ranks.remove(server) else { return };
        if let Some(ranked) = self.yards.get_mut(&yard) {
            ranked.remove(&(rank, Reverse(server.clone())));
            if ranked.is_empty() {
                self.yards.remove(&yard);
            }
        }
    }

    /// All yards in order.
    pub(crate) fn yards(&self) -> impl Iterator<Item = (&Yard, &BTreeSet<Rank>)> {
        self.yards.iter()
    }

    /// How much of a server is left, as [`share`] counts it.
    pub(crate) fn rank(&self, server: &ServerId) -> Option<u32> {
        self.ranks.get(server).map(|(_, rank)| *rank)
    }
}

/// Whether a server belongs to a yard.
pub(crate) fn is_in(server: &Server, yard: &Yard) -> bool {
    yard.0 == server.provider && yard.1 == server.zone && yard.2 == server.images
}

/// What is left of a server in millionths, of the resource that is scarcest.
pub(crate) fn share(left: Resources, capacity: Resources) -> u32 {
    let part = |left: u64, all: u64| match (all, left.min(all).checked_mul(1_000_000)) {
        (0, _) => 0,
        (_, Some(millionths)) => u32::try_from(millionths / all).unwrap_or(1_000_000),
        (_, None) => u32::try_from(u128::from(left.min(all)) * 1_000_000 / u128::from(all)).unwrap_or(1_000_000),
    };
    part(left.cpu.0, capacity.cpu.0).min(part(left.memory.0, capacity.memory.0))
}

/// What is left of a server.
pub(crate) fn left(server: &Server) -> Resources {
    let mut left = server.capacity;
    left.cpu.0 = left.cpu.0.saturating_sub(server.allocated.cpu.0);
    left.memory.0 = left.memory.0.saturating_sub(server.allocated.memory.0);
    left
}

impl State {
    /// Servers by what is left of them.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.soft.rooms
    }

    /// How many containers a Unit has on which server.
    pub(crate) fn spots(&self, unit: &UnitId) -> Option<&Lookup<ServerId, u32>> {
        self.soft.spots.get(unit)
    }

    /// A server was made, has changed or is gone.
    pub(super) fn rank(&mut self, server: &ServerId) {
        match self.servers.get(server) {
            Some(record) => self.soft.rooms.set(record, left(record)),
            None => self.soft.rooms.forget(server),
        }
    }

    /// Containers on a server, in the order of their ids.
    pub fn on(&self, server: &ServerId) -> impl Iterator<Item = &Container> {
        self.soft.here.get(server).into_iter().flatten().filter_map(|id| self.containers.get(id))
    }

    pub(super) fn spot_in(&mut self, record: &Container) {
        let Container { id, unit, server, .. } = record;
        self.soft.here.get_or_default(server.clone()).insert(id.clone());
        // What waits for whoever needs it is in nobody's way.
        if !record.is_spare() {
            *self.soft.spots.get_or_default(unit.clone()).get_or_default(server.clone()) += 1;
        }
    }

    pub(super) fn spot_out(&mut self, record: &Container) {
        let Container { id, unit, server, .. } = record;
        if let Some(here) = self.soft.here.get_mut(server) {
            here.remove(id);
            if here.is_empty() {
                self.soft.here.remove(server);
            }
        }
        let Some(spots) = self.soft.spots.get_mut(unit).filter(|_| !record.is_spare()) else { return };
        if let Some(count) = spots.get_mut(server) {
            *count -= 1;
            if *count == 0 {
                spots.remove(server);
            }
        }
        if spots.is_empty() {
            self.soft.spots.remove(unit);
        }
    }

    /// Counts everything, after loading.
    pub(crate) fn count_rooms(&mut self) {
        (self.soft.rooms, self.soft.spots, self.soft.here) = (Rooms::default(), Lookup::default(), Lookup::default());
        for server in self.servers.keys().cloned().collect::<Vec<_>>() {
            self.rank(&server);
        }
        let containers = std::mem::take(&mut self.containers);
        for record in containers.values() {
            self.spot_in(record);
        }
        self.containers = containers;
    }

    /// What is derived here, to be compared.
    #[cfg(test)]
    pub(crate) fn derived_rooms(&self) -> (&Rooms, &Spots, &Here) {
        (&self.soft.rooms, &self.soft.spots, &self.soft.here)
    }
}
