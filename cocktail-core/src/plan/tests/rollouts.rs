//! Rollouts, decision by decision: what completes, fails, goes back, waits and pauses.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::command::{Command, Count};
use crate::container::ContainerState;
use crate::contract::{Exit, ProbeKind, RolloutAction};
use crate::error::ErrorKind;
use crate::event::{Event, Soft};
use crate::id::{ContainerId, Revision, ServerId};
use crate::rollout::{Rollout, RolloutState};
use crate::world::{World, server_id};

const PORT: &str = "ports.http = {}";

fn unit(count: u32, version: u32, update: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\n\
         env = {{ V = \"{version}\" }}\nrestart = {{ base = \"0s\" }}\nupdate = {{ {update} }}\n{PORT}\n"
    )
}

/// A world in which revision 1 serves and revision 2 was just applied.
fn updating(count: u32, update: &str) -> World {
    let mut world = World::new();
    world.apply(&unit(count, 1, update));
    world.settle();
    world.apply(&unit(count, 2, update));
    world
}

fn rollout(world: &World) -> Rollout {
    world.unit("web").rollout.clone().expect("there was one")
}

fn steer(world: &mut World, action: RolloutAction) -> crate::error::Result<()> {
    world.command(&Command::Rollout { unit: "web".into(), action }).map(drop)
}

fn revisions(world: &World) -> BTreeSet<Revision> {
    world.of("web").iter().map(|record| record.revision).collect()
}

/// The replacements that wait for their readiness.
fn loading(world: &World) -> Vec<ContainerId> {
    let new = world.of("web").into_iter().filter(|record| record.state == ContainerState::Loading);
    new.map(|record| record.id.clone()).collect()
}

fn make_ready(world: &mut World) {
    world.answer_all();
    for id in loading(world) {
        world.probe(&id, ProbeKind::Ready, true);
    }
}

#[test]
fn an_old_one_goes_only_after_its_replacement_was_ready_for_the_monitor_window() {
    let mut world = updating(2, "monitor = \"3s\"");
    make_ready(&mut world);
    assert_eq!(world.ready("web"), 3);
    world.pass(Duration::from_millis(2_900));
    assert_eq!(world.ready("web"), 3, "the window is not over");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.ready("web"), 2);
    world.settle();
    assert_eq!(rollout(&world).state, RolloutState::Completed);
    assert_eq!((world.unit("web").good, revisions(&world)), (Some(Revision(2)), BTreeSet::from([Revision(2)])));
}

#[test]
fn a_replacement_that_ends_in_its_window_fails_the_update_which_goes_back_once() {
    let mut world = updating(3, "monitor = \"3s\"");
    let old = world.ids("web");
    make_ready(&mut world);
    world.pass(Duration::from_secs(1));
    let new = world.of("web").last().expect("it is there").id.clone();
    world.exit(&new, Exit::Code(1));
    let failed = rollout(&world);
    // The others were never touched, so there is nothing to wait for.
    assert_eq!((failed.state, failed.to), (RolloutState::RolledBack, Revision(1)));
    assert!(failed.reason.contains(new.as_str()) && failed.reason.contains("exited with code 1"), "{}", failed.reason);
    world.settle();
    assert_eq!(rollout(&world).state, RolloutState::RolledBack);
    assert_eq!(revisions(&world), BTreeSet::from([Revision(1)]));
    assert!(
        old.iter().filter(|id| world.state.containers.contains_key(id)).count() >= 3,
        "what served was not touched"
    );
    assert!(world.unit("web").history[1].outcome.starts_with("failed: "), "{:?}", world.unit("web").history);
}

/// An engine that ends, or the user of a machine, says nothing about a revision.
#[test]
fn a_replacement_that_somebody_else_ends_is_started_again_and_the_update_goes_on() {
    for exit in [Exit::Code(143), Exit::Signal(15), Exit::Unknown] {
        let mut world = updating(3, "monitor = \"3s\"");
        make_ready(&mut world);
        world.pass(Duration::from_secs(1));
        let new = world.of("web").last().expect("it is there").id.clone();
        world.exit(&new, exit);
        assert_eq!(rollout(&world).state, RolloutState::Running, "{exit}");
        world.settle();
        assert_eq!(rollout(&world).state, RolloutState::Completed, "{exit}");
        assert_eq!((world.container(&new).state, world.container(&new).restarts), (ContainerState::Ready, 1), "{exit}");
        assert_eq!(revisions(&world), BTreeSet::from([Revision(2)]), "{exit}");
    }
}

