//! Whether the engines of the settings answer, or that of this machine where they name none.

use std::collections::BTreeMap;

use cocktail::docker::DockerBuilder;
use cocktail_core::contract::{Provider, ServerObservation};
use cocktail_core::name::Name;
use cocktail_core::settings::Settings;

use super::{Check, Verdict};

/// One check for each engine.
pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let named = settings.providers.iter().filter(|(_, provider)| provider.kind.as_str() == "docker");
    let mut providers: Vec<_> = named.map(|(name, provider)| (name.clone(), provider.options.clone())).collect();
    if providers.is_empty() {
        providers.extend(Name::new("docker").ok().map(|name| (name, BTreeMap::new())));
    }
    let mut found = Vec::new();
    for (name, options) in providers {
        let listed = match DockerBuilder::new(name).with_options(&options).build() {
            Ok(provider) => provider.list().await,
            Err(error) => Err(error),
        };
        match listed {
            Ok(listing) => found.extend(listing.servers.iter().map(engine)),
            Err(error) => found.push(check(Verdict::Fail, error.chain(), "correct the settings")),
        }
    }
    found
}

fn engine(seen: &ServerObservation) -> Check {
    let (server, url) = (&seen.server, &seen.provider_id);
    match seen.labels.get("engine") {
        Some(version) => {
            let (cpu, memory) = (seen.capacity.cpu, seen.capacity.memory);
            check(Verdict::Ok, format!("{server}: version {version} at {url}, {cpu} cores, {memory}"), "")
        }
        None => {
            let advice = "start it, and let this user reach it: for the local one be in the group docker";
            check(Verdict::Fail, format!("{server}: nobody answers at {url}"), advice)
        }
    }
}

fn check(status: Verdict, found: String, advice: &str) -> Check {
    Check { check: "engine", status, found, advice: advice.to_owned() }
}
