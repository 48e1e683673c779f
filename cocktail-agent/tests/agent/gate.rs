//! The gate over real sockets: who gets in, as whom, how far, and for how long.

mod deaf;
mod hostile;
mod join;
mod roles;
mod rotation;
mod streams;
mod support;