#[test]
fn a_way_back_that_fails_pauses_and_keeps_what_serves() {
    let mut world = updating(2, "monitor = \"1s\", surge = 2");
    make_ready(&mut world);
    world.pass(Duration::from_secs(1));
    // Both old ones are gone or going when the new revision turns bad.
    world.answer_all();
    let new = world.of("web").last().expect("it is there").id.clone();
    world.command(&Command::Rollback { unit: "web".into(), to: None }).expect("it served");
    world.answer_all();
    let back = world.of("web").into_iter().filter(|record| record.revision == Revision(1));
    let back = back.map(|record| record.id.clone()).next_back().expect("it is made anew");
    world.exit(&back, Exit::Code(9));
    let paused = rollout(&world);
    assert_eq!((paused.state, paused.failed), (RolloutState::Paused, true));
    assert_eq!(world.container(&new).state, ContainerState::Ready, "it goes on serving");
    for _ in 0..50 {
        world.pass(Duration::from_secs(10));
        assert_eq!(rollout(&world).state, RolloutState::Paused, "no revision rolls back in turn");
        assert!(world.ready("web") >= 1);
    }
}

#[test]
fn pause_on_failure_asks_instead_of_going_back() {
    let mut world = updating(2, "on_failure = \"pause\"");
    world.answer_all();
    let new = loading(&world)[0].clone();
    world.exit(&new, Exit::Code(1));
    assert_eq!(rollout(&world).state, RolloutState::Paused);
    assert_eq!(world.ready("web"), 2);
    steer(&mut world, RolloutAction::Resume).expect("it is paused");
    world.settle();
    assert_eq!((rollout(&world).state, revisions(&world)), (RolloutState::Completed, BTreeSet::from([Revision(2)])));
}

#[test]
fn what_never_served_is_nothing_to_go_back_to() {
    let mut world = World::new();
    world.apply(&unit(1, 1, ""));
    world.answer_all();
    world.apply(&unit(1, 2, ""));
    world.answer_all();
    let new = world.of("web").last().expect("it is there").id.clone();
    world.exit(&new, Exit::Code(1));
    assert_eq!(rollout(&world).state, RolloutState::Paused);
    let refused = world.command(&Command::Rollback { unit: "web".into(), to: None }).expect_err("nothing served");
    assert_eq!(*refused.kind(), ErrorKind::Conflict);
}

#[test]
fn a_canary_waits_for_its_promotion_however_long_that_takes() {
    let mut world = updating(4, "canary = 1");
    world.settle();
    for _ in 0..10 {
        world.pass(Duration::from_secs(3_600));
    }
    let new = world.of("web").iter().filter(|record| record.revision == Revision(2)).count();
    assert_eq!((new, world.ready("web"), rollout(&world).state), (1, 4, RolloutState::Running));
    steer(&mut world, RolloutAction::Promote).expect("it is open");
    world.settle();
    assert_eq!((revisions(&world), rollout(&world).state), (BTreeSet::from([Revision(2)]), RolloutState::Completed));
}

#[test]
fn a_canary_takes_one_place_also_where_the_old_ones_do_not_serve() {
    let mut world = World::new();
    world.apply(&unit(3, 1, "canary = 1"));
    world.settle();
    for id in world.ids("web") {
        world.exit(&id, Exit::Code(1));
    }
    assert_eq!(world.ready("web"), 0);
    world.apply(&unit(3, 2, "canary = 1"));
    let old = world.of("web").into_iter().filter(|it| it.revision == Revision(1) && it.state.is_live()).count();
    assert_eq!(old, 2, "{}", world.describe());
}

#[test]
fn a_canary_with_a_time_is_promoted_by_itself_and_one_that_is_aborted_goes_back() {
    let mut world = updating(2, "canary = 1, promote = \"10m\"");
    make_ready(&mut world);
    world.pass(Duration::from_secs(2));
    make_ready(&mut world);
    world.pass(Duration::from_secs(599));
    assert_eq!(revisions(&world).len(), 2);
    world.pass(Duration::from_secs(1));
    world.settle();
    assert_eq!(revisions(&world), BTreeSet::from([Revision(2)]));
    let mut world = updating(2, "canary = 1");
    world.settle();
    steer(&mut world, RolloutAction::Abort).expect("it is open");
    world.settle();
    assert_eq!((revisions(&world), rollout(&world).state), (BTreeSet::from([Revision(1)]), RolloutState::RolledBack));
}

