//! What probes and workers said last: told again when a session begins, since what was on its way before may be lost.

use std::collections::BTreeMap;

use cocktail_core::contract::{ProbeKind, RuntimeEvent, WorkerSaid};
use cocktail_core::id::{ContainerId, Generation};

/// The newest of each kind for each container.
#[derive(Debug, Default)]
pub(super) struct Board(BTreeMap<ContainerId, Slot>);

#[derive(Debug, Default)]
struct Slot {
    generation: Generation,
    ready: Option<RuntimeEvent>,
    live: Option<RuntimeEvent>,
    worker: Option<RuntimeEvent>,
}

impl Board {
    /// Takes what a runtime tells, if it is something that stays true.
    pub(super) fn take(&mut self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Probe { container, generation, kind, .. } => {
                let slot = self.slot(container, *generation);
                let place = if *kind == ProbeKind::Ready { &mut slot.ready } else { &mut slot.live };
                *place = Some(event.clone());
            }
            RuntimeEvent::Worker { container, generation, said } if stays(said) => {
                self.slot(container, *generation).worker = Some(event.clone());
            }
            RuntimeEvent::Exited { container, .. } => {
                self.0.remove(container);
            }
            _ => {}
        }
    }

    /// Forgets a container.
    pub(super) fn forget(&mut self, container: &ContainerId) {
        self.0.remove(container);
    }

    /// Everything that still holds.
    pub(super) fn all(&self) -> Vec<RuntimeEvent> {
        let of = |slot: &Slot| [slot.worker.clone(), slot.ready.clone(), slot.live.clone()];
        self.0.values().flat_map(of).flatten().collect()
    }

    fn slot(&mut self, container: &ContainerId, generation: Generation) -> &mut Slot {
        let slot = self.0.entry(container.clone()).or_default();
        if slot.generation != generation {
            *slot = Slot { generation, ..Slot::default() };
        }
        slot
    }
}

/// Whether it says how a worker is; a wish for help is told once.
fn stays(said: &WorkerSaid) -> bool {
    matches!(
        said,
        WorkerSaid::Waiting
            | WorkerSaid::Unfit { .. }
            | WorkerSaid::Ready { .. }
            | WorkerSaid::Failed { .. }
            | WorkerSaid::Broken { .. }
    )
}
