//! Leases one by one.

use std::collections::BTreeSet;

use super::{PortError, PortLease, PortPool, PortRange};
use crate::id::ContainerId;
use crate::time::ManagerTime;

const RANGE: PortRange = PortRange { first: 100, last: 103 };
const NOW: ManagerTime = ManagerTime(1_000);
const LATER: ManagerTime = ManagerTime(3_000);

fn id(text: &str) -> ContainerId {
    ContainerId::new(text)
}

fn find(pool: &PortPool, count: usize, now: ManagerTime) -> Result<Vec<u16>, PortError> {
    pool.find(count, now, &BTreeSet::new())
}

#[test]
fn a_released_port_rests_and_is_free_again_at_its_time() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(101, id("a"));
    pool.release(&id("a"), [101], LATER);
    let refused = pool.check(101, NOW).expect_err("it rests");
    assert_eq!(refused.to_string(), "port 101 is not free yet: its last holder ended a moment ago");
    assert_eq!(pool.check(101, ManagerTime(LATER.0 - 1)).map_err(drop), Err(()));
    assert_eq!(pool.check(101, LATER), Ok(()));
}

#[test]
fn time_alone_never_ends_a_lease() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(101, id("a"));
    assert_eq!(pool.expire(ManagerTime(u64::MAX)), Vec::<u16>::new());
    assert_eq!(pool.lease(101), Some(&PortLease::Held(id("a"))));
}

#[test]
fn only_the_holder_gives_a_port_back() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(101, id("a"));
    pool.release(&id("b"), [101, 102], LATER);
    assert_eq!(pool.lease(101), Some(&PortLease::Held(id("a"))));
    assert_eq!(pool.lease(102), None);
    let refused = pool.check(101, NOW).expect_err("a holds it");
    assert_eq!(refused.to_string(), "port 101 is held by container a");
}

#[test]
fn a_poisoned_port_is_left_alone_for_its_time() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(100, id("a"));
    pool.poison(100, LATER);
    assert_eq!(find(&pool, 3, NOW), Ok(vec![101, 102, 103]));
    let refused = pool.check(100, NOW).expect_err("another program has it");
    assert_eq!(refused.to_string(), "port 100 is not free yet: another program listens on it");
    assert_eq!(pool.expire(LATER), [100]);
    assert_eq!(pool.lease(100), None);
}

#[test]
fn ports_are_used_in_turn_so_that_each_rests_as_long_as_possible() {
    let mut pool = PortPool::new(RANGE);
    for expected in [100, 101, 102, 103, 100, 101] {
        assert_eq!(find(&pool, 1, NOW), Ok(vec![expected]));
        pool.reserve(expected, id("a"));
        pool.release(&id("a"), [expected], NOW);
    }
}

#[test]
fn a_port_outside_the_range_does_not_disturb_the_turn() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(100, id("a"));
    pool.reserve(9_000, id("a"));
    assert_eq!(find(&pool, 1, NOW), Ok(vec![101]));
}

#[test]
fn where_no_port_is_free_the_numbers_say_why() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(100, id("a"));
    pool.reserve(101, id("b"));
    pool.release(&id("b"), [101], LATER);
    pool.poison(102, LATER);
    // Outside the range: no part of the answer.
    pool.reserve(9_000, id("c"));
    let refused = pool.find(2, NOW, &BTreeSet::from([103])).expect_err("there is none");
    let text = "no free port in 100-103: 2 held, 1 resting, 1 taken by other programs";
    assert_eq!(refused.to_string(), text);
    assert_eq!(pool.find(3, LATER, &BTreeSet::from([103])).map_err(|error| error.to_string()), {
        Err("no free port in 100-103: 2 held, 0 resting, 0 taken by other programs".into())
    });
    assert_eq!(find(&pool, 3, LATER), Ok(vec![103, 101, 102]));
}

#[test]
fn a_port_that_is_poisoned_far_behind_the_turn_leaves_the_turn_alone() {
    let mut pool = PortPool::new(RANGE);
    for port in [100, 101, 102] {
        pool.reserve(port, id("a"));
    }
    pool.release(&id("a"), [101], NOW);
    pool.poison(100, LATER);
    assert_eq!(find(&pool, 1, NOW), Ok(vec![103]));
}

#[test]
fn nothing_is_found_where_nothing_is_asked_for() {
    assert_eq!(find(&PortPool::new(RANGE), 0, NOW), Ok(vec![]));
}

#[test]
fn a_new_range_leaves_what_is_held_outside_it() {
    let mut pool = PortPool::new(RANGE);
    pool.reserve(102, id("a"));
    pool.set_range(PortRange { first: 200, last: 200 });
    assert_eq!(find(&pool, 1, NOW), Ok(vec![200]));
    assert!(find(&pool, 2, NOW).is_err());
    assert_eq!(pool.lease(102), Some(&PortLease::Held(id("a"))));
}

#[test]
fn a_range_of_one_port_and_the_last_port_of_all_are_ranges() {
    let last = PortRange { first: u16::MAX, last: u16::MAX };
    let mut pool = PortPool::new(last);
    assert_eq!(last.len(), 1);
    assert_eq!(find(&pool, 1, NOW), Ok(vec![u16::MAX]));
    pool.reserve(u16::MAX, id("a"));
    assert!(find(&pool, 1, NOW).is_err());
}

#[test]
fn a_row_of_taken_ports_is_passed_in_growing_steps_and_what_was_passed_over_is_found_later() {
    let mut pool = PortPool::new(PortRange { first: 1000, last: 1999 });
    let is_taken = |port: u16| (1000..1600).contains(&port);
    let mut tries = 0;
    let port = loop {
        let port = find(&pool, 1, NOW).expect("there is room")[0];
        pool.reserve(port, id("a"));
        if !is_taken(port) {
            break port;
        }
        tries += 1;
        pool.poison(port, LATER);
    };
    assert!(tries < 40, "{tries} tries for a row of 600");
    assert!(port < 1700, "{port} is far behind the row");
    // Everything that is free is found, whatever was passed over.
    let free = 1000 - tries - 1;
    assert_eq!(find(&pool, free, NOW).map(|ports| ports.len()), Ok(free));
}
