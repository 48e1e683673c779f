//! Where missing containers go: a server with room, free ports, within the Service's quota.
//!
//! Start at [`place`]. [`search`] finds the servers.

mod search;

use std::collections::BTreeSet;

use self::search::Search;
use super::count::Census;
use super::draft::{Draft, Hold};
use super::fleet::outlook;
use super::{letters, warm};
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::{ContainerId, Revision, ServerId, UnitId};
use crate::name::Name;
use crate::ports::PortError;
use crate::quantity::{Bytes, CpuMillis};
use crate::server::{Server, ServerState};
use crate::spec::Template;
use crate::state::Want;
use crate::unit::Unit;
use crate::view::ConsideredView;

/// Letters of the random-looking part of a container's id.
const ID_LENGTH: usize = 6;
/// A server was seen, and its ports were not.
const UNKNOWN_PORTS: &str = "its ports are not known yet";

/// Servers that are named where there is no room.
const NAMED: usize = 8;

/// Claims what is missing; returns why not, where it cannot.
pub(super) fn place<'a>(draft: &mut Draft<'a>, id: &'a UnitId, unit: &'a Unit, census: &Census<'_>) -> Option<Hold> {
    let (missing, revision) = census.missing(unit);
    if missing == 0 {
        return None;
    }
    // Where nothing may be made any more, very many Units may wait for the next turn.
    if !draft.may_claim() {
        draft.put_off(id);
        return None;
    }
    let template = unit.template(revision);
    let mut slots: BTreeSet<u32> = BTreeSet::new();
    if unit.has_slots() {
        // What has stopped holds its volume no longer, so that the data follows its replacement.
        let holders = draft.state.of(unit).filter(|container| container.state != ContainerState::Stopped);
        slots.extend(holders.filter_map(|container| container.slot));
    }
    let mut search = Search::new(draft, id, &unit.spec.place, template);
    let mut waiting = warm::waiting(draft, id, revision, template);
    let seed = format!("{id} {}", draft.state.last_operation);
    for made in 0..missing {
        if !draft.may_claim() {
            draft.put_off(id);
            return None;
        }
        let because = reason(unit, census, made);
        if let Some((container, ports)) = check_out(draft, (id, unit), template, &search, &mut waiting) {
            let because = format!("{because}; it was waiting");
            draft.leaving.insert(container.id.clone());
            draft.push(Event::CheckedOut {
                container: container.id.clone(),
                unit: id.clone(),
                revision,
                ports,
                because: because.clone(),
                instead: None,
            });
            draft.assign(container, id, because);
            if let Some(server) = draft.state.servers.get(&container.server) {
                draft.put(id, server);
            }
            continue;
        }
        if let Some(hold) = over_quota(draft, id, template, None) {
            return Some(hold);
        }
        let Some(server) = search.next(draft, draft.state.placement()) else {
            let count = u32::try_from(missing - made).unwrap_or(u32::MAX);
            draft.want(id, Want { count, revision });
            return Some(no_room(draft, unit, template, &search, None));
        };
        let ports = match lease(draft, unit, &server.id, template) {
            Ok(ports) => ports,
            Err(hold) => {
                let (option, rejected_because) = (server.id.to_string(), hold.because.clone());
                return Some(Hold { considered: vec![ConsideredView { option, rejected_because }], ..hold });
            }
        };
        let slot = unit.has_slots().then(|| {
            let free = (0..).find(|slot| !slots.contains(slot)).unwrap_or(0);
            slots.insert(free);
            free
        });
        draft.reserve(id, server, template.resources);
        let container = new_id(draft, id, unit, &seed, made);
        claim(draft, id, Claim { container, revision, server, ports, slot, spare: false, because });
    }
    None
}

/// A container that is to be made.
struct Claim<'a> {
    container: ContainerId,
    revision: Revision,
    server: &'a Server,
    ports: Vec<(Name, u16)>,
    slot: Option<u32>,
    spare: bool,
    because: String,
}

fn claim(draft: &mut Draft<'_>, id: &UnitId, claim: Claim<'_>) {
    let Claim { container, revision, server, ports, slot, spare, because } = claim;
    let (unit, server, considered) = (id.clone(), server.id.clone(), Vec::new());
    draft.take_claim();
    draft.push(Event::Claimed { container, unit, revision, server, ports, slot, spare, because, considered });
}

