//! The embedded store: one redb file, worked on by one thread.
//!
//! A thread of its own, rather than the runtime's blocking pool: the pool would keep a thread and an allocator arena per
//! concurrent call, and calls to a store come one after the other anyway. A call whose future is dropped runs to its end.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, Lease, LedgerRow, Loaded, Store, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{Epoch, OperationId, Seq, StoreId};
use tokio::sync::oneshot;

use crate::backend::Health;
use crate::engine::Engine;
use crate::error;
use crate::reserve::{self, Reserve};
use crate::schema::PIECE;

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// Stack of the store's thread: the trees are a few levels deep.
const STACK: usize = 512 << 10;

/// Pieces of a snapshot that are written in one transaction: a turn that comes meanwhile waits for one of them.
const AT_ONCE: usize = 16;

/// Turns that one transaction drops at most.
const DROPPED: u64 = 2000;

/// A [`Store`] in the file `store.redb` of a data dir.
///
/// One process at a time has the file open. Dropping the store waits for the write that is under way and closes the
/// file. After an error of the disk, each call opens the file again, so that the store recovers by itself when there
/// is room again.
#[derive(Debug)]
pub struct RedbStore {
    id: StoreId,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the store in `data_dir`, or makes it. Blocks for as long as the file is checked: about a tenth of a second
    /// for the largest journal that the default settings keep.
    ///
    /// # Errors
    /// `Refused` for a store of a newer version, or one that another process has open; `Unexpected` for a damaged file;
    /// `Unavailable` when the disk is full or fails.
    pub fn open(data_dir: &Path) -> Result<Self> {
        Self::open_with(data_dir, Arc::default())
    }

    pub(crate) fn open_with(data_dir: &Path, health: Arc<Health>) -> Result<Self> {
        let path = data_dir.join("store.redb");
        let reserve = Reserve::new(data_dir.join(reserve::FILE));
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, answer) = mpsc::sync_channel(1);
        let run = {
            let path = path.clone();
            move || {
                let mut engine = match Engine::open(path, reserve, health) {
                    Ok(engine) => engine,
                    Err(error) => return drop(opened.send(Err(error))),
                };
                // A caller that does not wait any more has dropped `jobs` as well.
                let _gone = opened.send(Ok(engine.id().clone()));
                while let Ok(job) = queue.recv() {
                    job(&mut engine);
                }
            }
        };
        let thread = thread::Builder::new()
            .name("cocktail-store".into())
            .stack_size(STACK)
            .spawn(run)
            .map_err(|failure| error::disk(failure, &path, ErrorKind::Unavailable))?;
        let id = answer.recv().map_err(|_| ended())??;
        Ok(Self { id, jobs: Some(jobs), thread: Some(thread) })
    }

    async fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // A caller that does not wait any more loses only the answer.
            let _gone = done.send(work(engine));
        });
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the store's thread panicked");
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    fn id(&self) -> StoreId {
        self.id.clone()
    }

    async fn acquire(&self) -> Result<Lease> {
        self.call(Engine::acquire).await
    }

    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let ledger = ledger.to_vec();
        self.call(move |engine| engine.append(epoch, &turn, &ledger)).await
    }

    async fn last(&self) -> Result<Seq> {
        self.call(Engine::last).await
    }

    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()> {
        let length = bytes.len();
        while self.call(move |engine| engine.forget_pieces(epoch, AT_ONCE)).await? {}
        let pieces = self.call(move |engine| engine.begin_snapshot(epoch, upto, length)).await?;
        let bytes = Arc::new(bytes);
        for (number, from) in pieces.clone().zip((0..length).step_by(PIECE)).step_by(AT_ONCE) {
            let bytes = Arc::clone(&bytes);
            let part = from..length.min(from + AT_ONCE * PIECE);
            self.call(move |engine| engine.write_pieces(epoch, number, &bytes[part])).await?;
        }
        self.call(move |engine| engine.finish_snapshot(epoch, upto, pieces)).await?;
        // The snapshot counts. What is left of the one before and of older turns is only in the way.
        let tidied = async {
            while self.call(move |engine| engine.forget_pieces(epoch, AT_ONCE)).await? {}
            while self.call(move |engine| engine.drop_old(epoch, upto, keep_bytes, DROPPED)).await? {}
            Ok::<_, Error>(())
        };
        if let Err(error) = tidied.await {
            tracing::warn!(error = error.chain(), "what a snapshot has replaced could not be dropped yet");
        }
        Ok(())
    }

    async fn load(&self) -> Result<Loaded> {
        self.call(Engine::load).await
    }

    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.call(move |engine| engine.turns(from, limit)).await
    }

    async fn open_operations(&self) -> Result<Vec<LedgerRow>> {
        self.call(Engine::open_operations).await
    }

    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()> {
        self.call(move |engine| engine.checkpoint(epoch, operation, &checkpoint)).await
    }

    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        self.call(move |engine| engine.checkpoints(operation)).await
    }

    async fn use_reserve(&self) -> Result<bool> {
        self.call(|engine| engine.use_reserve()).await
    }

    async fn restore_reserve(&self) -> Result<bool> {
        self.call(|engine| engine.restore_reserve()).await
    }
}

fn ended() -> Error {
    Error::unexpected("the store's thread has ended")
}
