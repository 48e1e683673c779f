//! The network between the Manager and its servers: messages that are slow, lost, or cut off for a while.
//!
//! Start at [`World::way_there`] and [`World::way_back`]: how long a message is on its way, or that it never arrives.
//! A cut is of one direction or of both; what runs into it is lost, or arrives in any order once the cut has healed.

use cocktail_core::id::ServerId;

use super::world::{Happening, World};

/// A server that is cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    until: u64,
    /// What the Manager sends, and what the server sends, does not pass.
    there: bool,
    back: bool,
    /// Messages wait for the end of the cut instead of being lost.
    held: bool,
}

impl World {
    /// How long a message of the Manager to a server is on its way; `None` where it is lost.
    pub(super) fn way_there(&mut self, server: &ServerId) -> Option<u64> {
        self.way(server, |cut| cut.there)
    }

    /// How long a message of a server to the Manager is on its way; `None` where it is lost.
    pub(super) fn way_back(&mut self, server: &ServerId) -> Option<u64> {
        self.way(server, |cut| cut.back)
    }

    fn way(&mut self, server: &ServerId, stops: fn(&Cut) -> bool) -> Option<u64> {
        let lost = self.chance.happens(self.rates.message_lost);
        let pause = self.chance.around(self.rates.message);
        let cut = self.cuts.get(server).filter(|cut| cut.until > self.now && stops(cut));
        match cut {
            Some(cut) if !cut.held => None,
            Some(cut) => (!lost).then_some(cut.until - self.now + pause),
            None => (!lost).then_some(pause),
        }
    }

    /// One server is cut off from the Manager, or many at once.
    pub(super) fn cut_off(&mut self) {
        if self.healed {
            return;
        }
        let many = self.chance.happens(250);
        let until = self.now + self.chance.between(1_000, 600_000);
        let way = self.chance.below(4);
        let (there, back, held) = (way != 1, way != 2, self.chance.happens(500));
        let all: Vec<ServerId> = self.machines.keys().cloned().collect();
        let one = self.chance.pick(&all).cloned();
        for server in all {
            let chosen = if many { self.chance.happens(500) } else { Some(&server) == one.as_ref() };
            if chosen {
                self.trace.note(self.now, format_args!("{server} is cut off until {until}: {there} {back} {held}"));
                self.cuts.insert(server, Cut { until, there, back, held });
            }
        }
        self.again(self.rates.cut, Happening::Cut);
    }
}
