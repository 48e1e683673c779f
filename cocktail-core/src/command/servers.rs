//! Commands about one server: nothing new there, again, and emptied.
//!
//! A rearrangement is a fact about the server; the planner acts on it until it is done, late or called off. The containers
//! that it replaces carry its reason, so that calling it off finds exactly those.

use std::time::Duration;

use super::Commanded;
use crate::contract::{Actor, RearrangeOptions, TerminateReason};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::fleet::{FleetEvent, Late, Rearrangement};
use crate::server::{Server, ServerState, ServerStep};
use crate::state::State;

impl State {
    pub(super) fn cordon_command(&self, name: &str, actor: &Actor) -> Result<Commanded> {
        let server = self.settled_server(name)?;
        // One that is being emptied takes nothing new as it is, and nothing new when that is called off.
        let events = match server.state {
            ServerState::Ready | ServerState::Draining if !server.tenure.cordoned => {
                vec![stepped(server, ServerStep::Cordon, format!("{actor} cordoned it"))]
            }
            _ => Vec::new(),
        };
        Ok(Commanded::of_server(events, server.id.clone()))
    }

    pub(super) fn join_token_command(&self, name: &str, ttl: Duration, actor: &Actor) -> Result<Commanded> {
        let id = self.server_named(name)?;
        let known = self.servers.get(&id).ok_or_else(|| Error::not_found(format!("no server {id}")))?;
        if !known.tenure.by_agent {
            return Err(Error::invalid(format!("{id} needs no token: no agent drives it")));
        }
        let number = known.tenure.token.as_ref().map_or(0, |token| token.number) + 1;
        let (server, until, actor) = (id.clone(), self.now + ttl, actor.to_string());
        let event = FleetEvent::TokenMade { server, number, until, actor };
        Ok(Commanded::of_server(vec![event.into()], id))
    }

    pub(super) fn revoke_command(&self, name: &str, because: Option<&str>, actor: &Actor) -> Result<Commanded> {
        let id = self.server_named(name)?;
        let because = match because {
            Some(because) => format!("{actor} revoked its agent: {because}"),
            None => format!("{actor} lets its agent in again"),
        };
        Ok(Commanded::of_server(vec![FleetEvent::Alerted { server: id.clone(), because }.into()], id))
    }

    pub(super) fn uncordon_command(&self, name: &str, actor: &Actor) -> Result<Commanded> {
        let server = self.settled_server(name)?;
        let mut events = Vec::new();
        let because = format!("{actor} uncordoned it");
        if let Some(rearrangement) = &server.tenure.rearrangement {
            if rearrangement.give_back == Some(TerminateReason::Interrupted) {
                let text = format!("{} cannot be used any more: {}", server.id, rearrangement.because);
                return Err(Error::new(ErrorKind::Conflict, text));
            }
            for container in self.moving(server, rearrangement) {
                let because = format!("{actor} uncordoned its server");
                events.push(FleetEvent::ReplaceDropped { container, because }.into());
            }
            events.push(FleetEvent::Rearranging { server: server.id.clone(), rearrangement: None }.into());
        }
        if server.state != ServerState::Ready {
            events.push(stepped(server, ServerStep::Uncordon, because));
        }
        Ok(Commanded::of_server(events, server.id.clone()))
    }

    pub(super) fn rearrange_command(&self, name: &str, options: RearrangeOptions, actor: &Actor) -> Result<Commanded> {
        let server = match self.server_named(name).ok().and_then(|id| self.servers.get(&id)) {
            // It is given up: what ran there is replaced.
            Some(lost) if lost.state == ServerState::Lost => lost,
            _ => self.settled_server(name)?,
        };
        if options.late == Late::Force && options.deadline.is_none() {
            return Err(Error::invalid("what is late is drained by force only after a deadline: name one"));
        }
        let grows = self.providers.get(&server.provider).is_some_and(|provider| provider.grows);
        if options.give_back && !grows {
            let (id, provider) = (&server.id, &server.provider);
            return Err(Error::invalid(format!(
                "{id} cannot be given back: {provider} has the servers that it has; rearrange it without giving it back"
            )));
        }
        let known = server.tenure.rearrangement.as_ref();
        let rearrangement = Rearrangement {
            // Its containers carry the reason: a second order for the same server is about the same containers.
            because: known.map_or_else(|| format!("{actor} asked to empty {}", server.id), |it| it.because.clone()),
            deadline: options.deadline.map(|span| self.now + span),
            late: options.late,
            give_back: options.give_back.then_some(TerminateReason::Requested),
            cleared: known.is_some_and(|it| it.cleared),
        };
        // The time of a server that is taken away is set by its provider, whatever anybody asks for.
        let taken = known.is_some_and(|it| it.give_back == Some(TerminateReason::Interrupted));
        let mut events = Vec::new();
        if !taken && known != Some(&rearrangement) {
            let because = rearrangement.because.clone();
            // One that is to be given back is drained once its provider has said that it may go.
            let at_once = rearrangement.give_back.is_none() || rearrangement.cleared;
            let rearrangement = Some(rearrangement);
            events.push(FleetEvent::Rearranging { server: server.id.clone(), rearrangement }.into());
            if at_once && !matches!(server.state, ServerState::Draining | ServerState::Lost) {
                // Nothing of this turn is to come there any more.
                events.push(stepped(server, ServerStep::Drain, because));
            }
        }
        Ok(Commanded::of_server(events, server.id.clone()))
    }

    /// A server that has come up and is not leaving.
    fn settled_server(&self, name: &str) -> Result<&Server> {
        let id = self.server_named(name)?;
        let server = self.servers.get(&id).ok_or_else(|| Error::not_found(format!("no server {id}")))?;
        let against = match server.state {
            ServerState::Ready | ServerState::Cordoned | ServerState::Draining => return Ok(server),
            ServerState::Claimed | ServerState::Provisioning | ServerState::Booting | ServerState::Joined => {
                "it has not come up yet, so that nothing runs there"
            }
            ServerState::Suspended => "nothing runs there until it is started",
            ServerState::Lost => "nothing is placed there until it answers",
            ServerState::Terminating | ServerState::Gone | ServerState::Failed => "it takes no containers any more",
        };
        Err(Error::new(ErrorKind::Conflict, format!("{id} is {}: {against}", server.state)))
    }
}

fn stepped(server: &Server, step: ServerStep, because: String) -> Event {
    FleetEvent::Stepped { server: server.id.clone(), step, because }.into()
}
