//! Seams where a decision can be exchanged: traits with good defaults, pure, their memory a value inside State.

use std::fmt;

use crate::id::ServerId;
use crate::spec::Resources;

/// One server that has room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The server.
    pub server: ServerId,
    /// What is left of it.
    pub free: Resources,
    /// Containers of the same Unit on it.
    pub same_unit: u32,
}

/// Chooses among servers that have room.
///
/// Candidates come in the order that the Unit's `place` asks for, best first, and all of them are allowed: constraints,
/// affinities and room have been looked at. There are never more than [`PlacementPolicy::breadth`], so that a choice
/// among thousands of servers costs what it costs among a few.
pub trait PlacementPolicy: fmt::Debug + Send + Sync {
    /// How many candidates it wants to see at most.
    fn breadth(&self) -> usize {
        1
    }

    /// The index of the chosen candidate; the first one for an index that is none. Same input, same answer.
    fn choose(&self, candidates: &[Candidate]) -> usize;
}

/// Takes the best by the order that the Unit's `place` asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct InOrder;

impl PlacementPolicy for InOrder {
    fn choose(&self, _: &[Candidate]) -> usize {
        0
    }
}
