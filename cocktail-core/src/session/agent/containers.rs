//! The containers of an agent: from orders to what the runtime does, and back to outcomes.
//!
//! Start at [`Containers::take`]. What always holds: a generation is run after every older one has ended, and once at
//! most; what has become of an order is read from the container's state, so that it does not matter in which order
//! things end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::memory::Memo;
use super::{AgentMemory, AgentOutput, Effect, Survivor};
use crate::contract::Launch;
use crate::id::{ContainerId, Generation};
use crate::session::message::{Held, LeaseEnd, Order, OrderRefusal, Outcome, Phase};

/// Everything that an agent holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Containers {
    all: BTreeMap<ContainerId, Own>,
    /// What is no longer as it was told.
    changed: BTreeSet<ContainerId>,
}

#[derive(Debug, Clone)]
struct Own {
    held: Held,
    at_lease_end: LeaseEnd,
    /// What waits for an older generation to end.
    next: Option<Arc<Launch>>,
}

impl Own {
    fn ended(generation: Generation) -> Self {
        let held = Held { generation, phase: Phase::Ended(None), blocked: false, older: None };
        Self { held, at_lease_end: LeaseEnd::End, next: None }
    }

    /// Every generation that may have a process.
    fn alive(&self) -> impl Iterator<Item = Generation> + use<> {
        let newest = matches!(self.held.phase, Phase::Starting | Phase::Running | Phase::Ending);
        self.held.older.into_iter().chain(newest.then_some(self.held.generation))
    }
}

impl Containers {
    /// What a new process of the agent finds: what it remembers, and what runs.
    pub(super) fn found(
        memory: &AgentMemory,
        survivors: BTreeMap<ContainerId, Survivor>,
        out: &mut AgentOutput,
    ) -> Self {
        let mut all: BTreeMap<ContainerId, Own> = BTreeMap::new();
        for (container, mark) in &memory.marks {
            let mut own = Own::ended(mark.generation);
            if mark.removed {
                own.held.phase = Phase::Removed;
            }
            all.insert(container.clone(), own);
        }
        for (container, survivor) in survivors {
            let Survivor { generation, exit, blocked, at_lease_end } = survivor;
            let own = all.entry(container.clone()).or_insert_with(|| Own::ended(generation));
            own.at_lease_end = at_lease_end;
            if generation < own.held.generation {
                // It was to be ended for a newer one, whose start is not known to have happened.
                if exit.is_none() {
                    own.held.older = Some(generation);
                    own.held.blocked = blocked;
                    out.effects.push(Effect::End { container, generation, grace: Duration::ZERO });
                }
                continue;
            }
            if own.held.phase == Phase::Removed && generation == own.held.generation && exit.is_some() {
                // The agent died between the memo and the deed.
                out.effects.push(Effect::Forget { container });
                continue;
            }
            own.held.generation = generation;
            own.held.phase = exit.map_or(Phase::Running, |exit| Phase::Ended(Some(exit)));
            own.held.blocked = blocked;
            out.memos.push(Memo::Mark(container, generation));
        }
        Self { all, changed: BTreeSet::new() }
    }

    /// Everything as it is now.
    pub(super) fn table(&self) -> BTreeMap<ContainerId, Held> {
        self.all.iter().map(|(container, own)| (container.clone(), own.held.clone())).collect()
    }

    /// What has changed since it was last asked.
    pub(super) fn take_changed(&mut self) -> Vec<(ContainerId, Held)> {
        let changed = std::mem::take(&mut self.changed);
        let held =
            |container: ContainerId| self.all.get(&container).map(|own| own.held.clone()).map(|h| (container, h));
        changed.into_iter().filter_map(held).collect()
    }

    /// Carries out an order; `grace` is what an older generation gets that a start replaces.
    ///
    /// `Err` says that it will not be done. Otherwise [`Containers::outcome`] says what came of it, now or later.
    pub(super) fn take(&mut self, order: &Order, grace: Duration, out: &mut AgentOutput) -> Result<(), OrderRefusal> {
        match order {
            Order::Start { launch, at_lease_end } => self.start(launch, *at_lease_end, grace, out)?,
            Order::Stop(stop) => self.stop(&stop.container, stop.generation, stop.grace, out),
            Order::Remove { container } => self.remove(container, out)?,
            Order::Admit { container, generation } => self.admit(container, *generation, out)?,
        }
        self.changed.insert(order.container().clone());
        Ok(())
    }

    /// What came of an order that was taken; `None` as long as that is open.
    pub(super) fn outcome(&self, order: &Order) -> Option<Outcome> {
        let Some(own) = self.all.get(order.container()) else { return Some(Outcome::Removed) };
        let held = &own.held;
        match order {
            Order::Start { launch, .. } if held.generation > launch.generation => {
                Some(Outcome::Refused(OrderRefusal::OlderGeneration { newest: held.generation }))
            }
            Order::Start { .. } => match &held.phase {
                Phase::Waiting | Phase::Starting | Phase::Ending => None,
                Phase::Running => Some(Outcome::Started),
                Phase::Failed(failure) => Some(Outcome::Failed(failure.clone())),
                Phase::Ended(_) | Phase::Removed => Some(Outcome::Refused(OrderRefusal::AlreadyEnded)),
            },
            Order::Stop(stop) if own.alive().any(|generation| generation <= stop.generation) => None,
            Order::Stop(stop) => Some(Outcome::Ended(match &held.phase {
                Phase::Ended(exit) if held.generation == stop.generation => *exit,
                _ => None,
            })),
            Order::Remove { .. } => Some(Outcome::Removed),
            Order::Admit { .. } => Some(Outcome::Admitted),
        }
    }

