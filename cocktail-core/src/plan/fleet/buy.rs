//! What to buy for what found no room.
//!
//! Servers on their way are filled first, in thought; what is left is bought for the least money from what is in stock,
//! provider by provider in the order that the Unit names.

use std::collections::BTreeMap;

use super::pack::{Offer, cheapest, holds};
use super::{Draft, existing};
use crate::contract::{Offering, ServerSpec};
use crate::event::Event;
use crate::fleet::{FleetEvent, ProviderRecord, ServerOperationKind, Tenure, offering_key};
use crate::id::{ServerId, UnitId};
use crate::name::Name;
use crate::plan::letters;
use crate::server::{Server, ServerState};
use crate::spec::{Resources, Template};
use crate::state::State;
use crate::unit::Unit;

/// Servers that one call asks for at most.
const PER_CALL: usize = 50;
/// Items that are packed at once at most; what is beyond them is looked at when these are on their way.
const AT_ONCE: usize = 20_000;
/// Letters of the random-looking part of a server's id.
const ID_LENGTH: usize = 8;

/// A container that found no room, and what its server may be.
#[derive(Debug, Clone)]
struct Item {
    room: Resources,
    allowed: Allowed,
}

/// What a server may be for a container; an empty list allows all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Allowed {
    providers: Vec<Name>,
    zones: Vec<String>,
    offerings: Vec<String>,
    /// It runs images; programs where it does not.
    images: bool,
}

impl Allowed {
    fn of(unit: &Unit, template: &Template) -> Self {
        let place = &unit.spec.place;
        let (zones, offerings) = (place.zones.clone(), place.offerings.clone());
        Self { providers: template.providers.clone(), zones, offerings, images: template.image.is_some() }
    }

    /// Whether a server of this zone and offering would do.
    fn allows(&self, zone: Option<&String>, offering: &String) -> bool {
        let zone = self.zones.is_empty() || zone.is_some_and(|zone| self.zones.contains(zone));
        zone && (self.offerings.is_empty() || self.offerings.contains(offering))
    }
}

/// Buys what is missing.
pub(super) fn buy(draft: &mut Draft<'_>) {
    let state = draft.state;
    let items = missing(state);
    if items.is_empty() {
        return;
    }
    let mut groups: BTreeMap<Allowed, Vec<Resources>> = BTreeMap::new();
    for item in on_their_way(state, items) {
        groups.entry(item.allowed).or_default().push(item.room);
    }
    let mut counts: BTreeMap<Name, u32> = BTreeMap::new();
    for (allowed, mut items) in groups {
        let any = allowed.providers.is_empty();
        let names: Vec<Name> = if any { state.providers.keys().cloned().collect() } else { allowed.providers.clone() };
        // Without a preference all of them are compared by price; with one, each is asked in its turn.
        let rounds: Vec<Vec<Name>> = if any { vec![names] } else { names.into_iter().map(|it| vec![it]).collect() };
        for round in rounds {
            items = buy_from(draft, &round, &allowed, items, &mut counts);
            if items.is_empty() {
                break;
            }
        }
    }
}

/// Buys from these providers what they have; returns what is left.
fn buy_from(
    draft: &mut Draft<'_>,
    names: &[Name],
    allowed: &Allowed,
    items: Vec<Resources>,
    counts: &mut BTreeMap<Name, u32>,
) -> Vec<Resources> {
    let state = draft.state;
    let mut offers = Vec::new();
    let mut most = 0_usize;
    for name in names {
        let may = |it: &&ProviderRecord| it.images == allowed.images && it.may_buy(state.now).is_ok();
        let Some(provider) = state.providers.get(name).filter(may) else { continue };
        let there = *counts.entry(name.clone()).or_insert_with(|| existing(state, name));
        let free = provider.limits.max_servers.saturating_sub(there) as usize;
        if free == 0 {
            continue;
        }
        most += free;
        let dearest = provider.offerings.iter().filter_map(|it| it.price).fold(1.0, f64::max);
        let fitting = in_stock(state, provider).filter(|it| allowed.allows(it.zone.as_ref(), &it.name));
        for offering in fitting {
            offers.push((name.clone(), offering, price(offering, dearest)));
        }
    }
    let bare: Vec<Offer> =
        offers.iter().map(|(_, offering, price)| Offer { room: offering.allocatable, price: *price }).collect();
    let bought = cheapest(&items, &bare, most);
    let mut placed = vec![false; items.len()];
    let mut calls: BTreeMap<usize, Vec<ServerId>> = BTreeMap::new();
    for server in bought {
        let Some((name, offering, _)) = offers.get(server.offer) else { continue };
        let limit = state.providers.get(name).map_or(0, |it| it.limits.max_servers);
        let there = counts.entry(name.clone()).or_default();
        if *there >= limit {
            continue;
        }
        *there += 1;
        for item in &server.items {
            placed[*item] = true;
        }
        let count = server.items.len();
        let id = new_id(draft, name, *there);
        let find = if count == 1 { "container finds" } else { "containers find" };
        let because = format!("{count} {find} no room: {}", about(offering));
        let claimed = Server { images: allowed.images, ..claim(state, &id, name, offering, because) };
        draft.push(FleetEvent::Claimed { server: Box::new(claimed) });
        calls.entry(server.offer).or_default().push(id);
    }
    for (offer, servers) in calls {
        let Some((name, offering, _)) = offers.get(offer) else { continue };
        let spec =
            ServerSpec { offering: offering.name.clone(), zone: offering.zone.clone(), kind: Some(offering.kind) };
        for part in servers.chunks(PER_CALL) {
            let because = format!("{} of {}", part.len(), about(offering));
            let kind = ServerOperationKind::Provision { spec: spec.clone() };
            draft.intend(name, kind, part.to_vec(), because);
        }
    }
    items.into_iter().zip(placed).filter(|(_, placed)| !placed).map(|(item, _)| item).collect()
}

