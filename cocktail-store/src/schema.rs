//! Tables, and the version that says who can read them.
//!
//! A row of the journal begins with its wall clock and with the number of bytes that the journal has taken up to its
//! end, so that the room between two turns is known from two rows, without reading those between.

use cocktail_core::contract::{Checkpoint, Lease, LedgerRow, REMEMBERED_LEASES, TurnRow};
use cocktail_core::error::Error;
use cocktail_core::id::{Epoch, OperationId, Seq, StoreId};
use cocktail_core::time::WallTime;
use redb::TableDefinition;
use serde_json::json;

use crate::error::Failure;

/// The schema that this version writes.
pub(crate) const SCHEMA: u64 = 1;

/// The first version of cocktail that reads [`SCHEMA`]; written into the store, for older versions to name.
pub(crate) const READ_BY: &str = "0.1.0";

/// Facts about the store by name.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Turns by position.
pub(crate) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
/// Pieces of the newest snapshot, beside those of one that is being written. [`META`] says which.
pub(crate) const SNAPSHOT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("snapshot");
/// Operations on servers by number.
pub(crate) const LEDGER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ledger");
/// Checkpoints by operation and step.
pub(crate) const CHECKPOINTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("checkpoints");

/// Keys of [`META`].
pub(crate) mod meta {
    /// The schema, as a number.
    pub(crate) const SCHEMA: &str = "schema";
    /// The first version of cocktail that reads the schema.
    pub(crate) const READ_BY: &str = "read-by";
    /// The store's id.
    pub(crate) const STORE: &str = "store";
    /// The epoch, as a number.
    pub(crate) const EPOCH: &str = "epoch";
    /// Keys of the last leases, oldest first, one a line. Missing in a store that only older versions have led.
    pub(crate) const LEASES: &str = "leases";
    /// The turn that the snapshot was made after, as a number.
    pub(crate) const SNAPSHOT: &str = "snapshot";
    /// The snapshot's first piece, as a number; the first of all where it is missing.
    pub(crate) const FIRST_PIECE: &str = "snapshot-first";
    /// The piece after the snapshot's last one, as a number; there is none where it is missing.
    pub(crate) const END_PIECE: &str = "snapshot-end";
}

/// Size of a piece of a snapshot: a long value would need as many free pages in one run.
pub(crate) const PIECE: usize = 64 << 10;

/// A number as [`META`] holds it.
pub(crate) fn number(bytes: &[u8]) -> Result<u64, Failure> {
    let bytes = bytes.try_into().map_err(|_| Failure::Damaged("a number of the wrong length".into()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A row of the journal.
pub(crate) struct JournalRow<'a> {
    pub(crate) at: WallTime,
    /// Bytes of all turns up to the end of this one, since the store was made.
    pub(crate) end: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> JournalRow<'a> {
    /// Bytes of the row.
    pub(crate) fn len(&self) -> usize {
        16 + self.bytes.len()
    }

    /// Writes the row into a place of [`JournalRow::len`] bytes.
    pub(crate) fn encode(&self, into: &mut [u8]) {
        let (numbers, bytes) = into.split_at_mut(16);
        numbers[..8].copy_from_slice(&self.at.0.to_le_bytes());
        numbers[8..].copy_from_slice(&self.end.to_le_bytes());
        bytes.copy_from_slice(self.bytes);
    }

    pub(crate) fn decode(row: &'a [u8]) -> Result<Self, Failure> {
        let short = || Failure::Damaged("a row of the journal is too short".into());
        let (at, rest) = row.split_first_chunk::<8>().ok_or_else(short)?;
        let (end, bytes) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        Ok(Self { at: WallTime(i64::from_le_bytes(*at)), end: u64::from_le_bytes(*end), bytes })
    }

    pub(crate) fn turn(&self, seq: u64) -> TurnRow {
        TurnRow { seq: Seq(seq), at: self.at, bytes: self.bytes.to_vec() }
    }
}

/// A ledger row; `turn` is the one that wrote it, by which an ended operation is dropped later.
pub(crate) fn encode_ledger(row: &LedgerRow, turn: Seq) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + row.bytes.len());
    bytes.push(u8::from(row.ended));
    bytes.extend_from_slice(&turn.0.to_le_bytes());
    bytes.extend_from_slice(&row.bytes);
    bytes
}

/// The ledger row and the turn that wrote it.
pub(crate) fn decode_ledger(operation: u64, row: &[u8]) -> Result<(LedgerRow, Seq), Failure> {
    let short = || Failure::Damaged("a row of the ledger is too short".into());
    let (ended, rest) = row.split_first().ok_or_else(short)?;
    let (turn, bytes) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let row = LedgerRow { operation: OperationId(operation), ended: *ended != 0, bytes: bytes.to_vec() };
    Ok((row, Seq(u64::from_le_bytes(*turn))))
}

pub(crate) fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    json!({ "name": checkpoint.name, "data": checkpoint.data }).to_string().into_bytes()
}

pub(crate) fn decode_checkpoint(step: u32, row: &[u8]) -> Result<Checkpoint, Failure> {
    let damaged = |what: String| Failure::Damaged(format!("a checkpoint cannot be read: {what}"));
    let mut value: serde_json::Value = serde_json::from_slice(row).map_err(|error| damaged(error.to_string()))?;
    let name = value["name"].as_str().ok_or_else(|| damaged("it has no name".into()))?.to_owned();
    Ok(Checkpoint { step, name, data: value["data"].take() })
}

/// The answer of this version to a schema that it does not know.
pub(crate) fn newer(schema: u64, read_by: &str) -> Error {
    Error::refused(format!(
        "this store has schema {schema}, which cocktail {read_by} and newer can read, and this is cocktail {}, which \
         reads schemas up to {SCHEMA}: run cocktail {read_by} or newer, or use another data dir",
        env!("CARGO_PKG_VERSION")
    ))
}

pub(crate) fn encode_leases(keys: &[String]) -> Vec<u8> {
    keys.join("\n").into_bytes()
}

pub(crate) fn decode_leases(bytes: &[u8]) -> Result<Vec<String>, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::Damaged("its leases are no text".into()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The keys to store with a new lease: the last ones and, at the end, a new one.
pub(crate) fn with_new_lease(keys: &[String]) -> Result<Vec<String>, Failure> {
    let kept = keys.len().saturating_sub(REMEMBERED_LEASES);
    let mut keys = keys[kept..].to_vec();
    keys.push(random()?);
    Ok(keys)
}

/// The lease that the last of these keys names.
pub(crate) fn lease(store: StoreId, epoch: Epoch, mut keys: Vec<String>) -> Lease {
    let key = keys.pop().unwrap_or_default();
    Lease { store, epoch, key, earlier: keys }
}

/// A new store's id.
pub(crate) fn mint() -> Result<StoreId, Failure> {
    random().map(StoreId::new)
}

/// 128 random bits in lower-case base32.
fn random() -> Result<String, Failure> {
    let mut bits = [0_u8; 16];
    let filled = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty());
    let filled = filled.map_err(|error| Failure::Disk(error.into()))?;
    // The kernel gives up to 256 bytes in one call, whole.
    debug_assert_eq!(filled, bits.len());
    Ok(data_encoding::BASE32_NOPAD.encode(&bits).to_ascii_lowercase())
}