/// The container that waits for the Unit, otherwise for another one, in the best place for a container of it, with ports. It
/// is taken out of `waiting`, and so are those that cannot have the ports.
fn check_out<'a>(
    draft: &mut Draft<'a>,
    (id, unit): (&UnitId, &Unit),
    template: &Template,
    search: &Search<'a>,
    waiting: &mut Vec<&'a Container>,
) -> Option<(&'a Container, Vec<(Name, u16)>)> {
    loop {
        let state = draft.state;
        let mut best = None;
        for (index, container) in waiting.iter().enumerate() {
            let Some(server) = state.servers.get(&container.server) else { continue };
            let site = draft.site(server);
            let provided = server.images == template.image.is_some()
                && (template.providers.is_empty() || template.providers.contains(&server.provider));
            if server.state != ServerState::Ready || !provided || search.against(draft, &site).is_some() {
                continue;
            }
            let rank = (container.unit != *id, search.rank(&site), container.entered, index);
            best = best.filter(|known| *known < rank).or(Some(rank));
        }
        let container = waiting.remove(best?.3);
        let server = state.servers.get_key_value(&container.server)?.0;
        if template.image.is_some() {
            return Some((container, warm::given(container)));
        }
        // Where it cannot have the ports, another one may.
        if let Ok(ports) = lease(draft, unit, server, template) {
            return Some((container, ports));
        }
    }
}

/// Claims containers that are to wait; returns why not, where it cannot.
pub(super) fn place_spares<'a>(draft: &mut Draft<'a>, id: &'a UnitId, unit: &'a Unit, missing: usize) -> Option<Hold> {
    let template = &unit.spec.template;
    let mut search = Search::new(draft, id, &unit.spec.place, template);
    let seed = format!("{id} waits {}", draft.state.last_operation);
    for made in 0..missing {
        if !draft.may_claim() {
            draft.put_off(id);
            return None;
        }
        if let Some(hold) = over_quota(draft, id, template, None) {
            return Some(hold);
        }
        // Nothing is bought for it.
        let Some(server) = search.next(draft, draft.state.placement()) else {
            return Some(all_full(draft, template, &search, None));
        };
        // What an engine makes it makes with ports.
        let ports = match template.image.is_some() {
            true => match lease(draft, unit, &server.id, template) {
                Ok(ports) => ports,
                Err(hold) => return Some(hold),
            },
            false => Vec::new(),
        };
        draft.reserve(id, server, template.resources);
        let container = new_id(draft, id, unit, &seed, made);
        let because = format!("{} are to wait for whoever needs them", unit.spec.warm.count);
        let (revision, slot) = (unit.revision, None);
        claim(draft, id, Claim { container, revision, server, ports, slot, spare: true, because });
    }
    None
}

/// Why nothing has room, and what may be bought.
fn no_room<'a>(
    draft: &Draft<'a>,
    unit: &Unit,
    template: &Template,
    search: &Search<'a>,
    gone: Option<&Container>,
) -> Hold {
    let hold = all_full(draft, template, search, gone);
    let Some((outlook, outlook_cause)) = outlook(draft.state, unit, template.resources) else { return hold };
    let because = match hold.considered.is_empty() {
        true => format!("no server yet: {outlook}"),
        false => format!("{}; {outlook}", hold.because),
    };
    // What is on its way changes while it is waited for; the cause is that it is waited for.
    Hold { because, cause: format!("no room; {outlook_cause}"), considered: hold.considered }
}

