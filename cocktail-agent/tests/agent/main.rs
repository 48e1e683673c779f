//! The worker protocol from outside: what is generated, both ends against each other, and workers that mean harm.

mod generated;
mod hostile;
mod pair;
mod support;
