//! Who may join, by what the state knows.

use std::path::PathBuf;

use async_trait::async_trait;
use cocktail_core::contract::Admission;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::fleet::FleetEvent;
use cocktail_core::id::ServerId;
use cocktail_core::state::State;
use tracing::warn;

use crate::shared::{Health, Observation, Shared};

/// Asks the state, and uses tokens up durably.
#[derive(Debug)]
pub(super) struct StateAdmission {
    shared: Shared,
}

impl StateAdmission {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Admission for StateAdmission {
    async fn join(&self, server: &ServerId, number: u64, instance: &str) -> Result<()> {
        let (asked, of) = (server.clone(), instance.to_owned());
        let may = self.shared.look(move |state: &State, _: &Health| state.may_join(&asked, number, &of)).await?;
        may.map_err(|why| Error::new(ErrorKind::Denied, why))?;
        let event = FleetEvent::Admitted { server: server.clone(), number, instance: instance.to_owned() };
        self.shared.durably(event.into()).await?;
        // Of two that came at once the second finds it used, and its event changed nothing.
        let (asked, of) = (server.clone(), instance.to_owned());
        let mine = self.shared.look(move |state: &State, _: &Health| state.has_joined(&asked, number, &of)).await?;
        if mine { Ok(()) } else { Err(Error::new(ErrorKind::Denied, "the token was used by another instance")) }
    }

    async fn artifact(&self, server: &ServerId, sha256: &str) -> Result<PathBuf> {
        let (server, sha256) = (server.clone(), sha256.to_owned());
        let found = self.shared.look(move |state: &State, _: &Health| state.artifact_for(&server, &sha256)).await?;
        found.ok_or_else(|| Error::not_found("no container of this server needs an artifact with that hash"))
    }

    async fn alert(&self, server: Option<&ServerId>, because: &str) {
        warn!(server = server.map(ServerId::as_str), because, "an agent was turned away");
        let Some(server) = server.cloned() else { return };
        let asked = server.clone();
        let known = self.shared.look(move |state: &State, _: &Health| state.servers.contains_key(&asked)).await;
        if known.unwrap_or(false) {
            let event = FleetEvent::Alerted { server, because: because.to_owned() };
            self.shared.observe(Observation::Event(event.into())).await;
        }
    }
}
