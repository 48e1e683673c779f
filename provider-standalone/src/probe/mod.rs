//! Probes of processes of this machine: what `cocktail-probe` needs to look at one.

mod inherited;

use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;

use async_trait::async_trait;
use cocktail_core::contract::{ExecSession, ExecSpec, RuntimeEvent};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_keeper::KeeperError;
use cocktail_keeper::protocol::Refusal;
use cocktail_probe::{Look, Numbers, Seen, Subject};
use tokio::net::TcpStream;

use crate::exec;
use crate::shared::Shared;
use crate::sockets;

/// What is probed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) shared: Weak<Shared>,
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
    /// Its main process, which leads its session.
    pub(crate) pid: u32,
    /// Where workers listen.
    pub(crate) address: IpAddr,
    /// Ports whose listening socket it inherited.
    pub(crate) inherited: Vec<u16>,
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
        let Some(shared) = self.shared.upgrade() else { return Err(Seen::Nothing) };
        let (port, time) = (look.at.port(), (look.timeout, look.deadline));
        // A worker that never accepts must not come up by what others answer. Later looks are spared the effort.
        let proves = look.proves && self.inherited.contains(&port);
        match proves && (look.bare || !shared.others_at(&self.container, port).is_empty()) {
            true => inherited::open(&shared, self, look.at, time).await,
            false => cocktail_probe::open(look.at, time).await,
        }
    }

    async fn exec(&self, spec: &ExecSpec) -> Result<ExecSession, Seen> {
        let Some(shared) = self.shared.upgrade() else { return Err(Seen::Nothing) };
        let Ok(turn) = shared.exec_probes.clone().acquire_owned().await else { return Err(Seen::Nothing) };
        let Ok(client) = shared.client().await else { return Err(Seen::Nothing) };
        match client.exec(exec::request(&self.container, spec)).await {
            Ok(session) => Ok(exec::session_with(session, spec.timeout, turn)),
            Err(KeeperError::Refused(Refusal::Start(error))) => Err(Seen::Bad(error.to_string())),
            Err(_) => Err(Seen::Nothing),
        }
    }

    async fn explain(&self, at: SocketAddr) -> String {
        let pid = self.pid;
        let why = tokio::task::spawn_blocking(move || sockets::explain(pid, at)).await;
        why.unwrap_or_default()
    }

    fn report(&self, numbers: Numbers) {
        if let Some(shared) = self.shared.upgrade() {
            shared.report(&self.container, self.generation, numbers);
        }
    }

    fn tell(&self, event: RuntimeEvent) {
        if let Some(shared) = self.shared.upgrade() {
            shared.emit(event);
        }
    }
}
