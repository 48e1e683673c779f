//! How much an artifact may be.

use std::time::Duration;

/// Bounds of one artifact, and of what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive itself.
    pub download: u64,
    /// Bytes of all its files together; holes in them count, because they are written.
    pub unpacked: u64,
    /// Bytes of one file.
    pub file: u64,
    /// Entries, and the folders above them that have no entry of their own.
    pub entries: u64,
    /// Bytes of a path, or of what a link names.
    pub path: usize,
    /// Folders above each other.
    pub depth: usize,
    /// Longest time in which a source brings nothing.
    pub stall: Duration,
    /// Bytes of unpacked artifacts that stay although no container uses them.
    pub spare: u64,
    /// Time for which an artifact that was handed out stays, whoever uses it.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            download: 2 << 30,
            unpacked: 8 << 30,
            file: 4 << 30,
            entries: 200_000,
            path: 4_096,
            depth: 64,
            stall: Duration::from_secs(60),
            spare: 8 << 30,
            rest: Duration::from_secs(600),
        }
    }
}
