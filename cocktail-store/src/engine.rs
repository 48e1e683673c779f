//! The store's work on its file, without any thread or future.
//!
//! Start at [`Engine::append`]. redb refuses to go on after a failed write until it is opened anew, so every failure
//! closes the database and every call opens it again where that is needed; the lock on the data dir is not touched by
//! that. What a failed commit has left on the disk is found out by opening and looking, never guessed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use cocktail_core::contract::{Checkpoint, Lease, LedgerRow, Loaded, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{Epoch, OperationId, Seq, StoreId};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::backend::Health;
use crate::error::Failure;
use crate::file::{EVERY, Facts, Open, create, guarded, open};
use crate::reserve::Reserve;
use crate::schema::{self, CHECKPOINTS, JOURNAL, JournalRow, LEDGER, META, PIECE, SNAPSHOT, meta};

/// A store's file, open or waiting to be opened again.
#[derive(Debug)]
pub(crate) struct Engine {
    path: PathBuf,
    id: StoreId,
    open: Option<Open>,
    reserve: Reserve,
    health: Arc<Health>,
}

/// Why a write did not return well.
enum Unwritten {
    /// Nothing of it is on disk.
    Surely(Failure),
    /// It may be on disk.
    Perhaps(Failure),
}

impl From<Failure> for Unwritten {
    fn from(failure: Failure) -> Self {
        Self::Surely(failure)
    }
}

impl Engine {
    /// Opens the store's file, or makes it. Where the disk is full, the reserve is given up for it.
    pub(crate) fn open(path: PathBuf, reserve: Reserve, health: Arc<Health>) -> Result<Self> {
        let attempt = || match path.try_exists() {
            Ok(true) => open(&path, &health),
            Ok(false) => create(&path, &health).and_then(|()| open(&path, &health)),
            Err(error) => Err(Failure::Disk(error)),
        };
        let opened = match attempt() {
            Err(failure) if failure.is_full() && reserve.give_up().unwrap_or(false) => attempt(),
            other => other,
        };
        let opened = opened.map_err(|failure| failure.into_error(&path, ErrorKind::Unavailable))?;
        if let Err(error) = reserve.take() {
            tracing::debug!(%error, "no room is kept for emergencies");
        }
        Ok(Self { id: opened.facts.id.clone(), path, open: Some(opened), reserve, health })
    }

    pub(crate) fn id(&self) -> &StoreId {
        &self.id
    }

    pub(crate) fn acquire(&mut self) -> Result<Lease> {
        let facts = self.facts()?;
        let next = facts.epoch.next();
        let keys = schema::with_new_lease(&facts.leases).map_err(|failure| self.answer(Unwritten::Surely(failure)))?;
        self.write(|txn, _| {
            let mut table = txn.open_table(META)?;
            table.insert(meta::EPOCH, next.0.to_le_bytes().as_slice())?;
            table.insert(meta::LEASES, schema::encode_leases(&keys).as_slice())?;
            Ok(())
        })
        .map_err(|unwritten| self.answer(unwritten))?;
        self.know(|facts| (facts.epoch, facts.leases) = (next, keys.clone()));
        Ok(schema::lease(self.id.clone(), next, keys))
    }

    pub(crate) fn append(&mut self, epoch: Epoch, turn: &TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let facts = self.check(epoch)?;
        if turn.seq <= facts.last {
            return self.repeated(turn);
        }
        if turn.seq != facts.last.next() {
            return Err(wrong_seq(turn.seq, facts.last));
        }
        let end = facts.end + turn.bytes.len() as u64;
        let written = self.write(|txn, _| {
            let row = JournalRow { at: turn.at, end, bytes: &turn.bytes };
            row.encode(txn.open_table(JOURNAL)?.insert_reserve(turn.seq.0, row.len())?.as_mut());
            if !ledger.is_empty() {
                let mut table = txn.open_table(LEDGER)?;
                for row in ledger {
                    table.insert(row.operation.0, schema::encode_ledger(row, turn.seq).as_slice())?;
                }
            }
            Ok(())
        });
        match written {
            Ok(()) => {
                self.know(|facts| (facts.last, facts.end) = (turn.seq, end));
                Ok(())
            }
            Err(Unwritten::Surely(failure)) => Err(self.answer(Unwritten::Surely(failure))),
            // The file says what became of it. Opening it makes durable what it shows.
            Err(Unwritten::Perhaps(failure)) => match self.facts().map(|facts| facts.last) {
                Ok(last) if last < turn.seq => Err(self.answer(Unwritten::Surely(failure))),
                Ok(_) => self.repeated(turn),
                Err(_) => Err(self.answer(Unwritten::Perhaps(failure))),
            },
        }
    }

