//! Where missing containers go: a server with room, free ports, within the Service's quota.

use std::collections::BTreeSet;

use super::count::Census;
use super::draft::{Draft, Hold};
use crate::container::{Container, ContainerState};
use crate::contract::{Candidate, PlacementPolicy, Spread};
use crate::event::Event;
use crate::id::{ContainerId, ServerId, UnitId};
use crate::name::Name;
use crate::ports::PortError;
use crate::quantity::{Bytes, CpuMillis};
use crate::server::{Server, ServerState};
use crate::spec::{Resources, Template};
use crate::unit::Unit;
use crate::view::ConsideredView;

/// Letters of the random-looking part of a container's id.
const ID_LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstvwxyz0123456789";
/// How many of them.
const ID_LENGTH: usize = 6;
/// A server was seen, and its ports were not.
const UNKNOWN_PORTS: &str = "its ports are not known yet";

/// Claims what is missing; returns why not, where it cannot.
pub(super) fn place(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, census: &Census<'_>) -> Option<Hold> {
    let (missing, revision) = census.missing(unit);
    if missing == 0 {
        return None;
    }
    let template = unit.template(revision);
    // What has stopped holds its volume no longer, so that the data follows its replacement.
    let holders = draft.state.of(unit).filter(|container| container.state != ContainerState::Stopped);
    let mut slots: BTreeSet<u32> = holders.filter_map(|container| container.slot).collect();
    for made in 0..missing {
        if !draft.take_claim(id) {
            return None;
        }
        let because = reason(unit, census, made);
        if let Some(hold) = over_quota(draft, id, template, None) {
            return Some(hold);
        }
        let (server, considered) = match choose(draft, id, template, None) {
            Ok(found) => found,
            Err(hold) => return Some(hold),
        };
        let ports = match lease(draft, unit, &server, template) {
            Ok(ports) => ports,
            Err(hold) => {
                let (option, rejected_because) = (server.to_string(), hold.because.clone());
                return Some(Hold { considered: vec![ConsideredView { option, rejected_because }], ..hold });
            }
        };
        let slot = unit.has_slots().then(|| {
            let free = (0..).find(|slot| !slots.contains(slot)).unwrap_or(0);
            slots.insert(free);
            free
        });
        reserve(draft, id, &server, template.resources);
        draft.push(Event::Claimed {
            container: new_id(draft, id, unit, made),
            unit: id.clone(),
            revision,
            server,
            ports,
            slot,
            because,
            considered,
        });
    }
    None
}

/// What would stand in the way of a replacement even if `gone` were away; `None` where there would be room.
pub(super) fn obstacle(draft: &Draft<'_>, id: &UnitId, unit: &Unit, gone: &Container) -> Option<Hold> {
    let template = &unit.spec.template;
    if let Some(hold) = over_quota(draft, id, template, Some(gone)) {
        return Some(hold);
    }
    let server = match choose(draft, id, template, Some(gone)) {
        Ok((server, _)) => server,
        Err(hold) => return Some(hold),
    };
    let Some(pool) = draft.state.ports.get(&server) else {
        return Some(Hold::new(UNKNOWN_PORTS, UNKNOWN_PORTS));
    };
    let now = draft.state.now;
    let freed: BTreeSet<u16> = if gone.server == server { gone.port_numbers().collect() } else { BTreeSet::new() };
    let fixed = template.ports.iter().filter_map(|port| port.fixed).filter(|port| !freed.contains(port));
    let free = template.ports.iter().filter(|port| port.fixed.is_none()).count().saturating_sub(freed.len());
    let taken = draft.ports.get(&server);
    let found = fixed
        .map(|port| pool.check(port, now))
        .chain([pool.find(free, now, taken.unwrap_or(&BTreeSet::new())).map(drop)])
        .find_map(Result::err);
    found.map(Hold::from)
}

fn reason(unit: &Unit, census: &Census<'_>, made: usize) -> String {
    let number = census.fresh.len() + made + 1;
    if let Some(old) = census.outdated.first() {
        match &old.replace {
            Some(because) if old.revision == unit.revision => format!("replaces one: {because}"),
            _ => format!("revision {} replaces {}: {number} of {}", unit.revision, old.revision, census.goal),
        }
    } else {
        format!("{number} of {} wanted", census.goal)
    }
}

