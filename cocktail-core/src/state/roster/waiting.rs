//! Workers that wait and can be taken, by Service and by what they were started from.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ContainerId;
use crate::name::Name;

/// Containers that can be told what to load; none of the sets is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::state) struct Waiting(BTreeMap<Name, BTreeMap<String, BTreeSet<ContainerId>>>);

impl Waiting {
    /// Those of a Service that were started from the same.
    pub(in crate::state) fn of(&self, service: &Name, pool: &str) -> impl Iterator<Item = &ContainerId> {
        self.0.get(service).and_then(|pools| pools.get(pool)).into_iter().flatten()
    }

    /// Whether a Service has any.
    pub(in crate::state) fn has(&self, service: &Name) -> bool {
        self.0.contains_key(service)
    }

    /// Counts one in or out.
    pub(in crate::state) fn count(&mut self, service: &Name, pool: &str, id: &ContainerId, enters: bool) {
        if enters {
            let pools = self.0.entry(service.clone()).or_default();
            pools.entry(pool.to_owned()).or_default().insert(id.clone());
            return;
        }
        let Some(pools) = self.0.get_mut(service) else { return };
        if let Some(ids) = pools.get_mut(pool) {
            ids.remove(id);
            if ids.is_empty() {
                pools.remove(pool);
            }
        }
        if pools.is_empty() {
            self.0.remove(service);
        }
    }
}
