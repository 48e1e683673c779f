//! What the fuzz targets reach that no user should: only with the feature `fuzzing`, and no promise to anybody.

use cocktail_core::id::{Epoch, StoreId};

use crate::schema::{self, JournalRow};

/// Takes bytes for a row of each table. What is one is written again, and must then be the same.
///
/// # Panics
/// Where the bytes of a file can do harm.
pub fn rows(bytes: &[u8]) {
    if let Ok(row) = JournalRow::decode(bytes) {
        let mut again = vec![0; row.len()];
        row.encode(&mut again);
        assert!(again == bytes, "a turn changes by being stored");
        assert_eq!(row.turn(1).bytes, row.bytes);
    }
    if let Ok((row, turn)) = schema::decode_ledger(1, bytes) {
        let written = schema::encode_ledger(&row, turn);
        let read = schema::decode_ledger(1, &written).expect("a row that was written can be read");
        assert_eq!(read, (row, turn), "a ledger row changes by being stored");
    }
    if let Ok(checkpoint) = schema::decode_checkpoint(1, bytes) {
        let written = schema::encode_checkpoint(&checkpoint);
        let read = schema::decode_checkpoint(1, &written).expect("a checkpoint that was written can be read");
        assert_eq!(read, checkpoint, "a checkpoint changes by being stored");
    }
    if let Ok(keys) = schema::decode_leases(bytes) {
        schema::lease(StoreId::new("fuzz"), Epoch(1), keys);
    }
    // A number is eight bytes; anything else is refused.
    assert_eq!(schema::number(bytes).is_ok(), bytes.len() == 8);
}
