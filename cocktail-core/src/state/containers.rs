//! All containers by id. Records lie beside the map and not in it, so that neither its empty places nor a change of one
//! record are as large as records are; and so that a copy of all of them shares the records until they change.

use std::collections::{BTreeMap, btree_map};
use std::ops::Index;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::id::ContainerId;

/// Containers in the order of their ids. The key of each shares its text with the record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Containers(BTreeMap<ContainerId, Arc<Container>>);

impl Containers {
    /// The container of that id.
    pub fn get(&self, id: &ContainerId) -> Option<&Container> {
        self.0.get(id).map(Arc::as_ref)
    }

    /// Whether there is one of that id.
    pub fn contains_key(&self, id: &ContainerId) -> bool {
        self.0.contains_key(id)
    }

    /// Ids, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &ContainerId> + Clone {
        self.0.keys()
    }

    /// Containers in the order of their ids.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Container> + Clone {
        self.0.values().map(Arc::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get_mut(&mut self, id: &ContainerId) -> Option<&mut Container> {
        self.0.get_mut(id).map(Arc::make_mut)
    }

    /// Records in the order of their ids, to be changed: for whoever compares two states without some of what they know.
    /// A Manager changes them by events only.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        self.0.values_mut().map(Arc::make_mut)
    }

    /// The id with the text of the record's own.
    pub(super) fn shared(&self, id: ContainerId) -> ContainerId {
        self.0.get_key_value(&id).map_or(id, |(known, _)| known.clone())
    }

    pub(super) fn insert(&mut self, record: Arc<Container>) {
        self.0.insert(record.id.clone(), record);
    }

    pub(super) fn remove(&mut self, id: &ContainerId) -> Option<Arc<Container>> {
        self.0.remove(id)
    }
}

impl Index<&ContainerId> for Containers {
    type Output = Container;

    /// # Panics
    /// There is none of that id.
    fn index(&self, id: &ContainerId) -> &Container {
        &self.0[id]
    }
}

/// Ids and containers, in order.
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_map::Iter<'a, ContainerId, Arc<Container>>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a ContainerId, &'a Container);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(id, record)| (id, record.as_ref()))
    }
}

impl<'a> IntoIterator for &'a Containers {
    type Item = (&'a ContainerId, &'a Container);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0.iter())
    }
}

impl IntoIterator for Containers {
    type Item = Arc<Container>;
    type IntoIter = btree_map::IntoValues<ContainerId, Arc<Container>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}
