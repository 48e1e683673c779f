//! What a load does to the containers of a Unit: a queue that everybody shares, and equal shares of the work.
//!
//! Start at [`Flow`]. Requests come at an even rate and are served as fast as the reserved cpu of the ready containers allows;
//! what is more waits, and nobody gives up. That is a fluid: no request is told from another.

use cocktail_core::scaling::{Sample, TrafficSample};

use super::load::Demand;

/// Less than this of one request is nothing: what rounding leaves.
const NOTHING: f64 = 1e-6;

/// The queue of one Unit, and what was seen of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    /// Requests that wait.
    pub(super) queue: f64,
    /// Requests that came.
    pub(super) arrived: f64,
    /// Longest queue.
    pub(super) longest: f64,
    /// Time with a queue, in milliseconds.
    pub(super) queued: f64,
    /// Time of ready containers, in milliseconds.
    pub(super) ready: f64,
    /// Requests served since the last reading.
    served: f64,
    /// Time of ready containers since the last reading, in milliseconds.
    ready_since: f64,
}

/// Containers that serve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Servers {
    /// How many.
    pub(super) ready: usize,
    /// Cores that each has.
    pub(super) cores: f64,
}

impl Servers {
    /// Requests a second that one of them can serve.
    fn rate(self, demand: Demand) -> f64 {
        if demand.cpu > 0.0 { self.cores / demand.cpu } else { 0.0 }
    }
}

impl Flow {
    /// Time passes, with the same load and the same containers.
    pub(super) fn pass(&mut self, millis: u64, demand: Demand, servers: Servers) {
        let millis = millis as f64;
        let span = millis / 1000.0;
        let able = servers.rate(demand) * servers.ready as f64;
        let before = self.queue;
        let grown = before + (demand.rps - able) * span;
        self.queue = if grown < NOTHING { 0.0 } else { grown };
        self.queued += if self.queue > 0.0 {
            millis
        } else if before > 0.0 {
            // It was empty before the span was over.
            (before / (able - demand.rps) * 1000.0).clamp(0.0, millis)
        } else {
            0.0
        };
        self.longest = self.longest.max(self.queue);
        self.arrived += demand.rps * span;
        self.served += (before + demand.rps * span - self.queue).max(0.0);
        let ready = servers.ready as f64 * millis;
        self.ready += ready;
        self.ready_since += ready;
    }

    /// What each ready container did since the last reading.
    pub(super) fn sample(&mut self, demand: Demand, servers: Servers) -> Sample {
        let rps = if self.ready_since > 0.0 { self.served * 1000.0 / self.ready_since } else { 0.0 };
        (self.served, self.ready_since) = (0.0, 0.0);
        // One request uses no more than one core.
        let alone = demand.cpu / servers.cores.min(1.0);
        let able = servers.rate(demand) * servers.ready as f64;
        let waits = if able > 0.0 { self.queue / able } else { 0.0 };
        let in_flight = rps * alone + self.queue / servers.ready.max(1) as f64;
        let in_flight = if in_flight < NOTHING { 0 } else { in_flight.ceil() as u64 };
        let answer = (alone + waits) * 1000.0;
        Sample {
            cpu_millis: (rps * demand.cpu).min(servers.cores).mul_add(1000.0, 0.5) as u64,
            memory_bytes: 0,
            traffic: Some(TrafficSample { connections: in_flight, in_flight, rps, p50_ms: answer, p99_ms: answer }),
            ..Sample::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Demand = Demand { rps: 30.0, cpu: 0.1 };
    const TWO: Servers = Servers { ready: 2, cores: 1.0 };

    #[test]
    fn what_is_more_than_the_containers_can_serve_waits_and_is_served_later() {
        let mut flow = Flow::default();
        flow.pass(4_000, ASKED, TWO);
        assert_eq!((flow.queue, flow.arrived, flow.queued), (40.0, 120.0, 4_000.0));
        let sample = flow.sample(ASKED, TWO);
        assert_eq!((sample.cpu_millis, sample.traffic.unwrap().rps), (1_000, 10.0));
        assert_eq!(sample.traffic.unwrap().in_flight, 21, "20 wait, one is served");
        flow.pass(10_000, Demand { rps: 0.0, ..ASKED }, TWO);
        assert_eq!((flow.queue, flow.queued, flow.longest), (0.0, 6_000.0, 40.0));
        let idle = Demand { rps: 0.0, ..ASKED };
        assert_eq!(flow.sample(idle, TWO).traffic.unwrap().rps, 2.0);
        flow.pass(10_000, idle, TWO);
        let sample = flow.sample(idle, TWO);
        assert_eq!((sample.cpu_millis, sample.traffic.unwrap().in_flight), (0, 0));
    }

    #[test]
    fn without_a_container_everything_waits() {
        let mut flow = Flow::default();
        flow.pass(1_000, ASKED, Servers { ready: 0, cores: 1.0 });
        assert_eq!((flow.queue, flow.ready), (30.0, 0.0));
    }
}
