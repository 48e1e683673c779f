//! Operations and their checkpoints.

use cocktail_core::id::{OperationId, Seq};

use super::{Scene, checkpoint, operation, turn};
use crate::conformance::case::{Case, Verdict, cases, ensure_eq};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        open_operations_are_those_not_ended,
        ended_operations_leave_with_their_turns,
        checkpoints_come_in_the_order_of_steps_and_replace_each_other,
        open_operations_and_checkpoints_are_handed_to_the_next_manager,
    ]
}

/// The ledger keeps one row per operation, the newest.
async fn open_operations_are_those_not_ended(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    store.append(epoch, turn(1), &[operation(1, false), operation(2, false)]).await?;
    store.append(epoch, turn(2), &[operation(1, true), operation(3, false)]).await?;
    ensure_eq!(store.open_operations().await?, [operation(2, false), operation(3, false)], "the open operations");
    Ok(())
}

/// Retention takes ended operations and their checkpoints, and never an open one.
async fn ended_operations_leave_with_their_turns(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    store.append(epoch, turn(1), &[operation(1, false), operation(2, false)]).await?;
    for number in [1, 2] {
        store.checkpoint(epoch, OperationId(number), checkpoint(1, "a")).await?;
    }
    store.append(epoch, turn(2), &[operation(1, true)]).await?;
    let one = [checkpoint(1, "a")];
    store.snapshot(epoch, Seq(1), Vec::new(), 0).await?;
    ensure_eq!(store.checkpoints(OperationId(1)).await?, one, "checkpoints of 1, whose last turn is still there");
    store.snapshot(epoch, Seq(2), Vec::new(), 0).await?;
    ensure_eq!(store.checkpoints(OperationId(1)).await?, [], "checkpoints of 1, whose turns were dropped");
    ensure_eq!(store.checkpoints(OperationId(2)).await?, one, "checkpoints of 2, which is open");
    ensure_eq!(store.open_operations().await?, [operation(2, false)], "the open operations");
    Ok(())
}

/// A step that is written again replaces itself; operations do not mix.
async fn checkpoints_come_in_the_order_of_steps_and_replace_each_other(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    for (step, at) in [(300, "c"), (1, "a"), (2, "b"), (1, "again")] {
        store.checkpoint(epoch, OperationId(7), checkpoint(step, at)).await?;
    }
    store.checkpoint(epoch, OperationId(8), checkpoint(1, "other")).await?;
    let expected = [checkpoint(1, "again"), checkpoint(2, "b"), checkpoint(300, "c")];
    ensure_eq!(store.checkpoints(OperationId(7)).await?, expected, "checkpoints of 7");
    ensure_eq!(store.checkpoints(OperationId(9)).await?, [], "checkpoints of 9");
    Ok(())
}

/// What a Manager began, the next one goes on with.
async fn open_operations_and_checkpoints_are_handed_to_the_next_manager(scene: &Scene<'_>) -> Verdict {
    let (store, epoch) = scene.leased().await?;
    store.append(epoch, turn(1), &[operation(1, false), operation(2, false), operation(3, true)]).await?;
    for (step, at) in [(2, "b"), (1, "a")] {
        store.checkpoint(epoch, OperationId(1), checkpoint(step, at)).await?;
    }
    let store = scene.reopen(store).await?;
    let epoch = store.acquire().await?.epoch;
    ensure_eq!(store.open_operations().await?, [operation(1, false), operation(2, false)], "the open operations");
    let expected = [checkpoint(1, "a"), checkpoint(2, "b")];
    ensure_eq!(store.checkpoints(OperationId(1)).await?, expected, "the checkpoints of 1");
    store.checkpoint(epoch, OperationId(1), checkpoint(2, "later")).await?;
    let store = scene.reopen(store).await?;
    let expected = [checkpoint(1, "a"), checkpoint(2, "later")];
    ensure_eq!(store.checkpoints(OperationId(1)).await?, expected, "the checkpoints of 1, one of them replaced");
    Ok(())
}
