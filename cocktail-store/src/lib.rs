//! Store back ends of the cocktail orchestrator.
//!
//! [`DataDir`] takes a folder for one Manager and holds its lock; [`RedbStore`] keeps the journal, the snapshot, the
//! ledger and the lease in one file in it; [`MemoryStore`] does the same without a disk, for tests. Both stores pass
//! the conformance suite of `cocktail-testkit`. [`StoreCopy`] looks back without touching anything.
//!
//! What always holds: when a write has returned, it is on disk; a write of an older epoch is refused; a store never
//! panics because of what it finds on a disk.

mod backend;
mod copy;
mod data_dir;
mod engine;
mod error;
mod file;
mod filesystem;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod memory;
mod redb_store;
mod reserve;
mod schema;
#[cfg(test)]
mod tests;

pub use copy::StoreCopy;
pub use data_dir::DataDir;
pub use memory::MemoryStore;
pub use redb_store::RedbStore;
