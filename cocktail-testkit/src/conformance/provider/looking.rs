//! What can be asked of every provider, also of one that has the servers that it has.

use std::collections::BTreeSet;
use std::path::Path;

use cocktail_core::contract::{Offering, Requirements, TerminateReason};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ServerId;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::Resources;

use super::scene::Scene;
use crate::conformance::case::{Case, Doing, Stop, Verdict, cases, ensure, ensure_eq, ensure_error};
use crate::conformance::runtime::template;

/// 2020 in microseconds: a listing that is older has no time.
const LONG_AGO: i64 = 1_577_836_800_000_000;

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        a_provider_says_the_same_of_itself_each_time,
        a_template_is_validated_without_network,
        offerings_are_stable_and_their_prices_finite,
        the_listing_is_complete_and_names_each_server_once,
        a_server_that_nobody_has_cannot_be_connected_to,
        what_cannot_grow_says_that_it_is_unsupported,
    ]
}

async fn a_provider_says_the_same_of_itself_each_time(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let said = (provider.name().clone(), provider.kind(), provider.capabilities());
    drop(provider);
    let next = scene.next_manager().await?;
    ensure_eq!((next.name().clone(), next.kind(), next.capabilities()), said, "name, kind and capabilities");
    ensure!(!next.kind().is_empty(), "the kind is empty");
    Ok(())
}

/// Outside of any async runtime, and on a value that nobody has connected: where either were needed, it panics or fails.
async fn a_template_is_validated_without_network(scene: &Scene<'_>) -> Verdict {
    let provider = scene.next_manager().await?;
    let runs = if provider.capabilities().images { "image = \"conformance\"\n" } else { "" };
    let lines = format!("{runs}command = [\"sh\", \"-c\", \"exec sleep 600\"]");
    let sound = template(Path::new("/"), &lines)?;
    let validating = std::thread::spawn(move || (provider.validate(&sound), provider.validate(&sound)));
    // Awaited as blocking work, so that a clock that a test has paused does not run ahead of a thread that works.
    let joined = tokio::task::spawn_blocking(move || validating.join());
    let joined = scene.waiting.on("the validation to end", joined).await;
    let (first, second) = joined
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Stop::Failed("validating panics where no async runtime is".into()))?;
    ensure_eq!(first, [], "problems of a sound template");
    ensure_eq!(second, first, "problems of the same template, asked again");
    Ok(())
}

async fn offerings_are_stable_and_their_prices_finite(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let requirements = scene.fixture.requirements();
    let first = provider.offerings(&requirements).await.doing("ask for offerings")?;
    let second = provider.offerings(&requirements).await.doing("ask for offerings again")?;
    let named = |offerings: &[Offering]| {
        let name = |offering: &Offering| {
            (offering.name.clone(), offering.zone.clone(), format!("{:?}", offering.kind), offering.allocatable.memory)
        };
        offerings.iter().map(name).collect::<BTreeSet<_>>()
    };
    ensure_eq!(named(&second), named(&first), "offerings, asked again");
    ensure_eq!(named(&first).len(), first.len(), "offerings that differ in name, zone or kind");
    for offering in &first {
        ensure!(!offering.name.is_empty(), "an offering has no name: {offering:?}");
        let priced = offering.price.is_none_or(|price| price.is_finite() && price >= 0.0);
        ensure!(priced, "{} costs {:?}", offering.name, offering.price);
        ensure!(fits(offering, &requirements), "{} is smaller than what was asked for", offering.name);
    }
    ensure!(
        first.is_empty() != provider.capabilities().grows,
        "it offers {} and grows: {:?}",
        first.len(),
        scene.capabilities.grows
    );
    let huge = Requirements { resources: Resources { cpu: CpuMillis(u64::MAX / 2), memory: Bytes(u64::MAX / 2) } };
    let offered = provider.offerings(&huge).await.doing("ask for huge offerings")?;
    ensure_eq!(offered, [], "offerings of nearly endless memory");
    Ok(())
}

fn fits(offering: &Offering, requirements: &Requirements) -> bool {
    let (has, needs) = (offering.allocatable, requirements.resources);
    has.cpu >= needs.cpu && has.memory >= needs.memory
}

async fn the_listing_is_complete_and_names_each_server_once(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let first = scene.list(&*provider).await?;
    let second = scene.list(&*provider).await?;
    ensure!(first.as_of.0 > LONG_AGO, "the listing is of {}", first.as_of);
    ensure!(second.as_of >= first.as_of, "a later listing is of {}, an earlier one of {}", second.as_of, first.as_of);
    for server in &first.servers {
        let named = [server.server.as_str(), &server.provider_id, &server.incarnation, &server.offering];
        ensure!(named.iter().all(|text| !text.is_empty()), "a server is listed without a name: {server:?}");
        ensure!(server.capacity.memory.0 > 0 && server.capacity.cpu.0 > 0, "{} has no capacity", server.server);
    }
    ensure!(
        scene.capabilities.grows || !first.servers.is_empty(),
        "a provider that does not grow has no server either, so that nothing can ever run on it"
    );
    Ok(())
}

async fn a_server_that_nobody_has_cannot_be_connected_to(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let connected = provider.connect(&ServerId::new("no-such-server-anywhere")).await;
    ensure_error!(connected, ErrorKind::NotFound, "a connection to a server that nobody has");
    Ok(())
}

async fn what_cannot_grow_says_that_it_is_unsupported(scene: &Scene<'_>) -> Verdict {
    if scene.capabilities.grows {
        return Err(Stop::Skipped("the capability `grows` is declared".into()));
    }
    let provider = scene.provider().await?;
    let before = scene.list(&*provider).await?;
    let ids: Vec<ServerId> = before.servers.iter().map(|server| server.server.clone()).collect();
    let ctx = scene.giving_back();
    let provisioned = provider.provision(&ctx, &Default::default(), &[]).await;
    ensure_error!(provisioned, ErrorKind::Unsupported, "provisioning");
    for id in &ids {
        ensure_error!(
            provider.can_terminate(id).await,
            ErrorKind::Unsupported,
            "asking whether {id} can be given back"
        );
    }
    let terminated = provider.terminate(&ctx, &ids, TerminateReason::Empty).await;
    ensure_error!(terminated, ErrorKind::Unsupported, "giving servers back");
    let after = scene.list(&*provider).await?;
    ensure_eq!(after.servers, before.servers, "the servers after that");
    Ok(())
}
