//! Finds a server for each container of one Unit, by looking at few of many.
//!
//! Start at [`Search::next`]. While one pass places containers room only shrinks, so a server that did not do for this
//! Unit a moment ago does not do now: each is passed over once per pass. Spreading first walks down the servers without a
//! container of the Unit, from the emptiest; only when all of them have one are they ordered by how many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::contract::{Candidate, PlacementPolicy};
use crate::id::{ServerId, UnitId};
use crate::name::Name;
use crate::plan::draft::Draft;
use crate::spec::{Domain, Place, PlaceOrder, Resources, Template};
use crate::state::rooms::{Rank, Yard, share};

/// The way to the next server for one Unit.
#[derive(Debug)]
pub(super) struct Search<'u> {
    unit: &'u UnitId,
    place: &'u Place,
    wanted: Resources,
    groups: Vec<Group>,
    /// Where the walk through each yard stands.
    cursors: BTreeMap<Yard, Rank>,
    /// Units whose servers are not allowed, and whose servers are required.
    apart: Vec<UnitId>,
    near: Vec<UnitId>,
}

/// Yards that are looked at together.
#[derive(Debug, Default)]
struct Group {
    /// Lower ones are preferred whatever is in them: the order of providers.
    tier: usize,
    /// Containers of the Unit in it, where that decides.
    count: i64,
    yards: Vec<Yard>,
    /// Servers that have containers of the Unit: how many, how little is taken of them, and which.
    levels: Option<BTreeSet<(u32, Reverse<u32>, ServerId)>>,
    /// The one that was chosen last, which packing tries again.
    last: Option<ServerId>,
    exhausted: bool,
}

impl<'u> Search<'u> {
    pub(super) fn new(draft: &Draft<'_>, unit: &'u UnitId, place: &'u Place, template: &Template) -> Self {
        let yards = |provider: Option<&Name>| -> Vec<Yard> {
            let allowed = |yard: &&Yard| {
                let zone = place.zones.is_empty() || yard.1.as_ref().is_some_and(|zone| place.zones.contains(zone));
                zone && provider.is_none_or(|provider| yard.0 == *provider)
            };
            draft.rooms().yards().map(|(yard, _)| yard).filter(allowed).cloned().collect()
        };
        let tiers: Vec<Vec<Yard>> = match &template.providers[..] {
            [] => vec![yards(None)],
            preferred => preferred.iter().map(|provider| yards(Some(provider))).collect(),
        };
        let by_zone = matches!(place.order, PlaceOrder::Spread(Domain::Zone) | PlaceOrder::Pack(Domain::Zone));
        let mut groups = Vec::new();
        for (tier, yards) in tiers.into_iter().enumerate() {
            if by_zone {
                groups.extend(zones(draft, unit, tier, yards));
            } else {
                groups.push(Group { tier, yards, ..Group::default() });
            }
        }
        let other = |name: &Name| UnitId::new(unit.service.clone(), unit.map.clone(), name.clone());
        let mut apart: Vec<UnitId> = place.apart.iter().map(other).collect();
        for id in draft.state.kept_apart(unit) {
            if !apart.contains(id) {
                apart.push(id.clone());
            }
        }
        let near = place.near.iter().map(other).collect();
        Self { unit, place, wanted: template.resources, groups, cursors: BTreeMap::new(), apart, near }
    }

    /// The server for the next container; what is left of it has to be set in `draft` before the next call.
    pub(super) fn next(&mut self, draft: &Draft<'_>, policy: &dyn PlacementPolicy) -> Option<ServerId> {
        let breadth = policy.breadth().max(1);
        let mut found = Vec::new();
        while found.len() < breadth {
            let Some(candidate) = self.candidate(draft) else { break };
            found.push(candidate);
        }
        let mut index = 0;
        if found.len() > 1 {
            let candidates: Vec<Candidate> = found.iter().map(|(_, server)| self.describe(draft, server)).collect();
            index = policy.choose(&candidates);
            // What was only looked at may be looked at again.
            self.cursors.clear();
            for group in &mut self.groups {
                (group.levels, group.exhausted) = (None, false);
            }
        }
        let (group, chosen) = found.get(index).or(found.first())?.clone();
        let wanted = self.wanted;
        let group = self.groups.get_mut(group)?;
        group.count += 1;
        group.last = Some(chosen.clone());
        if let Some(levels) = &mut group.levels {
            let mut left = draft.left_of(&chosen);
            left.cpu.0 = left.cpu.0.saturating_sub(wanted.cpu.0);
            left.memory.0 = left.memory.0.saturating_sub(wanted.memory.0);
            let rank = draft.state.servers.get(&chosen).map_or(0, |server| share(left, server.capacity));
            levels.insert((draft.on_server(&chosen, self.unit) + 1, Reverse(rank), chosen.clone()));
        }
        Some(chosen)
    }

    fn candidate(&mut self, draft: &Draft<'_>) -> Option<(usize, ServerId)> {
        loop {
            let order = self.place.order;
            let open = self.groups.iter().enumerate().filter(|(_, group)| !group.exhausted);
            let (index, _) = open.min_by_key(|(_, group)| {
                (group.tier, if matches!(order, PlaceOrder::Pack(_)) { -group.count } else { group.count })
            })?;
            let found = match order {
                PlaceOrder::Spread(_) => self.emptiest(draft, index).or_else(|| self.fewest(draft, index)),
                PlaceOrder::Pack(_) => self.fullest(draft, index),
            };
            match found {
                Some(server) => return Some((index, server)),
                None => self.groups[index].exhausted = true,
            }
        }
    }