    pub(crate) fn last(&mut self) -> Result<Seq> {
        self.facts().map(|facts| facts.last)
    }

    /// Prepares for a snapshot of `bytes` bytes: the numbers that its pieces get. It is written in several transactions, so
    /// that turns are appended between them, and counts from [`Engine::finish_snapshot`] on; until then the one before does.
    pub(crate) fn begin_snapshot(&mut self, epoch: Epoch, upto: Seq, bytes: usize) -> Result<Range<u64>> {
        let Facts { last, snapshot, pieces, .. } = self.check(epoch)?;
        if upto > last || Some(upto) < snapshot {
            return Err(wrong_snapshot(upto, last, snapshot));
        }
        let (first, end) = self.read(|txn, _| {
            let table = txn.open_table(SNAPSHOT)?;
            let ends = table.first()?.zip(table.last()?);
            Ok(ends.map_or((0, 0), |((first, _), (last, _))| (u64::from(first.value()), u64::from(last.value()) + 1)))
        })?;
        let live = pieces.start.max(first)..pieces.end.min(end);
        if pieces.end == EVERY {
            // Older versions did not write it down. What is written from now on is no part of it.
            self.write(|txn, _| note_pieces(txn, &live)).map_err(|unwritten| self.answer(unwritten))?;
            self.know(|facts| facts.pieces = live.clone());
        }
        let count = bytes.div_ceil(PIECE) as u64;
        let start = if live.start >= count { 0 } else { live.end };
        Ok(start..start + count)
    }

    /// Writes some pieces of a snapshot, from `first` on.
    pub(crate) fn write_pieces(&mut self, epoch: Epoch, first: u64, bytes: &[u8]) -> Result<()> {
        self.check(epoch)?;
        self.write(|txn, _| {
            let mut pieces = txn.open_table(SNAPSHOT)?;
            for (number, piece) in (first..).zip(bytes.chunks(PIECE)) {
                pieces.insert(piece_number(number)?, piece)?;
            }
            Ok(())
        })
        .map_err(|unwritten| self.answer(unwritten))
    }

    /// Makes the pieces that were written the snapshot.
    pub(crate) fn finish_snapshot(&mut self, epoch: Epoch, upto: Seq, pieces: Range<u64>) -> Result<()> {
        let facts = self.check(epoch)?;
        if Some(upto) < facts.snapshot {
            return Err(wrong_snapshot(upto, facts.last, facts.snapshot));
        }
        self.write(|txn, _| {
            txn.open_table(META)?.insert(meta::SNAPSHOT, upto.0.to_le_bytes().as_slice())?;
            note_pieces(txn, &pieces)
        })
        .map_err(|unwritten| self.answer(unwritten))?;
        self.know(|facts| (facts.snapshot, facts.pieces) = (Some(upto), pieces));
        Ok(())
    }

