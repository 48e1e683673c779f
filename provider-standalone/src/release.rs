//! What a user decides where a keeper refuses a Manager: that this copy of the data dir is the one to go on with, or
//! that what runs is to end.
//!
//! Start at [`StandaloneProvider::adopt`] and [`StandaloneProvider::release`]. No Manager runs meanwhile: the caller
//! holds the lock of the data dir. Nothing here decides by itself.

use cocktail_core::error::{Error, Result};
use cocktail_keeper::protocol::{Adopt, ContainerState, Intent, Shutdown, StopPolicy};
use cocktail_keeper::{Hello, KeeperClient, KeeperError};

use crate::error::{Call, of_keeper};
use crate::mark;
use crate::provider::StandaloneProvider;
use crate::shared::{Shared, lock};

/// What workers get that are ended by a user's word.
const POLICY: StopPolicy = StopPolicy { signal: 15, grace_ms: 10_000 };

/// One worker that a keeper holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its container.
    pub container: String,
    /// Its process; `None` for one that has not been started or has ended.
    pub pid: Option<u32>,
}

/// Everything that runs for a data dir, in our hands and not ended yet. Dropping it lets everything run on, without a
/// Manager.
#[derive(Debug)]
pub struct Release {
    client: KeeperClient,
    workers: Vec<Worker>,
}

impl Release {
    /// What [`Release::end`] ends, by container.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Process id of the keeper, which ends last.
    pub fn keeper(&self) -> u32 {
        self.client.welcome().pid
    }

    /// Ends the workers, each with its grace of 10 seconds, and the keeper with its ports; returns when nothing of them
    /// is left.
    ///
    /// # Errors
    /// `Unavailable` for workers that cannot be killed; they and the keeper stay.
    pub async fn end(self) -> Result<()> {
        match self.client.shutdown(Shutdown { kill: true, policy: POLICY }).await {
            // It may be gone before its answer has left.
            Ok(()) | Err(KeeperError::Disconnected) => {}
            Err(error) => return Err(of_keeper(error, Call::Acts)),
        }
        self.client.closed().await;
        Ok(())
    }
}

impl StandaloneProvider {
    /// Has the keeper obey the lease that this provider was [led](cocktail_core::contract::Provider::lead) with, and those
    /// that come after it, although it obeyed a newer copy of the data dir before. Ends nothing; answers with what runs.
    /// Where nothing runs there is nothing to do. Repeating it changes nothing.
    ///
    /// # Errors
    /// `Refused` for workers of another store.
    pub async fn adopt(&self) -> Result<Vec<Worker>> {
        let shared = self.shared();
        let hello = Hello { intent: Intent::Adopt, ..shared.hello()?.1 };
        let client = match shared.try_connect(hello).await? {
            Some(client) => Some(client),
            None => shared.with_new_keeper().await?,
        };
        match client {
            Some(client) => workers(&client).await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes everything that runs for the data dir into our hands, whatever store and lease it belongs to, so that it can
    /// be named and then ended. `None` where no keeper runs; workers that have none are found only by who leads their store.
    ///
    /// # Errors
    /// `Unavailable` when the keeper does not answer.
    pub async fn release(&self) -> Result<Option<Release>> {
        let shared = self.shared();
        let hello = Hello { store: "release".into(), intent: Intent::Release, ..Hello::default() };
        let client = match shared.try_connect(hello).await? {
            Some(client) => client,
            None if lock(&shared.lease).is_none() => return Ok(None),
            None => match shared.with_new_keeper().await? {
                Some(client) => client,
                None => return Ok(None),
            },
        };
        let workers = workers(&client).await?;
        Ok(Some(Release { client, workers }))
    }
}

impl Shared {
    /// Starts a keeper for workers that have none, and has it find them; `None` where there are none.
    async fn with_new_keeper(&self) -> Result<Option<KeeperClient>> {
        let (mark, hello) = self.hello()?;
        if !mark::is_carried(&mark) {
            return Ok(None);
        }
        self.start_keeper(mark).await?;
        let client = self.try_connect(Hello { intent: Intent::Adopt, ..hello }).await?;
        let client = client.ok_or_else(|| Error::unavailable("the keeper that was just started does not answer"))?;
        client.adopt(Adopt::default()).await.map_err(|error| of_keeper(error, Call::Reads))?;
        Ok(Some(client))
    }

    /// Connects to a keeper that runs already.
    async fn try_connect(&self, hello: Hello) -> Result<Option<KeeperClient>> {
        match KeeperClient::connect(self.fixed.keeper.socket(), hello).await {
            Ok((client, _)) => Ok(Some(client)),
            // One that was just ending may still have been listening.
            Err(KeeperError::Unreachable { .. } | KeeperError::Disconnected) => Ok(None),
            Err(error) => Err(of_keeper(error, Call::Reads)),
        }
    }
}

async fn workers(client: &KeeperClient) -> Result<Vec<Worker>> {
    let listing = client.list().await.map_err(|error| of_keeper(error, Call::Reads))?;
    let worker = |info: cocktail_keeper::protocol::ContainerInfo| Worker {
        container: info.container,
        pid: match info.state {
            ContainerState::Running(started) | ContainerState::Ending(started) => Some(started.pid),
            ContainerState::Prepared | ContainerState::Exited(_) => None,
        },
    };
    Ok(listing.containers.into_iter().map(worker).collect())
}
