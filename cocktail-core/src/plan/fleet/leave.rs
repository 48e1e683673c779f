//! How servers are admitted, emptied and given back.

use super::Draft;
use crate::container::{Container, ContainerState};
use crate::contract::TerminateReason;
use crate::event::Event;
use crate::fleet::{FleetEvent, Late, Rearrangement, ServerOperation, ServerOperationKind};
use crate::server::{Server, ServerState, ServerStep};
use crate::state::State;
use crate::time::human;

/// The next step of one server, if one is due.
pub(super) fn step(draft: &mut Draft<'_>, server: &Server) {
    let state = draft.state;
    let late = server.tenure.deadline.is_some_and(|deadline| deadline <= state.now);
    match server.state {
        ServerState::Joined => {
            stepped(draft, server, ServerStep::Admitted, "it takes containers".into());
            if server.tenure.cordoned {
                stepped(draft, server, ServerStep::Cordon, "a user wants nothing new on it".into());
            }
        }
        ServerState::Booting if late => {
            let limit = human(state.limits_of(&server.id).registration);
            draft.failed = true;
            stepped(draft, server, ServerStep::Fail, format!("it did not join within {limit}"));
        }
        ServerState::Failed if server.tenure.operation.is_none() => {
            let because = format!("given back: {}", server.reason);
            terminate(draft, server, TerminateReason::NeverJoined, because);
        }
        ServerState::Terminating if server.tenure.operation.is_none() && late => {
            terminate(draft, server, TerminateReason::Requested, format!("it is still there: {}", server.reason));
        }
        ServerState::Gone if server.containers == 0 && server.tenure.operation.is_none() => {
            draft.push(FleetEvent::Forgotten { server: server.id.clone() });
        }
        ServerState::Lost | ServerState::Draining | ServerState::Booting if is_left(state, server) => {
            let because = server.tenure.rearrangement.as_ref().map(|it| it.because.clone()).unwrap_or_default();
            draft.push(FleetEvent::Gone { server: server.id.clone(), because });
        }
        ServerState::Ready | ServerState::Cordoned | ServerState::Draining => {
            if let Some(rearrangement) = &server.tenure.rearrangement {
                empty_out(draft, server, rearrangement);
            }
        }
        _ => {}
    }
}

/// Whether nothing is expected any more of a server that its provider neither gives back nor names: nothing is left there, or
/// only what nobody waits for, on a machine that may never come back.
fn is_left(state: &State, server: &Server) -> bool {
    let grows = state.providers.get(&server.provider).is_some_and(|provider| provider.grows);
    if server.tenure.missing.is_none() || grows {
        return false;
    }
    let over = |container: &Container| match container.state {
        ContainerState::Stopped | ContainerState::Failed | ContainerState::Fenced => true,
        // With the lease all of it is over but what was told to run on.
        ContainerState::Draining => !container.outlives_lease,
        _ => false,
    };
    server.containers == 0 || server.state == ServerState::Lost && state.on(&server.id).all(over)
}

/// Makes others serve first what runs here; what is left at the deadline stays or goes, as was said.
fn empty_out(draft: &mut Draft<'_>, server: &Server, rearrangement: &Rearrangement) {
    let state = draft.state;
    let here = || state.on(&server.id);
    // The provider is asked before anything is drained.
    let unasked = rearrangement.give_back.is_some() && !rearrangement.cleared;
    if server.containers == 0 && !unasked {
        match (server.state, rearrangement.give_back) {
            _ if server.tenure.operation.is_some() => {}
            (ServerState::Draining, Some(reason)) => terminate(draft, server, reason, rearrangement.because.clone()),
            (ServerState::Draining, None) => {}
            // Also where it stays: nothing is to come to it.
            _ => stepped(draft, server, ServerStep::Drain, rearrangement.because.clone()),
        }
        return;
    }
    let late = rearrangement.deadline.is_some_and(|deadline| deadline <= state.now) && !state.is_halting();
    if let (true, Some(reason)) = (unasked, rearrangement.give_back) {
        if late {
            call_off(draft, server, rearrangement, "its provider has not said whether it would let it go");
        } else if reason == TerminateReason::Empty && server.containers > 0 {
            call_off(draft, server, rearrangement, "it was found of use again");
        } else if server.tenure.operation.is_none() && !state.is_halting() {
            let servers = vec![server.id.clone()];
            draft.intend(&server.provider, ServerOperationKind::Clear, servers, rearrangement.because.clone());
        }
        return;
    }
    if late && rearrangement.late == Late::Cancel {
        return call_off(draft, server, rearrangement, "the server was not empty in time: what is still there stays");
    }
    if matches!(server.state, ServerState::Ready | ServerState::Cordoned) {
        // First of all: nothing that is made elsewhere instead is to come here.
        stepped(draft, server, ServerStep::Drain, rearrangement.because.clone());
    }
    for container in here() {
        let id = container.id.clone();
        if late && container.state.is_live() {
            let because = format!("{}; its time is over", rearrangement.because);
            draft.events.push(Event::DrainBegun { container: id, because });
        } else if container.replace.is_none() && moves(container) {
            draft.events.push(Event::ReplaceAsked { container: id, because: rearrangement.because.clone() });
        }
    }
}

