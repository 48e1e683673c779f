//! The simulated store: a journal that loses what was not synced, a snapshot, a lease, and the ledger.

use std::collections::BTreeSet;

use cocktail_core::event::{Event, Turn};
use cocktail_core::fleet::FleetEvent;
use cocktail_core::id::{Epoch, OperationId, StoreId};
use cocktail_core::state::State;

/// Durable things of one store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) id: StoreId,
    pub(super) epoch: Epoch,
    snapshot: Option<Vec<u8>>,
    journal: Vec<Vec<u8>>,
    /// Written and not synced.
    pending: Option<Vec<u8>>,
    /// Operations on servers that were ever durable.
    pub(super) ledger: BTreeSet<OperationId>,
}

impl Store {
    pub(super) fn new(id: StoreId) -> Self {
        Self {
            id,
            epoch: Epoch::default(),
            snapshot: None,
            journal: Vec::new(),
            pending: None,
            ledger: BTreeSet::new(),
        }
    }

    /// The next Manager takes the lease.
    pub(super) fn acquire(&mut self) -> Epoch {
        self.epoch = self.epoch.next();
        self.epoch
    }

    /// Writes a turn; an older lease is refused unless `any` obeys it.
    pub(super) fn append(&mut self, epoch: Epoch, bytes: Vec<u8>, any: bool) -> bool {
        if epoch < self.epoch && !any {
            return false;
        }
        self.pending = Some(bytes);
        true
    }

    /// What was written is durable; returns it.
    pub(super) fn sync(&mut self) -> Option<Turn> {
        let bytes = self.pending.take()?;
        let turn: Turn = serde_json::from_slice(&bytes).ok()?;
        for event in &turn.events {
            if let Event::Fleet { event } = event
                && let FleetEvent::Intended { operation } = &**event
            {
                self.ledger.insert(operation.id);
            }
        }
        self.journal.push(bytes);
        Some(turn)
    }

    /// The machine dies: what was not synced is lost, or has just made it.
    pub(super) fn crash(&mut self, lost: bool) -> Option<Turn> {
        if lost {
            self.pending = None;
            return None;
        }
        self.sync()
    }

    /// Whether the journal is long enough for a snapshot.
    pub(super) fn is_long(&self) -> bool {
        self.journal.len() >= 512
    }

    /// Writes a snapshot and drops the journal before it.
    ///
    /// # Errors
    /// The state cannot be written.
    pub(super) fn write_snapshot(&mut self, state: &State) -> Result<(), serde_json::Error> {
        self.snapshot = Some(state.to_snapshot()?);
        self.journal.clear();
        Ok(())
    }

    /// What a new Manager reads.
    ///
    /// # Errors
    /// What was written cannot be read.
    pub(super) fn load(&self) -> Result<State, serde_json::Error> {
        let mut state = match &self.snapshot {
            Some(bytes) => State::from_snapshot(bytes)?,
            None => State::new(self.id.clone()),
        };
        for bytes in &self.journal {
            state.replay(&serde_json::from_slice(bytes)?);
        }
        Ok(state)
    }
}
