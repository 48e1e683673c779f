//! Store back ends of the cocktail orchestrator: redb and memory.
