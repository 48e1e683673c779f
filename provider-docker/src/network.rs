//! Networks: one for each map, on which its Units reach each other by name. It is made with the first container, and goes
//! with the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{Network as EngineNetwork, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;
use cocktail_core::error::{ErrorKind, Result};
use cocktail_core::id::{ContainerId, StoreId};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::{Engine, bounded, short};
use crate::error::Call;
use crate::shared::pauses;
use crate::{label, times};

/// Who is on which network, by the engine's id of it: names are not unique there, and somebody else may have ours. The lock
/// is held over calls, since engines make two networks of one name.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    users: Mutex<BTreeMap<String, Network>>,
}

#[derive(Debug, Default)]
struct Network {
    name: String,
    on: BTreeSet<ContainerId>,
    /// Nobody is on it, and the engine does not remove it yet.
    stays: bool,
}

impl Networks {
    /// The engine's id of the network of this name that is the store's, for a container that joins it; it is made unless it
    /// is there. `anew` looks although it was there before.
    pub(crate) async fn join(
        &self,
        engine: &Engine,
        store: &StoreId,
        name: &str,
        container: &ContainerId,
        anew: bool,
    ) -> Result<String> {
        let mut users = self.users.lock().await;
        let known = users.iter().find(|(_, network)| network.name == name && !anew).map(|(id, _)| id.clone());
        let id = match known {
            Some(id) => id,
            None => {
                let mut found = list(engine, store).await?;
                found.retain(|_, there| there == name);
                match found.into_keys().next() {
                    Some(id) => id,
                    None => make(engine, store, name).await?,
                }
            }
        };
        if anew {
            users.retain(|other, network| network.name != name || *other == id);
        }
        let network = users.entry(id.clone()).or_default();
        name.clone_into(&mut network.name);
        network.on.insert(container.clone());
        network.stays = false;
        Ok(id)
    }

    /// Learns who is on which network, and removes networks of the store that nobody is on: a Manager may have died
    /// before it did. What is removed meanwhile waits for the lock to leave, so nobody stays who has gone.
    pub(crate) async fn find(&self, engine: &Engine, store: &StoreId) -> Result<()> {
        let mut users = self.users.lock().await;
        let names = list(engine, store).await?;
        for summary in engine.list(&[(label::STORE, store.as_str())]).await? {
            let network = summary.host_config.and_then(|host| host.network_mode);
            let container = summary.labels.and_then(|labels| label::read(&labels, store));
            if let (Some(network), Some((container, _))) = (network, container)
                && let Some(name) = names.get(&network)
            {
                let network = users.entry(network).or_default();
                name.clone_into(&mut network.name);
                network.on.insert(container);
            }
        }
        for id in names.keys() {
            if !users.contains_key(id) {
                remove(engine, id).await?;
            }
        }
        Ok(())
    }

    /// A container is gone; a network that nobody is on any more goes as well. Says whether one has to be [swept] later.
    ///
    /// [swept]: Networks::sweep
    pub(crate) async fn leave(&self, engine: &Engine, store: &StoreId, container: &ContainerId) -> Result<bool> {
        let mut users = self.users.lock().await;
        let mut empty = Vec::new();
        for (id, network) in users.iter_mut() {
            network.on.remove(container);
            if network.on.is_empty() && !network.stays {
                empty.push(id.clone());
            }
        }
        let mut later = false;
        for network in empty {
            // One that an earlier Manager left is not known here.
            let labels = [(label::STORE, store.as_str())];
            let others = engine.list(&labels).await?;
            let mode = |it: &bollard::models::ContainerSummary| {
                it.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default()
            };
            let over = others.iter().any(|other| mode(other) == network) || remove(engine, &network).await?;
            // Not before: who repeats this has to find it.
            match users.get_mut(&network).filter(|_| !over) {
                Some(network) => network.stays = true,
                None => drop(users.remove(&network)),
            }
            later |= !over;
        }
        Ok(later)
    }

    /// Removes what could not be removed when its last container went. Says whether something is still there.
    pub(crate) async fn sweep(&self, engine: &Engine) -> Result<bool> {
        let mut users = self.users.lock().await;
        let stay: Vec<String> = users.iter().filter(|(_, it)| it.stays).map(|(id, _)| id.clone()).collect();
        for id in stay {
            if remove(engine, &id).await? {
                users.remove(&id);
            }
        }
        Ok(users.values().any(|network| network.stays))
    }

    /// Removes every network of a store, when nothing of it is left.
    pub(crate) async fn clear(&self, engine: &Engine, store: &StoreId) -> Result<()> {
        let mut users = self.users.lock().await;
        users.clear();
        let began = Instant::now();
        for id in list(engine, store).await?.keys() {
            for pause in pauses() {
                if remove(engine, id).await? || began.elapsed() >= times::LEFT {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }
}

/// The store's networks: what we call them by the engine's ids.
async fn list(engine: &Engine, store: &StoreId) -> Result<BTreeMap<String, String>> {
    let found = find(engine, label::filter(&[(label::STORE, store.as_str())])).await?;
    let ours = |network: EngineNetwork| Some((network.id?, network.labels?.remove(label::NETWORK)?));
    Ok(found.into_iter().filter_map(ours).collect())
}

async fn find(engine: &Engine, filters: HashMap<String, Vec<String>>) -> Result<Vec<EngineNetwork>> {
    let docker = engine.api().await?;
    let options = ListNetworksOptions { filters: Some(filters) };
    bounded(times::CONTROL, Call::Reads, "list networks", docker.list_networks(Some(options))).await
}

async fn make(engine: &Engine, store: &StoreId, network: &str) -> Result<String> {
    // An engine makes two of one name, and can then use neither by it.
    let filters = HashMap::from([("name".to_owned(), vec![network.to_owned()])]);
    let taken: BTreeSet<String> = find(engine, filters).await?.into_iter().filter_map(|other| other.name).collect();
    let names = std::iter::once(network.to_owned()).chain((2_u32..).map(|number| format!("{network}.{number}")));
    let name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
    let docker = engine.api().await?;
    let what = format!("make the network {name}");
    let labels = [(label::STORE, store.as_str()), (label::NETWORK, network)];
    let request = NetworkCreateRequest {
        name,
        driver: Some("bridge".to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..NetworkCreateRequest::default()
    };
    Ok(bounded(times::CONTROL, Call::Acts, &what, docker.create_network(request)).await?.id)
}

/// Removes a network, unless somebody put another container on it: it stays theirs. `false` where the engine says that one
/// is on it that is gone, as it does for a moment after the last one went.
async fn remove(engine: &Engine, id: &str) -> Result<bool> {
    let docker = engine.api().await?;
    let what = format!("remove the network {}", short(id));
    match bounded(times::CONTROL, Call::Acts, &what, docker.remove_network(id)).await {
        Ok(()) => Ok(true),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if *error.kind() == ErrorKind::Denied => is_used(engine, id).await,
        Err(error) => Err(error),
    }
}

/// Whether a container is on a network that is in the engine indeed.
async fn is_used(engine: &Engine, id: &str) -> Result<bool> {
    let docker = engine.api().await?;
    let what = format!("look at the network {}", short(id));
    let seen = match bounded(times::CONTROL, Call::Reads, &what, docker.inspect_network(id, None)).await {
        Ok(seen) => seen,
        Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let on: BTreeSet<String> = seen.containers.unwrap_or_default().into_keys().collect();
    for container in on {
        if engine.inspect(&container).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
