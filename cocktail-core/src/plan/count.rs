//! How many containers a Unit has, by what is to become of them.

use crate::container::{Container, ContainerState};
use crate::state::State;
use crate::unit::Unit;

/// The containers of a Unit, sorted by what is to become of them.
#[derive(Debug)]
pub(super) struct Census<'a> {
    /// Containers that shall exist.
    pub(super) goal: usize,
    /// Live, of the current revision, not to be replaced.
    pub(super) fresh: Vec<&'a Container>,
    /// Live, to be replaced.
    pub(super) outdated: Vec<&'a Container>,
    /// On their way out.
    pub(super) leaving: usize,
    /// On their way out because they were replaced.
    pub(super) leaving_outdated: usize,
}

pub(super) fn census<'a>(state: &'a State, unit: &'a Unit) -> Census<'a> {
    let goal = if state.is_halting() { 0 } else { unit.goal() as usize };
    let mut census = Census { goal, fresh: Vec::new(), outdated: Vec::new(), leaving: 0, leaving_outdated: 0 };
    for container in state.of(unit) {
        let replaced = container.revision != unit.revision || container.replace.is_some();
        if !container.state.is_live() {
            if !matches!(container.state, ContainerState::Stopped) {
                census.leaving += 1;
                census.leaving_outdated += usize::from(replaced);
            }
        } else if replaced {
            census.outdated.push(container);
        } else {
            census.fresh.push(container);
        }
    }
    census.fresh.sort_by_key(|container| container.ordinal);
    census.outdated.sort_by_key(|container| container.ordinal);
    census
}

impl Census<'_> {
    /// Containers to make now.
    pub(super) fn missing(&self, unit: &Unit) -> usize {
        let wanted = self.goal.saturating_sub(self.fresh.len());
        if unit.stop_first().is_some() {
            // What is leaving still has the volume or the port.
            let present = self.fresh.len() + self.outdated.len() + self.leaving;
            return wanted.min(self.goal.saturating_sub(present));
        }
        if self.outdated.is_empty() && self.leaving_outdated == 0 {
            return wanted;
        }
        let most = self.goal + unit.spec.update.surge.max(1) as usize;
        let present = self.fresh.len() + self.outdated.len() + self.leaving_outdated;
        wanted.min(most.saturating_sub(present))
    }

    /// Containers that take traffic.
    pub(super) fn ready(&self) -> usize {
        self.fresh.iter().chain(&self.outdated).filter(|container| container.state == ContainerState::Ready).count()
    }
}
