//! [`Counting`]: a store that counts what is durable.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, Lease, LedgerRow, Loaded, Store, TurnRow};
use cocktail_core::error::Result;
use cocktail_core::id::{Epoch, OperationId, Seq, StoreId};
use tokio::sync::Notify;

use crate::simulated::lock;

/// A store that counts what it has made durable.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Store>,
    claimed: AtomicUsize,
    started: AtomicUsize,
    ready: AtomicUsize,
    /// When how many containers had been claimed, after each turn that claims some.
    progress: Mutex<Vec<(Instant, usize)>>,
    /// The longest snapshot, in bytes and milliseconds.
    snapshot: Mutex<(usize, f64)>,
    more: Notify,
}

impl Counting {
    /// Counts what `inner` makes durable.
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            claimed: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            progress: Mutex::default(),
            snapshot: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// Starts that are durably known.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Acquire)
    }

    /// Waits until that many starts are durably known.
    pub async fn until_started(&self, count: usize) {
        while self.started() < count {
            self.more.notified().await;
        }
    }

    /// Waits until that many containers are durably known to have been ready.
    pub async fn until_ready(&self, count: usize) {
        while self.ready.load(Ordering::Acquire) < count {
            self.more.notified().await;
        }
    }

    /// When how many containers had been claimed, after each turn that claimed some.
    pub fn progress(&self) -> Vec<(Instant, usize)> {
        lock(&self.progress).clone()
    }

    /// Bytes and milliseconds of the longest snapshot.
    pub fn longest_snapshot(&self) -> (usize, f64) {
        *lock(&self.snapshot)
    }
}

#[async_trait]
impl Store for Counting {
    fn id(&self) -> StoreId {
        self.inner.id()
    }
    async fn acquire(&self) -> Result<Lease> {
        self.inner.acquire().await
    }
    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let [claimed, started, ready] = counted(&turn.bytes);
        self.inner.append(epoch, turn, ledger).await?;
        let before = self.claimed.fetch_add(claimed, Ordering::AcqRel);
        self.started.fetch_add(started, Ordering::AcqRel);
        self.ready.fetch_add(ready, Ordering::AcqRel);
        if claimed > 0 {
            lock(&self.progress).push((Instant::now(), before + claimed));
        }
        self.more.notify_one();
        Ok(())
    }
    async fn last(&self) -> Result<Seq> {
        self.inner.last().await
    }
    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()> {
        let (length, began) = (bytes.len(), Instant::now());
        self.inner.snapshot(epoch, upto, bytes, keep_bytes).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let mut longest = lock(&self.snapshot);
        if took > longest.1 {
            *longest = (length, took);
        }
        Ok(())
    }
    async fn load(&self) -> Result<Loaded> {
        self.inner.load().await
    }
    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.inner.read(from, limit).await
    }
    async fn open_operations(&self) -> Result<Vec<LedgerRow>> {
        self.inner.open_operations().await
    }
    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()> {
        self.inner.checkpoint(epoch, operation, checkpoint).await
    }
    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        self.inner.checkpoints(operation).await
    }
    async fn use_reserve(&self) -> Result<bool> {
        self.inner.use_reserve().await
    }
    async fn restore_reserve(&self) -> Result<bool> {
        self.inner.restore_reserve().await
    }
}

/// Claims, starts and probes in a turn as it is stored: each event begins with its kind. Probes tell nothing here but that
/// a container is ready.
fn counted(turn: &[u8]) -> [usize; 3] {
    const BEGIN: &[u8] = br#"{"kind":""#;
    let mut counts = [0; 3];
    let mut rest = turn;
    while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
        rest = &rest[at..];
        let Some(kind) = rest.strip_prefix(BEGIN) else {
            rest = &rest[1..];
            continue;
        };
        for (count, name) in counts.iter_mut().zip([&br#"claimed""#[..], br#"started""#, br#"probed""#]) {
            *count += usize::from(kind.starts_with(name));
        }
        rest = kind;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn claims_starts_and_probes_of_a_turn_are_counted_and_nothing_else() {
        let turn = br#"{"now":1,"events":[{"kind":"claimed","container":"a"},{"kind":"started","handle":{"pid":1}},{"kind":"start_failed"},{"kind":"claimed"},{"kind":"probed"}]}"#;
        assert_eq!(counted(turn), [2, 1, 1]);
        assert_eq!(counted(br#"{"events":[]}"#), [0; 3]);
    }
}
