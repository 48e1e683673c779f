//! Probes of containers: what `cocktail-probe` needs to look at one.

use std::net::IpAddr;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{ExecSession, ExecSpec, RuntimeEvent};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Generation};
use cocktail_probe::{Look, Numbers, Seen, Subject};
use tokio::net::TcpStream;

use crate::exec;
use crate::shared::Shared;

/// How long a connection must stay. Where a proxy of the engine listens at a published port, it takes connections before
/// anybody listens in the container, and closes them when it has found nobody.
const STAYS: Duration = Duration::from_millis(50);

/// What is probed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) shared: Weak<Shared>,
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
    /// Where its ports are published, as this host reaches them.
    pub(crate) address: IpAddr,
    /// It is to wait when it is up: only what keeps it from that is told.
    pub(crate) waits: bool,
}

#[async_trait]
impl Subject for Target {
    fn container(&self) -> &ContainerId {
        &self.container
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn is_wanted(&self) -> bool {
        self.shared.strong_count() > 0
    }

    async fn connect(&self, look: &Look) -> Result<TcpStream, Seen> {
        let stream = cocktail_probe::open(look.at, (look.timeout, look.deadline)).await?;
        if !look.bare {
            return Ok(stream);
        }
        let mut byte = [0];
        match tokio::time::timeout(STAYS, stream.peek(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => Err(Seen::Silent(look.at, format!("nobody listens behind {}", look.at))),
            Ok(Ok(_)) | Err(_) => Ok(stream),
        }
    }

    async fn exec(&self, spec: &ExecSpec) -> Result<ExecSession, Seen> {
        let Some(shared) = self.shared.upgrade() else { return Err(Seen::Nothing) };
        let Ok(turn) = shared.exec_probes.clone().acquire_owned().await else { return Err(Seen::Nothing) };
        let Some(id) = shared.id(&self.container, self.generation) else { return Err(Seen::Nothing) };
        match exec::begin(&shared, &id, spec, turn).await {
            Ok(session) => Ok(session),
            Err(error) if *error.kind() == ErrorKind::InvalidConfig => Err(Seen::Bad(error.to_string())),
            Err(_) => Err(Seen::Nothing),
        }
    }

    fn report(&self, numbers: Numbers) {
        if let Some(shared) = self.shared.upgrade().filter(|_| !self.waits) {
            shared.report(&self.container, self.generation, numbers);
        }
    }

    fn tell(&self, event: RuntimeEvent) {
        if self.waits && matches!(event, RuntimeEvent::Probe { ok: true, .. }) {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.emit(event);
        }
    }
}
