//! Docker engines as Servers.
