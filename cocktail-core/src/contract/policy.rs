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
pub trait PlacementPolicy: fmt::Debug + Send + Sync {
    /// The index of the chosen candidate, and why; `None` if none will do. Same input, same answer.
    fn choose(&self, candidates: &[Candidate]) -> Option<(usize, String)>;
}

/// Fewest containers of the same Unit first, then most free memory, then the order of ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread;

impl PlacementPolicy for Spread {
    fn choose(&self, candidates: &[Candidate]) -> Option<(usize, String)> {
        let (index, best) = candidates.iter().enumerate().min_by(|(_, a), (_, b)| {
            (a.same_unit, std::cmp::Reverse(a.free.memory), &a.server).cmp(&(
                b.same_unit,
                std::cmp::Reverse(b.free.memory),
                &b.server,
            ))
        })?;
        Some((index, format!("{} of {} servers with room, {} of the unit on it", 1, candidates.len(), best.same_unit)))
    }
}
