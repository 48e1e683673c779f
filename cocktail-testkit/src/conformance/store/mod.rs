//! What every store must do: the promises of `cocktail_core::contract::Store`.
//!
//! Start at [`StoreFixture`] and [`store`]. Each case works on an empty store of its own.

mod journal;
mod lease;
mod ledger;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, LedgerRow, Store, TurnRow};
use cocktail_core::error::Result;
use cocktail_core::id::{Epoch, OperationId, Seq};
use cocktail_core::time::WallTime;
use serde_json::json;

use super::case::{Doing, Verdict, Waiting};
use super::report::Report;

/// Makes the stores that the cases work on.
#[async_trait]
pub trait StoreFixture: Send + Sync {
    /// An empty store; another one each time.
    async fn create(&self) -> Result<Arc<dyn Store>>;

    /// Opens the same store once more, as the Manager does that follows. The given one is the only reference, so that it
    /// can be closed first. A store that lives only as long as its value is answered as it is.
    async fn reopen(&self, store: Arc<dyn Store>) -> Result<Arc<dyn Store>>;

    /// Longest that one case may take.
    fn deadline(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Runs all cases on stores of this fixture. `subject` names them in the report.
pub async fn store(subject: &str, fixture: &dyn StoreFixture) -> Report {
    let mut report = Report::new(subject);
    for case in [journal::cases(), snapshot::cases(), ledger::cases(), lease::cases()].into_iter().flatten() {
        let scene = Scene { fixture, waiting: Waiting::default() };
        case.report(&mut report, "store", &scene, fixture.deadline(), &scene.waiting).await;
    }
    report
}

/// What a case works with.
pub(crate) struct Scene<'f> {
    fixture: &'f dyn StoreFixture,
    waiting: Waiting,
}

impl Scene<'_> {
    /// An empty store.
    async fn store(&self) -> Verdict<Arc<dyn Store>> {
        self.fixture.create().await.doing("make a store")
    }

    /// An empty store with the first lease.
    async fn leased(&self) -> Verdict<(Arc<dyn Store>, Epoch)> {
        let store = self.store().await?;
        let epoch = store.acquire().await.doing("acquire")?.epoch;
        Ok((store, epoch))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Verdict<Arc<dyn Store>> {
        self.fixture.reopen(store).await.doing("open the store again")
    }
}

/// A turn whose bytes follow from its position. Not all of them are text.
fn turn(seq: u64) -> TurnRow {
    let bytes = [b"turn \0\xff ".as_slice(), seq.to_string().as_bytes()].concat();
    TurnRow { seq: Seq(seq), at: WallTime(1_000 * i64::try_from(seq).unwrap_or(i64::MAX)), bytes }
}

/// Turns of these positions.
fn turns(seqs: std::ops::RangeInclusive<u64>) -> Vec<TurnRow> {
    seqs.map(turn).collect()
}

/// Appends turns `from..=to`.
async fn append(store: &dyn Store, epoch: Epoch, from: u64, to: u64) -> Verdict {
    for seq in from..=to {
        store.append(epoch, turn(seq), &[]).await.doing(&format!("append turn {seq}"))?;
    }
    Ok(())
}

fn operation(number: u64, ended: bool) -> LedgerRow {
    LedgerRow { operation: OperationId(number), ended, bytes: format!("operation {number}").into() }
}

fn checkpoint(step: u32, at: &str) -> Checkpoint {
    Checkpoint { step, name: format!("step {step}"), data: json!({ "poll": at, "tries": [1, 2.5, null] }) }
}