    fn start(
        &mut self,
        launch: &Arc<Launch>,
        at_lease_end: LeaseEnd,
        grace: Duration,
        out: &mut AgentOutput,
    ) -> Result<(), OrderRefusal> {
        let (container, generation) = (&launch.container, launch.generation);
        if let Some(own) = self.all.get(container) {
            if own.held.generation > generation {
                return Err(OrderRefusal::OlderGeneration { newest: own.held.generation });
            }
            if own.held.generation == generation {
                return Ok(());
            }
        }
        out.memos.push(Memo::Mark(container.clone(), generation));
        // An older one that was blocked stays so until it has ended: the runtime blocks generations, not containers.
        let older = self.all.get(container).and_then(|own| own.alive().next());
        if let Some(generation) = older {
            out.effects.push(Effect::End { container: container.clone(), generation, grace });
        }
        let phase = if older.is_some() { Phase::Waiting } else { Phase::Starting };
        let held = Held { generation, phase, blocked: false, older };
        let next = older.is_some().then(|| Arc::clone(launch));
        if older.is_none() {
            out.effects.push(Effect::Run { launch: Arc::clone(launch), at_lease_end });
        }
        self.all.insert(container.clone(), Own { held, at_lease_end, next });
        Ok(())
    }

    fn stop(&mut self, container: &ContainerId, generation: Generation, grace: Duration, out: &mut AgentOutput) {
        let own = self.all.entry(container.clone()).or_insert_with(|| Own::ended(generation));
        for generation in own.alive().filter(|alive| *alive <= generation) {
            out.effects.push(Effect::End { container: container.clone(), generation, grace });
        }
        if own.held.generation <= generation {
            out.memos.push(Memo::Mark(container.clone(), generation));
            own.next = None;
            if own.held.generation < generation {
                own.held.older = own.alive().last();
                own.held.generation = generation;
                own.held.phase = Phase::Ended(None);
            } else {
                own.held.phase = match std::mem::replace(&mut own.held.phase, Phase::Removed) {
                    Phase::Starting | Phase::Running | Phase::Ending => Phase::Ending,
                    Phase::Waiting => Phase::Ended(None),
                    over @ (Phase::Ended(_) | Phase::Failed(_) | Phase::Removed) => over,
                };
            }
        }
    }

    fn remove(&mut self, container: &ContainerId, out: &mut AgentOutput) -> Result<(), OrderRefusal> {
        let Some(own) = self.all.get_mut(container) else { return Ok(()) };
        if own.held.is_alive() || own.held.phase == Phase::Waiting {
            return Err(OrderRefusal::StillRuns);
        }
        own.held.phase = Phase::Removed;
        out.memos.push(Memo::Removed(container.clone()));
        out.effects.push(Effect::Forget { container: container.clone() });
        Ok(())
    }

    fn admit(
        &mut self,
        container: &ContainerId,
        generation: Generation,
        out: &mut AgentOutput,
    ) -> Result<(), OrderRefusal> {
        let own = self.all.get_mut(container).filter(|own| own.held.generation == generation);
        let Some(own) = own.filter(|own| matches!(own.held.phase, Phase::Starting | Phase::Running)) else {
            return Err(OrderRefusal::NotRunning);
        };
        own.held.blocked = false;
        out.effects.push(Effect::Unblock { container: container.clone(), generation });
        Ok(())
    }

    /// The runtime started a generation.
    pub(super) fn started(&mut self, container: &ContainerId, generation: Generation) {
        let Some(own) = self.all.get_mut(container) else { return };
        if own.held.generation == generation && own.held.phase == Phase::Starting {
            own.held.phase = Phase::Running;
            self.changed.insert(container.clone());
        }
    }

    /// Nothing of a generation is left, and this is how it ended.
    pub(super) fn over(
        &mut self,
        container: &ContainerId,
        generation: Generation,
        phase: Phase,
        out: &mut AgentOutput,
    ) {
        let Some(own) = self.all.get_mut(container) else { return };
        if own.held.older == Some(generation) {
            own.held.older = None;
            own.held.blocked = false;
            if let Some(launch) = own.next.take() {
                own.held.phase = Phase::Starting;
                out.effects.push(Effect::Run { launch, at_lease_end: own.at_lease_end });
            }
        } else if own.held.generation == generation && own.alive().any(|alive| alive == generation) {
            own.held.phase = phase;
            own.held.blocked = false;
        } else {
            return;
        }
        self.changed.insert(container.clone());
    }

    /// The lease is over: nothing may serve once `fence` has passed, and nothing new begins.
    pub(super) fn lease_over(&mut self, fence: Duration, out: &mut AgentOutput) {
        for (container, own) in &mut self.all {
            if own.held.phase == Phase::Waiting {
                own.next = None;
                own.held.phase = Phase::Ended(None);
                self.changed.insert(container.clone());
            }
            for generation in own.alive() {
                let container = container.clone();
                self.changed.insert(container.clone());
                match own.at_lease_end {
                    LeaseEnd::Keep => {
                        own.held.blocked = true;
                        out.effects.push(Effect::Block { container, generation });
                    }
                    // Also what is ending already: it may have been given longer than is left.
                    LeaseEnd::End => out.effects.push(Effect::End { container, generation, grace: fence }),
                }
            }
            if own.at_lease_end == LeaseEnd::End && matches!(own.held.phase, Phase::Starting | Phase::Running) {
                own.held.phase = Phase::Ending;
            }
        }
    }
}
