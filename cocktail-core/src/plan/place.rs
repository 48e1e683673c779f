//! Where missing containers go: a server with room, free ports, within the Service's quota.

use std::collections::BTreeSet;

use super::count::Census;
use super::draft::{Draft, Hold};
use crate::contract::{Candidate, PlacementPolicy, Spread};
use crate::event::Event;
use crate::id::{ContainerId, ServerId, UnitId};
use crate::name::Name;
use crate::server::{Server, ServerState};
use crate::spec::{Resources, Template};
use crate::unit::Unit;
use crate::view::ConsideredView;

/// Letters of the random-looking part of a container's id.
const ID_LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstvwxyz0123456789";
/// How many of them.
const ID_LENGTH: usize = 6;

/// Claims what is missing; returns why not, where it cannot.
pub(super) fn place(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, census: &Census<'_>) -> Option<Hold> {
    let missing = census.missing(unit);
    let mut slots: BTreeSet<u32> = draft.state.of(unit).filter_map(|container| container.slot).collect();
    for made in 0..missing {
        let template = &unit.spec.template;
        let because = reason(unit, census, made);
        if let Some(hold) = over_quota(draft, id, template) {
            return Some(hold);
        }
        let (server, considered) = match choose(draft, id, template) {
            Ok(found) => found,
            Err(hold) => return Some(hold),
        };
        let ports = match lease(draft, &server, template) {
            Ok(ports) => ports,
            Err(because) => {
                let option = server.to_string();
                let considered = vec![ConsideredView { option, rejected_because: because.clone() }];
                return Some(Hold { because, considered });
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
            revision: unit.revision,
            server,
            ports,
            slot,
            because,
            considered,
        });
    }
    None
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

fn over_quota(draft: &Draft<'_>, id: &UnitId, template: &Template) -> Option<Hold> {
    let state = draft.state;
    let quota = state.quotas.get(&id.service)?;
    if quota.containers.is_none() && quota.cpu.is_none() && quota.memory.is_none() {
        return None;
    }
    let (mut count, mut sum) = draft.of_service.get(&id.service).copied().unwrap_or_default();
    for (_, unit) in state.units.iter().filter(|(other, _)| other.service == id.service) {
        for container in state.of(unit) {
            let reserved = unit.template(container.revision).resources;
            count += 1;
            sum.cpu.0 += reserved.cpu.0;
            sum.memory.0 += reserved.memory.0;
        }
    }
    let cpu = sum.cpu.0 + template.resources.cpu.0;
    let memory = sum.memory.0 + template.resources.memory.0;
    let because = if let Some(most) = quota.containers.filter(|most| count + 1 > *most) {
        format!("the quota of service {} allows {most} containers, and there are {count}", id.service)
    } else if let Some(most) = quota.cpu.filter(|most| cpu > most.0) {
        format!("the quota of service {} allows {}m cpu, and one more makes {cpu}m", id.service, most.0)
    } else if let Some(most) = quota.memory.filter(|most| memory > most.0) {
        format!("the quota of service {} allows {} bytes, and one more makes {memory}", id.service, most.0)
    } else {
        return None;
    };
    Some(Hold { because, considered: Vec::new() })
}

/// A server with room, and why the others were not taken.
fn choose(draft: &Draft<'_>, id: &UnitId, template: &Template) -> Result<(ServerId, Vec<ConsideredView>), Hold> {
    let mut considered = Vec::new();
    let mut candidates = Vec::new();
    for server in draft.state.servers.values() {
        match room(draft, id, template, server) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejected_because) => {
                considered.push(ConsideredView { option: server.id.to_string(), rejected_because });
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
    Err(Hold { because, considered })
}

fn room(draft: &Draft<'_>, id: &UnitId, template: &Template, server: &Server) -> Result<Candidate, String> {
    if server.state != ServerState::Ready {
        return Err(format!("it is {}", server.state));
    }
    if !template.providers.is_empty() && !template.providers.contains(&server.provider) {
        let wanted: Vec<&str> = template.providers.iter().map(Name::as_str).collect();
        return Err(format!("it is from {}, the unit wants {}", server.provider, wanted.join(" or ")));
    }
    let drafted = draft.reserved.get(&server.id).copied().unwrap_or_default();
    let free = Resources {
        cpu: crate::quantity::CpuMillis(
            server.capacity.cpu.0.saturating_sub(server.allocated.cpu.0 + drafted.cpu.0),
        ),
        memory: crate::quantity::Bytes(
            server.capacity.memory.0.saturating_sub(server.allocated.memory.0 + drafted.memory.0),
        ),
    };
    if template.resources.cpu > free.cpu {
        return Err(format!(
            "it has {}m of {}m cpu left, the container reserves {}m",
            free.cpu.0, server.capacity.cpu.0, template.resources.cpu.0
        ));
    }
    if template.resources.memory > free.memory {
        return Err(format!(
            "it has {} of {} left, the container reserves {}",
            free.memory, server.capacity.memory, template.resources.memory
        ));
    }
    let drafted = draft.placed.get(&(server.id.clone(), id.clone())).copied().unwrap_or_default();
    let unit = draft.state.units.get(id);
    let there = unit.map_or(0, |unit| draft.state.of(unit).filter(|other| other.server == server.id).count());
    let same_unit = u32::try_from(there).unwrap_or(u32::MAX).saturating_add(drafted);
    Ok(Candidate { server: server.id.clone(), free, same_unit })
}

fn lease(draft: &mut Draft<'_>, server: &ServerId, template: &Template) -> Result<Vec<(Name, u16)>, String> {
    if template.ports.is_empty() {
        return Ok(Vec::new());
    }
    let Some(pool) = draft.state.ports.get(server) else { return Err("its ports are not known yet".into()) };
    let now = draft.state.now;
    let taken = draft.ports.entry(server.clone()).or_default();
    for fixed in template.ports.iter().filter_map(|port| port.fixed) {
        pool.check(fixed, now).map_err(|error| error.to_string())?;
        if taken.contains(&fixed) {
            return Err(format!("port {fixed} was just given to another container"));
        }
    }
    let free = template.ports.iter().filter(|port| port.fixed.is_none()).count();
    let mut found = pool.find(free, now, taken).map_err(|error| error.to_string())?.into_iter();
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

/// An id that no container of this store has now: the Unit's name and a few letters that a hash chose.
fn new_id(draft: &Draft<'_>, id: &UnitId, unit: &Unit, made: usize) -> ContainerId {
    let mut count = unit.made + made as u64 + 1;
    loop {
        let mut chance = draft.state.chance(&id.to_string(), count);
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
