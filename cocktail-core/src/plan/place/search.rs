//! Finds a server for each container of one Unit, by looking at few of many.
//!
//! Start at [`Search::next`]. While one pass places containers room only shrinks, so a server that did not do for this
//! Unit a moment ago does not do now: each is passed over once per pass. Spreading first walks down the servers without a
//! container of the Unit, from the emptiest; only when all of them have one are they ordered by how many.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use crate::contract::{Candidate, PlacementPolicy};
use crate::id::{ServerId, UnitId};
use crate::lookup::Lookup;
use crate::name::Name;
use crate::plan::draft::{Draft, Site};
use crate::server::Server;
use crate::spec::{Domain, Place, PlaceOrder, Resources, Template};
use crate::state::rooms::{Rank, Yard, is_in, share};

/// The way to the next server for one Unit.
#[derive(Debug)]
pub(super) struct Search<'a> {
    unit: Other<'a>,
    place: &'a Place,
    wanted: Resources,
    groups: Vec<Group<'a>>,
    /// Where the walk through each yard stands.
    walks: Vec<Walk>,
    /// Units whose servers are not allowed, and whose servers are required.
    apart: Vec<Other<'a>>,
    near: Vec<Other<'a>>,
}

/// A Unit, and where it was before this pass.
#[derive(Debug)]
struct Other<'a> {
    id: Cow<'a, UnitId>,
    spots: Option<&'a Lookup<ServerId, u32>>,
}

/// Which way a walk goes through servers in the order of what is left of them.
#[derive(Debug, Clone, Copy)]
enum Way {
    Down,
    Up,
}

/// The walk through one yard.
#[derive(Debug, Clone, Default)]
struct Walk {
    /// The server that was looked at last.
    last: Option<Rank>,
    /// The one after it, if that was found out already: placing a container only changes servers behind it.
    next: Option<Option<Rank>>,
}

/// Servers by how many containers of the Unit they have, then by how little is taken of them.
type Levels<'a> = BTreeSet<(u32, Reverse<u32>, &'a ServerId)>;

/// Yards that are looked at together.
#[derive(Debug, Default)]
struct Group<'a> {
    /// Lower ones are preferred whatever is in them: the order of providers.
    tier: usize,
    /// Containers of the Unit in it, where that decides.
    count: i64,
    /// Named by their places among those of the draft.
    yards: Vec<usize>,
    /// Servers that have containers of the Unit, once all others have one.
    levels: Option<Levels<'a>>,
    /// The one that was chosen last, which packing tries again.
    last: Option<&'a Server>,
    exhausted: bool,
}

impl<'a> Other<'a> {
    fn new(draft: &Draft<'a>, id: Cow<'a, UnitId>) -> Self {
        Self { spots: draft.state.spots(&id), id }
    }