#[test]
fn while_a_canary_waits_more_and_fewer_are_of_the_revision_that_serves() {
    let mut world = updating(2, "canary = 1");
    world.settle();
    world.scale("web", 5).expect("it is not refused");
    world.settle();
    let new = world.of("web").iter().filter(|record| record.revision == Revision(2)).count();
    assert_eq!((new, world.ready("web")), (1, 5));
    world.scale("web", 2).expect("it is not refused");
    world.settle();
    assert_eq!((world.ready("web"), world.of("web").len()), (2, 2), "{}", world.describe());
}

#[test]
fn a_paused_rollout_replaces_nothing_and_still_scales() {
    let mut world = updating(3, "");
    make_ready(&mut world);
    steer(&mut world, RolloutAction::Pause).expect("it is open");
    world.settle();
    assert_eq!(revisions(&world).len(), 2);
    assert_eq!(world.ready("web"), 3);
    world.scale("web", 6).expect("it is not refused");
    world.settle();
    assert_eq!(world.ready("web"), 6);
    world.scale("web", 1).expect("it is not refused");
    world.settle();
    assert_eq!((world.ready("web"), world.of("web").len()), (1, 1), "{}", world.describe());
    steer(&mut world, RolloutAction::Resume).expect("it is paused");
    world.settle();
    assert_eq!((revisions(&world), rollout(&world).state), (BTreeSet::from([Revision(2)]), RolloutState::Completed));
}

#[test]
fn what_a_failed_update_brought_is_restarted_once_while_the_update_is_paused() {
    let mut world = updating(2, "on_failure = \"pause\", monitor = \"3s\"");
    make_ready(&mut world);
    world.pass(Duration::from_secs(3));
    make_ready(&mut world);
    let new: Vec<ContainerId> =
        world.of("web").iter().filter(|it| it.revision == Revision(2)).map(|it| it.id.clone()).collect();
    // The second one ends in its window.
    world.exit(&new[1], Exit::Code(1));
    world.settle();
    assert_eq!((rollout(&world).state, rollout(&world).failed), (RolloutState::Paused, true));
    let there = world.of("web").into_iter().find(|it| it.revision == Revision(2)).map(|it| it.id.clone());
    let there = there.expect("it serves");
    world.restart(there.as_str());
    world.settle();
    assert_eq!((world.of("web").len(), world.ready("web")), (2, 2), "{}", world.describe());
    assert!(!world.ids("web").contains(&there), "it was replaced");
}

#[test]
fn an_old_one_that_is_too_much_while_an_update_is_paused_is_not_said_to_be_replaced() {
    let mut world = updating(2, "on_failure = \"pause\"");
    let old = world.ids("web")[0].clone();
    world.answer_all();
    let new = loading(&world)[0].clone();
    world.exit(&new, Exit::Code(1));
    assert_eq!(rollout(&world).state, RolloutState::Paused);
    world.restart(old.as_str());
    assert_eq!(world.container(&old).state, ContainerState::Ready, "nothing is replaced now");
    world.scale("web", 1).expect("it is not refused");
    let record = world.container(&old);
    assert_eq!((record.state, record.reason.as_str()), (ContainerState::Draining, "1 wanted, 1 there"));
}

#[test]
fn a_newer_revision_supersedes_one_on_its_way() {
    let mut world = updating(3, "");
    make_ready(&mut world);
    world.apply(&unit(3, 3, ""));
    assert_eq!(world.unit("web").history[1].outcome, "superseded by revision 3");
    assert_eq!((rollout(&world).from, rollout(&world).to), (Some(Revision(1)), Revision(3)));
    world.settle();
    assert_eq!(revisions(&world), BTreeSet::from([Revision(3)]));
}

#[test]
fn a_rollback_by_hand_goes_to_the_revision_before_or_to_any_that_is_kept() {
    let mut world = updating(2, "");
    world.settle();
    world.apply(&unit(2, 3, ""));
    world.settle();
    world.command(&Command::Rollback { unit: "web".into(), to: None }).expect("it served");
    world.settle();
    assert_eq!((revisions(&world), rollout(&world).state), (BTreeSet::from([Revision(2)]), RolloutState::RolledBack));
    world.command(&Command::Rollback { unit: "web".into(), to: Some(Revision(1)) }).expect("it is kept");
    world.settle();
    assert_eq!(revisions(&world), BTreeSet::from([Revision(1)]));
    let missing = world.command(&Command::Rollback { unit: "web".into(), to: Some(Revision(9)) });
    assert_eq!(missing.expect_err("it never was").message(), "shop/prod/web has no revision 9; it has 1, 2, 3");
    world.apply(&unit(2, 4, ""));
    assert_eq!(world.unit("web").revision, Revision(4), "a number is given once");
    world.settle();
    world.command(&Command::Rollback { unit: "web".into(), to: None }).expect("it served");
    assert_eq!(world.unit("web").revision, Revision(1), "what served before it, not the number before it");
}

