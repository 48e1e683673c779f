//! Manifests: text to values.

mod diagnostic;

pub use diagnostic::{Diagnostic, Severity};