/// Whether one more would be over the quota, with `gone` away.
fn over_quota(draft: &Draft<'_>, id: &UnitId, template: &Template, gone: Option<&Container>) -> Option<Hold> {
    let state = draft.state;
    let quota = state.quota(&id.service)?;
    if quota.containers.is_none() && quota.cpu.is_none() && quota.memory.is_none() {
        return None;
    }
    let (mut count, mut sum) = draft.of_service.get(&id.service).copied().unwrap_or_default();
    for (_, unit) in state.units.iter().filter(|(other, _)| other.service == id.service) {
        let counted = |other: &&Container| !other.is_done() && gone.is_none_or(|gone| gone.id != other.id);
        for container in state.of(unit).filter(counted) {
            let reserved = unit.template(container.revision).resources;
            count += 1;
            sum.cpu.0 = sum.cpu.0.saturating_add(reserved.cpu.0);
            sum.memory.0 = sum.memory.0.saturating_add(reserved.memory.0);
        }
    }
    let cpu = sum.cpu.0.saturating_add(template.resources.cpu.0);
    let memory = sum.memory.0.saturating_add(template.resources.memory.0);
    let (allowed, but) = if let Some(most) = quota.containers.filter(|most| count + 1 > *most) {
        (format!("{most} containers"), format!("there are {count}"))
    } else if let Some(most) = quota.cpu.filter(|most| cpu > most.0) {
        (format!("{}m cpu", most.0), format!("one more makes {cpu}m"))
    } else if let Some(most) = quota.memory.filter(|most| memory > most.0) {
        (format!("{} bytes", most.0), format!("one more makes {memory}"))
    } else {
        return None;
    };
    let cause = format!("the quota of service {} allows {allowed}", id.service);
    Some(Hold::new(format!("{cause}, and {but}"), cause))
}

/// A server with room once `gone` is away, and why the others were not taken.
fn choose(
    draft: &Draft<'_>,
    id: &UnitId,
    template: &Template,
    gone: Option<&Container>,
) -> Result<(ServerId, Vec<ConsideredView>), Hold> {
    let mut considered = Vec::new();
    let mut causes = Vec::new();
    let mut candidates = Vec::new();
    for server in draft.state.servers.values() {
        match room(draft, id, template, server, gone) {
            Ok(candidate) => candidates.push(candidate),
            Err(hold) => {
                causes.push(format!("{}: {}", server.id, hold.cause));
                considered.push(ConsideredView { option: server.id.to_string(), rejected_because: hold.because });
            }
        }
    }
    if let Some((index, _)) = Spread.choose(&candidates)
        && let Some(chosen) = candidates.get(index)
    {
        return Ok((chosen.server.clone(), considered));
    }
    let because = match &considered[..] {
        [] => "no server: no provider has connected one".to_owned(),
        [only] => format!("no room on the only server: {}", only.rejected_because),
        all => format!("no room on any of {} servers", all.len()),
    };
    Err(Hold { because, cause: format!("no room: {}", causes.join(", ")), considered })
}

