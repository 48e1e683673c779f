//! A Manager that stood still while another took its place, and goes on as if nothing had happened.
//!
//! It sends once more what it had under way and writes what it then decides. Servers refuse its orders and the store its
//! turn, by their epoch; the calls to a provider that it repeats carry their tokens. It gives no server back: a cloud's
//! deletion knows neither token nor epoch, so an executor looks at its lease right before it.

use std::time::Duration;

use cocktail_core::event::Turn;
use cocktail_core::fleet::ServerOperationKind;
use cocktail_core::id::OperationId;
use cocktail_core::plan;

use super::Planted;
use super::executor::order;
use super::manager::Manager;
use super::provider::Call;
use super::turn::CLAIMS;
use super::world::{Happening, World};

/// The one that stands still.
pub(super) struct Ghost {
    pub(super) manager: Manager,
    /// The last operation that was durable when it stopped: later ones it never sends.
    pub(super) durable: OperationId,
}

impl World {
    /// It goes on.
    pub(super) fn ghost(&mut self) {
        let Some(ghost) = self.ghost.take() else { return };
        if self.manager.as_ref().is_none_or(|manager| manager.pending.is_some()) {
            // Both would write to the same place of the journal; the living one is first.
            self.ghost = Some(ghost);
            return self.after(5, Happening::Ghost);
        }
        let epoch = ghost.manager.epoch;
        self.trace.note(self.now, format_args!("a manager with epoch {epoch} goes on"));
        self.send_again(&ghost);
        let Ghost { mut manager, .. } = ghost;
        let (now, wall) = (manager.base + Duration::from_millis(self.now - manager.born), self.wall_clock());
        manager.state.advance(now, wall);
        manager.state.mark_all();
        let events = plan::decide_first(&mut manager.state, CLAIMS);
        let turn = Turn { now: manager.state.now, at: manager.state.at, epoch, events };
        let any = self.has(Planted::OldEpoch);
        let Ok(bytes) = serde_json::to_vec(&turn) else { return };
        if self.store.append(epoch, bytes, any)
            && let Some(turn) = self.store.sync()
        {
            self.durable(&turn, None);
        }
    }

    fn send_again(&mut self, ghost: &Ghost) {
        let Ghost { manager, durable } = ghost;
        let (life, epoch, state) = (self.life - 1, manager.epoch, &manager.state);
        for operation in state.operations.values().filter(|it| it.id <= *durable) {
            let Ok(order) = order(state, operation) else { continue };
            let Some(server) = state.containers.get(&operation.container).map(|it| it.server.clone()) else { continue };
            if let Some(pause) = self.way_there(&server) {
                let operation = operation.id;
                self.after(pause, Happening::AtMachine { life, epoch, server, operation, order });
            }
        }
        for operation in state.server_operations.values().filter(|it| it.id <= *durable) {
            if let ServerOperationKind::Provision { spec } = &operation.kind {
                let call = Call::Provision { spec: spec.clone(), servers: operation.servers.clone() };
                let (token, operation) = (operation.token(&state.store), operation.id);
                let pause = self.chance.between(5, 300);
                self.after(pause, Happening::AtProvider { life, operation, token, call });
            }
        }
    }
}
