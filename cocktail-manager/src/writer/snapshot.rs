//! Snapshots, written beside the turns: the state is copied between two of them, and a task of its own does the rest.

use cocktail_core::error::Error;
use cocktail_core::settings::Settings;
use futures_util::FutureExt as _;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::Writer;

/// What there is to say about the last snapshot. One is written at a time.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Turns since, and their bytes.
    turns: u64,
    journaled: u64,
    /// Its own bytes.
    size: u64,
    /// The one that is being written; its size, if that went well.
    running: Option<JoinHandle<Option<u64>>>,
}

impl Snapshots {
    /// Counts a turn that is durable.
    pub(super) fn count(&mut self, bytes: usize) {
        self.turns += 1;
        self.journaled += bytes as u64;
    }

    /// Whether it is time for another one. A snapshot of much takes long: while the turns after the last one are shorter
    /// than it was, they are sooner read again at the next start than it is written anew.
    pub(super) fn is_due(&mut self, settings: &Settings) -> bool {
        if let Some(running) = &mut self.running {
            let Some(written) = running.now_or_never() else { return false };
            self.learn(written.ok().flatten());
        }
        self.turns >= settings.snapshot_every && self.journaled >= self.size
    }

    fn learn(&mut self, written: Option<u64>) {
        self.running = None;
        self.size = written.unwrap_or(self.size);
    }
}

impl Writer {
    /// Begins to write a snapshot of the last turn, which has to be durable. A failure is no harm: the journal holds
    /// everything that the snapshot would, and the next one is tried later.
    pub(super) fn begin_snapshot(&mut self) {
        debug_assert!(self.flight.is_none(), "the state is that of the last turn");
        (self.snapshots.turns, self.snapshots.journaled) = (0, 0);
        let (frozen, keep) = (self.state.freeze(), self.state.settings.journal_bytes);
        let (store, epoch, seq) = (self.shared.store.clone(), self.epoch, self.seq);
        self.snapshots.running = Some(tokio::spawn(async move {
            let written = async {
                let json = spawn_blocking(move || frozen.to_snapshot()).await;
                let json = json.map_err(|_| Error::unexpected("writing a snapshot panicked"))?;
                let bytes =
                    json.map_err(|error| Error::unexpected("a snapshot cannot be written as JSON").because(error))?;
                let size = bytes.len() as u64;
                store.snapshot(epoch, seq, bytes, keep).await.map(|()| size)
            };
            let written: Result<u64, Error> = written.await;
            written.inspect_err(|error| warn!(error = error.chain(), "no snapshot could be written")).ok()
        }));
    }

    /// Writes the last snapshot of this Manager.
    pub(super) async fn end_with_snapshot(&mut self) {
        if let Some(running) = self.snapshots.running.take() {
            // It has said itself if it failed.
            let _ = running.await;
        }
        self.begin_snapshot();
        if let Some(running) = self.snapshots.running.take() {
            let _ = running.await;
        }
    }
}