#[test]
fn the_failed_file_applied_again_is_a_new_attempt() {
    let mut world = updating(1, "");
    world.answer_all();
    let new = loading(&world)[0].clone();
    world.exit(&new, Exit::Code(1));
    world.settle();
    assert_eq!(world.unit("web").revision, Revision(1));
    world.apply(&unit(1, 2, ""));
    world.settle();
    assert_eq!((world.unit("web").revision, rollout(&world).state), (Revision(3), RolloutState::Completed));
}

#[test]
fn a_rollout_goes_on_where_it_was_when_the_manager_died() {
    let mut world = updating(3, "monitor = \"5s\"");
    make_ready(&mut world);
    world.reopen();
    assert_eq!(rollout(&world).state, RolloutState::Running);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.ready("web"), 3, "the window went on");
    world.snapshot();
    world.reopen();
    world.settle();
    assert_eq!(rollout(&world).state, RolloutState::Completed);
}

#[test]
fn a_rollout_without_containers_has_all_the_time_there_is() {
    let mut world = updating(1, "");
    world.scale("web", 0).expect("it is not refused");
    world.settle();
    world.pass(Duration::from_secs(3_600));
    world.scale("web", 1).expect("it is not refused");
    world.settle();
    assert_eq!((rollout(&world).state, world.ready("web")), (RolloutState::Completed, 1));
}

#[test]
fn a_rollout_of_a_unit_that_wants_no_container_ends_when_the_last_one_has() {
    let mut world = updating(2, "monitor = \"3s\"");
    make_ready(&mut world);
    assert_eq!(rollout(&world).state, RolloutState::Running);
    world.command(&Command::Scale { unit: "web".into(), count: Count::Exactly(0) }).expect("it is a number");
    assert_eq!(rollout(&world).state, RolloutState::Running, "the last ones have not ended");
    world.settle();
    assert_eq!((rollout(&world).state, world.of("web").len()), (RolloutState::Completed, 0));
    assert_eq!(rollout(&world).reason, "no container is wanted");
}

/// A world whose server runs images, where the second one is on its way to the server.
fn fetching() -> World {
    let mut world = World::new();
    let mut engine = world.state.servers[&server_id()].clone();
    (engine.id, engine.images) = (ServerId::new("box"), true);
    world.turn(vec![Event::ServerSeen { server: Box::new(engine) }]);
    let unit = |version: u32| {
        format!(
            "service = \"shop\"\n[maps.prod.units.web]\nimage = \"web:{version}\"\nupdate = {{ progress = \"60s\" }}\n"
        )
    };
    world.apply(&unit(1));
    world.settle();
    world.apply(&unit(2));
    world
}

fn preparing(world: &World) -> ContainerId {
    let found = world.of("web").into_iter().find(|record| record.state == ContainerState::Preparing);
    found.expect("one is being prepared").id.clone()
}

#[test]
fn an_image_that_takes_its_time_is_no_fault_of_the_revision() {
    let mut world = fetching();
    for _ in 0..10 {
        world.pass(Duration::from_secs(61));
    }
    preparing(&world);
    assert_eq!(rollout(&world).state, RolloutState::Running);
    world.answer_all();
    world.settle();
    assert_eq!(rollout(&world).state, RolloutState::Completed);
}

#[test]
fn an_image_that_cannot_be_had_for_now_is_waited_for_as_long_as_for_any_progress() {
    let mut world = fetching();
    let container = preparing(&world);
    let generation = world.state.containers[&container].generation;
    let because = "the registry does not answer".to_owned();
    world.note(&Soft::Delayed { container: container.clone(), generation, because });
    assert_eq!(world.state.containers[&container].reason, "not prepared yet: the registry does not answer");
    world.pass(Duration::from_secs(50));
    assert_eq!(rollout(&world).state, RolloutState::Running);
    world.pass(Duration::from_secs(20));
    let rollout = rollout(&world);
    assert!(rollout.back && rollout.reason.contains("the registry does not answer"), "{rollout:?}");
}
