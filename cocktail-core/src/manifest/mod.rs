//! Manifests: text to values.
