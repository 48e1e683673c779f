//! What whole-system scenarios share: a [`Home`] with real processes in it, and ways to look at them from outside.
//!
//! Start at [`Home::new`]: a folder of its own with a data dir, a block of ports that no other test has, and the real
//! `cocktail` program to run in it. Everything is judged from outside: by output, exit codes, sockets and `/proc`.
//! What is waited for is a condition ([`Home::eventually`]); what does not come true in time ends the test with all
//! that the program has to say. Everything that a Home started has its folder in the environment or on the command
//! line, so that [`Home::finish`] can tell that nothing is left, and dropping a Home leaves nothing either way.
//!
//! A helper that cannot do its part panics: here that is the way to say that a test has failed.

pub mod api;
pub mod client;
pub mod home;
pub mod http;
pub mod journal;
pub mod load;
pub mod net;
pub mod oracle;
pub mod output;
pub mod ports;
pub mod process;
pub mod program;
pub mod shape;
pub mod terminal;

pub use client::{Client, Report};
pub use home::{Home, Manager};
pub use load::{Load, LoadReport, Shape};
pub use net::{Host, Net};
pub use oracle::{Life, Oracle};
pub use output::Output;
pub use process::Process;
pub use terminal::Terminal;