    /// Forgets up to `most` pieces that are not of the snapshot: of the one before, or of one that nobody finished. Whether
    /// there are more. No snapshot may be under way.
    pub(crate) fn forget_pieces(&mut self, epoch: Epoch, most: usize) -> Result<bool> {
        let live = self.check(epoch)?.pieces;
        let gone: Vec<u32> = self.read(|txn, _| {
            let table = txn.open_table(SNAPSHOT)?;
            let [start, end] = [live.start, live.end].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
            let others = table.range(..start)?.chain(table.range(end..)?).take(most);
            others.map(|piece| Ok(piece?.0.value())).collect()
        })?;
        if gone.is_empty() {
            return Ok(false);
        }
        self.write(|txn, _| {
            let mut pieces = txn.open_table(SNAPSHOT)?;
            for number in &gone {
                pieces.remove(number)?;
            }
            Ok(())
        })
        .map_err(|unwritten| self.answer(unwritten))?;
        Ok(gone.len() == most)
    }

    /// Drops turns up to `upto` that do not fit into `keep_bytes`, `most` at a time, and at the end the ended operations
    /// that are older than what is left. Whether there is more to drop.
    pub(crate) fn drop_old(&mut self, epoch: Epoch, upto: Seq, keep_bytes: u64, most: u64) -> Result<bool> {
        self.check(epoch)?;
        let mut more = false;
        self.write(|txn, _| {
            more = drop_old(txn, upto, keep_bytes, most)?;
            Ok(())
        })
        .map_err(|unwritten| self.answer(unwritten))?;
        Ok(more)
    }

    pub(crate) fn load(&mut self) -> Result<Loaded> {
        self.read(load)
    }

    pub(crate) fn turns(&mut self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.read(|txn, _| turns(txn, from, limit))
    }

    pub(crate) fn open_operations(&mut self) -> Result<Vec<LedgerRow>> {
        self.read(|txn, _| {
            let mut rows = Vec::new();
            for row in txn.open_table(LEDGER)?.iter()? {
                let (operation, row) = row?;
                let (row, _) = schema::decode_ledger(operation.value(), row.value())?;
                if !row.ended {
                    rows.push(row);
                }
            }
            Ok(rows)
        })
    }

    pub(crate) fn checkpoint(&mut self, epoch: Epoch, operation: OperationId, checkpoint: &Checkpoint) -> Result<()> {
        self.check(epoch)?;
        self.write(|txn, _| {
            let row = schema::encode_checkpoint(checkpoint);
            txn.open_table(CHECKPOINTS)?.insert((operation.0, checkpoint.step), row.as_slice())?;
            Ok(())
        })
        .map_err(|unwritten| self.answer(unwritten))
    }

    pub(crate) fn checkpoints(&mut self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        self.read(|txn, _| {
            let table = txn.open_table(CHECKPOINTS)?;
            let rows = table.range((operation.0, 0)..=(operation.0, u32::MAX))?;
            rows.map(|row| {
                let (key, row) = row?;
                schema::decode_checkpoint(key.value().1, row.value())
            })
            .collect()
        })
    }

    pub(crate) fn use_reserve(&self) -> Result<bool> {
        self.reserve.give_some().map_err(|error| crate::error::disk(error, &self.path, ErrorKind::Unavailable))
    }

    pub(crate) fn restore_reserve(&self) -> Result<bool> {
        self.reserve.take().map_err(|error| crate::error::disk(error, &self.path, ErrorKind::Unavailable))
    }

