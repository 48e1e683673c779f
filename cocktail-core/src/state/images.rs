//! Which images may still be needed, by a container or by a way back.

use std::collections::BTreeSet;

use super::State;
use crate::id::Revision;
use crate::unit::Unit;

impl State {
    /// References of all images that are not to be removed: of what runs, of what may be gone back to, and of the newest
    /// revisions of each Unit, as many as the settings say.
    pub fn images_needed(&self) -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        for unit in self.units.values() {
            let revisions = self.revisions_needed(unit).into_iter();
            let images = revisions.filter_map(|revision| unit.template(revision).image.as_ref());
            needed.extend(images.flat_map(|image| [image.reference.clone(), image.exact()]));
        }
        needed
    }

    fn revisions_needed(&self, unit: &Unit) -> BTreeSet<Revision> {
        let newest = unit.templates.keys().rev().take(self.settings.image_revisions as usize);
        let mut revisions: BTreeSet<Revision> = newest.copied().collect();
        revisions.insert(unit.revision);
        revisions.extend(unit.good);
        revisions.extend(unit.previous());
        revisions.extend(unit.rollout.iter().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to])));
        revisions.extend(self.of(unit).map(|container| container.revision));
        revisions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::id::{StoreId, UnitId};
    use crate::name::Name;
    use crate::rollout::{RevisionRecord, Rollout, RolloutState};
    use crate::spec::{Image, Template};
    use crate::time::WallTime;

    /// A store with one Unit of five revisions, each with an image of its own. The third one is pinned.
    fn store() -> State {
        let text = "service = \"shop\"\n[maps.prod.units.web]\nimage = \"web:5\"\n";
        let parsed = crate::manifest::parse(text, Path::new("a"), Path::new("/")).unwrap();
        let name = |text: &str| Name::new(text).unwrap();
        let spec = parsed.service.unwrap().maps[&name("prod")].units[&name("web")].clone();
        let mut unit = Unit::new(spec.clone(), WallTime(0), "me");
        let template = |tag: u64| {
            let digest = (tag == 3).then(|| format!("sha256:{}", "a".repeat(64)));
            let image = Image { reference: format!("web:{tag}"), digest, ..spec.template.image.clone().unwrap() };
            Template { image: Some(image), ..spec.template.clone() }
        };
        unit.templates = (1..=5).map(|revision| (Revision(revision), template(revision))).collect::<BTreeMap<_, _>>();
        (unit.revision, unit.newest) = (Revision(5), Revision(5));
        unit.history.clear();
        let mut state = State::new(StoreId::new("store"));
        state.units.insert(UnitId::new(name("shop"), name("prod"), name("web")), unit);
        state
    }

    /// The tags, and whether the pinned one is needed by its digest, too.
    fn needed(state: &State) -> (Vec<String>, bool) {
        let (exact, tags): (Vec<_>, Vec<_>) = state.images_needed().into_iter().partition(|it| it.contains('@'));
        assert!(exact.is_empty() || exact == [format!("web@sha256:{}", "a".repeat(64))]);
        (tags.iter().map(|tag| tag.replace("web:", "")).collect(), !exact.is_empty())
    }

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn images_of_the_newest_revisions_are_needed_under_both_names() {
        let mut state = store();
        assert_eq!(needed(&state), (tags(&["1", "2", "3", "4", "5"]), true));
        state.settings.image_revisions = 3;
        assert_eq!(needed(&state), (tags(&["3", "4", "5"]), true));
        state.settings.image_revisions = 1;
        assert_eq!(needed(&state), (tags(&["5"]), false));
        state.units.clear();
        assert_eq!(needed(&state), (tags(&[]), false));
    }

    #[test]
    fn what_may_be_gone_back_to_is_needed_however_old_it_is() {
        let with = |change: &dyn Fn(&mut Unit)| {
            let mut state = store();
            state.settings.image_revisions = 1;
            state.units.values_mut().for_each(change);
            needed(&state).0
        };
        assert_eq!(with(&|unit| unit.good = Some(Revision(1))), tags(&["1", "5"]));
        assert_eq!(with(&|unit| unit.go_back(Revision(2))), tags(&["2", "5"]));
        let rollout = |from: u64, to: u64| Rollout {
            from: Some(Revision(from)),
            to: Revision(to),
            state: RolloutState::Running,
            back: false,
            reason: String::new(),
            since: WallTime(0),
            failed: false,
            made: 0,
            proved: 0,
            deadline: None,
            canary: 0,
            promote_at: None,
            canary_proved: false,
        };
        assert_eq!(with(&|unit| unit.rollout = Some(rollout(2, 5))), tags(&["2", "5"]));
        let served = |unit: &mut Unit| {
            let record = |revision| RevisionRecord {
                revision: Revision(revision),
                digest: String::new(),
                at: WallTime(0),
                actor: String::new(),
                outcome: "serving".into(),
            };
            unit.history = vec![record(3), record(5)];
        };
        assert_eq!(with(&served), tags(&["3", "5"]), "what a rollback without a number means");
    }
}
