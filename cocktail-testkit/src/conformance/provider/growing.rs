//! Buying and giving back: an operation names its servers, however often and from wherever it is sent.

use cocktail_core::contract::TerminateReason;
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ServerId;

use super::scene::{Order, Scene, fulfilled};
use crate::conformance::case::{Case, Doing, Stop, Verdict, abandon, cases, ensure, ensure_eq};
use crate::conformance::context::Loss;

/// Places in a call at which its caller is lost.
const LOSSES: usize = 8;

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        a_repeated_provision_yields_the_same_servers if grows,
        the_next_manager_that_repeats_a_provision_gets_the_same_servers if grows,
        a_provision_whose_caller_is_lost_and_that_is_repeated_makes_no_second_server if grows,
        a_provision_that_ends_at_any_checkpoint_and_is_repeated_makes_no_second_server if grows,
        another_operation_is_other_servers if grows,
        claims_succeed_and_fail_one_by_one if grows,
        an_offering_that_nobody_has_is_refused if grows,
        a_server_that_is_given_back_leaves_the_listing_and_may_be_given_back_again if grows,
        giving_back_what_nobody_has_is_success if grows,
        another_store_sees_and_touches_nothing if grows,
    ]
}

async fn a_repeated_provision_yields_the_same_servers(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let before = scene.count(&*provider).await?;
    let order = scene.order(&*provider, 3).await?;
    let servers = scene.provision(&*provider, &order).await?;
    scene.listed(&*provider, &order, &servers).await?;
    ensure_eq!(scene.provision(&*provider, &order).await?, servers, "the servers of a repeated call");
    scene.listed(&*provider, &order, &servers).await?;
    ensure_eq!(scene.count(&*provider).await?, before + 3, "servers in all");
    Ok(())
}

/// The caller crashed after the call: all that is left is the operation with its checkpoints.
async fn the_next_manager_that_repeats_a_provision_gets_the_same_servers(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let before = scene.count(&*provider).await?;
    let order = scene.order(&*provider, 2).await?;
    let servers = scene.provision(&*provider, &order).await?;
    drop(provider);
    let provider = scene.next_manager().await?;
    scene.listed(&*provider, &order, &servers).await?;
    ensure_eq!(scene.provision(&*provider, &order).await?, servers, "the servers of the call of the next manager");
    ensure_eq!(scene.count(&*provider).await?, before + 2, "servers in all");
    Ok(())
}

async fn a_provision_whose_caller_is_lost_and_that_is_repeated_makes_no_second_server(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let before = scene.count(&*provider).await?;
    let mut servers = 0;
    for polls in 1..=LOSSES {
        let order = scene.order(&*provider, 1).await?;
        let ctx = order.ctx.repeated();
        let lost = abandon(order.send(&*provider, &ctx), polls).await;
        let made = scene.provision(&*provider, &order).await?;
        servers += 1;
        scene.listed(&*provider, &order, &made).await?;
        ensure_eq!(
            scene.count(&*provider).await?,
            before + servers,
            "servers after a caller was lost at place {polls}"
        );
        if !lost {
            break;
        }
    }
    Ok(())
}

/// What a provider has made durable is handed back to it; what it could not make durable, it has not made.
async fn a_provision_that_ends_at_any_checkpoint_and_is_repeated_makes_no_second_server(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let mut before = scene.count(&*provider).await?;
    for loss in [Loss::Before, Loss::After] {
        for number in 0.. {
            let order = scene.order(&*provider, 2).await?;
            let failing = order.ctx.failing_at(number, loss);
            let answer = order.send(&*provider, &failing).await;
            if failing.writes() <= number {
                // The call ended before that write, so every write has been tried.
                fulfilled(&order, answer.doing("provision")?)?;
                if number == 0 {
                    return Err(Stop::Skipped("the provider writes no checkpoint".into()));
                }
                break;
            }
            let all_well = answer.as_ref().is_ok_and(|outcomes| outcomes.iter().all(|outcome| outcome.result.is_ok()));
            ensure!(!all_well, "checkpoint {number} was not written ({loss:?}), and the call succeeded");
            let servers = scene.provision(&*provider, &order).await?;
            scene.listed(&*provider, &order, &servers).await?;
            ensure_eq!(scene.provision(&*provider, &order).await?, servers, "the servers of a third call");
            let count = scene.count(&*provider).await?;
            ensure_eq!(count, before + 2, "servers after checkpoint {number} was lost ({loss:?})");
            before = count;
        }
        before = scene.count(&*provider).await?;
    }
    Ok(())
}

async fn another_operation_is_other_servers(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let (one, two) = (scene.order(&*provider, 1).await?, scene.order(&*provider, 1).await?);
    let first = scene.provision(&*provider, &one).await?;
    let second = scene.provision(&*provider, &two).await?;
    ensure!(first.values().ne(second.values()), "two operations got the one server {first:?}");
    scene.listed(&*provider, &one, &first).await?;
    scene.listed(&*provider, &two, &second).await
}