    /// How many containers it has on a server.
    fn on(&self, site: &Site<'_, '_>) -> u32 {
        self.spots.and_then(|spots| spots.get(&site.server.id)).copied().unwrap_or_default() + site.placed(&self.id)
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(draft: &mut Draft<'a>, unit: &'a UnitId, place: &'a Place, template: &Template) -> Self {
        let yards = |provider: Option<&Name>| -> Vec<usize> {
            let allowed = |yard: &Yard| {
                let zone = place.zones.is_empty() || yard.1.as_ref().is_some_and(|zone| place.zones.contains(zone));
                zone && yard.2 == template.image.is_some() && provider.is_none_or(|provider| yard.0 == *provider)
            };
            draft.yards().enumerate().filter(|(_, yard)| allowed(yard)).map(|(index, _)| index).collect()
        };
        let tiers: Vec<Vec<usize>> = match &template.providers[..] {
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
        let mut apart: Vec<Cow<'a, UnitId>> = place.apart.iter().map(|name| Cow::Owned(other(name))).collect();
        for id in draft.kept_apart(unit) {
            if !apart.iter().any(|known| **known == **id) {
                apart.push(Cow::Borrowed(*id));
            }
        }
        let near = place.near.iter().map(|name| Other::new(draft, Cow::Owned(other(name)))).collect();
        Self {
            unit: Other::new(draft, Cow::Borrowed(unit)),
            place,
            wanted: template.resources,
            groups,
            walks: vec![Walk::default(); draft.yards().count()],
            apart: apart.into_iter().map(|id| Other::new(draft, id)).collect(),
            near,
        }
    }

    /// The server for the next container; what is left of it has to be set in `draft` before the next call.
    pub(super) fn next(&mut self, draft: &Draft<'a>, policy: &dyn PlacementPolicy) -> Option<&'a Server> {
        let breadth = policy.breadth().max(1);
        let (mut group, mut chosen) = self.candidate(draft)?;
        if breadth > 1 {
            let mut found = vec![(group, chosen)];
            while found.len() < breadth {
                let Some(candidate) = self.candidate(draft) else { break };
                found.push(candidate);
            }
            let candidates: Vec<Candidate> = found.iter().map(|(_, server)| self.describe(draft, server)).collect();
            (group, chosen) = found.get(policy.choose(&candidates)).copied().unwrap_or((group, chosen));
            // What was only looked at may be looked at again.
            self.walks.fill(Walk::default());
            for group in &mut self.groups {
                (group.levels, group.exhausted) = (None, false);
            }
        }
        let wanted = self.wanted;
        let group = self.groups.get_mut(group)?;
        group.count += 1;
        group.last = Some(chosen);
        if let Some(levels) = &mut group.levels {
            let site = draft.site(chosen);
            let mut left = site.left();
            left.cpu.0 = left.cpu.0.saturating_sub(wanted.cpu.0);
            left.memory.0 = left.memory.0.saturating_sub(wanted.memory.0);
            let rank = share(left, chosen.capacity);
            levels.insert((self.unit.on(&site) + 1, Reverse(rank), &chosen.id));
        }
        Some(chosen)
    }

    fn candidate(&mut self, draft: &Draft<'a>) -> Option<(usize, &'a Server)> {
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
    fn emptiest(&mut self, draft: &Draft<'a>, index: usize) -> Option<&'a Server> {
        self.groups.get(index).filter(|group| group.levels.is_none())?;
        loop {
            let site = draft.site(self.step(draft, index, Way::Down)?);
            if self.unit.on(&site) == 0 && self.fits(draft, &site) {
                return Some(site.server);
            }
        }
    }

    /// The next server of a group's yards on the way from the emptiest down, or from the fullest up.
    fn step(&mut self, draft: &Draft<'a>, index: usize, way: Way) -> Option<&'a Server> {
        let Self { groups, walks, .. } = self;
        let yards = &groups.get(index)?.yards;
        for yard in yards {
            let (walk, ranked) = walks.get_mut(*yard).zip(draft.yard(*yard))?;
            if walk.next.is_none() {
                let last = walk.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let next = match way {
                    Way::Down => ranked.range((Bound::Unbounded, last)).next_back(),
                    Way::Up => ranked.range((last, Bound::Unbounded)).next(),
                };
                walk.next = Some(next.cloned());
            }
        }
        let ahead = yards.iter().filter_map(|yard| Some((walks.get(*yard)?.next.as_ref()?.as_ref()?, *yard)));
        let (_, yard) = match way {
            Way::Down => ahead.max(),
            Way::Up => ahead.min(),
        }?;
        let walk = walks.get_mut(yard)?;
        walk.last = walk.next.take().flatten();
        walk.last.as_ref().and_then(|rank| draft.state.servers.get(&rank.1.0))
    }

    /// The server with the fewest containers of the Unit, of those that have any.
    fn fewest(&mut self, draft: &Draft<'a>, index: usize) -> Option<&'a Server> {
        let mut levels = match self.groups.get_mut(index)?.levels.take() {
            Some(levels) => levels,
            None => self.levels(draft, index),
        };
        let mut found = None;
        while let Some((_, _, server)) = levels.pop_first() {
            let server = draft.state.servers.get(server).filter(|server| self.fits(draft, &draft.site(server)));
            if server.is_some() {
                found = server;
                break;
            }
        }
        self.groups.get_mut(index)?.levels = Some(levels);
        found
    }

    fn levels(&self, draft: &Draft<'a>, index: usize) -> Levels<'a> {
        let Some(group) = self.groups.get(index) else { return Levels::new() };
        let yards = draft.yards().enumerate().filter(|(yard, _)| group.yards.contains(yard));
        let yards: Vec<&Yard> = yards.map(|(_, yard)| yard).collect();
        let inside = |it: &&Server| yards.iter().any(|yard| is_in(it, yard));
        let there = draft.spots(&self.unit.id).into_iter().filter_map(|server| draft.state.servers.get(server));
        let levels = there.filter(inside).filter_map(|server| {
            let site = draft.site(server);
            Some((self.unit.on(&site), Reverse(site.rank()?), &server.id))
        });
        levels.collect()
    }

    /// The fullest server on which there is still room.
    fn fullest(&mut self, draft: &Draft<'a>, index: usize) -> Option<&'a Server> {
        if let Some(last) = self.groups.get_mut(index)?.last.take()
            && self.fits(draft, &draft.site(last))
        {
            return Some(last);
        }
        loop {
            let site = draft.site(self.step(draft, index, Way::Up)?);
            if self.fits(draft, &site) {
                return Some(site.server);
            }
        }
    }

    fn fits(&self, draft: &Draft<'a>, site: &Site<'_, 'a>) -> bool {
        let left = site.left();
        self.wanted.cpu <= left.cpu && self.wanted.memory <= left.memory && self.against(draft, site).is_none()
    }

    fn describe(&self, draft: &Draft<'a>, server: &'a Server) -> Candidate {
        let site = draft.site(server);
        Candidate { server: server.id.clone(), free: site.left(), same_unit: self.unit.on(&site) }
    }

    /// How good a place is for one more container of the Unit, the lower the better: as far from the others or as close to
    /// them as is wanted.
    pub(super) fn rank(&self, site: &Site<'_, 'a>) -> i64 {
        let there = i64::from(self.unit.on(site));
        if matches!(self.place.order, PlaceOrder::Pack(_)) { -there } else { there }
    }

    /// Why a server would not do although it may have room; `None` where it would.
    pub(super) fn against(&self, draft: &Draft<'a>, site: &Site<'_, 'a>) -> Option<Against<'_>> {
        let Place { zones, offerings, .. } = self.place;
        let Server { zone, offering, .. } = site.server;
        if !zones.is_empty() && zone.as_ref().is_none_or(|zone| !zones.contains(zone)) {
            return Some(Against::Zone(zones));
        }
        if !offerings.is_empty() && !offerings.contains(offering) {
            return Some(Against::Offering(offerings));
        }
        if let Some(other) = self.apart.iter().find(|other| other.on(site) > 0) {
            return Some(Against::Apart(&other.id));
        }
        // Where the other is nowhere yet, somebody has to be first.
        let lonely = |other: &&Other<'_>| other.on(site) == 0 && draft.is_anywhere(&other.id);
        self.near.iter().find(lonely).map(|other| Against::Near(&other.id))
    }
}

/// Why a server would not do, for people.
#[derive(Debug)]
pub(super) enum Against<'s> {
    Zone(&'s [String]),
    Offering(&'s [String]),
    Apart(&'s UnitId),
    Near(&'s UnitId),
}

impl fmt::Display for Against<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(zones) => write!(f, "the unit wants zone {}", zones.join(" or ")),
            Self::Offering(offerings) => write!(f, "the unit wants {}", offerings.join(" or ")),
            Self::Apart(other) => write!(f, "{} is there, which the unit keeps away from", other.unit),
            Self::Near(other) => write!(f, "{} is not there, which the unit stays near", other.unit),
        }
    }
}

/// The yards of each zone together, with how many containers of the Unit are in it.
fn zones<'a>(draft: &Draft<'a>, unit: &UnitId, tier: usize, yards: Vec<usize>) -> Vec<Group<'a>> {
    let mut zones: BTreeMap<Option<&String>, Group<'a>> = BTreeMap::new();
    for (index, yard) in draft.yards().enumerate().filter(|(index, _)| yards.contains(index)) {
        let group = zones.entry(yard.1.as_ref()).or_insert_with(|| Group { tier, ..Group::default() });
        group.yards.push(index);
    }
    let own = Other::new(draft, Cow::Borrowed(unit));
    for server in draft.spots(unit).into_iter().filter_map(|server| draft.state.servers.get(server)) {
        if let Some(group) = zones.get_mut(&server.zone.as_ref()) {
            group.count += i64::from(own.on(&draft.site(server)));
        }
    }
    zones.into_values().collect()
}
