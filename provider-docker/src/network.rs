//! Networks: one for each map, on which its Units reach each other by name. It is made with the first container, and goes
//! with the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptions;
use cocktail_core::error::{ErrorKind, Result};
use cocktail_core::id::{ContainerId, StoreId};
use tokio::sync::Mutex;

use crate::client::{Engine, bounded};
use crate::error::Call;
use crate::{label, times};

/// Who is on which network. The lock is held over calls: engines take two networks of one name.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    users: Mutex<BTreeMap<String, BTreeSet<ContainerId>>>,
}

impl Networks {
    /// Makes the network unless it is there, for a container that joins it. `anew` looks although it was there before.
    pub(crate) async fn join(
        &self,
        engine: &Engine,
        store: &StoreId,
        network: &str,
        container: &ContainerId,
        anew: bool,
    ) -> Result<()> {
        let mut users = self.users.lock().await;
        let known = users.contains_key(network) && !anew;
        if !known && !is_there(engine, network).await? {
            make(engine, store, network).await?;
        }
        users.entry(network.to_owned()).or_default().insert(container.clone());
        Ok(())
    }

    /// Learns who is on which network, and removes networks of the store that nobody is on: a Manager may have died
    /// before it did. What is removed meanwhile waits for the lock to leave, so nobody stays who has gone.
    pub(crate) async fn find(&self, engine: &Engine, store: &StoreId) -> Result<()> {
        let mut users = self.users.lock().await;
        for summary in engine.list(&[(label::STORE, store.as_str())]).await? {
            let network = summary.host_config.and_then(|host| host.network_mode);
            let container = summary.labels.and_then(|labels| label::read(&labels, store));
            if let (Some(network), Some((container, _))) = (network, container) {
                users.entry(network).or_default().insert(container);
            }
        }
        for network in list(engine, label::filter(&[(label::STORE, store.as_str())])).await? {
            if !users.contains_key(&network) {
                remove(engine, &network).await?;
            }
        }
        Ok(())
    }

    /// A container is gone; a network that nobody is on any more goes as well.
    pub(crate) async fn leave(&self, engine: &Engine, store: &StoreId, container: &ContainerId) -> Result<()> {
        let mut users = self.users.lock().await;
        let mut empty = Vec::new();
        for (network, on) in users.iter_mut() {
            on.remove(container);
            if on.is_empty() {
                empty.push(network.clone());
            }
        }
        for network in empty {
            // One that an earlier Manager left is not known here.
            let labels = [(label::STORE, store.as_str())];
            let others = engine.list(&labels).await?;
            let mode = |it: &bollard::models::ContainerSummary| {
                it.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default()
            };
            if !others.iter().any(|other| mode(other) == network) {
                remove(engine, &network).await?;
            }
            // Not before: who repeats this has to find it.
            users.remove(&network);
        }
        Ok(())
    }

    /// Removes every network of a store, when nothing of it is left.
    pub(crate) async fn clear(&self, engine: &Engine, store: &StoreId) -> Result<()> {
        let mut users = self.users.lock().await;
        users.clear();
        for network in list(engine, label::filter(&[(label::STORE, store.as_str())])).await? {
            remove(engine, &network).await?;
        }
        Ok(())
    }
}

async fn list(engine: &Engine, filters: HashMap<String, Vec<String>>) -> Result<Vec<String>> {
    let docker = engine.api().await?;
    let options = ListNetworksOptions { filters: Some(filters) };
    let found = bounded(times::CONTROL, Call::Reads, "list networks", docker.list_networks(Some(options))).await?;
    Ok(found.into_iter().filter_map(|network| network.name).collect())
}

async fn is_there(engine: &Engine, network: &str) -> Result<bool> {
    let filters = HashMap::from([("name".to_owned(), vec![format!("^{network}$")])]);
    Ok(list(engine, filters).await?.iter().any(|name| name == network))
}

async fn make(engine: &Engine, store: &StoreId, network: &str) -> Result<()> {
    let docker = engine.api().await?;
    let request = NetworkCreateRequest {
        name: network.to_owned(),
        driver: Some("bridge".to_owned()),
        labels: Some(HashMap::from([(label::STORE.to_owned(), store.to_string())])),
        ..NetworkCreateRequest::default()
    };
    let what = format!("make the network {network}");
    match bounded(times::CONTROL, Call::Acts, &what, docker.create_network(request)).await {
        Err(error) if *error.kind() == ErrorKind::Conflict => Ok(()),
        made => made.map(drop),
    }
}

async fn remove(engine: &Engine, network: &str) -> Result<()> {
    let docker = engine.api().await?;
    let what = format!("remove the network {network}");
    match bounded(times::CONTROL, Call::Acts, &what, docker.remove_network(network)).await {
        // Somebody put another container on it: it stays theirs.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(()),
        removed => removed,
    }
}
