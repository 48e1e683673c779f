//! Scenarios: manifests.
