//! Containers that wait: workers with nothing loaded, and paused containers of images. Which a Unit may take, how many are
//! kept, and which go.
//!
//! What waits counts for nothing else: it takes no traffic, is none of the containers that its Unit wants, and holds room. A
//! worker holds no ports; a container of an image was made with its own, and serves its own Unit and version only.
//! [`relieve`] has one take the place of a container that crashed, [`super::place`] takes from [`waiting`] before it makes
//! anything, and [`keep`] fills up afterwards, so that who is needed now comes first.

use super::count::Census;
use super::draft::{Draft, Hold};
use super::place::place_spares;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::{ContainerId, Revision, UnitId};
use crate::name::Name;
use crate::server::ServerState;
use crate::spec::Template;
use crate::state::{Class, Group, Roster, State};
use crate::unit::{Unit, pool};

/// Containers that a Unit can take for one of this template.
pub(super) fn waiting<'a>(
    draft: &Draft<'a>,
    id: &UnitId,
    revision: Revision,
    template: &Template,
) -> Vec<&'a Container> {
    let state = draft.state;
    if !state.has_waiting(&id.service) || !template.can_wait() {
        return Vec::new();
    }
    let pool = pool(id, revision, template);
    state.waiting(&id.service, &pool).filter(|it| !draft.leaving.contains(&it.id)).collect()
}

/// Has a paused container take the place of one that crashed, which waits in its turn when it is up again; so as many wait
/// as before, and nothing is made. Only where that one ran for longer than its back-off is: nothing is started more often
/// than without, and a version that crashes at once wears out nothing that waits. Says whether there was one.
pub(super) fn relieve(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, census: &Census<'_>) -> bool {
    let state = draft.state;
    let template = unit.template(unit.revision);
    if template.image.is_none() || !state.has_waiting(&id.service) || census.fresh.len() > census.goal {
        return false;
    }
    let group = state.roster(id).and_then(|roster| roster.group(Class::kept(unit.revision)));
    let unready = group.into_iter().flat_map(Group::unready).filter_map(|(_, id)| state.containers.get(id));
    let crashed: Vec<_> = unready.filter(|it| it.relieve && it.operation.is_none()).collect();
    if crashed.is_empty() {
        return false;
    }
    let mut spares = waiting(draft, id, unit.revision, template);
    // Who keeps near or away from others may be where it was, whoever is elsewhere by now.
    let place = &unit.spec.place;
    let bound = !place.apart.is_empty() || !place.near.is_empty() || !draft.kept_apart(id).is_empty();
    let mut relieved = false;
    for crashed in crashed {
        let near = |it: &&Container| (it.server != crashed.server, it.entered, it.ordinal);
        let Some(spare) = spares.iter().copied().filter(|it| !bound || it.server == crashed.server).min_by_key(near)
        else {
            continue;
        };
        spares.retain(|it| it.id != spare.id);
        let exit = crashed.last_exit.map(|exit| format!(": {exit}")).unwrap_or_default();
        let because = format!("{} crashed{exit}; it was waiting", crashed.id);
        draft.push(Event::CheckedOut {
            container: spare.id.clone(),
            unit: id.clone(),
            revision: unit.revision,
            ports: given(spare),
            because: because.clone(),
            instead: Some(crashed.id.clone()),
        });
        draft.assign(spare, id, because);
        relieved = true;
    }
    relieved
}

/// The ports of a container, all of which it has.
pub(super) fn given(container: &Container) -> Vec<(Name, u16)> {
    container.ports.iter().filter_map(|lease| Some((lease.name.clone(), lease.port?))).collect()
}