/// What a provider has in stock, as far as is known.
fn in_stock<'a>(state: &'a State, provider: &'a ProviderRecord) -> impl Iterator<Item = &'a Offering> {
    provider.offerings.iter().filter(|it| {
        it.available && !provider.is_marked(&offering_key(&it.name, it.zone.as_deref(), it.kind), state.now)
    })
}

/// What an offering costs; one without a price counts as dearer than all that have one, by its size.
fn price(offering: &Offering, dearest: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an order of sizes needs no exactness")]
    let size = offering.allocatable.cpu.0 as f64 / 1000.0 + offering.allocatable.memory.0 as f64 / f64::from(1 << 30);
    offering.price.filter(|price| price.is_finite() && *price > 0.0).unwrap_or(dearest * (1.0 + size))
}

fn about(offering: &Offering) -> String {
    let zone = offering.zone.as_ref().map(|zone| format!(" in {zone}")).unwrap_or_default();
    let price = offering.price.map(|price| format!(", {price:.4} an hour")).unwrap_or_default();
    format!("{}{zone}{price}", offering.name)
}

/// One item for each container that found no room.
fn missing(state: &State) -> Vec<Item> {
    let mut items = Vec::new();
    for (id, want) in state.wanting() {
        let Some(unit) = state.units.get(id) else { continue };
        let template = unit.template(want.revision);
        let item = Item { room: template.resources, allowed: Allowed::of(unit, template) };
        let count = (want.count as usize).min(AT_ONCE.saturating_sub(items.len()));
        items.extend(std::iter::repeat_n(item, count));
    }
    items
}

/// Fills the servers that are on their way, and returns what does not fit into them.
fn on_their_way(state: &State, items: Vec<Item>) -> Vec<Item> {
    let mut coming: Vec<(&Server, Resources)> =
        state.servers.values().filter(|it| is_coming(it)).map(|it| (it, it.capacity)).collect();
    let mut left = items;
    left.sort_by_key(|item| std::cmp::Reverse((item.room.cpu, item.room.memory)));
    left.retain(|item| {
        let fits = |(server, room): &&mut (&Server, Resources)| {
            let Allowed { providers, images, .. } = &item.allowed;
            server.images == *images
                && holds(*room, item.room)
                && (providers.is_empty() || providers.contains(&server.provider))
                && item.allowed.allows(server.zone.as_ref(), &server.offering)
        };
        match coming.iter_mut().find(fits) {
            Some((_, room)) => {
                room.cpu.0 -= item.room.cpu.0;
                room.memory.0 -= item.room.memory.0;
                false
            }
            None => true,
        }
    });
    left
}

fn is_coming(server: &Server) -> bool {
    matches!(
        server.state,
        ServerState::Claimed | ServerState::Provisioning | ServerState::Booting | ServerState::Joined
    )
}

/// Whether a Unit waits for room and a server that may give it some is on its way. It joins or fails in its own time.
pub(in crate::plan) fn awaits(state: &State, id: &UnitId, unit: &Unit) -> bool {
    let (allowed, images) = (&unit.spec.template.providers, unit.spec.template.image.is_some());
    let may = |server: &&Server| server.images == images && (allowed.is_empty() || allowed.contains(&server.provider));
    state.wanting().any(|(wanting, _)| wanting == id) && state.servers.values().filter(may).any(is_coming)
}

