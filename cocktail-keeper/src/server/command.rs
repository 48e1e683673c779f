//! Who commands this keeper.
//!
//! Start at [`Command::take`]: every hello goes through it. It is a value without any I/O. What always holds: a refused
//! hello changes nothing, and one term of command belongs to one lease, so that a session of an earlier term can do
//! nothing more.
//!
//! An epoch alone cannot tell an older copy of a store from the store, since each start of a Manager adds one to it. So
//! the keeper remembers the key of the last lease that it obeyed, and gives command to another one only if that key is
//! among its ancestors. It has obeyed a lease once it carried out an order of it: a Manager that only looked, and found
//! that its store is too old, leaves no trace. A keeper that was just started remembers nothing and takes what comes;
//! a client that sends no key is judged by its epoch.

use crate::protocol::{Intent, Refusal, WireHello};

/// The store that this keeper serves, who commands it, and whom it has obeyed.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// Store that the first hello bound us to.
    owner: Option<String>,
    /// Who commands now.
    leader: Option<Claim>,
    /// Whose orders were carried out last.
    obeyed: Option<Claim>,
    /// Grows whenever command changes hands.
    term: u64,
}

/// What a hello says of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    epoch: u64,
    key: Option<String>,
    earlier: Vec<String>,
}

impl Claim {
    fn is_ancestor(&self, key: Option<&String>) -> bool {
        key.is_some_and(|key| self.earlier.contains(key))
    }
}

impl Command {
    /// The store, once there was a hello.
    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The epoch now in command.
    pub(super) fn epoch(&self) -> u64 {
        self.leader.as_ref().or(self.obeyed.as_ref()).map_or(0, |claim| claim.epoch)
    }

    /// The term now in command.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Whether who commands now is known to descend from whom was obeyed last.
    pub(super) fn is_descended(&self) -> bool {
        let key = |claim: &Option<Claim>| claim.as_ref().is_some_and(|claim| claim.key.is_some());
        key(&self.leader) && key(&self.obeyed)
    }

    /// Gives command to whoever says this hello, or says why not. Repeating an accepted hello stays in its term.
    pub(super) fn take(&mut self, hello: &WireHello) -> Result<(), Refusal> {
        if hello.intent == Intent::Release {
            // Who ends everything need not be who started it; the workers stay those of their store until then.
            self.leader = None;
            self.term += 1;
            return Ok(());
        }
        if let Some(owner) = self.owner.as_ref().filter(|owner| **owner != hello.store) {
            return Err(Refusal::WrongStore { owner: owner.clone() });
        }
        let claim = Claim { epoch: hello.epoch, key: hello.lease.clone(), earlier: hello.earlier.clone() };
        if hello.intent == Intent::Lead {
            self.check(&claim)?;
        }
        if self.leader.as_ref() != Some(&claim) {
            self.leader = Some(claim);
            self.term += 1;
        }
        self.owner = Some(hello.store.clone());
        if hello.intent == Intent::Adopt || hello.lease.is_none() {
            self.obey();
        }
        Ok(())
    }

    /// An order of who commands now is carried out.
    pub(super) fn obey(&mut self) {
        let Some(leader) = self.leader.as_ref().filter(|leader| self.obeyed.as_ref() != Some(leader)) else { return };
        let mut obeyed = leader.clone();
        if obeyed.key.is_none()
            && let Some(last) = self.obeyed.take()
        {
            // One without a key does not make us forget the last key.
            (obeyed.key, obeyed.earlier) = (last.key, last.earlier);
        }
        self.obeyed = Some(obeyed);
    }