/// Why no server has room: the first ones one by one.
fn all_full<'a>(draft: &Draft<'a>, template: &Template, search: &Search<'a>, gone: Option<&Container>) -> Hold {
    let mut considered = Vec::new();
    let mut causes = Vec::new();
    let servers = &draft.state.servers;
    for server in servers.values().take(NAMED) {
        let hold = match room(draft, template, server, gone) {
            Err(hold) => hold,
            Ok(()) => {
                let against = search.against(draft, &draft.site(server));
                let because = against.map_or_else(|| "it was just filled".into(), |against| against.to_string());
                Hold::new(because.clone(), because)
            }
        };
        causes.push(format!("{}: {}", server.id, hold.cause));
        considered.push(ConsideredView { option: server.id.to_string(), rejected_because: hold.because });
    }
    let because = match &considered[..] {
        [] => "no server: no provider has connected one".to_owned(),
        [only] => format!("no room on the only server: {}", only.rejected_because),
        _ => format!("no room on any of {} servers", servers.len()),
    };
    Hold { because, cause: format!("no room: {}", causes.join(", ")), considered }
}

/// What would stand in the way of a replacement even if `gone` were away; `None` where there would be room.
pub(super) fn obstacle<'a>(draft: &mut Draft<'a>, id: &'a UnitId, unit: &'a Unit, gone: &Container) -> Option<Hold> {
    let template = &unit.spec.template;
    if let Some(hold) = over_quota(draft, id, template, Some(gone)) {
        return Some(hold);
    }
    let server = match choose(draft, id, unit, template, gone) {
        Ok(server) => server,
        Err(hold) => return Some(hold),
    };
    let Some(pool) = draft.state.ports.get(server) else {
        return Some(Hold::new(UNKNOWN_PORTS, UNKNOWN_PORTS));
    };
    let now = draft.state.now;
    let freed: BTreeSet<u16> = if gone.server == *server { gone.port_numbers().collect() } else { BTreeSet::new() };
    let fixed = template.ports.iter().filter_map(|port| port.fixed).filter(|port| !freed.contains(port));
    let free = template.ports.iter().filter(|port| port.fixed.is_none()).count().saturating_sub(freed.len());
    let taken = draft.ports(server);
    let found =
        fixed.map(|port| pool.check(port, now)).chain([pool.find(free, now, taken).map(drop)]).find_map(Result::err);
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
fn over_quota(draft: &mut Draft<'_>, id: &UnitId, template: &Template, gone: Option<&Container>) -> Option<Hold> {
    let state = draft.state;
    let quota = state.quota(&id.service)?;
    if quota.containers.is_none() && quota.cpu.is_none() && quota.memory.is_none() {
        return None;
    }
    let (mut count, mut sum) = draft.used(&id.service);
    if let Some(gone) = gone.filter(|gone| !gone.is_done())
        && let Some(unit) = state.units.get(&gone.unit)
    {
        let reserved = unit.template(gone.revision).resources;
        count = count.saturating_sub(1);
        sum.cpu.0 = sum.cpu.0.saturating_sub(reserved.cpu.0);
        sum.memory.0 = sum.memory.0.saturating_sub(reserved.memory.0);
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

/// A server that has room, or has it once `gone` is away: its own first.
fn choose<'a>(
    draft: &mut Draft<'a>,
    id: &'a UnitId,
    unit: &'a Unit,
    template: &Template,
    gone: &Container,
) -> Result<&'a ServerId, Hold> {
    let own = draft.state.servers.get(&gone.server);
    if let Some(own) = own.filter(|server| room(draft, template, server, Some(gone)).is_ok()) {
        return Ok(&own.id);
    }
    let mut search = Search::new(draft, id, &unit.spec.place, template);
    match search.next(draft, draft.state.placement()) {
        Some(server) => Ok(&server.id),
        None => Err(no_room(draft, unit, template, &search, Some(gone))),
    }
}

/// Whether a server has room, with `gone` away; if not, why.
fn room<'a>(draft: &Draft<'a>, template: &Template, server: &'a Server, gone: Option<&Container>) -> Result<(), Hold> {
    if server.state != ServerState::Ready {
        let because = format!("it is {}", server.state);
        return Err(Hold::new(because.clone(), because));
    }
    if !template.providers.is_empty() && !template.providers.contains(&server.provider) {
        let wanted: Vec<&str> = template.providers.iter().map(Name::as_str).collect();
        let because = format!("it is from {}, the unit wants {}", server.provider, wanted.join(" or "));
        return Err(Hold::new(because.clone(), because));
    }
    if server.images != template.image.is_some() {
        let because = if server.images { "it runs images, not programs" } else { "it runs programs, not images" };
        return Err(Hold::new(because, because));
    }
    let mut free = draft.site(server).left();
    if let Some(gone) = gone.filter(|gone| gone.server == server.id)
        && let Some(unit) = draft.state.units.get(&gone.unit)
    {
        let freed = unit.template(gone.revision).resources;
        free.cpu = CpuMillis(free.cpu.0.saturating_add(freed.cpu.0).min(server.capacity.cpu.0));
        free.memory = Bytes(free.memory.0.saturating_add(freed.memory.0).min(server.capacity.memory.0));
    }
    let capacity = server.capacity;
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
    Ok(())
}

