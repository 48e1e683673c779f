//! What one client, and all of them together, may take.

use std::time::Duration;

/// Bounds of an [`Api`](super::Api). The defaults suit one machine's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections that are served at a time; more are answered with 503. Sessions count on their own.
    pub connections: usize,
    /// Streams of events and logs at a time; more are answered with 503.
    pub streams: usize,
    /// Exec sessions at a time; more are answered with 503.
    pub sessions: usize,
    /// Longest body of a request, in bytes; longer ones are answered with 413.
    pub body: usize,
    /// Longest head of a request, in bytes, at least 8 KiB; longer ones are answered with 431.
    pub head: usize,
    /// Time in which the head of a request must come, also the first one and the one after an answer.
    pub head_time: Duration,
    /// Time in which the body of a request must come.
    pub body_time: Duration,
    /// Time that a client may leave an answer or a stream untaken before it loses its connection. Sessions are
    /// exempt: a terminal may be halted for hours.
    pub stall: Duration,
    /// Time that requests get to be answered when the API ends.
    pub grace: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            streams: 64,
            sessions: 64,
            body: 4 << 20,
            head: 64 << 10,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }
}
