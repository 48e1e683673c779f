//! Snapshots, and what becomes of the turns before them.

use cocktail_core::contract::TurnRow;
use cocktail_core::error::ErrorKind;
use cocktail_core::id::Seq;

use super::{Scene, append, turn, turns};
use crate::conformance::case::{Case, Stop, Verdict, cases, ensure, ensure_eq, ensure_error};

/// Calls after which a reserve must be used up.
const RESERVES: usize = 1_000;

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        a_snapshot_takes_the_place_of_the_turns_before_it,
        turns_before_the_snapshot_are_kept_by_size,
        a_snapshot_goes_neither_back_nor_ahead,
        a_large_snapshot_comes_back_whole,
        the_reserve_can_be_used_up_and_taken_back,
    ]
}

/// Loading begins with the newest snapshot.
async fn a_snapshot_takes_the_place_of_the_turns_before_it(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 10).await?;
    store.snapshot(epoch, Seq(4), b"four".to_vec(), u64::MAX).await?;
    store.snapshot(epoch, Seq(7), b"seven".to_vec(), u64::MAX).await?;
    let loaded = store.load().await?;
    ensure_eq!(loaded.snapshot, Some((Seq(7), b"seven".to_vec())), "the snapshot");
    ensure_eq!(loaded.turns, turns(8..=10), "the turns after it");
    ensure_eq!(store.read(Seq(0), 100).await?, turns(1..=10), "the history");
    Ok(())
}

/// The newest turns up to the snapshot stay, as far as they fit; those after it stay in any case.
async fn turns_before_the_snapshot_are_kept_by_size(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 9).await?;
    let size = turn(1).bytes.len() as u64;
    store.snapshot(epoch, Seq(6), b"six".to_vec(), 3 * size + 1).await?;
    ensure_eq!(seqs(&store.read(Seq(0), 100).await?), [4, 5, 6, 7, 8, 9], "history of three turns before 6");
    store.snapshot(epoch, Seq(9), b"nine".to_vec(), 0).await?;
    ensure_eq!(store.read(Seq(0), 100).await?, Vec::new(), "history of nothing before 9");
    ensure_eq!(store.last().await?, Seq(9), "the last turn");
    ensure_error!(store.append(epoch, turn(9), &[]).await, ErrorKind::Conflict, "a turn that was dropped");
    append(&*store, epoch, 10, 12).await?;
    let loaded = store.load().await?;
    ensure_eq!(loaded.snapshot.map(|(seq, _)| seq), Some(Seq(9)), "the snapshot's position");
    ensure_eq!(seqs(&loaded.turns), [10, 11, 12], "the turns after it");
    store.snapshot(epoch, Seq(12), b"twelve".to_vec(), u64::MAX).await?;
    ensure_eq!(seqs(&store.read(Seq(0), 100).await?), [10, 11, 12], "history of all that is left");
    Ok(())
}

fn seqs(turns: &[TurnRow]) -> Vec<u64> {
    turns.iter().map(|turn| turn.seq.0).collect()
}

/// A snapshot of what is not on disk, or older than the newest, is refused.
async fn a_snapshot_goes_neither_back_nor_ahead(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 3).await?;
    store.snapshot(epoch, Seq(2), b"two".to_vec(), 0).await?;
    ensure_error!(store.snapshot(epoch, Seq(1), Vec::new(), 0).await, ErrorKind::Conflict, "an older snapshot");
    ensure_error!(store.snapshot(epoch, Seq(4), Vec::new(), 0).await, ErrorKind::Conflict, "a snapshot of the future");
    store.snapshot(epoch, Seq(2), b"again".to_vec(), 0).await?;
    ensure_eq!(store.load().await?.snapshot, Some((Seq(2), b"again".to_vec())), "the snapshot");
    Ok(())
}

/// Also one of several MiB, and a smaller one after it.
async fn a_large_snapshot_comes_back_whole(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 2).await?;
    let large: Vec<u8> = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
    store.snapshot(epoch, Seq(1), large.clone(), 0).await?;
    ensure!(store.load().await?.snapshot == Some((Seq(1), large)), "the large snapshot differs");
    store.snapshot(epoch, Seq(2), b"small".to_vec(), 0).await?;
    ensure_eq!(store.load().await?.snapshot, Some((Seq(2), b"small".to_vec())), "the snapshot");
    Ok(())
}

/// What is kept for emergencies is given piece by piece, costs nothing that is stored, and comes back.
async fn the_reserve_can_be_used_up_and_taken_back(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    append(&*store, epoch, 1, 2).await?;
    if !store.use_reserve().await? {
        return Err(Stop::Skipped("the store keeps no reserve".into()));
    }
    let mut pieces = 1;
    while store.use_reserve().await? {
        pieces += 1;
        ensure!(pieces < RESERVES, "the reserve was used {pieces} times and is not used up");
    }
    append(&*store, epoch, 3, 3).await?;
    ensure!(store.restore_reserve().await?, "the reserve does not come back where there is room");
    ensure!(store.use_reserve().await?, "the reserve that came back cannot be used");
    ensure!(store.restore_reserve().await?, "the reserve comes back only once");
    ensure_eq!(store.load().await?.turns, turns(1..=3), "the turns");
    Ok(())
}
