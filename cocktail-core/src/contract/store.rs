//! Durable memory of a Manager.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::provider::Checkpoint;
use crate::error::Result;
use crate::id::{Epoch, OperationId, Seq, StoreId};
use crate::time::WallTime;

/// A journal of turns with snapshots, the ledger of operations, and the lease.
///
/// The store knows bytes, not what they mean. Whatever a method has returned is on disk. Every write carries the
/// epoch, and a store that has seen a newer one refuses it with `Refused`.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Minted when the store was made; never changes.
    fn id(&self) -> StoreId;

    /// Takes the lease: the epoch goes up by one and the lease gets a new random key, both durably. Older holders can
    /// write no more. Each call takes another lease.
    async fn acquire(&self) -> Result<Lease>;

    /// Appends one turn and its ledger rows in one synced transaction.
    ///
    /// `turn.seq` must be the one after the last; appending a turn that is there already, with the same bytes, is
    /// success, so that a caller who lost the answer may repeat the call.
    ///
    /// # Errors
    /// `Refused` for an older epoch; `Unavailable` when the disk is full or fails (nothing was written, or
    /// `OutcomeUnknown` when that cannot be said: ask [`Store::last`]); `Conflict` for a wrong seq.
    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()>;

    /// Position of the last turn that is on disk.
    async fn last(&self) -> Result<Seq>;

    /// Replaces the snapshot by one of the state after turn `upto`, and drops turns before it that exceed `keep_bytes`. One
    /// is written at a time; turns may be appended meanwhile, and until it is whole the one before counts.
    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()>;

    /// The newest snapshot and every turn after it.
    async fn load(&self) -> Result<Loaded>;

    /// Up to `limit` turns from `from` on, for reading history. Turns that were dropped are missing.
    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>>;

    /// Ledger rows of operations that are not ended.
    async fn open_operations(&self) -> Result<Vec<LedgerRow>>;

    /// Writes one checkpoint of an operation; the same step again replaces it.
    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()>;

    /// Checkpoints of an operation in the order of their steps.
    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>>;

    /// Gives back the room that is kept for emergencies (a ballast file), so that restarts of dead workers can still
    /// be recorded on a full disk. Stores without one answer `false`.
    async fn use_reserve(&self) -> Result<bool>;

    /// Takes the reserve back when there is room again.
    async fn restore_reserve(&self) -> Result<bool>;
}

/// Leases that a store remembers beside the newest one.
pub const REMEMBERED_LEASES: usize = 256;

/// The right to act for a store, and where it comes from.
///
/// The epoch alone cannot tell an older copy of a store from the store: each start adds one, so the copy catches up. The
/// keys can: a copy never learns those that were made after it. What outlives a Manager (keepers, agents) obeys a new
/// lease only if the one that it obeyed last is among the new one's ancestors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The store.
    pub store: StoreId,
    /// Its number.
    pub epoch: Epoch,
    /// Names this lease among all leases of all copies of the store: random, no secret, never empty.
    pub key: String,
    /// Keys of the leases before it in this store, oldest first: the last [`REMEMBERED_LEASES`] at most.
    pub earlier: Vec<String>,
}

/// One turn of the loop: what was observed and decided, in one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnRow {
    /// Position in the journal, from 1 without gaps.
    pub seq: Seq,
    /// Wall clock at the commit, for people.
    pub at: WallTime,
    /// The events.
    pub bytes: Vec<u8>,
}

/// One operation in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The operation.
    pub operation: OperationId,
    /// Whether it has ended; ended rows and their checkpoints are dropped with the journal's old turns.
    pub ended: bool,
    /// What it is.
    pub bytes: Vec<u8>,
}

/// What a Manager starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Position and bytes of the newest snapshot.
    pub snapshot: Option<(Seq, Vec<u8>)>,
    /// Turns after it, in order.
    pub turns: Vec<TurnRow>,
}
