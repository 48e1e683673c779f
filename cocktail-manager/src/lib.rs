//! The Orchestrator: the loop that plans, commits and acts.