    fn check(&self, claim: &Claim) -> Result<(), Refusal> {
        let key = claim.key.as_ref();
        if let Some(leader) = self.leader.as_ref().filter(|leader| leader.is_ancestor(key)) {
            return Err(Refusal::StaleEpoch { current: leader.epoch });
        }
        let Some(obeyed) = &self.obeyed else { return Ok(()) };
        let current = obeyed.epoch;
        if key.is_some() && key == obeyed.key.as_ref() {
            return Ok(());
        }
        if obeyed.is_ancestor(key) || claim.epoch < current {
            let copied = key.is_some() && obeyed.key.is_some() && !obeyed.is_ancestor(key);
            return Err(if copied { Refusal::OlderCopy { current } } else { Refusal::StaleEpoch { current } });
        }
        if key.is_some() && obeyed.key.is_some() && !claim.is_ancestor(obeyed.key.as_ref()) {
            return Err(Refusal::OlderCopy { current });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::VERSIONS;

    fn hello(epoch: u64, keys: &[&str]) -> WireHello {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let (lease, store, intent) = (keys.pop(), "store".to_owned(), Intent::Lead);
        WireHello { versions: VERSIONS, store, epoch, lease, earlier: keys, intent }
    }

    /// Each of them was obeyed.
    fn led_by(hellos: &[WireHello]) -> Command {
        let mut command = Command::default();
        for hello in hellos {
            command.take(hello).unwrap();
            command.obey();
        }
        command
    }

    #[test]
    fn a_lease_that_descends_from_the_one_that_was_obeyed_takes_over() {
        let mut command = led_by(&[hello(1, &["a"])]);
        let first = command.term();
        // Starts that never reached the keeper lie between.
        command.take(&hello(4, &["a", "b", "c", "d"])).unwrap();
        assert_eq!(command.epoch(), 4);
        assert!(command.term() > first && command.is_descended());
    }

    #[test]
    fn the_lease_in_command_comes_back_into_its_own_term() {
        let mut command = led_by(&[hello(2, &["a", "b"])]);
        let term = command.term();
        command.take(&hello(2, &["a", "b"])).unwrap();
        assert_eq!(command.term(), term);
    }

    #[test]
    fn an_older_copy_is_refused_at_any_epoch_and_changes_nothing() {
        let mut command = led_by(&[hello(1, &["a"]), hello(3, &["a", "b", "c"])]);
        let term = command.term();
        for epoch in [2, 3, 4, 400] {
            let refused = command.take(&hello(epoch, &["a", "x"]));
            assert_eq!(refused, Err(Refusal::OlderCopy { current: 3 }), "epoch {epoch}");
        }
        assert_eq!((command.epoch(), command.term()), (3, term));
        command.take(&hello(4, &["a", "b", "c", "d"])).unwrap();
    }

    #[test]
    fn a_manager_that_was_overtaken_is_no_older_copy() {
        let mut command = led_by(&[hello(1, &["a"]), hello(2, &["a", "b"])]);
        assert_eq!(command.take(&hello(1, &["a"])), Err(Refusal::StaleEpoch { current: 2 }));
        let mut fresh = Command::default();
        fresh.take(&hello(2, &["a", "b"])).unwrap();
        assert_eq!(fresh.take(&hello(1, &["a"])), Err(Refusal::StaleEpoch { current: 2 }));
    }

    #[test]
    fn a_copy_that_only_looked_does_not_keep_the_newer_one_out() {
        let mut command = Command::default();
        // Its Manager found workers that its store does not know, and gave up; again and again.
        for (epoch, keys) in [(8, ["a", "x"].as_slice()), (9, &["a", "x", "y"])] {
            command.take(&hello(epoch, keys)).unwrap();
            assert!(!command.is_descended(), "nothing proves that it is no older copy");
        }
        command.take(&hello(4, &["a", "b"])).unwrap();
        command.obey();
        assert_eq!(command.take(&hello(10, &["a", "x", "y", "z"])), Err(Refusal::OlderCopy { current: 4 }));
    }

    #[test]
    fn without_keys_the_epoch_decides() {
        let mut command = Command::default();
        command.take(&hello(3, &[])).unwrap();
        let term = command.term();
        command.take(&hello(3, &[])).unwrap();
        assert_eq!(command.term(), term);
        assert_eq!(command.take(&hello(2, &[])), Err(Refusal::StaleEpoch { current: 3 }));
        assert_eq!(command.take(&hello(2, &["x"])), Err(Refusal::StaleEpoch { current: 3 }));
        command.take(&hello(4, &["y"])).unwrap();
        command.obey();
        command.take(&hello(5, &[])).unwrap();
        assert_eq!(command.take(&hello(6, &["z"])), Err(Refusal::OlderCopy { current: 5 }));
        command.take(&hello(6, &["y", "z"])).unwrap();
    }

    #[test]
    fn a_copy_that_is_told_to_takes_over_and_its_descendants_follow() {
        let mut command = led_by(&[hello(9, &["a", "b"])]);
        let term = command.term();
        let adopting = WireHello { intent: Intent::Adopt, ..hello(2, &["a", "x"]) };
        command.take(&adopting).unwrap();
        assert_eq!(command.epoch(), 2);
        let taken = command.term();
        assert!(taken > term, "whoever led before, at a higher epoch, leads no more");
        command.take(&adopting).unwrap();
        assert_eq!(command.term(), taken);
        assert_eq!(command.take(&hello(10, &["a", "b", "c"])), Err(Refusal::OlderCopy { current: 2 }));
        command.take(&hello(3, &["a", "x", "y"])).unwrap();
        assert!(command.is_descended());
    }

    #[test]
    fn another_store_may_neither_lead_nor_adopt_but_may_end_everything() {
        let mut command = led_by(&[hello(1, &["a"])]);
        for intent in [Intent::Lead, Intent::Adopt] {
            let other = WireHello { store: "other".to_owned(), intent, ..hello(5, &["o"]) };
            assert_eq!(command.take(&other), Err(Refusal::WrongStore { owner: "store".to_owned() }));
        }
        let term = command.term();
        command.take(&WireHello { store: "other".to_owned(), intent: Intent::Release, ..hello(0, &[]) }).unwrap();
        assert!(command.term() > term);
        assert_eq!((command.owner(), command.epoch()), (Some("store"), 1));
    }

    #[test]
    fn a_hello_without_the_newer_fields_leads_by_its_epoch() {
        let old: WireHello = serde_json::from_str(r#"{"versions":[1,1],"store":"store","epoch":7}"#).unwrap();
        assert_eq!(old, hello(7, &[]));
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"versions":[1,1],"store":"store","epoch":7}"#);
        let later = r#"{"versions":[1,1],"store":"store","epoch":7,"intent":"from the future"}"#;
        assert_eq!(serde_json::from_str::<WireHello>(later).unwrap().intent, Intent::Lead);
    }
}