fn moves(container: &Container) -> bool {
    (container.state.is_live() || container.is_done()) && container.state != ContainerState::Lost
}

/// What is still there stays, and a server that a user has cordoned stays so.
fn call_off(draft: &mut Draft<'_>, server: &Server, rearrangement: &Rearrangement, because: &str) {
    for container in draft.state.moving(server, rearrangement) {
        draft.push(FleetEvent::ReplaceDropped { container, because: because.into() });
    }
    draft.push(FleetEvent::Rearranging { server: server.id.clone(), rearrangement: None });
    if server.state == ServerState::Draining {
        stepped(draft, server, server.step_back(), because.into());
    }
}

/// Whether a server is neither gone nor about to go.
pub(super) fn stays(server: &Server) -> bool {
    let goes = server.tenure.rearrangement.as_ref().is_some_and(|it| it.give_back.is_some());
    !goes && !matches!(server.state, ServerState::Draining | ServerState::Terminating | ServerState::Gone)
}

/// Gives back what has been empty for long enough.
pub(super) fn empty(draft: &mut Draft<'_>) {
    let state = draft.state;
    for (name, provider) in state.providers.iter().filter(|(_, provider)| provider.grows) {
        let idle = provider.limits.idle;
        let servers = || state.servers.values().filter(|server| server.provider == *name);
        let mut left = servers().filter(|server| stays(server)).count();
        for server in servers().filter(|it| it.state == ServerState::Ready && it.containers == 0) {
            let due = server.tenure.empty.is_some_and(|since| since + idle <= state.now);
            let kept = server.tenure.keep.is_some_and(|until| until > state.now);
            let busy = server.tenure.operation.is_some() || server.tenure.rearrangement.is_some();
            if !due || kept || busy || left <= provider.limits.min_servers as usize {
                continue;
            }
            left -= 1;
            let because = format!("nothing ran on it for {}", human(idle));
            let rearrangement = Rearrangement {
                because: because.clone(),
                deadline: None,
                late: Late::Cancel,
                give_back: Some(TerminateReason::Empty),
                cleared: false,
            };
            draft.push(FleetEvent::Rearranging { server: server.id.clone(), rearrangement: Some(rearrangement) });
        }
    }
}

/// Gives back what was made for us, is shown by two complete listings, and fulfils no claim.
pub(super) fn orphans(draft: &mut Draft<'_>) {
    let state = draft.state;
    for (name, provider) in &state.providers {
        for orphan in provider.orphans.values().filter(|orphan| orphan.condemned) {
            let open = |it: &&ServerOperation| it.servers.contains(&orphan.server);
            if orphan.asked.is_some_and(|asked| asked + provider.limits.visibility > state.now) {
                continue;
            }
            if state.server_operations.values().any(|it| open(&it)) {
                continue;
            }
            let because = format!("operation {} made it, and no claim is about it", orphan.operation);
            let kind = ServerOperationKind::Terminate { reason: TerminateReason::Orphan };
            draft.intend(name, kind, vec![orphan.server.clone()], because);
        }
    }
}

fn terminate(draft: &mut Draft<'_>, server: &Server, reason: TerminateReason, because: String) {
    if server.tenure.keep.is_some_and(|until| until > draft.state.now) {
        return;
    }
    let kind = ServerOperationKind::Terminate { reason };
    draft.intend(&server.provider, kind, vec![server.id.clone()], because);
}

fn stepped(draft: &mut Draft<'_>, server: &Server, step: ServerStep, because: String) {
    draft.push(FleetEvent::Stepped { server: server.id.clone(), step, because });
}
