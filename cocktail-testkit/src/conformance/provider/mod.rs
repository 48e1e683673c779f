//! What every provider must do: the promises of `cocktail_core::contract::Provider`.
//!
//! Start at [`ProviderFixture`] and [`provider`]. The cases buy a few servers of the cheapest offering and give back all
//! of them; then the cases of a runtime run on one server, where it is driven from this process.

mod growing;
mod looking;
mod scene;
mod server;

use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{Provider, Requirements};
use cocktail_core::error::Result;

use self::scene::Scene;
use super::case::{Waiting, guarded};
use super::report::Report;
use super::workers::Workers;

/// Makes the provider that the cases work on.
#[async_trait]
pub trait ProviderFixture: Workers {
    /// The provider as the next Manager makes it: another value over the same account or machine, led by the next lease of
    /// the same store. The one that was given before is dropped by then.
    async fn provider(&self) -> Result<Arc<dyn Provider>>;

    /// What servers must have; the cheapest offering that is available is bought.
    fn requirements(&self) -> Requirements {
        Requirements::default()
    }

    /// The provider as another store's Manager makes it, over the same account or machine. `None` where the two cannot
    /// meet.
    async fn stranger(&self) -> Result<Option<Arc<dyn Provider>>> {
        Ok(None)
    }

    /// Leaves room for that many more servers, or for all again with `None`, and says whether it could.
    async fn leave_room(&self, servers: Option<usize>) -> Result<bool> {
        let _ = servers;
        Ok(false)
    }

    /// What servers are given to join with.
    fn bootstrap(&self) -> Vec<u8> {
        b"conformance".to_vec()
    }
}

/// Runs all cases on this fixture's provider, and those of its runtime; where the provider cannot be made, a single case
/// that says so. No server that a case bought is left afterwards.
pub async fn provider(fixture: &dyn ProviderFixture) -> Report {
    let mut report = Report::new("a provider");
    let scene = match guarded(Scene::new(fixture), fixture.deadline(), &Waiting::default()).await {
        Ok(scene) => scene,
        Err(outcome) => {
            report.add(SUITE, "a_manager_makes_the_provider", outcome);
            return report;
        }
    };
    report.subject = scene.subject.clone();
    for case in [looking::cases(), growing::cases()].into_iter().flatten() {
        case.report(&mut report, SUITE, &scene, fixture.deadline(), &scene.waiting).await;
        scene.clear().await;
    }
    server::run(&mut report, &scene).await;
    report
}

const SUITE: &str = "provider";
