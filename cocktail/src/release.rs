//! Decisions that only a person can take, where a Manager is refused because what runs belongs to a newer copy of the data
//! dir or to another store: go on with this copy ([`Builder::adopt`]), or end what runs ([`Builder::release`]).
//!
//! Both hold the lock of the data dir, so that no Manager runs meanwhile.

use cocktail_core::contract::{Provider, Store};
use cocktail_core::error::{Error, Result};
use cocktail_provider_standalone::{StandaloneProvider, Worker};
use cocktail_store::{DataDir, RedbStore};

use crate::builder::{Builder, this_machine};

/// Everything that runs for a data dir, named and not ended yet. Dropping it lets everything run on.
#[derive(Debug)]
pub struct Release {
    inner: cocktail_provider_standalone::Release,
    _data_dir: DataDir,
}

impl Release {
    /// What [`Release::end`] ends, by container.
    pub fn workers(&self) -> &[Worker] {
        self.inner.workers()
    }

    /// Ends the workers, each with its grace, then the keeper with its ports; returns when nothing of them is left.
    /// Logs and volumes stay.
    ///
    /// # Errors
    /// `Unavailable` for workers that cannot be killed.
    pub async fn end(self) -> Result<()> {
        self.inner.end().await
    }
}

impl Builder {
    /// Says that this data dir is the one to go on with, although what runs took orders from a newer copy of it. Ends
    /// nothing: the next start takes over what its store knows, and shows the rest as unknown with its server. Answers
    /// with what runs. Repeating it changes nothing.
    ///
    /// # Errors
    /// `Refused` while a Manager runs, for a data dir without a store, and for workers of another store.
    pub async fn adopt(self) -> Result<Vec<Worker>> {
        let (data_dir, provider) = self.alone()?;
        if !lead(&data_dir, &provider).await? {
            let message = "the data dir has no store to go on with: put one back, or end what runs with a release";
            return Err(Error::refused(message));
        }
        provider.adopt().await
    }

    /// Takes everything that runs for the data dir into our hands, to be named and then ended, whatever store and copy it
    /// belongs to. `None` where nothing runs.
    ///
    /// # Errors
    /// `NotFound` for a data dir that is not there; `Refused` while a Manager runs.
    pub async fn release(self) -> Result<Option<Release>> {
        let (data_dir, provider) = self.alone()?;
        let mut release = provider.release().await?;
        // Workers that have lost their keeper are known by their store.
        if release.is_none() && lead(&data_dir, &provider).await? {
            release = provider.release().await?;
        }
        Ok(release.map(|inner| Release { inner, _data_dir: data_dir }))
    }

    fn alone(&self) -> Result<(DataDir, StandaloneProvider)> {
        let data_dir = DataDir::open(&self.data_dir, false)?;
        let provider = this_machine(&self.settings, &data_dir)?;
        Ok((data_dir, provider))
    }
}

/// Takes the lease of the store for a provider; false where there is no store.
async fn lead(data_dir: &DataDir, provider: &StandaloneProvider) -> Result<bool> {
    if !data_dir.db().exists() {
        return Ok(false);
    }
    provider.lead(&RedbStore::open(data_dir.path())?.acquire().await?);
    Ok(true)
}
