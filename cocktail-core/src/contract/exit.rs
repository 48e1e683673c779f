//! How containers end, and what that says of their programs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The signal that asks a program to end, and what engines and shells add to a signal to make it a code.
const TERM: i32 = 15;
const SIGNALLED: i32 = 128;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// The system ended it, since it needed more memory than it may have. Only who sets that limit says so.
    #[serde(rename = "out-of-memory")]
    OutOfMemory,
    /// It is gone, and nobody saw how.
    Unknown,
}

impl Exit {
    /// Whether it says nothing about the program, unless we ended it: nobody saw how, or somebody else sent the signal that
    /// asks a program to end, as an engine does to all its containers before it ends itself.
    pub(crate) fn is_from_outside(self) -> bool {
        matches!(self, Self::Unknown | Self::Signal(TERM)) || self == Self::Code(SIGNALLED + TERM)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory: it needed more than its limit"),
            Self::Unknown => f.write_str("ended while nobody watched"),
        }
    }
}
