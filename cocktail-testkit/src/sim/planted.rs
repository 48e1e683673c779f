//! Bugs that are planted on purpose, to see that the invariants catch them.
//!
//! All of them live where the driver of the state, the executor, the store or a runtime would have them; the product's
//! code is the real one.

use std::fmt;

macro_rules! planted {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $what:literal;)*) => {
        /// A bug of the kind that systems like this one had.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted { $($(#[$doc])* $name,)* }

        impl Planted {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number.
            pub const fn number(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it does, for people.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

planted! {
    /// Calls are sent before their intent is durable.
    RecordAfterActing = "M1", "a call is sent before its intent is durable";
    /// Each repetition has a new token.
    RandomToken = "M2", "each repetition of a call has a new token";
    /// A listing that failed counts as an empty one.
    ErrorIsEmpty = "M3", "a listing that failed counts as an empty one";
    /// What one listing does not name is gone at once.
    MissingIsGone = "M4", "what one listing does not name is gone at once";
    /// What has not answered yet after a restart has ended.
    NoGrace = "M5", "what has not answered since the Manager's start counts as ended";
    /// Ports are free when the stop is asked for.
    PortFreedEarly = "M6", "ports are free when the stop is asked for";
    /// A server whose containers were asked to leave is given back.
    IdleWithoutAck = "M7", "a server whose containers were asked to leave is given back";
    /// Deadlines run on the wall clock.
    WallClock = "M8", "deadlines run on the wall clock";
    /// Older Managers are obeyed.
    OldEpoch = "M9", "the store obeys a Manager with an older epoch";
    /// A rearrangement drains before replacements are ready.
    DrainFirst = "M10", "a rearrangement drains before the replacements are ready";
    /// The limit of servers leaves out those that are on their way.
    LimitIgnoresPending = "M11", "the limit of servers leaves out those on their way";
    /// A drain is done when it is asked for.
    DrainAtOnce = "M12", "a drain is done when it is asked for";
    /// Pauses are forgotten at a restart.
    PauseForgotten = "M13", "pauses before a repetition are forgotten at a restart";
    /// Only the first page of a listing is read.
    FirstPage = "M14", "only the first page of a listing is read";
    /// Volumes go with their container.
    VolumeDeleted = "M15", "a volume is deleted with its container";
    /// Two revisions roll back in turn.
    RollbackLoop = "M16", "two revisions roll back in turn";
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.what())
    }
}
