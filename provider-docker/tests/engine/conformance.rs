//! The provider passes the suite for providers, and on its engine the suite for runtimes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use cocktail_core::contract::{Launch, Provider};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, Generation, StoreId};
use cocktail_provider_docker::EngineConfig;
use cocktail_testkit::conformance::{self, LocalWorkers, MARK, ProviderFixture, Workers};

use crate::machine::{self, Engine, Machine};

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

/// What has no meaning for images.
const PROGRAMS: [&str; 2] =
    ["runtime/a_missing_folder_is_an_invalid_config", "runtime/a_listening_socket_is_handed_over"];

machine::trials![the_provider_and_its_runtime_pass_the_suites];

struct Fixture<'e> {
    engine: &'e Engine,
    workers: LocalWorkers,
}

#[async_trait::async_trait]
impl ProviderFixture for Fixture<'_> {
    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        let engine = EngineConfig { url: self.engine.url(), ..EngineConfig::local() };
        Ok(Arc::new(machine::provider(engine, &self.workers.next_lease(), &BTreeMap::new())))
    }
}

impl Workers for Fixture<'_> {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        let base = self.workers.launch(container, generation, script);
        let mut launch = machine::launch(&base.store, base.epoch, container, generation, script);
        // The suite's programs write where they stand.
        launch.image.iter_mut().for_each(|image| image.read_only = Some(false));
        launch
    }

    /// Counts what the image runs, and not the first process that the engine puts before it.
    fn processes(&self, mark: &str) -> Option<usize> {
        let wanted = format!("{MARK}={mark}").into_bytes();
        let is_marked = |pid: &str| {
            let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            of("environ").split(|byte| *byte == 0).any(|entry| entry == wanted) && of("comm") != b"docker-init\n"
        };
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Some(pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(|pid| is_marked(pid)).count())
    }
}

async fn the_provider_and_its_runtime_pass_the_suites(machine: &mut Machine) {
    let folder = tempfile::tempdir().unwrap();
    let workers = LocalWorkers::new(folder.path(), StoreId::new("conformance"));
    let report = conformance::provider(&Fixture { engine: &machine.engine, workers }).await;
    report.assert_passed(&[GROWING.as_slice(), PROGRAMS.as_slice()].concat());
}