/// Fills up what waits for the Unit, and lets go what is too much or no longer what it would need. `held` says that the Unit
/// has no room for its own containers. Returns why nothing is filled up, where something stands in the way.
pub(super) fn keep<'a>(draft: &mut Draft<'a>, id: &'a UnitId, unit: &'a Unit, held: bool) -> Option<Hold> {
    let state = draft.state;
    let wanted = wanted(state, unit);
    let (gone, mut spares): (Vec<_>, Vec<_>) = spares(state, id).partition(|it| draft.leaving.contains(&it.id));
    if wanted == 0 && spares.is_empty() {
        return None;
    }
    // What this pass has taken is reckoned with when it is applied.
    let settled = gone.iter().all(|container| container.state != ContainerState::Waiting);
    // What can be taken at once stays before what cannot yet.
    spares.sort_by_key(|it| (it.state != ContainerState::Waiting, it.ordinal));
    let pool = pool(id, unit.revision, &unit.spec.template);
    let mut kept = draft.returning(id);
    for container in spares {
        let same = container.worker.as_ref().is_some_and(|worker| worker.pool == pool);
        let because = match &container.replace {
            Some(because) => because.clone(),
            None if wanted == 0 => "nobody wants it to wait any more".to_owned(),
            None if !same => format!("revision {} starts from something else", unit.revision),
            None if kept >= wanted => format!("{wanted} are to wait, and more do"),
            None => {
                kept += 1;
                continue;
            }
        };
        release(draft, container, because);
    }
    if held || kept >= wanted || !settled || unit.refill_at().is_some_and(|at| at > state.now) {
        return None;
    }
    let hold = match &unit.unfit {
        Some(unfit) => Hold::new(unfit, unfit),
        None => place_spares(draft, id, unit, wanted - kept)?,
    };
    let because = format!("{} of {wanted} wait for whoever needs them: {}", kept, hold.because);
    Some(Hold { because, cause: format!("fewer wait than are to: {}", hold.cause), ..hold })
}

/// Lets a worker go that waits, or is about to.
pub(super) fn release(draft: &mut Draft<'_>, container: &Container, because: String) {
    if container.operation.is_none() && draft.leaving.insert(container.id.clone()) {
        draft.push(Event::DrainBegun { container: container.id.clone(), because });
    }
}

/// For which Unit a container that has drained can wait again, if there is one.
pub(super) fn home(draft: &Draft<'_>, container: &Container, unit: &Unit) -> Option<UnitId> {
    let state = draft.state;
    let worker = container.worker.as_ref().filter(|worker| !worker.spare && !worker.worn)?;
    // What was wrong with it may still be.
    let well = container.crashes == 0 && container.unwell.is_none() && container.replace.is_none();
    // It has to be up, and a fixed port stays with its process.
    let up = container.started.is_some() && container.handle.is_some();
    let template = unit.template(container.revision);
    let movable =
        template.image.is_none() && template.can_wait() && template.ports.iter().all(|port| port.fixed.is_none());
    let server = state.servers.get(&container.server)?;
    if !up || !movable || !well || server.state != ServerState::Ready {
        return None;
    }
    let wants = |id: &UnitId, unit: &Unit| {
        let limit = unit.spec.warm.uses;
        let wanted = wanted(state, unit);
        (limit == 0 || worker.assignment < u64::from(limit))
            && pool(id, unit.revision, &unit.spec.template) == worker.pool
            && spares(state, id).filter(|it| is_there(it, &worker.pool)).count() + draft.returning(id) < wanted
    };
    if wants(&container.unit, unit) {
        return Some(container.unit.clone());
    }
    let others = state.units.iter().filter(|(id, it)| id.service == container.unit.service && it.spec.warm.count > 0);
    others.filter(|(id, _)| **id != container.unit).find(|(id, it)| wants(id, it)).map(|(id, _)| id.clone())
}

/// How many are to wait for a Unit now.
fn wanted(state: &State, unit: &Unit) -> usize {
    let off = state.is_halting() || unit.stopped || unit.removing || !unit.spec.template.can_wait();
    if off { 0 } else { unit.spec.warm.count as usize }
}

/// Whether it can be taken at once. One that is still starting gives way to one that comes back.
fn is_there(container: &Container, pool: &str) -> bool {
    let same = container.worker.as_ref().is_some_and(|worker| worker.pool == pool);
    same && container.state == ContainerState::Waiting && container.replace.is_none()
}

/// Containers of a Unit that wait, or are on their way to that.
fn spares<'a>(state: &'a State, id: &UnitId) -> impl Iterator<Item = &'a Container> {
    let groups = state.roster(id).into_iter().flat_map(Roster::groups).filter(|(class, _)| class.spare);
    let ids = groups.flat_map(|(_, group)| group.unready());
    ids.filter_map(|(_, id): &(u64, ContainerId)| state.containers.get(id))
}
