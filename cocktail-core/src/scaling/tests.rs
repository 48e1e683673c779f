use std::time::Duration;

use super::*;
use crate::quantity::{Bytes, CpuMillis};

fn scaling(metric: &str, target: f64) -> Scaling {
    Scaling { targets: BTreeMap::from([(metric.to_owned(), target)]), ..Scaling::default() }
}

fn cpu(millis: u64) -> Sample {
    Sample { cpu_millis: millis, ..Sample::default() }
}

fn ask(scaling: &Scaling, samples: &[Sample], desired: u32) -> Option<Wanted> {
    let resources = Resources { cpu: CpuMillis(500), memory: Bytes(0) };
    let samples: Vec<&Sample> = samples.iter().collect();
    TargetTracking.wanted(&ScalingInput { scaling, resources, samples: &samples, unread: 0, desired, min: 0, max: 100 })
}

fn count(scaling: &Scaling, samples: &[Sample], desired: u32) -> Option<u32> {
    ask(scaling, samples, desired).map(|wanted| wanted.count)
}

fn wanted(count: u32) -> Wanted {
    Wanted { count, ..Wanted::default() }
}

#[test]
fn cpu_is_a_share_of_what_is_reserved() {
    // 2 x 450 of 500: 1.8 of what one reserves, and 0.6 each are wanted.
    assert_eq!(count(&scaling("cpu", 0.6), &[cpu(450), cpu(450)], 2), Some(3));
}

#[test]
fn memory_is_a_share_of_what_is_reserved_and_unknown_where_nothing_is() {
    let sample = Sample { memory_bytes: 900, ..Sample::default() };
    let count = |reserved: u64| {
        let (scaling, samples) = (scaling("memory", 0.6), [&sample, &sample]);
        let resources = Resources { cpu: CpuMillis(500), memory: Bytes(reserved) };
        let (scaling, samples) = (&scaling, &samples[..]);
        let input = ScalingInput { scaling, resources, samples, unread: 0, desired: 2, min: 0, max: 100 };
        TargetTracking.wanted(&input).map(|wanted| wanted.count)
    };
    assert_eq!((count(1_000), count(0)), (Some(3), None));
}

#[test]
fn a_small_deviation_asks_for_nothing() {
    assert_eq!(count(&scaling("cpu", 0.6), &[cpu(320), cpu(320)], 2), Some(2));
}

#[test]
fn containers_on_their_way_are_not_asked_for_again() {
    let samples = [cpu(500), cpu(500)];
    let first = count(&scaling("cpu", 0.6), &samples, 2);
    // Two more are on their way, and the ready ones are as busy as before.
    assert_eq!((first, count(&scaling("cpu", 0.6), &samples, 4)), (Some(4), Some(4)));
}

#[test]
fn no_reading_is_no_reason_for_fewer() {
    assert_eq!(count(&scaling("cpu", 0.6), &[], 5), None);
    assert_eq!(count(&scaling("queue", 10.0), &[cpu(0)], 5), None);
}

#[test]
fn zero_takes_knowledge_that_nobody_uses_it() {
    assert_eq!(count(&scaling("cpu", 0.6), &[cpu(0)], 1), Some(1));
    let traffic = Some(TrafficSample::default());
    let idle = Sample { traffic, ..Sample::default() };
    assert_eq!(count(&scaling("rps", 10.0), std::slice::from_ref(&idle), 1), Some(0));
    let traffic = Some(TrafficSample { rps: 0.1, ..TrafficSample::default() });
    let busy = Sample { traffic, ..Sample::default() };
    assert_eq!(count(&scaling("in_flight", 10.0), &[idle, busy], 2), Some(1));
}

#[test]
fn the_metric_that_asks_for_most_decides_and_the_others_are_told() {
    let mut scaling = scaling("cpu", 0.5);
    scaling.targets.insert("queue".to_owned(), 10.0);
    let sample = Sample { custom: BTreeMap::from([("queue".to_owned(), 55.0)]), ..cpu(100) };
    let wanted = ask(&scaling, &[sample], 1).unwrap();
    assert_eq!(wanted.count, 6);
    assert!(wanted.because.starts_with("queue is 55"), "{}", wanted.because);
    assert_eq!(wanted.considered.len(), 1);
}

#[test]
fn more_is_done_at_once_and_fewer_only_after_the_whole_window() {
    let mut scaling = scaling("cpu", 0.6);
    scaling.down.stabilize = Duration::from_secs(60);
    let mut window = Window::default();
    let memory = ScalingMemory::default();
    let at = |seconds: u64| ManagerTime(seconds * 1000);
    assert_eq!(damp(&window, &scaling, memory, 2, (1, 10)), None, "nothing was read");
    window.add(at(0), wanted(6), &scaling);
    assert_eq!(damp(&window, &scaling, memory, 2, (1, 10)).unwrap().count, 6);
    for second in 1..60 {
        window.add(at(second), wanted(2), &scaling);
        assert_eq!(damp(&window, &scaling, memory, 6, (1, 10)), None, "second {second}");
    }
    window.add(at(60), wanted(3), &scaling);
    assert_eq!(damp(&window, &scaling, memory, 6, (1, 10)).unwrap().count, 3, "the most of the window");
}

#[test]
fn fewer_are_as_many_as_were_wanted_at_any_time_of_the_window() {
    let mut scaling = scaling("cpu", 0.6);
    scaling.down.stabilize = Duration::from_secs(60);
    let mut window = Window::default();
    for (second, count) in [(0, 8), (30, 5), (60, 2)] {
        window.add(ManagerTime(second * 1000), wanted(count), &scaling);
    }
    let damped = damp(&window, &scaling, ScalingMemory::default(), 9, (1, 10)).unwrap();
    assert_eq!(damped.count, 5);
}

#[test]
fn steps_bounds_and_cool_downs_hold() {
    let mut scaling = scaling("cpu", 0.6);
    scaling.up.step = 2;
    scaling.up.cooldown = Duration::from_secs(10);
    let mut window = Window::default();
    let now = ManagerTime(100_000);
    window.add(now, wanted(50), &scaling);
    let free = ScalingMemory::default();
    assert_eq!(damp(&window, &scaling, free, 1, (1, 10)).unwrap().count, 3);
    assert_eq!(damp(&window, &scaling, free, 9, (1, 10)).unwrap().count, 10);
    assert_eq!(damp(&window, &scaling, free, 10, (1, 10)), None);
    let just = ScalingMemory { last_up: Some(ManagerTime(95_000)), last_down: None };
    assert_eq!(damp(&window, &scaling, just, 1, (1, 10)), None);
    let fewer = ScalingMemory { last_up: None, last_down: Some(now) };
    assert!(damp(&window, &scaling, fewer, 1, (1, 10)).is_some(), "more is never blocked by fewer");
}
