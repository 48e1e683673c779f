//! The endpoints, for those who follow them.
//!
//! A table is looked up once for each change, however many follow, and only while somebody does. Nobody who follows keeps the
//! Manager alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{EndpointSource, EndpointStream};
use cocktail_core::state::State;
use cocktail_core::view::EndpointView;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::shared::{Health, Request, look};

/// Shortest pause between two looks: in a burst a large table is not copied for each of its turns.
const PACE: Duration = Duration::from_millis(10);

/// Where endpoints are followed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    requests: mpsc::WeakSender<Request>,
    /// Counts what may have changed them.
    changes: watch::Receiver<u64>,
    newest: Arc<Mutex<Newest>>,
}

/// The newest table that anybody looked at.
#[derive(Debug, Default)]
struct Newest {
    /// Which change it has seen, and when that was looked up.
    seen: Option<(u64, Instant)>,
    table: Arc<Vec<EndpointView>>,
}

/// One who follows.
struct Follower {
    endpoints: Endpoints,
    unit: Option<String>,
    told: Option<Vec<EndpointView>>,
}

impl Endpoints {
    pub(crate) fn new(requests: &mpsc::Sender<Request>, changes: watch::Receiver<u64>) -> Self {
        Self { requests: requests.downgrade(), changes, newest: Arc::default() }
    }

    /// A table that is at least as new as the last change; `None` when the Manager has ended.
    async fn newest(&mut self) -> Option<Arc<Vec<EndpointView>>> {
        let change = *self.changes.borrow_and_update();
        let mut newest = self.newest.lock().await;
        if let Some((seen, at)) = newest.seen {
            if seen >= change {
                return Some(newest.table.clone());
            }
            sleep_until(at + PACE).await;
        }
        let change = *self.changes.borrow();
        let requests = self.requests.upgrade()?;
        let table = Arc::new(look(&requests, views).await.ok()?);
        *newest = Newest { seen: Some((change, Instant::now())), table: table.clone() };
        Some(table)
    }
}

impl EndpointSource for Endpoints {
    fn watch(&self, unit: Option<&str>) -> EndpointStream {
        let follower = Follower { endpoints: self.clone(), unit: unit.map(str::to_owned), told: None };
        stream::unfold(follower, |mut follower| async move {
            let endpoints = follower.next().await?;
            Some((Ok(endpoints), follower))
        })
        .boxed()
    }
}

impl Follower {
    async fn next(&mut self) -> Option<Vec<EndpointView>> {
        loop {
            let table = self.endpoints.newest().await?;
            let is_own = |view: &&EndpointView| self.unit.as_ref().is_none_or(|unit| view.is_of(unit));
            if !self.told.as_ref().is_some_and(|told| told.iter().eq(table.iter().filter(is_own))) {
                let own: Vec<EndpointView> = table.iter().filter(is_own).cloned().collect();
                self.told = Some(own.clone());
                return Some(own);
            }
            self.endpoints.changes.changed().await.ok()?;
        }
    }
}

/// The endpoints as they are, with what keeps service ports from listening.
pub(crate) fn views(state: &State, health: &Health) -> Vec<EndpointView> {
    let mut views = state.endpoint_views();
    for view in &mut views {
        let address = view.address.parse().ok().zip(view.service_port);
        let address = address.map(|(ip, port)| SocketAddr::new(ip, port));
        view.error = address.and_then(|address| health.routes.get(&address).cloned());
    }
    views
}
