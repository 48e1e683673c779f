//! What came of a simulation, as data: the JSON of `simulate`, and what its table and picture show.

use serde::Serialize;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Record {
    /// Everything in numbers.
    pub(crate) summary: Summary,
    /// Where it stood, at even distances.
    pub(crate) points: Vec<Point>,
    /// What the planner decided about counts and servers, and why, in order.
    pub(crate) decisions: Vec<Decision>,
    /// What is not simulated and would matter.
    pub(crate) notes: Vec<String>,
}

/// Everything in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How long, in milliseconds.
    pub(crate) duration_ms: u64,
    /// What the servers cost, in the currency of the price list.
    pub(crate) cost: f64,
    /// Time of all servers that are paid for.
    pub(crate) server_hours: f64,
    /// Most servers at a time.
    pub(crate) most_servers: u32,
    /// How many decisions there are.
    pub(crate) decisions: usize,
    /// By Unit, in the order of their names.
    pub(crate) units: Vec<UnitSummary>,
}

/// A Unit in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct UnitSummary {
    /// `service/map/unit`.
    pub(crate) unit: String,
    /// Requests that came.
    pub(crate) requests: f64,
    /// Longest queue.
    pub(crate) longest_queue: f64,
    /// Share of the time in which requests waited, from 0 to 1.
    pub(crate) time_with_queue: f64,
    /// Time of its ready containers.
    pub(crate) container_hours: f64,
    /// Most ready containers at a time.
    pub(crate) most_ready: u32,
}

/// Where it stood.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Since the beginning, in milliseconds.
    pub(crate) at_ms: u64,
    /// Servers that are paid for.
    pub(crate) servers: u32,
    /// What they have cost so far.
    pub(crate) cost: f64,
    /// Units, in the order of their names.
    pub(crate) units: Vec<UnitPoint>,
}

/// Where a Unit stood.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct UnitPoint {
    /// `service/map/unit`.
    pub(crate) unit: String,
    /// What it was asked for.
    pub(crate) requests_per_s: f64,
    /// Containers that were wanted.
    pub(crate) wanted: u32,
    /// Containers that served.
    pub(crate) ready: u32,
    /// Requests that waited.
    pub(crate) queue: f64,
}

/// Something that the planner decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Decision {
    /// Since the beginning, in milliseconds.
    pub(crate) at_ms: u64,
    /// What, as the journal calls it.
    pub(crate) kind: String,
    /// About what.
    pub(crate) object: String,
    /// Why.
    pub(crate) because: String,
}

/// A number with what people and programs need of it.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
