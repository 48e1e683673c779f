//! What the commands do, one file for each kind of them.
//!
//! Most take a [`cocktail_core::contract::Manager`], which may be one in this process or the client of another, and a
//! [`crate::output::Ui`]. `up` and `serve`, which start a Manager, are in [`crate::up`] and [`crate::serve`].

pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod change;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod release;
pub(crate) mod replay;
pub(crate) mod rollout;
pub(crate) mod server;
pub(crate) mod simulate;
pub(crate) mod version;
pub(crate) mod volumes;
