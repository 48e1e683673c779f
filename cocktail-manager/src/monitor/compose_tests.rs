use std::net::SocketAddr;

use cocktail_core::contract::{BackendTraffic, RouteTraffic};
use tokio::time::Instant;

use super::*;
use crate::monitor::scene::Watched;

const HTTP: &str = "127.0.0.1:8080";

fn unit(name: &str) -> UnitId {
    UnitId::try_from(format!("shop/prod/{name}")).unwrap()
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name)
}

/// `web-1` and `web-2` behind a port, `job-1` without one; each on the server `here`.
fn scene() -> Scene {
    let watched = |name: &str, routed| Watched {
        unit: unit(name),
        server: ServerId::new("here"),
        ready: true,
        runs: true,
        routed,
    };
    Scene {
        units: [unit("web"), unit("job")].into(),
        containers: BTreeMap::from([
            (id("web-1"), watched("web", true)),
            (id("web-2"), watched("web", true)),
            (id("job-1"), watched("job", false)),
        ]),
        listens: BTreeMap::from([(HTTP.parse().unwrap(), unit("web"))]),
        targets: Vec::new(),
    }
}

fn servers() -> BTreeMap<ServerId, Readings> {
    let reading = |cpu_millis| UsageReading { cpu_millis, memory_bytes: 1 << 20 };
    let usage = [("web-1", 100), ("web-2", 300), ("job-1", 50)];
    let usage = usage.into_iter().map(|(name, cpu)| (id(name), reading(cpu))).collect();
    let reported =
        BTreeMap::from([(id("web-1"), BTreeMap::from([("queue".to_owned(), 3.0), ("odd".to_owned(), f64::NAN)]))]);
    BTreeMap::from([(ServerId::new("here"), Readings { usage, reported })])
}

fn look(at: Instant, backends: &[(&str, u64)]) -> Look {
    let listen: SocketAddr = HTTP.parse().unwrap();
    let traffic = |requests| {
        let mut latencies = vec![0; 16];
        latencies[5] = requests;
        BackendTraffic { connections: 2, in_flight: 1, requests, latencies }
    };
    let backends = backends.iter().map(|(name, requests)| (id(name), traffic(*requests))).collect();
    Look::new(at, vec![RouteTraffic { listen, backends, waiting: 1, total: 40, refused: 2 }])
}

fn nothing(_: &ContainerId) -> BTreeMap<String, f64> {
    BTreeMap::new()
}

#[test]
fn traffic_is_known_from_the_second_look_on_and_only_behind_service_ports() {
    let began = Instant::now();
    let first = look(began, &[("web-1", 100)]);
    let unknown = round(&scene(), &servers(), nothing, None, Some(&first));
    assert!(unknown.samples.values().all(|sample| sample.traffic.is_none()), "{unknown:?}");
    assert_eq!(unknown.units[&unit("web")].requests, 0, "what was counted before happened before");
    let then = look(began + Duration::from_secs(10), &[("web-1", 150), ("web-2", 50)]);
    let known = round(&scene(), &servers(), nothing, Some(&first), Some(&then));
    assert_eq!(known.samples[&id("web-1")].traffic.unwrap().rps, 5.0);
    assert_eq!(known.samples[&id("web-2")].traffic.unwrap().rps, 5.0, "counted since it was added");
    assert_eq!(known.samples[&id("job-1")].traffic, None);
    let unseen = round(&scene(), &servers(), nothing, Some(&then), None);
    assert!(unseen.samples[&id("web-1")].traffic.is_none(), "a forwarder that does not answer is no silence");
}

#[test]
fn a_unit_is_the_sum_of_its_containers_and_of_those_that_have_left() {
    let began = Instant::now();
    let (first, then) = (look(began, &[]), look(began + Duration::from_secs(1), &[("web-1", 10), ("web-0", 30)]));
    let scraped = |container: &ContainerId| match container.as_str() {
        "web-2" => BTreeMap::from([("queue".to_owned(), 4.0)]),
        _ => BTreeMap::new(),
    };
    let round = round(&scene(), &servers(), scraped, Some(&first), Some(&then));
    let web = &round.report.units["shop/prod/web"];
    assert_eq!((web.sample.cpu_millis, web.sample.memory_bytes), (400, 2 << 20));
    assert_eq!(web.sample.custom, BTreeMap::from([("queue".to_owned(), 7.0)]), "no number is no number");
    assert_eq!((web.sample.traffic.unwrap().rps, web.requests_total), (40.0, 40));
    assert_eq!((web.connections_total, web.refused_total, web.waiting), (40, 2, 1));
    let point = &round.units[&unit("web")];
    assert_eq!((point.cpu_millis, point.requests, point.ready), (400, 40, 2));
    assert_eq!(round.report.units["shop/prod/job"].sample.cpu_millis, 50);
}

#[test]
fn a_server_that_does_not_answer_leaves_no_half_sums() {
    let mut scene = scene();
    if let Some(watched) = scene.containers.get_mut(&id("web-2")) {
        watched.server = ServerId::new("there");
    }
    let round = round(&scene, &servers(), nothing, None, None);
    assert!(round.samples.contains_key(&id("web-1")) && !round.samples.contains_key(&id("web-2")));
    assert!(!round.units.contains_key(&unit("web")) && round.units.contains_key(&unit("job")));
}

#[test]
fn a_unit_without_containers_has_a_point_of_nothing() {
    let mut scene = scene();
    scene.containers.clear();
    let round = round(&scene, &servers(), nothing, None, None);
    assert_eq!((round.units[&unit("web")].ready, round.units[&unit("web")].cpu_millis), (0, 0));
    assert!(round.samples.is_empty() && round.containers.is_empty());
}
