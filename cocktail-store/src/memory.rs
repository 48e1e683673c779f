//! A store without a disk, for tests and simulations.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, Lease, LedgerRow, Loaded, Store, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{Epoch, OperationId, Seq, StoreId};

use crate::engine::{other_turn, wrong_epoch, wrong_seq, wrong_snapshot};
use crate::schema;

/// A [`Store`] in memory. It lives as long as the value: share it in an `Arc` to play a restart.
#[derive(Debug)]
pub struct MemoryStore {
    id: StoreId,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    epoch: Epoch,
    leases: Vec<String>,
    last: Seq,
    journal: BTreeMap<Seq, TurnRow>,
    snapshot: Option<(Seq, Vec<u8>)>,
    ledger: BTreeMap<OperationId, (LedgerRow, Seq)>,
    checkpoints: BTreeMap<(OperationId, u32), Checkpoint>,
    failing: Option<ErrorKind>,
}

impl MemoryStore {
    /// An empty store with that id.
    pub fn new(id: StoreId) -> Self {
        Self { id, content: Mutex::default() }
    }

    /// From now on every write fails with this kind and changes nothing; `None` ends that.
    pub fn fail_writes(&self, kind: Option<ErrorKind>) {
        self.content().failing = kind;
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Result<MutexGuard<'_, Content>> {
        let content = self.content();
        match &content.failing {
            Some(kind) => Err(Error::new(kind.clone(), "writes to this store were made to fail")),
            None => Ok(content),
        }
    }
}

impl Content {
    fn check(&self, epoch: Epoch) -> Result<()> {
        if epoch == self.epoch { Ok(()) } else { Err(wrong_epoch(epoch, self.epoch)) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn id(&self) -> StoreId {
        self.id.clone()
    }

    async fn acquire(&self) -> Result<Lease> {
        let mut content = self.write()?;
        let keys = schema::with_new_lease(&content.leases);
        content.leases = keys.map_err(|failure| failure.into_error(Path::new("memory"), ErrorKind::Unavailable))?;
        content.epoch = content.epoch.next();
        Ok(schema::lease(self.id.clone(), content.epoch, content.leases.clone()))
    }

    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let mut content = self.write()?;
        content.check(epoch)?;
        if turn.seq <= content.last {
            return match content.journal.get(&turn.seq) {
                Some(stored) if stored.bytes == turn.bytes => Ok(()),
                Some(_) => Err(other_turn(turn.seq)),
                None => Err(wrong_seq(turn.seq, content.last)),
            };
        }
        if turn.seq != content.last.next() {
            return Err(wrong_seq(turn.seq, content.last));
        }
        for row in ledger {
            content.ledger.insert(row.operation, (row.clone(), turn.seq));
        }
        content.last = turn.seq;
        content.journal.insert(turn.seq, turn);
        Ok(())
    }

    async fn last(&self) -> Result<Seq> {
        Ok(self.content().last)
    }

    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()> {
        let mut content = self.write()?;
        content.check(epoch)?;
        let newest = content.snapshot.as_ref().map(|(seq, _)| *seq);
        if upto > content.last || Some(upto) < newest {
            return Err(wrong_snapshot(upto, content.last, newest));
        }
        content.snapshot = Some((upto, bytes));
        let mut size = 0;
        let turns = content.journal.range(..=upto).rev();
        let kept = turns.take_while(|(_, turn)| {
            size += turn.bytes.len() as u64;
            size <= keep_bytes
        });
        let first = kept.last().map_or(upto.next(), |(seq, _)| *seq);
        content.journal.retain(|seq, _| *seq >= first);
        let Content { ledger, checkpoints, .. } = &mut *content;
        ledger.retain(|operation, (row, turn)| {
            let kept = !row.ended || *turn >= first;
            if !kept {
                checkpoints.retain(|(of, _), _| of != operation);
            }
            kept
        });
        Ok(())
    }

    async fn load(&self) -> Result<Loaded> {
        let content = self.content();
        let snapshot = content.snapshot.clone();
        let from = snapshot.as_ref().map_or(Seq(0), |(seq, _)| *seq).next();
        Ok(Loaded { snapshot, turns: content.journal.range(from..).map(|(_, turn)| turn.clone()).collect() })
    }

    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        Ok(self.content().journal.range(from..).take(limit).map(|(_, turn)| turn.clone()).collect())
    }

    async fn open_operations(&self) -> Result<Vec<LedgerRow>> {
        let content = self.content();
        Ok(content.ledger.values().filter(|(row, _)| !row.ended).map(|(row, _)| row.clone()).collect())
    }

    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()> {
        let mut content = self.write()?;
        content.check(epoch)?;
        content.checkpoints.insert((operation, checkpoint.step), checkpoint);
        Ok(())
    }

    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        let content = self.content();
        let rows = content.checkpoints.range((operation, 0)..=(operation, u32::MAX));
        Ok(rows.map(|(_, checkpoint)| checkpoint.clone()).collect())
    }

    async fn use_reserve(&self) -> Result<bool> {
        Ok(false)
    }

    async fn restore_reserve(&self) -> Result<bool> {
        Ok(false)
    }
}