    /// Closes the file. It is opened again by the next call.
    pub(crate) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        match catch_unwind(AssertUnwindSafe(|| open.database.close())) {
            Ok(Ok(())) => {}
            // After a failed write redb can end in no other way.
            Ok(Err(error)) => tracing::debug!(%error, "the store was not closed cleanly and will be checked"),
            Err(_) => tracing::warn!("closing the store panicked; it will be checked when it is opened"),
        }
    }

    /// The facts, from an open file.
    fn facts(&mut self) -> Result<Facts> {
        let path = self.path.clone();
        self.ensure_open()
            .map(|open| open.facts.clone())
            .map_err(|failure| failure.into_error(&path, ErrorKind::Unavailable))
    }

    fn ensure_open(&mut self) -> Result<&mut Open, Failure> {
        if self.open.is_none() {
            let opened = open(&self.path, &self.health)?;
            if opened.facts.id != self.id {
                let (ours, theirs) = (&self.id, &opened.facts.id);
                let message = format!("the store's file was exchanged while it was in use: {ours} became {theirs}");
                return Err(Failure::Answer(Error::unexpected(message)));
            }
            self.open = Some(opened);
        }
        Ok(self.open.as_mut().expect("it was opened above"))
    }

    /// The facts, if `epoch` may write.
    fn check(&mut self, epoch: Epoch) -> Result<Facts> {
        let facts = self.facts()?;
        if epoch == facts.epoch { Ok(facts) } else { Err(wrong_epoch(epoch, facts.epoch)) }
    }

    fn know(&mut self, learn: impl FnOnce(&mut Facts)) {
        if let Some(open) = &mut self.open {
            learn(&mut open.facts);
        }
    }

    /// Whether a turn that is there already is the same.
    fn repeated(&mut self, turn: &TurnRow) -> Result<()> {
        let stored = self.turns(turn.seq, 1)?;
        match stored.first() {
            Some(stored) if stored.seq == turn.seq && stored.bytes == turn.bytes => Ok(()),
            Some(stored) if stored.seq == turn.seq => Err(other_turn(turn.seq)),
            _ => Err(wrong_seq(turn.seq, self.facts()?.last)),
        }
    }

    /// One read transaction.
    fn read<T>(&mut self, look: impl FnOnce(&ReadTransaction, &Facts) -> Result<T, Failure>) -> Result<T> {
        let path = self.path.clone();
        let looked = self.ensure_open().and_then(|open| {
            guarded(|| {
                let txn = open.database.begin_read()?;
                look(&txn, &open.facts)
            })
        });
        looked.map_err(|failure| {
            self.close();
            failure.into_error(&path, ErrorKind::Unavailable)
        })
    }

    /// One write transaction, synced.
    fn write(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &Facts) -> Result<(), Failure>,
    ) -> Result<(), Unwritten> {
        let open = self.ensure_open()?;
        let mut committing = false;
        let written = guarded(|| {
            // One sync per commit: the checksums tell after a crash whether the newest commit is whole.
            let txn = open.database.begin_write()?;
            change(&txn, &open.facts)?;
            committing = true;
            txn.commit()?;
            Ok(())
        });
        written.map_err(|failure| {
            self.close();
            if committing { Unwritten::Perhaps(failure) } else { Unwritten::Surely(failure) }
        })
    }

    fn answer(&self, unwritten: Unwritten) -> Error {
        match unwritten {
            Unwritten::Surely(failure) => failure.into_error(&self.path, ErrorKind::Unavailable),
            Unwritten::Perhaps(failure) => failure.into_error(&self.path, ErrorKind::OutcomeUnknown),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// The newest snapshot and every turn after it.
pub(crate) fn load(txn: &ReadTransaction, facts: &Facts) -> Result<Loaded, Failure> {
    let mut loaded = Loaded::default();
    if let Some(upto) = facts.snapshot {
        let mut bytes = Vec::new();
        for piece in txn.open_table(SNAPSHOT)?.iter()? {
            let (number, piece) = piece?;
            if facts.pieces.contains(&u64::from(number.value())) {
                bytes.extend_from_slice(piece.value());
            }
        }
        loaded.snapshot = Some((upto, bytes));
    }
    let mut expected = facts.snapshot.unwrap_or_default().next();
    for row in txn.open_table(JOURNAL)?.range(expected.0..)? {
        let (seq, row) = row?;
        if seq.value() != expected.0 {
            return Err(Failure::Damaged(format!("turn {expected} is missing from the journal")));
        }
        loaded.turns.push(JournalRow::decode(row.value())?.turn(seq.value()));
        expected = expected.next();
    }
    Ok(loaded)
}

/// Up to `limit` turns from `from` on.
pub(crate) fn turns(txn: &ReadTransaction, from: Seq, limit: usize) -> Result<Vec<TurnRow>, Failure> {
    let table = txn.open_table(JOURNAL)?;
    let rows = table.range(from.0..)?.take(limit);
    rows.map(|row| {
        let (seq, row) = row?;
        Ok(JournalRow::decode(row.value())?.turn(seq.value()))
    })
    .collect()
}

/// What every store answers to a holder of another epoch.
pub(crate) fn wrong_epoch(given: Epoch, current: Epoch) -> Error {
    let message = if given < current {
        "another Manager has taken over this store"
    } else {
        "this store never gave out that epoch"
    };
    Error::refused(message).with("epoch", given).with("current", current)
}

/// What every store answers to a turn that does not follow the last.
pub(crate) fn wrong_seq(given: Seq, last: Seq) -> Error {
    Error::new(ErrorKind::Conflict, "the turn does not follow the last one in the journal")
        .with("seq", given)
        .with("last", last)
}

/// What every store answers to a turn whose place another one has.
pub(crate) fn other_turn(seq: Seq) -> Error {
    Error::new(ErrorKind::Conflict, "the journal has another turn in that place").with("seq", seq)
}

/// What every store answers to a snapshot of a state that is older than the one it has, or not yet in the journal.
pub(crate) fn wrong_snapshot(upto: Seq, last: Seq, newest: Option<Seq>) -> Error {
    Error::new(ErrorKind::Conflict, "the snapshot fits neither the journal nor the one before it")
        .with("upto", upto)
        .with("last", last)
        .with("newest", newest.unwrap_or_default())
}

/// Writes down which pieces are the snapshot.
fn note_pieces(txn: &WriteTransaction, pieces: &Range<u64>) -> Result<(), Failure> {
    let mut table = txn.open_table(META)?;
    table.insert(meta::FIRST_PIECE, pieces.start.to_le_bytes().as_slice())?;
    table.insert(meta::END_PIECE, pieces.end.to_le_bytes().as_slice())?;
    Ok(())
}

fn piece_number(number: u64) -> Result<u32, Failure> {
    u32::try_from(number).map_err(|_| Failure::Answer(Error::unexpected("a snapshot is larger than any can be")))
}

/// One step of [`Engine::drop_old`].
fn drop_old(txn: &WriteTransaction, upto: Seq, keep_bytes: u64, most: u64) -> Result<bool, Failure> {
    let mut journal = txn.open_table(JOURNAL)?;
    let Some(first) = journal.first()?.map(|(seq, _)| seq.value()).filter(|&first| first <= upto.0) else {
        return Ok(false);
    };
    let row = |seq: u64| -> Result<(u64, u64), Failure> {
        let row = journal.get(seq)?.ok_or_else(|| Failure::Damaged(format!("turn {seq} is missing")))?;
        let row = JournalRow::decode(row.value())?;
        Ok((row.end.saturating_sub(row.bytes.len() as u64), row.end))
    };
    let (_, end) = row(upto.0)?;
    // The first turn to keep: from there to `upto` it is at most `keep_bytes`.
    let (mut low, mut high) = (first, upto.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if end.saturating_sub(row(middle)?.0) <= keep_bytes { high = middle } else { low = middle + 1 }
    }
    let now = low.min(first.saturating_add(most));
    journal.retain_in(..now, |_, _| false)?;
    drop(journal);
    if now < low {
        return Ok(true);
    }

    let mut gone = Vec::new();
    let mut ledger = txn.open_table(LEDGER)?;
    for entry in ledger.iter()? {
        let (operation, row) = entry?;
        let (row, turn) = schema::decode_ledger(operation.value(), row.value())?;
        if row.ended && turn.0 < low {
            gone.push(operation.value());
        }
    }
    let mut checkpoints = txn.open_table(CHECKPOINTS)?;
    for operation in gone {
        ledger.remove(operation)?;
        checkpoints.retain_in((operation, 0)..=(operation, u32::MAX), |_, _| false)?;
    }
    Ok(false)
}
