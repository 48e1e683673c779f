//! One server, and the cases of a runtime on it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{Connection, Launch, Runtime};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ContainerId, Generation, ServerId};

use super::scene::Scene;
use crate::conformance::case::{Stop, Verdict, guarded};
use crate::conformance::report::{Outcome, Report};
use crate::conformance::runtime::{self, RuntimeFixture};
use crate::conformance::workers::{Occupied, Workers};

const CONNECTS: &str = "a_server_can_be_connected_to";

/// Runs the cases of a runtime on a server of the provider, where it is driven from here; else they are skipped.
pub(super) async fn run(report: &mut Report, scene: &Scene<'_>) {
    match guarded(server(scene), scene.fixture.deadline(), &scene.waiting).await {
        Ok((server, connection)) => {
            report.add(super::SUITE, CONNECTS, Outcome::Passed);
            match connection {
                Connection::Local(_) => runtime::run(report, &OnServer { scene, server }).await,
                Connection::Agent => skip(report, "the server is driven by an agent"),
            }
        }
        Err(outcome) => {
            report.add(super::SUITE, CONNECTS, outcome);
            skip(report, "no server could be connected to");
        }
    }
    scene.clear().await;
}

fn skip(report: &mut Report, reason: &str) {
    for name in runtime::names() {
        report.add(runtime::SUITE, name, Outcome::Skipped(reason.into()));
    }
}

/// A new server, or the first one where none can be bought.
async fn server(scene: &Scene<'_>) -> Verdict<(ServerId, Connection)> {
    let provider = scene.provider().await?;
    let server = if scene.capabilities.grows {
        let order = scene.order(&*provider, 1).await?;
        scene.provision(&*provider, &order).await?;
        order.ids().swap_remove(0)
    } else {
        let listing = scene.list(&*provider).await?;
        let first = listing.servers.into_iter().next();
        first.ok_or_else(|| Stop::Failed("the provider has no server".into()))?.server
    };
    let connection = scene.connect(&*provider, &server).await?;
    Ok((server, connection))
}

/// A server of a provider as the fixture of its runtime.
struct OnServer<'s, 'f> {
    scene: &'s Scene<'f>,
    server: ServerId,
}

#[async_trait]
impl RuntimeFixture for OnServer<'_, '_> {
    async fn attach(&self) -> Result<Arc<dyn Runtime>> {
        let failed = |stop: Stop| Error::unexpected(format!("the next manager finds no runtime: {stop:?}"));
        let provider = self.scene.next_manager().await.map_err(failed)?;
        match self.scene.connect(&*provider, &self.server).await.map_err(failed)? {
            Connection::Local(runtime) => Ok(runtime),
            Connection::Agent => Err(Error::unexpected("the server was local and is driven by an agent now")),
        }
    }
}

impl Workers for OnServer<'_, '_> {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        self.scene.fixture.launch(container, generation, script)
    }

    fn processes(&self, mark: &str) -> Option<usize> {
        self.scene.fixture.processes(mark)
    }

    fn occupy(&self) -> Option<Occupied> {
        self.scene.fixture.occupy()
    }

    fn deadline(&self) -> Duration {
        self.scene.fixture.deadline()
    }
}
