//! One error type whose kind names the caller's reaction.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::manifest::Diagnostic;

/// Result of everything that crosses a contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened, as far as the caller's reaction depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The provider is out of this offering: mark it for a while and try the next one now.
    InsufficientCapacity {
        /// Which offering.
        offering: String,
        /// When it may be tried again, if the provider said so.
        retry_after: Option<Duration>,
    },
    /// An account limit is used up: stop using the scope and alert; waiting never fixes it.
    Quota {
        /// What the limit covers.
        scope: String,
    },
    /// Too many calls: same call, same token, after a jittered back-off.
    Throttled {
        /// When the provider wants to hear from us again.
        retry_after: Option<Duration>,
    },
    /// The other side cannot be reached or is not ready: same call, same token, after a jittered back-off.
    Unavailable,
    /// The call may have acted: look it up by its operation before anything else.
    OutcomeUnknown,
    /// Something stands against it that re-planning can go around: a taken port, a state that has changed.
    Conflict,
    /// No such object: success when removing, lost when looking.
    NotFound,
    /// Refused for lack of rights: do not retry.
    Denied,
    /// The request is wrong: do not retry, say where.
    InvalidConfig,
    /// This back end cannot do that: do not retry.
    Unsupported,
    /// Refused for now by a safety rule: frozen, over budget, the store is not writable.
    Refused,
    /// The deadline passed before the outcome was reached.
    Deadline,
    /// Something that should be impossible: freeze that pool, keep serving, alert.
    Unexpected,
}

impl ErrorKind {
    /// Whether the same request may succeed later without anyone changing anything.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::InsufficientCapacity { .. }
            | Self::Throttled { .. }
            | Self::Unavailable
            | Self::OutcomeUnknown
            | Self::Refused
            | Self::Deadline => true,
            Self::Quota { .. }
            | Self::Conflict
            | Self::NotFound
            | Self::Denied
            | Self::InvalidConfig
            | Self::Unsupported
            | Self::Unexpected => false,
        }
    }
}

/// An error with its kind, what was attempted, and in what context.
///
/// `Display` is one line without the source; the edges print the chain, once.
#[derive(Clone)]
pub struct Error(Box<Inner>);

/// Boxed, so that a `Result` stays small where nothing fails.
#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: BTreeMap<&'static str, String>,
    diagnostics: Vec<Diagnostic>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { kind, message, context: BTreeMap::new(), diagnostics: Vec::new(), source: None }))
    }

    /// Adds what the error is about.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.insert(key, value.to_string());
        self
    }

    /// Adds the error below.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Adds problems of a manifest.
    #[must_use]
    pub fn with_diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Self {
        self.0.diagnostics = diagnostics;
        self
    }

    /// The kind.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The sentence without context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// One value of the context.
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0.context.get(key).map(String::as_str)
    }

    /// Problems of a manifest, where that is what failed.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0.diagnostics
    }

    /// The message and every source below it, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut below = std::error::Error::source(self);
        while let Some(error) = below {
            text.push_str(": ");
            text.push_str(&error.to_string());
            below = error.source();
        }
        text
    }

    /// [`ErrorKind::NotFound`] with a message.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Refused`] with a message.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// [`ErrorKind::InvalidConfig`] with a message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidConfig, message)
    }

    /// [`ErrorKind::Unavailable`] with a message.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Unexpected`] with a message.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unexpected, message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (key, value) in &self.0.context {
            write!(f, ", {key} {value}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