fn room(
    draft: &Draft<'_>,
    id: &UnitId,
    template: &Template,
    server: &Server,
    gone: Option<&Container>,
) -> Result<Candidate, Hold> {
    if server.state != ServerState::Ready {
        let because = format!("it is {}", server.state);
        return Err(Hold::new(because.clone(), because));
    }
    if !template.providers.is_empty() && !template.providers.contains(&server.provider) {
        let wanted: Vec<&str> = template.providers.iter().map(Name::as_str).collect();
        let because = format!("it is from {}, the unit wants {}", server.provider, wanted.join(" or "));
        return Err(Hold::new(because.clone(), because));
    }
    let drafted = draft.reserved.get(&server.id).copied().unwrap_or_default();
    let freed = gone
        .filter(|gone| gone.server == server.id)
        .and_then(|gone| Some(draft.state.units.get(&gone.unit)?.template(gone.revision).resources))
        .unwrap_or_default();
    let left = |capacity: u64, allocated: u64, drafted: u64, freed: u64| {
        capacity.saturating_sub(allocated.saturating_sub(freed).saturating_add(drafted))
    };
    let (capacity, allocated) = (server.capacity, server.allocated);
    let free = Resources {
        cpu: CpuMillis(left(capacity.cpu.0, allocated.cpu.0, drafted.cpu.0, freed.cpu.0)),
        memory: Bytes(left(capacity.memory.0, allocated.memory.0, drafted.memory.0, freed.memory.0)),
    };
    if template.resources.cpu > free.cpu {
        let (wanted, all) = (template.resources.cpu.0, capacity.cpu.0);
        let because = format!("it has {}m of {all}m cpu left, the container reserves {wanted}m", free.cpu.0);
        return Err(Hold::new(because, format!("{wanted}m of {all}m cpu")));
    }
    if template.resources.memory > free.memory {
        let (wanted, all) = (template.resources.memory, capacity.memory);
        let because = format!("it has {} of {all} left, the container reserves {wanted}", free.memory);
        return Err(Hold::new(because, format!("{wanted} of {all} memory")));
    }
    let drafted = draft.placed.get(&(server.id.clone(), id.clone())).copied().unwrap_or_default();
    let unit = draft.state.units.get(id);
    let there = unit.map_or(0, |unit| draft.state.of(unit).filter(|other| other.server == server.id).count());
    let same_unit = u32::try_from(there).unwrap_or(u32::MAX).saturating_add(drafted);
    Ok(Candidate { server: server.id.clone(), free, same_unit })
}

fn lease(draft: &mut Draft<'_>, unit: &Unit, server: &ServerId, template: &Template) -> Result<Vec<(Name, u16)>, Hold> {
    if template.ports.is_empty() {
        return Ok(Vec::new());
    }
    let Some(pool) = draft.state.ports.get(server) else { return Err(Hold::new(UNKNOWN_PORTS, UNKNOWN_PORTS)) };
    let now = draft.state.now;
    let taken = draft.ports.entry(server.clone()).or_default();
    // Its own fixed ports may lie in the range.
    let mut except = taken.clone();
    for (fixed, inherit) in template.ports.iter().filter_map(|port| Some((port.fixed?, port.inherit))) {
        match pool.check(fixed, now) {
            // The socket itself is handed over, so old and new may both have it.
            Err(PortError::Held { holder, .. }) if inherit && unit.containers.contains(&holder) => {}
            checked => checked?,
        }
        if !except.insert(fixed) && !inherit {
            let because = format!("port {fixed} was just given to another container");
            return Err(Hold::new(because.clone(), because));
        }
    }
    let free = template.ports.iter().filter(|port| port.fixed.is_none()).count();
    let mut found = pool.find(free, now, &except)?.into_iter();
    let ports: Vec<(Name, u16)> = template
        .ports
        .iter()
        .filter_map(|port| Some((port.name.clone(), port.fixed.or_else(|| found.next())?)))
        .collect();
    taken.extend(ports.iter().map(|(_, port)| *port));
    Ok(ports)
}

fn reserve(draft: &mut Draft<'_>, id: &UnitId, server: &ServerId, resources: Resources) {
    let on_server = draft.reserved.entry(server.clone()).or_default();
    on_server.cpu.0 += resources.cpu.0;
    on_server.memory.0 += resources.memory.0;
    let (count, sum) = draft.of_service.entry(id.service.clone()).or_default();
    *count += 1;
    sum.cpu.0 += resources.cpu.0;
    sum.memory.0 += resources.memory.0;
    *draft.placed.entry((server.clone(), id.clone())).or_default() += 1;
}

/// An id that no container of this store has or had: the Unit's name and a few letters that a hash chose.
///
/// The Unit's own count starts anew when it is removed and applied again, the number of operations never does. An id
/// that came back would let an old container's late end be taken for the new one's.
fn new_id(draft: &Draft<'_>, id: &UnitId, unit: &Unit, made: usize) -> ContainerId {
    let seed = format!("{id} {}", draft.state.last_operation);
    let mut count = unit.made + made as u64 + 1;
    loop {
        let mut chance = draft.state.chance(&seed, count);
        let mut text = format!("{}-", id.unit);
        for _ in 0..ID_LENGTH {
            text.push(char::from(ID_LETTERS[(chance % 32) as usize]));
            chance /= 32;
        }
        let container = ContainerId::new(text);
        if !draft.state.containers.contains_key(&container) {
            return container;
        }
        count += 1 << 32;
    }
}
