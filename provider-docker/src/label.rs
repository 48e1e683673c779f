//! Names and labels of what we make in an engine.
//!
//! Names are derived, so that what a lost call made is found again. Whose something is, only its labels say.

use std::collections::HashMap;

use cocktail_core::contract::Launch;
use cocktail_core::id::{ContainerId, Generation, StoreId, UnitId};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Longest part of a name.
const LONGEST: usize = 128;

pub(crate) const CLUSTER: &str = "cocktail.cluster";
pub(crate) const STORE: &str = "cocktail.store";
pub(crate) const CONTAINER: &str = "cocktail.container";
pub(crate) const GENERATION: &str = "cocktail.generation";
pub(crate) const EPOCH: &str = "cocktail.epoch";
pub(crate) const UNIT: &str = "cocktail.unit";
/// It runs on when the lease of whoever drives the engine is over.
pub(crate) const OUTLIVES_LEASE: &str = "cocktail.outlives-lease";
/// The network, as we name it: where somebody else has that name, its own is another one.
pub(crate) const NETWORK: &str = "cocktail.network";
/// The store that an image was built for. Containers get the labels of their image, so this is none of theirs.
pub(crate) const BUILT_FOR: &str = "cocktail.built-for";
/// What we have called it. An image that somebody made from it inherits this, and has another name.
pub(crate) const BUILT_AS: &str = "cocktail.built-as";
/// The images of the steps that led to it, by their short ids, each before what it was made from. They have no labels.
pub(crate) const BUILT_STEPS: &str = "cocktail.built-steps";
/// The Unit that it was built for.
pub(crate) const BUILT_UNIT: &str = "cocktail.built-unit";
/// What the names of fetched images begin with. No manifest may say it, and no Service is called so.
pub(crate) const FETCHED: &str = "localhost/cocktail/fetched_by/";
/// The path of a volume, as a launch names it.
pub(crate) const VOLUME: &str = "cocktail.volume";
/// The container that a volume goes with.
pub(crate) const GOES_WITH: &str = "cocktail.goes-with";

/// The name of a start.
pub(crate) fn container(store: &StoreId, container: &ContainerId, generation: Generation) -> String {
    format!("cocktail-{}-{}-{generation}", plain(store.as_str()), plain(container.as_str()))
}

/// The name of the network of a Unit's map.
pub(crate) fn network(store: &StoreId, unit: &UnitId) -> String {
    // No name has a dot: `shop-eu` and `prod` are not `shop` and `eu-prod`.
    format!("cocktail-{}-{}.{}", plain(store.as_str()), unit.service, unit.map)
}

/// The name of a volume.
pub(crate) fn volume(store: &StoreId, path: &str) -> String {
    format!("cocktail-{}-{}", plain(store.as_str()), plain(&path.replace('/', ".")))
}

/// What a container carries.
pub(crate) fn of(launch: &Launch, cluster: Option<&str>) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (STORE.to_owned(), launch.store.to_string()),
        (CONTAINER.to_owned(), launch.container.to_string()),
        (GENERATION.to_owned(), launch.generation.to_string()),
        (EPOCH.to_owned(), launch.epoch.to_string()),
    ]);
    if let Some(image) = &launch.image {
        labels.insert(UNIT.to_owned(), image.unit.to_string());
    }
    // Always said: a container has the labels of its image where it has none of its own.
    labels.insert(OUTLIVES_LEASE.to_owned(), launch.outlives_lease.to_string());
    labels.extend(cluster.map(|cluster| (CLUSTER.to_owned(), cluster.to_owned())));
    labels
}

/// Whose container it is, and which start; `None` for what is not ours.
pub(crate) fn read(labels: &HashMap<String, String>, store: &StoreId) -> Option<(ContainerId, Generation)> {
    if labels.get(STORE).map(String::as_str) != Some(store.as_str()) {
        return None;
    }
    let generation = labels.get(GENERATION)?.parse().ok()?;
    Some((ContainerId::new(labels.get(CONTAINER)?), Generation(generation)))
}

/// The name that an image has beside its digest which a store has fetched: it is our only record of that, and stays when this
/// process ends.
pub(crate) fn fetched(store: &StoreId, exact: &str) -> String {
    format!("{}{}", fetched_by(store), hashed(exact))
}

/// What the names begin with of all images that a store has fetched.
pub(crate) fn fetched_by(store: &StoreId) -> String {
    format!("{FETCHED}{}:", hashed(store.as_str()))
}

/// In letters that every part of a name may have.
fn hashed(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text)[..12])
}

/// A filter of lists by labels.
pub(crate) fn filter(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.iter().map(|(key, value)| format!("{key}={value}")).collect())])
}

/// What a name in an engine may be made of. Names only have to be told apart within one store, which its label says; of a
/// long one the end, which tells replicas apart, is kept as a hash.
fn plain(text: &str) -> String {
    let keep = |it: char| if it.is_ascii_alphanumeric() || matches!(it, '-' | '_') { it } else { '.' };
    if text.chars().nth(LONGEST).is_none() {
        return text.chars().map(keep).collect();
    }
    let hash = HEXLOWER.encode(&Sha256::digest(text)[..16]);
    text.chars().take(LONGEST - hash.len() - 1).map(keep).chain(['-']).chain(hash.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_our_store_is_ours() {
        let labels = |store: &str, generation: &str| {
            HashMap::from([
                (STORE.to_owned(), store.to_owned()),
                (CONTAINER.to_owned(), "web-1".to_owned()),
                (GENERATION.to_owned(), generation.to_owned()),
            ])
        };
        let ours = StoreId::new("a");
        assert_eq!(read(&labels("a", "3"), &ours), Some((ContainerId::new("web-1"), Generation(3))));
        assert_eq!(read(&labels("b", "3"), &ours), None);
        assert_eq!(read(&labels("a", "three"), &ours), None);
        assert_eq!(read(&HashMap::new(), &ours), None);
    }

    #[test]
    fn what_differs_has_different_names() {
        let store = StoreId::new("store");
        let unit = |text: &str| UnitId::try_from(text.to_owned()).unwrap();
        assert_ne!(network(&store, &unit("shop-eu/prod/web")), network(&store, &unit("shop/eu-prod/web")));
        let long = |slot: usize| volume(&store, &format!("{0}/{0}/{0}/data.{slot}", "x".repeat(60)));
        assert_ne!(long(1), long(2));
        assert_eq!(long(1), long(1), "it is found again");
        assert!(long(1).len() <= LONGEST + 20, "{}", long(1));
    }

    #[test]
    fn names_have_only_what_an_engine_takes() {
        let name = container(&StoreId::new("st/ore é"), &ContainerId::new("shop/web"), Generation(2));
        assert_eq!(name, "cocktail-st.ore..-shop.web-2");
    }
}
