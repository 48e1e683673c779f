//! Whether an agent may follow a lease, by what it knows of the leases before it.
//!
//! The same rules as a keeper's, which has its own copy because it knows nothing of the core. An epoch alone cannot
//! tell an older copy of a store from the store, since each start of a Manager adds one to it; the keys can.

use super::message::Decline;
use crate::contract::Lease;

fn descends(lease: &Lease, from: &Lease) -> bool {
    lease.earlier.contains(&from.key)
}

/// Says why `lease` may not command who obeyed `obeyed` last and is, or just was, in a session of `leading`.
pub(super) fn check(lease: &Lease, obeyed: Option<&Lease>, leading: Option<&Lease>) -> Result<(), Decline> {
    if let Some(known) = [obeyed, leading].into_iter().flatten().find(|known| known.store != lease.store) {
        return Err(Decline::OtherStore { owner: known.store.clone() });
    }
    // Whoever leads without having been obeyed may be an older copy that only looks: it keeps out its ancestors alone.
    if let Some(leading) = leading.filter(|leading| descends(leading, lease)) {
        return Err(Decline::Stale { current: leading.epoch });
    }
    let Some(obeyed) = obeyed.filter(|obeyed| obeyed.key != lease.key) else { return Ok(()) };
    let current = obeyed.epoch;
    if descends(obeyed, lease) {
        return Err(Decline::Stale { current });
    }
    if !descends(lease, obeyed) {
        return Err(Decline::OlderCopy { current });
    }
    if lease.epoch <= current {
        return Err(Decline::Stale { current });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, StoreId};

    fn lease(epoch: u64, keys: &[&str]) -> Lease {
        let mut earlier: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let key = earlier.pop().unwrap();
        Lease { store: StoreId::new("store"), epoch: Epoch(epoch), key, earlier }
    }

    #[test]
    fn a_lease_that_descends_from_the_obeyed_one_is_followed_and_so_is_the_same_one() {
        let obeyed = lease(2, &["a", "b"]);
        assert_eq!(check(&lease(5, &["a", "b", "c", "d"]), Some(&obeyed), None), Ok(()));
        assert_eq!(check(&obeyed, Some(&obeyed), Some(&obeyed)), Ok(()));
        assert_eq!(check(&lease(1, &["z"]), None, None), Ok(()), "who remembers nothing takes what comes");
    }

    #[test]
    fn a_lease_that_was_overtaken_is_stale() {
        let newer = lease(2, &["a", "b"]);
        let stale = Err(Decline::Stale { current: Epoch(2) });
        assert_eq!(check(&lease(1, &["a"]), Some(&newer), None), stale);
        assert_eq!(check(&lease(1, &["a"]), None, Some(&newer)), stale);
    }

    #[test]
    fn an_older_copy_of_the_store_is_refused_at_any_epoch() {
        let obeyed = lease(3, &["a", "b", "c"]);
        for epoch in [1, 3, 4, 400] {
            let copy = lease(epoch, &["a", "x"]);
            assert_eq!(check(&copy, Some(&obeyed), None), Err(Decline::OlderCopy { current: Epoch(3) }));
        }
    }

    #[test]
    fn the_obeyed_epoch_never_decreases_whatever_a_lineage_claims() {
        let obeyed = lease(7, &["a"]);
        assert_eq!(check(&lease(7, &["a", "b"]), Some(&obeyed), None), Err(Decline::Stale { current: Epoch(7) }));
    }

    #[test]
    fn a_copy_that_only_looked_keeps_nobody_else_out() {
        let looked = lease(9, &["a", "x"]);
        assert_eq!(check(&lease(4, &["a", "b"]), Some(&lease(1, &["a"])), Some(&looked)), Ok(()));
    }

    #[test]
    fn another_store_is_never_followed() {
        let other = Lease { store: StoreId::new("other"), ..lease(9, &["a", "b"]) };
        let refused = Err(Decline::OtherStore { owner: StoreId::new("store") });
        assert_eq!(check(&other, Some(&lease(1, &["a"])), None), refused);
        assert_eq!(check(&other, None, Some(&lease(1, &["a"]))), refused);
    }
}
