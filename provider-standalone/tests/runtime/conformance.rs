//! The provider passes the suite for providers, and on its one server the suite for runtimes.

use std::sync::Arc;

use cocktail_core::contract::{Connection, Launch, Provider, RuntimeCapabilities};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, Generation, StoreId};
use cocktail_core::name::Name;
use cocktail_provider_standalone::{KeeperMode, StandaloneBuilder, StandaloneConfig, StandaloneProvider};
use cocktail_testkit::conformance::{self, LocalWorkers, ProviderFixture, Workers};
use libtest_mimic::Trial;
use tempfile::TempDir;

/// What needs a provider that can grow.
const GROWING: [&str; 10] = [
    "provider/a_repeated_provision_yields_the_same_servers",
    "provider/the_next_manager_that_repeats_a_provision_gets_the_same_servers",
    "provider/a_provision_whose_caller_is_lost_and_that_is_repeated_makes_no_second_server",
    "provider/a_provision_that_ends_at_any_checkpoint_and_is_repeated_makes_no_second_server",
    "provider/another_operation_is_other_servers",
    "provider/claims_succeed_and_fail_one_by_one",
    "provider/an_offering_that_nobody_has_is_refused",
    "provider/a_server_that_is_given_back_leaves_the_listing_and_may_be_given_back_again",
    "provider/giving_back_what_nobody_has_is_success",
    "provider/another_store_sees_and_touches_nothing",
];

/// What needs containers that outlive their Manager.
const OUTLIVING: [&str; 2] = [
    "runtime/the_next_manager_finds_the_same_processes_and_watches_them",
    "runtime/what_ended_while_nobody_watched_is_told",
];

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, keeper| {
        Trial::test(format!("{}::{name}", module_path!()), move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(passes(keeper));
            Ok(())
        })
    };
    vec![
        trial("a_provider_with_a_keeper_of_its_own_passes_the_suites", KeeperMode::Process),
        trial("a_provider_with_a_keeper_in_this_process_passes_the_suites", KeeperMode::InProcess),
    ]
}

/// A data dir, and workers in another folder.
struct DataDir {
    data: TempDir,
    workers: LocalWorkers,
    keeper: KeeperMode,
}

impl DataDir {
    fn build(&self) -> Result<StandaloneProvider> {
        let config = StandaloneConfig { keeper: self.keeper, ..StandaloneConfig::default() };
        let builder = StandaloneBuilder::new(Name::new("standalone").unwrap(), self.data.path());
        let provider = builder.with_config(config).build()?;
        provider.lead(&self.workers.next_lease());
        Ok(provider)
    }
}

#[async_trait::async_trait]
impl ProviderFixture for DataDir {
    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(Arc::new(self.build()?))
    }
}

impl Workers for DataDir {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        self.workers.launch(container, generation, script)
    }

    fn processes(&self, mark: &str) -> Option<usize> {
        self.workers.processes(mark)
    }
}

async fn passes(keeper: KeeperMode) {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // As unique as a store's id is.
    let store = StoreId::new(data.path().file_name().unwrap().to_str().unwrap());
    let fixture = DataDir { workers: LocalWorkers::new(folder.path(), store), data, keeper };
    let RuntimeCapabilities { outlives_manager, limits, .. } = capabilities(&fixture).await;
    assert_eq!(outlives_manager, keeper == KeeperMode::Process);
    let mut skips = GROWING.to_vec();
    if !outlives_manager {
        skips.extend(OUTLIVING);
    }
    // What the machine lacks cannot be declared.
    if !limits {
        skips.push("runtime/limits_of_memory_are_enforced");
    }
    conformance::provider(&fixture).await.assert_passed(&skips);
}

async fn capabilities(fixture: &DataDir) -> RuntimeCapabilities {
    let provider = fixture.build().unwrap();
    let Connection::Local(runtime) = provider.connect(&provider.server()).await.unwrap() else { panic!("not local") };
    let capabilities = runtime.capabilities();
    runtime.shutdown(true).await.unwrap();
    capabilities
}
