//! Run and scale workers from inside a Rust service, with no cluster to operate.
//!
//! ```no_run
//! use cocktail::{Actor, Cocktail, Manager, Result};
//!
//! fn main() -> Result<()> {
//!     cocktail::init(); // first line: this program is its own keeper
//!     let runtime = tokio::runtime::Runtime::new().expect("a runtime");
//!     runtime.block_on(async {
//!         let manager = Cocktail::builder().data_dir(".cocktail").start().await?;
//!         manager.apply(&[cocktail::read_manifest("cocktail.toml")?], &Actor::embedder()).await?;
//!         println!("{:#?}", manager.units().await?);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Start at [`Cocktail::builder`]; everything that can be asked of the result stands in [`Manager`]. Workers outlive
//! the program: the next start with the same data dir adopts them. End with [`Manager::shutdown`].
//!
//! The library installs no signal handler, no global subscriber and no runtime of its own, and reaps no foreign child:
//! what must do such things lives in the keeper, a small process that [`init`] turns a second start of the program into.

#[cfg(not(target_os = "linux"))]
compile_error!("cocktail runs workers through Linux's pidfds, sub-reapers and process groups: it is for Linux only");

#[cfg(feature = "agents")]
pub mod agent;
mod bootstrap;
mod builder;
mod files;
mod release;

#[cfg(feature = "api")]
pub use cocktail_api as api;
pub use cocktail_core::contract::{
    Actor, Applied, EventFilter, ExecInput, ExecOutput, ExecSession, ExecSpec, Exit, JoinTicket, LogLine, LogOptions,
    LogStream, Manager, ManifestSource, RolloutAction, ShutdownMode,
};
pub use cocktail_core::error::{Error, ErrorKind, Result};
pub use cocktail_core::settings::Settings;
pub use cocktail_core::{contract, manifest, name, scaling, spec, view};
pub use cocktail_manager::{Ended, Orchestrator};
#[cfg(feature = "docker")]
pub use cocktail_provider_docker as docker;
pub use cocktail_provider_standalone as standalone;
pub use cocktail_store as store;

pub use self::bootstrap::Bootstrap;
pub use self::builder::{Builder, Cocktail};
pub use self::files::read_manifest;
pub use self::release::Release;

/// Lets the program be its own keeper; the first line of `main`.
///
/// Returns at once in the program itself. In a process that cocktail started as a keeper or as the launcher of one
/// worker it does that work and never returns. Calling it twice does no harm; without it no Manager starts, since a
/// keeper would run the program's own `main` again.
pub fn init() {
    #[cfg(all(feature = "agents", feature = "docker"))]
    cocktail_provider_docker::guard::init();
    cocktail_keeper::init();
}