async fn claims_succeed_and_fail_one_by_one(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let order = scene.order(&*provider, 3).await?;
    if !scene.fixture.leave_room(Some(1)).await.doing("leave room for one server")? {
        return Err(Stop::Skipped("the fixture cannot make room scarce".into()));
    }
    let made = |outcomes: &[cocktail_core::contract::ClaimOutcome]| {
        let made = outcomes.iter().filter_map(|outcome| Some((outcome.server.clone(), outcome.result.clone().ok()?)));
        made.collect::<super::scene::Servers>()
    };
    let outcomes = order.send(&*provider, &order.ctx.repeated()).await.doing("provision three where one has room")?;
    let mut named: Vec<ServerId> = outcomes.iter().map(|outcome| outcome.server.clone()).collect();
    named.sort();
    ensure_eq!(named, order.ids(), "claims that have an outcome");
    ensure_eq!(made(&outcomes).len(), 1, "claims that were fulfilled where one has room");
    scene.listed(&*provider, &order, &made(&outcomes)).await?;
    let again = order.send(&*provider, &order.ctx.repeated()).await.doing("provision again")?;
    ensure_eq!(made(&again), made(&outcomes), "claims that were fulfilled by the repeated call");
    Ok(())
}

async fn an_offering_that_nobody_has_is_refused(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let before = scene.count(&*provider).await?;
    let mut order: Order = scene.order(&*provider, 1).await?;
    order.spec.offering = "no-such-offering-anywhere".into();
    match order.send(&*provider, &order.ctx).await {
        Err(error) => {
            let fits = matches!(error.kind(), ErrorKind::InsufficientCapacity { .. }) || !error.kind().is_transient();
            ensure!(fits, "the refusal asks for the same call again: {} ({:?})", error.chain(), error.kind());
        }
        Ok(outcomes) => {
            ensure!(outcomes.iter().all(|outcome| outcome.result.is_err()), "an unknown offering was provisioned");
        }
    }
    ensure_eq!(scene.count(&*provider).await?, before, "servers in all");
    Ok(())
}

async fn a_server_that_is_given_back_leaves_the_listing_and_may_be_given_back_again(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let order = scene.order(&*provider, 2).await?;
    let mut servers = scene.provision(&*provider, &order).await?;
    scene.listed(&*provider, &order, &servers).await?;
    let (gone, stays) = (&order.ids()[..1], &order.ids()[1]);
    provider.can_terminate(&gone[0]).await.doing("ask whether it can be given back")?;
    scene.terminate(&*provider, gone).await?;
    scene.terminate(&*provider, gone).await?;
    scene.gone(&*provider, gone).await?;
    scene.terminate(&*provider, gone).await?;
    servers.remove(&gone[0]);
    scene.listed(&*provider, &order, &servers).await?;
    // One that is gone does not stand in the way of one that is not.
    scene.terminate(&*provider, &[gone[0].clone(), stays.clone()]).await?;
    scene.gone(&*provider, &order.ids()).await
}

async fn giving_back_what_nobody_has_is_success(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let before = scene.count(&*provider).await?;
    let nobody = [ServerId::new("no-such-server-anywhere")];
    let ctx = scene.giving_back();
    for reason in [TerminateReason::Empty, TerminateReason::NeverJoined, TerminateReason::Orphan] {
        provider.terminate(&ctx, &nobody, reason).await.doing("give back what nobody has")?;
    }
    provider.terminate(&ctx, &[], TerminateReason::Requested).await.doing("give back nothing")?;
    ensure_eq!(scene.count(&*provider).await?, before, "servers in all");
    Ok(())
}

/// What does not carry our tag is invisible.
async fn another_store_sees_and_touches_nothing(scene: &Scene<'_>) -> Verdict {
    let provider = scene.provider().await?;
    let order = scene.order(&*provider, 1).await?;
    let servers = scene.provision(&*provider, &order).await?;
    scene.listed(&*provider, &order, &servers).await?;
    let Some(stranger) = scene.fixture.stranger().await.doing("make the provider of another store")? else {
        return Err(Stop::Skipped("the fixture has no second store".into()));
    };
    let seen = stranger.list().await.doing("list for another store")?;
    let ours = seen.servers.iter().find(|server| servers.contains_key(&server.server));
    ensure!(ours.is_none(), "another store sees {ours:?}");
    let _missing = stranger.terminate(&scene.giving_back(), &order.ids(), TerminateReason::Orphan).await;
    ensure!(stranger.connect(&order.ids()[0]).await.is_err(), "another store can connect to a server of ours");
    scene.listed(&*provider, &order, &servers).await
}
