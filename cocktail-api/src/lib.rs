//! REST and event streams over the Unix socket of a Manager, and the client of it.
