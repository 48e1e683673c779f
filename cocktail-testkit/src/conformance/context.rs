//! The Manager's side of a provisioning call, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, ProvisionCtx};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::OperationId;

/// One operation as a provider sees it. Its checkpoints are remembered as a store would, over all attempts.
///
/// [`RecordingCtx::repeated`] is the next attempt of the same operation; [`RecordingCtx::failing_at`] one whose caller
/// dies at a chosen checkpoint.
#[derive(Debug, Clone)]
pub struct RecordingCtx {
    operation: OperationId,
    token: String,
    bootstrap: Vec<u8>,
    deadline: Duration,
    record: Arc<Mutex<Record>>,
    /// The write of this attempt that fails, and how.
    fault: Option<(usize, Loss)>,
    /// Writes of this attempt.
    writes: Arc<Mutex<usize>>,
}

type Record = BTreeMap<u32, Checkpoint>;

/// How a checkpoint's write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing was written.
    Before,
    /// It was written, and the answer was lost.
    After,
}

impl RecordingCtx {
    /// The first attempt of an operation that nothing is known of yet. The token stands for cluster, operation, attempt
    /// and parameters, so it has to differ between operations and between runs against the same account.
    pub fn new(operation: OperationId, token: impl Into<String>) -> Self {
        Self {
            operation,
            token: token.into(),
            bootstrap: b"conformance".to_vec(),
            deadline: Duration::from_secs(60),
            record: Arc::default(),
            fault: None,
            writes: Arc::default(),
        }
    }

    /// Sets what a new server is given to join with.
    #[must_use]
    pub fn with_bootstrap(mut self, bootstrap: impl Into<Vec<u8>>) -> Self {
        self.bootstrap = bootstrap.into();
        self
    }

    /// Sets the time that the provider is told it has.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The next attempt of the same operation, which succeeds in writing.
    #[must_use]
    pub fn repeated(&self) -> Self {
        Self { fault: None, writes: Arc::default(), ..self.clone() }
    }

    /// The next attempt of the same operation, in which write `number` (from 0) fails, and all after it.
    #[must_use]
    pub fn failing_at(&self, number: usize, loss: Loss) -> Self {
        Self { fault: Some((number, loss)), ..self.repeated() }
    }

    /// How many checkpoints this attempt has tried to write.
    pub fn writes(&self) -> usize {
        *locked(&self.writes)
    }
}

#[async_trait]
impl ProvisionCtx for RecordingCtx {
    fn operation(&self) -> OperationId {
        self.operation
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn bootstrap(&self) -> &[u8] {
        &self.bootstrap
    }

    async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        let number = {
            let mut writes = locked(&self.writes);
            *writes += 1;
            *writes - 1
        };
        // A real store is never done at once.
        tokio::task::yield_now().await;
        let record = || {
            locked(&self.record).insert(checkpoint.step, checkpoint.clone());
        };
        match self.fault {
            Some((at, Loss::After)) if number == at => {
                record();
                Err(Error::new(ErrorKind::OutcomeUnknown, "the answer of the store was made to get lost"))
            }
            // Whoever has lost the store writes no more.
            Some((at, _)) if number >= at => Err(Error::unavailable("the store was made to fail")),
            _ => {
                record();
                Ok(())
            }
        }
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        Ok(locked(&self.record).values().cloned().collect())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(step: u32) -> Checkpoint {
        Checkpoint { step, name: "made".into(), data: json!({ "step": step }) }
    }

    #[tokio::test]
    async fn checkpoints_are_handed_to_the_next_attempt_except_those_that_were_lost_before_they_were_written() {
        for (loss, kept) in [(Loss::Before, vec![step(0)]), (Loss::After, vec![step(0), step(1)])] {
            let failing = RecordingCtx::new(OperationId(1), "token").failing_at(1, loss);
            failing.checkpoint(step(0)).await.unwrap();
            failing.checkpoint(step(1)).await.unwrap_err();
            failing.checkpoint(step(2)).await.unwrap_err();
            let next = failing.repeated();
            assert_eq!((next.checkpoints().await.unwrap(), next.writes(), failing.writes()), (kept, 0, 3));
            next.checkpoint(step(2)).await.unwrap();
        }
    }
}
