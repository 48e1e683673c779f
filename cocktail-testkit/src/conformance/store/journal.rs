//! Turns: in order, without gaps, once each.

use std::sync::Arc;

use cocktail_core::contract::{Loaded, TurnRow};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::Seq;
use futures_util::future::join_all;

use super::{Scene, append, operation, turn, turns};
use crate::conformance::case::{Case, Verdict, cases, ensure, ensure_eq, ensure_error};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        turns_come_back_in_order,
        turns_survive_another_opening,
        a_repeated_turn_is_success_and_another_one_in_its_place_a_conflict,
        a_gap_is_a_conflict,
        a_refused_turn_leaves_nothing_in_the_ledger,
        a_large_turn_comes_back_whole,
        history_is_read_in_pieces,
        concurrent_readers_see_whole_turns,
    ]
}

/// An empty store has no turn; appended ones come back in order with their time and bytes.
async fn turns_come_back_in_order(scene: &Scene<'_>) -> Verdict {
    let store = scene.store().await?;
    ensure_eq!(store.last().await?, Seq(0), "the last turn of an empty store");
    ensure_eq!(store.load().await?, Loaded::default(), "what an empty store holds");
    let epoch = store.acquire().await?.epoch;
    append(&*store, epoch, 1, 20).await?;
    ensure_eq!(store.last().await?, Seq(20), "the last turn");
    let loaded = store.load().await?;
    ensure_eq!(loaded.snapshot, None, "the snapshot");
    ensure_eq!(loaded.turns, turns(1..=20), "the turns");
    Ok(())
}

/// Whatever a method has returned is on disk.
async fn turns_survive_another_opening(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 5).await?;
    store.snapshot(epoch, Seq(3), b"three".to_vec(), 0).await?;
    let (id, loaded) = (store.id(), store.load().await?);
    let store = scene.reopen(store).await?;
    ensure_eq!(store.id(), id, "the id");
    ensure_eq!(store.load().await?, loaded, "snapshot and turns");
    ensure_eq!(store.last().await?, Seq(5), "the last turn");
    let epoch = store.acquire().await?.epoch;
    append(&*store, epoch, 6, 7).await
}

/// A caller that lost the answer repeats the call.
async fn a_repeated_turn_is_success_and_another_one_in_its_place_a_conflict(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 3).await?;
    append(&*store, epoch, 3, 3).await?;
    append(&*store, epoch, 2, 2).await?;
    let other = TurnRow { bytes: b"other".to_vec(), ..turn(3) };
    ensure_error!(store.append(epoch, other, &[]).await, ErrorKind::Conflict, "another turn 3");
    ensure_eq!(store.load().await?.turns, turns(1..=3), "the turns");
    Ok(())
}

/// Turns have no gaps.
async fn a_gap_is_a_conflict(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    ensure_error!(store.append(epoch, turn(2), &[]).await, ErrorKind::Conflict, "turn 2 as the first one");
    append(&*store, epoch, 1, 1).await?;
    ensure_error!(store.append(epoch, turn(3), &[]).await, ErrorKind::Conflict, "turn 3 after turn 1");
    ensure_eq!(store.last().await?, Seq(1), "the last turn");
    Ok(())
}

/// A turn and its ledger rows are one transaction.
async fn a_refused_turn_leaves_nothing_in_the_ledger(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    store.append(epoch, turn(1), &[operation(1, false)]).await?;
    let rows = [operation(1, true), operation(2, false)];
    ensure_error!(store.append(epoch, turn(3), &rows).await, ErrorKind::Conflict, "turn 3 after turn 1");
    let other = TurnRow { bytes: b"other".to_vec(), ..turn(1) };
    ensure_error!(store.append(epoch, other, &rows).await, ErrorKind::Conflict, "another turn 1");
    ensure_error!(store.append(epoch.next(), turn(2), &rows).await, ErrorKind::Refused, "a turn of a future epoch");
    ensure_eq!(store.open_operations().await?, [operation(1, false)], "the open operations");
    Ok(())
}

/// A turn that claims thousands of containers is one row.
async fn a_large_turn_comes_back_whole(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    let large = TurnRow { bytes: (0..1_500_001_u32).map(|number| (number % 251) as u8).collect(), ..turn(1) };
    store.append(epoch, large.clone(), &[]).await?;
    append(&*store, epoch, 2, 2).await?;
    let store = scene.reopen(store).await?;
    let found = store.load().await?.turns;
    ensure!(found == [large, turn(2)], "the large turn or the one after it differs");
    Ok(())
}

/// `read` begins where it is told and gives at most what it is told.
async fn history_is_read_in_pieces(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 10).await?;
    ensure_eq!(store.read(Seq(4), 3).await?, turns(4..=6), "three turns from 4 on");
    ensure_eq!(store.read(Seq(9), 100).await?, turns(9..=10), "all turns from 9 on");
    ensure_eq!(store.read(Seq(11), 100).await?, Vec::new(), "turns after the last one");
    Ok(())
}

/// Reading beside writing gives what had been written when the read came.
async fn concurrent_readers_see_whole_turns(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    let calls = (1..=50_u64).map(|seq| {
        let store = Arc::clone(&store);
        async move {
            store.append(epoch, turn(seq), &[operation(seq, false)]).await?;
            let seen = store.open_operations().await?.len() as u64;
            ensure!(seen >= seq, "{seen} operations are seen after turn {seq} was written");
            Ok(())
        }
    });
    join_all(calls).await.into_iter().collect::<Verdict>()?;
    ensure_eq!(store.last().await?, Seq(50), "the last turn");
    Ok(())
}
