//! From counters of connections to what happened between two looks.
//!
//! A forwarder counts from when a backend was added, so what a counter says first was counted since the look before,
//! unless there was none; a counter that has fallen began anew. Without a look before nothing can be said of rates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cocktail_core::contract::{BackendTraffic, RouteTraffic};
use cocktail_core::id::{ContainerId, UnitId};
use cocktail_core::scaling::TrafficSample;
use tokio::time::Instant;

use super::latency::{BUCKETS, Buckets, percentile};

/// One look at all counters.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) routes: BTreeMap<SocketAddr, RouteTraffic>,
}

impl Look {
    pub(super) fn new(at: Instant, routes: Vec<RouteTraffic>) -> Self {
        Self { at, routes: routes.into_iter().map(|route| (route.listen, route)).collect() }
    }
}

/// What passed since the look before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    /// Answered requests since the look before, or since ever without one.
    pub(super) requests: u64,
    pub(super) latencies: Buckets,
}

impl Flow {
    fn between(before: Option<&BackendTraffic>, now: &BackendTraffic) -> Self {
        let (was, is) = (before.map(buckets).unwrap_or_default(), buckets(now));
        let began_anew = before.is_some_and(|before| now.requests < before.requests)
            || is.iter().zip(was).any(|(is, was)| *is < was);
        let before = if began_anew { 0 } else { before.map_or(0, |before| before.requests) };
        let was = if began_anew { Buckets::default() } else { was };
        Self {
            connections: now.connections,
            in_flight: now.in_flight,
            requests: now.requests - before,
            latencies: std::array::from_fn(|n| is[n] - was[n]),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.requests = self.requests.saturating_add(other.requests);
        for (sum, count) in self.latencies.iter_mut().zip(other.latencies) {
            *sum = sum.saturating_add(count);
        }
    }

    pub(super) fn sample(&self, over: Duration) -> TrafficSample {
        let seconds = over.as_secs_f64();
        TrafficSample {
            connections: self.connections,
            in_flight: self.in_flight,
            rps: if seconds > 0.0 { self.requests as f64 / seconds } else { 0.0 },
            p50_ms: percentile(&self.latencies, 0.5),
            p99_ms: percentile(&self.latencies, 0.99),
        }
    }
}

/// The entries that a forwarder gives; further ones belong to the last, which has no end.
fn buckets(traffic: &BackendTraffic) -> Buckets {
    let mut buckets = Buckets::default();
    for (n, count) in traffic.latencies.iter().enumerate() {
        let entry = &mut buckets[n.min(BUCKETS - 1)];
        *entry = entry.saturating_add(*count);
    }
    buckets
}

/// What passed, by container and by Unit. A Unit has more than its containers where some have left it already.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) containers: BTreeMap<ContainerId, Flow>,
    pub(super) units: BTreeMap<UnitId, Flow>,
}

/// Compares two looks; `listens` says whose a route is.
pub(super) fn flows(before: Option<&Look>, now: &Look, listens: &BTreeMap<SocketAddr, UnitId>) -> Flows {
    let mut flows = Flows::default();
    for (listen, route) in &now.routes {
        let was = before.and_then(|before| before.routes.get(listen));
        for (container, traffic) in &route.backends {
            let flow = Flow::between(was.and_then(|was| was.backends.get(container)), traffic);
            flows.containers.entry(container.clone()).or_default().add(&flow);
            if let Some(unit) = listens.get(listen) {
                flows.units.entry(unit.clone()).or_default().add(&flow);
            }
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(requests: u64, entry: usize) -> BackendTraffic {
        let mut latencies = vec![0; BUCKETS];
        latencies[entry] = requests;
        BackendTraffic { connections: 3, in_flight: 1, requests, latencies }
    }

    #[test]
    fn only_what_came_since_the_look_before_counts() {
        let flow = Flow::between(Some(&backend(100, 4)), &backend(150, 4));
        let sample = flow.sample(Duration::from_secs(10));
        assert_eq!((sample.rps, sample.connections, sample.in_flight), (5.0, 3, 1));
        assert!((0.512..1.024).contains(&sample.p50_ms), "{sample:?}");
    }

    #[test]
    fn a_counter_that_has_fallen_began_anew() {
        assert_eq!(Flow::between(Some(&backend(100, 4)), &backend(20, 4)).requests, 20);
        // As many requests, but other ones.
        let other = Flow::between(Some(&backend(100, 4)), &backend(100, 5));
        assert_eq!((other.requests, other.latencies[5]), (100, 100));
    }

    #[test]
    fn a_container_behind_two_ports_has_the_traffic_of_both() {
        let listens: Vec<SocketAddr> = vec!["127.0.0.1:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()];
        let unit = UnitId::try_from("shop/prod/web".to_owned()).unwrap();
        let look = |requests| {
            let route = |listen: &SocketAddr| RouteTraffic {
                listen: *listen,
                backends: BTreeMap::from([(ContainerId::new("web-1"), backend(requests, 0))]),
                waiting: 0,
                total: 9,
                refused: 0,
            };
            Look::new(Instant::now(), listens.iter().map(route).collect())
        };
        let owners = listens.iter().map(|listen| (*listen, unit.clone())).collect();
        let flows = flows(Some(&look(10)), &look(15), &owners);
        assert_eq!(flows.containers[&ContainerId::new("web-1")].requests, 10);
        assert_eq!(flows.units[&unit].connections, 6);
    }

    #[test]
    fn histograms_of_other_lengths_are_taken_as_far_as_they_go() {
        let long = BackendTraffic { latencies: vec![1; BUCKETS + 4], requests: 20, ..BackendTraffic::default() };
        assert_eq!(Flow::between(None, &long).latencies[BUCKETS - 1], 5);
        let short = BackendTraffic { latencies: vec![1], requests: 1, ..BackendTraffic::default() };
        assert_eq!(Flow::between(None, &short).latencies[0], 1);
    }
}
