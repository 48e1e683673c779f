//! The floor of law 1, looked at once more before a turn is committed.
//!
//! Start at [`broken`]. The planner keeps the floor; this is the second pair of eyes, and it decides nothing: what it
//! finds is an anomaly, for the log and for `status`.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::container::ContainerState;
use cocktail_core::event::Event;
use cocktail_core::id::{ContainerId, UnitId};
use cocktail_core::operation::OperationKind;
use cocktail_core::spec::NoRoom;
use cocktail_core::state::State;
use cocktail_core::unit::Unit;

/// Ready containers by Unit.
pub(crate) type Ready = BTreeMap<UnitId, usize>;

/// Ready containers of every Unit that has some.
pub(crate) fn ready(state: &State) -> Ready {
    let some = |id: &UnitId| Some((id.clone(), state.ready(id))).filter(|(_, count)| *count > 0);
    state.units.keys().filter_map(some).collect()
}

/// Units that a turn leaves with fewer ready containers than their floor, which is the least of their goal and what was
/// ready `before` the turn was decided; as sentences.
///
/// Exempt is what the plan names beforehand: Units that go to zero, that must stop first, or that may where there is no
/// room; and what is on a server that has to be empty now. What is ended because it is unwell is no step of ours.
pub(crate) fn broken(before: &Ready, after: &State, decided: &[Event]) -> Vec<String> {
    let (mut drained, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for event in decided {
        match event {
            Event::DrainBegun { container, .. } if after.is_out_of_time(container) => {}
            Event::DrainBegun { container, .. } => _ = drained.insert(container),
            Event::Intended { operation } if matches!(operation.kind, OperationKind::Stop { .. }) => {
                ended.insert(&operation.container);
            }
            _ => {}
        }
    }
    if drained.is_empty() || after.is_halting() {
        return Vec::new();
    }
    let units: BTreeSet<&UnitId> =
        drained.iter().filter_map(|id| after.containers.get(id)).map(|record| &record.unit).collect();
    let sentence = |id: &UnitId| {
        let unit = after.units.get(id).filter(|unit| !is_exempt(unit))?;
        let unwell = |record: &ContainerId| ended.contains(record) && !drained.contains(record);
        let relied =
            after.of(unit).filter(|record| record.state == ContainerState::Ready || unwell(&record.id)).count();
        let floor = before.get(id).copied().unwrap_or_default().min(unit.goal() as usize);
        (relied < floor)
            .then(|| format!("{id} is left with {relied} ready containers by a step of ours: its floor is {floor}"))
    };
    units.into_iter().filter_map(sentence).collect()
}

fn is_exempt(unit: &Unit) -> bool {
    unit.goal() == 0 || unit.stop_first().is_some() || unit.spec.update.no_room == NoRoom::Replace
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    use cocktail_core::contract::Handle;
    use cocktail_core::id::{Generation, ServerId, StoreId};
    use cocktail_core::manifest;
    use cocktail_core::plan;
    use cocktail_core::quantity::{Bytes, CpuMillis};
    use cocktail_core::server::{Server, ServerState};
    use cocktail_core::spec::Resources;
    use cocktail_core::time::WallTime;

    use super::*;

    fn unit() -> UnitId {
        UnitId::try_from("shop/prod/web".to_owned()).unwrap()
    }

    /// Three ready containers of a Unit, `more` for its manifest.
    fn three(more: &str) -> State {
        let text = format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"x\"]\nreplicas = 3\n{more}\n");
        let file = manifest::parse(&text, Path::new("shop.toml"), Path::new("/")).unwrap();
        let server = Server {
            id: ServerId::new("here"),
            provider: "standalone".parse().unwrap(),
            provider_id: "1".into(),
            state: ServerState::Ready,
            reason: String::new(),
            since: WallTime(0),
            zone: None,
            offering: "machine".into(),
            incarnation: "1".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            capacity: Resources { cpu: CpuMillis(4000), memory: Bytes(1 << 30) },
            allocated: Resources::default(),
            containers: 0,
            images: false,
            tenure: cocktail_core::fleet::Tenure::default(),
        };
        let mut state = State::new(StoreId::new("store-1"));
        state.apply(&Event::ServerSeen { server: Box::new(server) });
        state.apply(&Event::Applied { service: Box::new(file.service.unwrap()), actor: "test".into() });
        plan::decide(&mut state);
        let claimed: Vec<ContainerId> = state.containers.keys().cloned().collect();
        for container in claimed {
            state.apply(&Event::Started { container, generation: Generation(1), handle: Handle::default() });
        }
        assert_eq!(ready(&state), Ready::from([(unit(), 3)]));
        state
    }

    fn drain(state: &mut State, count: usize) -> Vec<Event> {
        let ids: Vec<ContainerId> = state.containers.keys().take(count).cloned().collect();
        let events: Vec<Event> =
            ids.into_iter().map(|container| Event::DrainBegun { container, because: "tried".into() }).collect();
        events.iter().for_each(|event| state.apply(event));
        events
    }

    #[test]
    fn a_step_below_the_floor_is_told_with_its_numbers() {
        let mut state = three("");
        let before = ready(&state);
        let decided = drain(&mut state, 1);
        let [sentence] = &broken(&before, &state, &decided)[..] else { panic!("one Unit is below its floor") };
        assert!(sentence.contains("shop/prod/web") && sentence.contains("2 ready") && sentence.contains("floor is 3"));
    }

    #[test]
    fn what_is_surplus_or_was_not_ready_may_go() {
        let mut state = three("");
        let before = ready(&state);
        state.apply(&Event::Scaled { unit: unit(), desired: 2, actor: "test".into() });
        let decided = drain(&mut state, 1);
        assert_eq!(broken(&before, &state, &decided), [""; 0]);
        assert_eq!(broken(&Ready::from([(unit(), 2)]), &three(""), &decided), [""; 0]);
        assert_eq!(broken(&before, &state, &[]), [""; 0], "what ends by itself is no step of ours");
    }

    #[test]
    fn declared_exceptions_and_units_that_go_to_zero_are_exempt() {
        for more in [
            "update = { no_room = \"replace\" }",
            "volumes.data = { mount = \"data\", kind = \"exclusive\" }",
            "restart = { when = \"never\" }",
        ] {
            let mut state = three(more);
            let before = ready(&state);
            let decided = drain(&mut state, 2);
            assert_eq!(broken(&before, &state, &decided), [""; 0], "{more}");
        }
        let mut state = three("");
        let before = ready(&state);
        state.apply(&Event::Switched { unit: unit(), stopped: true, actor: "test".into() });
        let decided = drain(&mut state, 3);
        assert_eq!(broken(&before, &state, &decided), [""; 0]);
    }
}
