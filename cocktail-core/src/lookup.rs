//! Maps that are asked and never walked through.
//!
//! Where something is derived and only looked up, an order costs several times what it is worth: [`Lookup`] has none. What
//! follows from an order that chance or history gave would differ from replay to replay, so it hands out its keys sorted or
//! not at all. Its hash is fixed and fast; what lies in it are names of this Manager's own making.

#![expect(clippy::disallowed_types, reason = "this is the one place that may, because no order comes out of it")]

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use rustc_hash::FxBuildHasher;

/// A map without an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup<K: Eq + Hash, V>(HashMap<K, V, FxBuildHasher>);

impl<K: Eq + Hash, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash, V> Lookup<K, V> {
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// The value of a key that has one from now on.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }

    /// Sets a value; the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.remove(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys whose value is so, in their order.
    pub(crate) fn keys_where(&self, is_so: impl Fn(&V) -> bool) -> BTreeSet<&K>
    where
        K: Ord,
    {
        self.0.iter().filter(|(_, value)| is_so(value)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Lookup;

    #[test]
    fn keys_come_out_in_their_order_whatever_went_before() {
        let mut lookup = Lookup::default();
        for key in [7_u32, 3, 11, 200, 5] {
            *lookup.get_or_default(key) += key % 2;
        }
        assert_eq!(lookup.insert(200, 1), Some(0));
        assert_eq!(lookup.remove(&5), Some(1));
        let keys: Vec<u32> = lookup.keys_where(|odd| *odd == 1).into_iter().copied().collect();
        assert_eq!(keys, [3, 7, 11, 200]);
        assert_eq!((lookup.get(&5), lookup.get(&3)), (None, Some(&1)));
    }
}
