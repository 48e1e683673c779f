//! The provider passes the suite for providers, and on one of its servers the suite for runtimes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{Launch, Lease, Provider};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, Epoch, Generation, StoreId};
use cocktail_core::name::Name;
use cocktail_testkit::conformance::{self, LocalWorkers, ProviderFixture, Workers};
use own_provider::FolderProvider;

/// An account in a temporary folder, and workers in another.
struct Account {
    root: PathBuf,
    workers: LocalWorkers,
}

impl Account {
    fn provider(&self, lease: &Lease) -> Result<Arc<dyn Provider>> {
        let provider = FolderProvider::new(Name::new("folders").unwrap(), &self.root)?;
        provider.lead(lease);
        Ok(Arc::new(provider))
    }
}

#[async_trait]
impl ProviderFixture for Account {
    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        self.provider(&self.workers.next_lease())
    }

    async fn stranger(&self) -> Result<Option<Arc<dyn Provider>>> {
        let (store, key) = (StoreId::new("another"), "other".to_owned());
        let lease = Lease { store, epoch: Epoch(1), key, earlier: Vec::new() };
        Ok(Some(self.provider(&lease)?))
    }

    async fn leave_room(&self, servers: Option<usize>) -> Result<bool> {
        let quota = self.root.join("quota");
        match servers {
            Some(more) => {
                let there = fs::read_dir(&self.root).unwrap().count();
                fs::write(quota, (there + more).to_string()).unwrap();
            }
            None => drop(fs::remove_file(quota)),
        }
        Ok(true)
    }
}

impl Workers for Account {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        self.workers.launch(container, generation, script)
    }

    fn processes(&self, mark: &str) -> Option<usize> {
        self.workers.processes(mark)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_and_its_runtime_pass_the_suites() {
    let (account, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // As unique as a store's id is.
    let store = StoreId::new(folder.path().file_name().unwrap().to_str().unwrap());
    let workers = LocalWorkers::new(folder.path(), store);
    let report = conformance::provider(&Account { root: account.path().to_owned(), workers }).await;
    report.assert_passed(&[
        "provider/what_cannot_grow_says_that_it_is_unsupported",
        "runtime/a_command_on_a_terminal_sees_one",
        "runtime/a_listening_socket_is_handed_over",
        "runtime/limits_of_memory_are_enforced",
        "runtime/the_next_manager_finds_the_same_processes_and_watches_them",
        "runtime/what_ended_while_nobody_watched_is_told",
    ]);
    assert_eq!(fs::read_dir(account.path()).unwrap().count(), 0, "something is left in the account");
}
