//! Scenarios: disk.