/// Ports that are given out at the same address by servers of the other sort: an engine and the machine that it is on are
/// two servers with one set of ports. What is missed here the start finds out, and another port is taken.
fn beside<'a>(draft: &mut Draft<'a>, server: &ServerId) -> BTreeSet<u16> {
    let state = draft.state;
    let Some(own) = state.servers.get(server) else { return BTreeSet::new() };
    if own.address.is_unspecified() || draft.yards().all(|yard| yard.2 == own.images) {
        return BTreeSet::new();
    }
    let near = |it: &&Server| it.images != own.images && it.address == own.address;
    let near: Vec<&ServerId> = state.servers.values().filter(near).map(|it| &it.id).collect();
    let mut ports = BTreeSet::new();
    for id in near {
        ports.extend(state.ports.get(id).into_iter().flat_map(|pool| pool.leases().map(|(port, _)| port)));
        ports.extend(draft.ports(id).iter());
    }
    ports
}

fn lease<'a>(
    draft: &mut Draft<'a>,
    unit: &Unit,
    server: &'a ServerId,
    template: &Template,
) -> Result<Vec<(Name, u16)>, Hold> {
    if template.ports.is_empty() {
        return Ok(Vec::new());
    }
    let Some(pool) = draft.state.ports.get(server) else { return Err(Hold::new(UNKNOWN_PORTS, UNKNOWN_PORTS)) };
    let now = draft.state.now;
    let beside = beside(draft, server);
    let taken = draft.ports(server);
    if template.ports.iter().all(|port| port.fixed.is_none()) {
        let found = match beside.is_empty() {
            true => pool.find(template.ports.len(), now, taken)?,
            false => pool.find(template.ports.len(), now, &taken.union(&beside).copied().collect())?,
        };
        taken.extend(&found);
        return Ok(template.ports.iter().map(|port| port.name.clone()).zip(found).collect());
    }
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
    except.extend(beside);
    let mut found = pool.find(free, now, &except)?.into_iter();
    let ports: Vec<(Name, u16)> = template
        .ports
        .iter()
        .filter_map(|port| Some((port.name.clone(), port.fixed.or_else(|| found.next())?)))
        .collect();
    taken.extend(ports.iter().map(|(_, port)| *port));
    Ok(ports)
}

/// An id that no container of this store has or had: the Unit's name and a few letters that a hash chose.
///
/// The Unit's own count starts anew when it is removed and applied again, the number of operations never does. An id
/// that came back would let an old container's late end be taken for the new one's.
fn new_id(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, seed: &str, made: usize) -> ContainerId {
    let mut count = unit.made + made as u64 + 1;
    loop {
        let mut text = String::with_capacity(id.unit.as_str().len() + 1 + ID_LENGTH);
        text.push_str(id.unit.as_str());
        text.push('-');
        text.extend(letters(draft.state.chance(seed, count), ID_LENGTH));
        let container = ContainerId::new(text);
        if !draft.state.containers.contains_key(&container) && draft.take_id(&container) {
            return container;
        }
        count += 1 << 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    #[test]
    fn one_pass_gives_no_id_twice_though_chance_does() {
        let mut world = World::new();
        world.apply("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"x\"]\nreplicas = 0\n");
        let state = &world.state;
        let (id, unit) = state.units.first_key_value().unwrap();
        let mut draft = Draft::new(state, usize::MAX);
        let ids: BTreeSet<ContainerId> = (0..3).map(|_| new_id(&mut draft, id, unit, "the same", 1)).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
    }
}