/// What a Unit without room may hope for, for people, and the same without numbers; `None` where no provider grows.
pub(in crate::plan) fn outlook(state: &State, unit: &Unit, wanted: Resources) -> Option<(String, String)> {
    let allowed = Allowed::of(unit, &unit.spec.template);
    let may = |name: &Name| allowed.providers.is_empty() || allowed.providers.contains(name);
    let grows = |it: &ProviderRecord| it.grows && it.images == allowed.images;
    let growing: Vec<_> = state.providers.iter().filter(|(name, it)| grows(it) && may(name)).collect();
    if growing.is_empty() {
        return None;
    }
    let suits = |it: &&Server| {
        it.images == allowed.images && may(&it.provider) && allowed.allows(it.zone.as_ref(), &it.offering)
    };
    let coming = state.servers.values().filter(suits).filter(|it| is_coming(it)).count();
    if coming > 0 {
        let text =
            if coming == 1 { "1 server is on its way".into() } else { format!("{coming} servers are on their way") };
        return Some((text, "servers are on their way".into()));
    }
    let mut reasons = Vec::new();
    for (name, provider) in growing {
        let there = existing(state, name);
        let large = |it: &&Offering| holds(it.allocatable, wanted);
        let fits = |it: &&Offering| large(it) && allowed.allows(it.zone.as_ref(), &it.name);
        let reason = match provider.may_buy(state.now) {
            Err(because) => because,
            Ok(()) if there >= provider.limits.max_servers => match provider.limits.max_servers {
                1 => "it has 1 server, which is its limit".into(),
                most => format!("it has {most} servers, which is its limit"),
            },
            Ok(()) if !provider.offerings.iter().any(|it| large(&it)) => {
                "nothing that it offers is large enough".into()
            }
            Ok(()) if !provider.offerings.iter().any(|it| fits(&it)) => {
                "nothing that it offers is both large enough and what the unit's `place` allows".into()
            }
            Ok(()) if !in_stock(state, provider).any(|it| fits(&it)) => {
                "everything that would do is out of stock".into()
            }
            Ok(()) => "a server is being chosen".into(),
        };
        reasons.push(format!("{name}: {reason}"));
    }
    let text = reasons.join("; ");
    Some((text.clone(), text))
}

fn claim(state: &State, id: &ServerId, provider: &Name, offering: &Offering, because: String) -> Server {
    Server {
        id: id.clone(),
        provider: provider.clone(),
        provider_id: String::new(),
        state: ServerState::Claimed,
        reason: because,
        since: state.at,
        zone: offering.zone.clone(),
        offering: offering.name.clone(),
        incarnation: String::new(),
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        capacity: offering.allocatable,
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: Tenure { kind: Some(offering.kind), price: offering.price, ..Tenure::default() },
    }
}

/// An id that no server of this store has: the provider's name and a few letters that a hash chose.
fn new_id(draft: &Draft<'_>, provider: &Name, number: u32) -> ServerId {
    let seed = format!("{provider} {}", draft.last_operation);
    let mut count = u64::from(number);
    loop {
        let letters: String = letters(draft.state.chance(&seed, count), ID_LENGTH).collect();
        let id = ServerId::new(format!("{provider}-{letters}"));
        let claims = |event: &Event| match event {
            Event::Fleet { event } => matches!(&**event, FleetEvent::Claimed { server } if server.id == id),
            _ => false,
        };
        if !draft.state.servers.contains_key(&id) && !draft.events.iter().any(claims) {
            return id;
        }
        count += 1 << 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::OfferingKind;
    use crate::world::{World, name};

    #[test]
    fn one_look_gives_no_id_twice_though_chance_does() {
        let (world, cloud) = (World::new(), name("cloud"));
        let state = &world.state;
        let offering = Offering {
            name: "small".into(),
            zone: None,
            kind: OfferingKind::OnDemand,
            price: None,
            allocatable: Resources::default(),
            available: true,
        };
        let mut draft = Draft { state, last_operation: state.last_operation, events: Vec::new(), failed: false };
        for _ in 0..3 {
            let id = new_id(&draft, &cloud, 1);
            draft.push(FleetEvent::Claimed { server: Box::new(claim(state, &id, &cloud, &offering, String::new())) });
        }
        let ids: std::collections::BTreeSet<String> = draft.events.iter().map(|event| event.describe().1).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
    }
}
