//! How long each kind of call may take. One bound for all would be too short for a pull and too long for everything else.

use std::time::Duration;

/// Whether the engine is there, and what it has.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// What only reads, and what changes without work: list, inspect, kill, networks.
pub(crate) const CONTROL: Duration = Duration::from_secs(30);
/// Creating and starting, which unpack and mount.
pub(crate) const START: Duration = Duration::from_secs(120);
/// Removing, which waits for the disk.
pub(crate) const REMOVE: Duration = Duration::from_secs(60);
/// Fetching an image.
pub(crate) const PULL: Duration = Duration::from_secs(30 * 60);
/// Building an image.
pub(crate) const BUILD: Duration = Duration::from_secs(60 * 60);
/// Asking a registry what a tag stands for.
pub(crate) const RESOLVE: Duration = Duration::from_secs(20);
/// One reading of what a container uses.
pub(crate) const USAGE: Duration = Duration::from_secs(10);
/// How long one that is told to end keeps the next one from being told: most have ended by then.
pub(crate) const ENDING: Duration = Duration::from_millis(500);
/// How long the end of a container waits for those of others at most: one of theirs may hang.
pub(crate) const ROOM: Duration = Duration::from_secs(5);
/// What a container that was killed may take to be gone.
pub(crate) const KILLED: Duration = Duration::from_secs(15);
/// How long a network may be said to be used by a container that is gone, before it is left to the next Manager.
pub(crate) const LEFT: Duration = Duration::from_secs(10);
/// How long a container without a readiness probe that is to wait runs before it is paused.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How often everything is looked at, whatever events say.
pub(crate) const RELIST: Duration = Duration::from_secs(30);
/// Pauses between attempts to reach an engine again.
pub(crate) const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Bound of the client itself, which has none of these to itself.
pub(crate) const CLIENT: Duration = Duration::from_secs(24 * 3600);
/// When a silent connection is asked whether anybody is there, and how often then.
pub(crate) const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// The same over ssh.
pub(crate) const SSH_ALIVE: Duration = Duration::from_secs(15);
/// Connections over ssh that are kept for the next call.
pub(crate) const SSH_KEPT: usize = 8;
/// How long they are kept.
pub(crate) const SSH_IDLE: Duration = Duration::from_secs(30);
