//! What an agent remembers over its own death and its machine's.
//!
//! Start at [`AgentMemory`]. The driver keeps it on disk: it applies each [`Memo`] and syncs before it does anything
//! else that the same output asks for. What always holds: the obeyed epoch and a container's generation never decrease,
//! but for containers that were removed so long ago that they are no longer remembered.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::contract::Lease;
use crate::id::{ContainerId, Generation};
use crate::session::SessionId;

/// Removed containers that are remembered. A container's id is never used again, so that only an order that is older
/// than its session could name one, and sessions refuse those already.
const REMOVED: usize = 1_024;

/// What an agent remembers. The default is one that was just made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMemory {
    /// How often an agent was started on this memory.
    pub starts: u64,
    /// The lease whose orders were carried out last.
    pub obeyed: Option<Lease>,
    /// The highest session that was ever confirmed.
    pub session: Option<SessionId>,
    /// Highest generation of each container.
    pub marks: BTreeMap<ContainerId, Mark>,
    /// Removed containers, oldest first.
    removed: VecDeque<ContainerId>,
}

/// What is remembered of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The highest that was ordered.
    pub generation: Generation,
    /// It was removed.
    pub removed: bool,
}

/// One change of an [`AgentMemory`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memo {
    /// An agent was started.
    Start(u64),
    /// Orders of this lease are carried out from now on.
    Obeyed(Lease),
    /// A session is confirmed.
    Session(SessionId),
    /// A generation was ordered.
    Mark(ContainerId, Generation),
    /// A container is removed.
    Removed(ContainerId),
}

impl AgentMemory {
    /// Takes one change. The same again changes nothing.
    pub fn apply(&mut self, memo: Memo) {
        match memo {
            Memo::Start(starts) => self.starts = self.starts.max(starts),
            Memo::Obeyed(lease) => self.obeyed = Some(lease),
            // A Manager that only looked may have a lower epoch; it makes nobody forget a higher one.
            Memo::Session(session) => self.session = self.session.max(Some(session)),
            Memo::Mark(container, generation) => self.mark(container, generation),
            Memo::Removed(container) => self.remove(container),
        }
    }

    fn mark(&mut self, container: ContainerId, generation: Generation) {
        let new = Mark { generation, removed: false };
        let mark = self.marks.entry(container).or_insert(new);
        if generation > mark.generation {
            *mark = new;
        }
    }

    fn remove(&mut self, container: ContainerId) {
        let Some(mark) = self.marks.get_mut(&container) else { return };
        mark.removed = true;
        self.removed.retain(|other| *other != container);
        self.removed.push_back(container);
        if self.removed.len() > REMOVED
            && let Some(oldest) = self.removed.pop_front()
            && self.marks.get(&oldest).is_some_and(|mark| mark.removed)
        {
            self.marks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ContainerId {
        ContainerId::new(format!("web-{number}"))
    }

    #[test]
    fn a_generation_never_decreases_not_even_after_the_container_was_removed() {
        let mut memory = AgentMemory::default();
        for memo in [Memo::Mark(id(1), Generation(3)), Memo::Removed(id(1)), Memo::Mark(id(1), Generation(2))] {
            memory.apply(memo);
        }
        assert_eq!(memory.marks[&id(1)], Mark { generation: Generation(3), removed: true });
        memory.apply(Memo::Mark(id(1), Generation(4)));
        assert_eq!(memory.marks[&id(1)], Mark { generation: Generation(4), removed: false });
    }

    #[test]
    fn only_the_last_removed_containers_are_remembered_and_every_other_one_is() {
        let mut memory = AgentMemory::default();
        memory.apply(Memo::Mark(id(0), Generation(1)));
        for number in 1..=2 * REMOVED {
            memory.apply(Memo::Mark(id(number), Generation(1)));
            memory.apply(Memo::Removed(id(number)));
            memory.apply(Memo::Removed(id(number)));
        }
        assert_eq!(memory.marks.len(), REMOVED + 1);
        assert!(memory.marks.contains_key(&id(0)) && memory.marks.contains_key(&id(2 * REMOVED)));
    }
}
