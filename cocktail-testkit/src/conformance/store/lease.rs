//! The lease: one writer at a time, and where it comes from.

use std::collections::BTreeSet;
use std::sync::Arc;

use cocktail_core::contract::{REMEMBERED_LEASES, Store};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{Epoch, OperationId, Seq};
use futures_util::future::join_all;

use super::{Scene, append, checkpoint, operation, turn, turns};
use crate::conformance::case::{Case, Verdict, cases, ensure, ensure_eq, ensure_error};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        each_store_has_an_id_of_its_own,
        an_older_epoch_writes_nothing,
        an_older_epoch_writes_nothing_after_another_opening,
        an_epoch_that_was_never_given_out_is_refused,
        a_lease_knows_the_leases_before_it,
        leases_survive_another_opening,
        leases_that_are_taken_at_once_differ,
    ]
}

/// The id names one store.
async fn each_store_has_an_id_of_its_own(scene: &Scene<'_>) -> Verdict {
    let (one, two) = (scene.store().await?, scene.store().await?);
    ensure!(!one.id().as_str().is_empty(), "the id is empty");
    ensure!(one.id() != two.id(), "two stores have the id {}", one.id());
    ensure_eq!(one.id(), one.id(), "the id of a store");
    Ok(())
}

/// Every method that writes refuses this epoch, and nothing is changed by it.
async fn refuses(store: &dyn Store, epoch: Epoch) -> Verdict {
    let (last, loaded) = (store.last().await?, store.load().await?);
    let (open, checkpoints) = (store.open_operations().await?, store.checkpoints(OperationId(1)).await?);
    let next = store.append(epoch, turn(last.0 + 1), &[operation(9, false)]).await;
    ensure_error!(next, ErrorKind::Refused, "a new turn with epoch {epoch}");
    // Even what is there already: its holder must not go on believing that it writes.
    let again = store.append(epoch, turn(last.0), &[]).await;
    ensure_error!(again, ErrorKind::Refused, "a turn that is there, with epoch {epoch}");
    let snapshot = store.snapshot(epoch, last, b"stale".to_vec(), 0).await;
    ensure_error!(snapshot, ErrorKind::Refused, "a snapshot with epoch {epoch}");
    for number in [1, 9] {
        let written = store.checkpoint(epoch, OperationId(number), checkpoint(1, "stale")).await;
        ensure_error!(written, ErrorKind::Refused, "a checkpoint of operation {number} with epoch {epoch}");
    }
    ensure_eq!((store.last().await?, store.load().await?), (last, loaded), "the journal after what was refused");
    ensure_eq!(store.open_operations().await?, open, "the ledger after what was refused");
    ensure_eq!(store.checkpoints(OperationId(1)).await?, checkpoints, "the checkpoints after what was refused");
    ensure_eq!(store.checkpoints(OperationId(9)).await?, [], "the checkpoints of an operation that was refused");
    Ok(())
}

/// A store with something of everything in it.
async fn filled(scene: &Scene<'_>) -> Verdict<(Arc<dyn Store>, Epoch)> {
    let (store, epoch) = scene.leased().await?;
    store.append(epoch, turn(1), &[operation(1, false)]).await?;
    store.checkpoint(epoch, OperationId(1), checkpoint(1, "a")).await?;
    store.snapshot(epoch, Seq(1), b"one".to_vec(), u64::MAX).await?;
    append(&*store, epoch, 2, 3).await?;
    Ok((store, epoch))
}

/// Who lost the lease can write nothing of any sort.
async fn an_older_epoch_writes_nothing(scene: &Scene<'_>) -> Verdict {
    let (store, older) = filled(scene).await?;
    let newer = store.acquire().await?.epoch;
    ensure_eq!(newer, older.next(), "the epoch of the second lease");
    refuses(&*store, older).await?;
    append(&*store, newer, 4, 4).await?;
    refuses(&*store, older).await
}

/// The epoch is as durable as what it guards.
async fn an_older_epoch_writes_nothing_after_another_opening(scene: &Scene<'_>) -> Verdict {
    let (store, older) = filled(scene).await?;
    let newer = store.acquire().await?.epoch;
    let store = scene.reopen(store).await?;
    refuses(&*store, older).await?;
    append(&*store, newer, 4, 4).await?;
    ensure_eq!(store.load().await?.turns, turns(2..=4), "the turns after the snapshot");
    Ok(())
}

/// An epoch comes from this store.
async fn an_epoch_that_was_never_given_out_is_refused(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = filled(scene).await?;
    refuses(&*store, epoch.next()).await?;
    append(&*store, epoch, 4, 4).await
}

/// Keys are new each time, come back in order, and the oldest of very many are forgotten.
async fn a_lease_knows_the_leases_before_it(scene: &Scene<'_>) -> Verdict {
    let store = scene.store().await?;
    let mut keys: Vec<String> = Vec::new();
    for number in 1..=REMEMBERED_LEASES as u64 + 2 {
        let lease = store.acquire().await?;
        ensure_eq!((&lease.store, lease.epoch), (&store.id(), Epoch(number)), "store and epoch of a lease");
        ensure!(!lease.key.is_empty() && !keys.contains(&lease.key), "the key {:?} is not new", lease.key);
        ensure_eq!(lease.earlier, keys[keys.len().saturating_sub(REMEMBERED_LEASES)..], "the keys before it");
        keys.push(lease.key);
    }
    let other = scene.store().await?.acquire().await?.key;
    ensure!(!keys.contains(&other), "another store makes the same key {other:?}");
    Ok(())
}

/// A copy of a store is told from the store by the keys, so they are durable.
async fn leases_survive_another_opening(scene: &Scene<'_>) -> Verdict {
    let mut store = scene.store().await?;
    let mut keys: Vec<String> = Vec::new();
    for number in 1..=4 {
        let lease = store.acquire().await?;
        ensure_eq!(lease.epoch, Epoch(number), "the epoch after {} openings", number - 1);
        ensure_eq!(lease.earlier, keys, "the keys before it");
        keys.push(lease.key);
        store = scene.reopen(store).await?;
    }
    Ok(())
}

/// Each call takes another lease.
async fn leases_that_are_taken_at_once_differ(scene: &Scene<'_>) -> Verdict {
    let store = scene.store().await?;
    let leases = join_all((0..8).map(|_| store.acquire())).await;
    let leases = leases.into_iter().collect::<Result<Vec<_>, _>>()?;
    let epochs: BTreeSet<u64> = leases.iter().map(|lease| lease.epoch.0).collect();
    ensure_eq!(epochs, (1..=8).collect::<BTreeSet<u64>>(), "the epochs");
    for lease in &leases {
        ensure_eq!(lease.earlier.len() as u64 + 1, lease.epoch.0, "leases up to epoch {}", lease.epoch);
        let earlier = leases.iter().filter(|other| other.epoch < lease.epoch);
        ensure!(earlier.into_iter().all(|other| lease.earlier.contains(&other.key)), "a key before it is missing");
    }
    Ok(())
}
