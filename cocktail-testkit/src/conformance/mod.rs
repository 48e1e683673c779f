//! Conformance suites: whether a back end keeps what its contract promises.
//!
//! [`store`], [`runtime`] and [`provider`] each take a fixture, which makes the trait objects, and answer with a
//! [`Report`]. Read [`Report`] first, then the fixture of the suite that you need; [`LocalWorkers`] is most of a fixture
//! for back ends that run processes on this machine.
//!
//! ```no_run
//! # use cocktail_testkit::conformance::{self, ProviderFixture};
//! # async fn test(fixture: &dyn ProviderFixture) {
//! let report = conformance::provider(fixture).await;
//! // What cannot run is named, so that a case never goes missing unseen.
//! report.assert_passed(&["runtime/limits_of_memory_are_enforced"]);
//! # }
//! ```
//!
//! What always holds:
//! - A case is named by the fact that it proves. Which ones run follows from the declared capabilities; the others are
//!   counted as skipped, with the reason.
//! - A case that fails, panics or takes longer than its deadline does not stop those after it.
//! - A case gives back what it made, also when it fails. It touches nothing that it did not make.
//! - Nothing is asserted about time. A case waits for a condition, and only the deadline ends that.

mod case;
mod context;
mod provider;
mod report;
mod runtime;
mod store;
mod workers;

pub use context::{Loss, RecordingCtx};
pub use provider::{ProviderFixture, provider};
pub use report::{CaseReport, Outcome, Report};
pub use runtime::{RuntimeFixture, runtime};
pub use store::{StoreFixture, store};
pub use workers::{LocalWorkers, MARK, Occupied, Workers, marked_processes};