    /// The emptiest server without a container of the Unit.
    fn emptiest(&mut self, draft: &Draft<'_>, index: usize) -> Option<ServerId> {
        let group = self.groups.get(index).filter(|group| group.levels.is_none())?;
        loop {
            let next = |yard| {
                let above = self.cursors.get(yard).map_or(Bound::Unbounded, Bound::Excluded);
                Some((draft.rooms().yard(yard)?.range((Bound::Unbounded, above)).next_back()?, yard))
            };
            let (rank, yard) = group.yards.iter().filter_map(next).max_by_key(|(rank, _)| *rank)?;
            let server = rank.1.0.clone();
            self.cursors.insert(yard.clone(), rank.clone());
            if draft.on_server(&server, self.unit) == 0 && self.fits(draft, &server) {
                return Some(server);
            }
        }
    }

    /// The server with the fewest containers of the Unit, of those that have any.
    fn fewest(&mut self, draft: &Draft<'_>, index: usize) -> Option<ServerId> {
        let mut levels = match self.groups.get_mut(index)?.levels.take() {
            Some(levels) => levels,
            None => self.levels(draft, index),
        };
        let mut found = None;
        while let Some((_, _, server)) = levels.pop_first() {
            if self.fits(draft, &server) {
                found = Some(server);
                break;
            }
        }
        self.groups.get_mut(index)?.levels = Some(levels);
        found
    }

    fn levels(&self, draft: &Draft<'_>, index: usize) -> BTreeSet<(u32, Reverse<u32>, ServerId)> {
        let Some(group) = self.groups.get(index) else { return BTreeSet::new() };
        let inside = |server: &ServerId| {
            let record = draft.state.servers.get(server);
            record.is_some_and(|it| group.yards.iter().any(|yard| yard.0 == it.provider && yard.1 == it.zone))
        };
        let levels = draft.spots(self.unit).into_iter().filter(inside).filter_map(|server| {
            let rank = draft.rooms().rank(&server)?;
            Some((draft.on_server(&server, self.unit), Reverse(rank), server))
        });
        levels.collect()
    }

    /// The fullest server on which there is still room.
    fn fullest(&mut self, draft: &Draft<'_>, index: usize) -> Option<ServerId> {
        if let Some(last) = self.groups.get_mut(index)?.last.take()
            && self.fits(draft, &last)
        {
            return Some(last);
        }
        let group = self.groups.get(index)?;
        loop {
            let next = |yard| {
                let below = self.cursors.get(yard).map_or(Bound::Unbounded, Bound::Excluded);
                Some((draft.rooms().yard(yard)?.range((below, Bound::Unbounded)).next()?, yard))
            };
            let (rank, yard) = group.yards.iter().filter_map(next).min_by_key(|(rank, _)| *rank)?;
            let server = rank.1.0.clone();
            self.cursors.insert(yard.clone(), rank.clone());
            if self.fits(draft, &server) {
                return Some(server);
            }
        }
    }

    fn fits(&self, draft: &Draft<'_>, server: &ServerId) -> bool {
        let left = draft.left_of(server);
        self.wanted.cpu <= left.cpu && self.wanted.memory <= left.memory && self.against(draft, server).is_none()
    }

    fn describe(&self, draft: &Draft<'_>, server: &ServerId) -> Candidate {
        let (free, same_unit) = (draft.left_of(server), draft.on_server(server, self.unit));
        Candidate { server: server.clone(), free, same_unit }
    }

    /// Why a server would not do although it may have room, for people; `None` where it would.
    pub(super) fn against(&self, draft: &Draft<'_>, server: &ServerId) -> Option<String> {
        let Place { zones, offerings, .. } = self.place;
        let record = draft.state.servers.get(server);
        if !zones.is_empty() && record.and_then(|it| it.zone.as_ref()).is_none_or(|zone| !zones.contains(zone)) {
            return Some(format!("the unit wants zone {}", zones.join(" or ")));
        }
        if !offerings.is_empty() && record.is_none_or(|it| !offerings.contains(&it.offering)) {
            return Some(format!("the unit wants {}", offerings.join(" or ")));
        }
        if let Some(other) = self.apart.iter().find(|other| draft.on_server(server, other) > 0) {
            return Some(format!("{} is there, which the unit keeps away from", other.unit));
        }
        // Where the other is nowhere yet, somebody has to be first.
        let lonely = |other: &&UnitId| draft.on_server(server, other) == 0 && draft.is_anywhere(other);
        let other = self.near.iter().find(lonely)?;
        Some(format!("{} is not there, which the unit stays near", other.unit))
    }
}

/// The yards of each zone together, with how many containers of the Unit are in it.
fn zones(draft: &Draft<'_>, unit: &UnitId, tier: usize, yards: Vec<Yard>) -> Vec<Group> {
    let mut zones: BTreeMap<Option<String>, Group> = BTreeMap::new();
    for yard in yards {
        let group = zones.entry(yard.1.clone()).or_insert_with(|| Group { tier, ..Group::default() });
        group.yards.push(yard);
    }
    for server in draft.spots(unit) {
        let zone = draft.state.servers.get(&server).map(|record| record.zone.clone());
        if let Some(group) = zone.and_then(|zone| zones.get_mut(&zone)) {
            group.count += i64::from(draft.on_server(&server, unit));
        }
    }
    zones.into_values().collect()
}
