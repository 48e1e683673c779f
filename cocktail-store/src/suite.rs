//! What every store must do, as cases that take any store.
//!
//! Run [`run`] with a function that makes an empty store. Each case panics with what it expected.

#![expect(clippy::unwrap_used, reason = "a failing case panics")]

use std::sync::Arc;

use cocktail_core::contract::{Checkpoint, LedgerRow, REMEMBERED_LEASES, Store, TurnRow};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::id::{Epoch, OperationId, Seq};
use cocktail_core::time::WallTime;
use serde_json::json;

type Make<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// A turn whose bytes follow from its position.
pub fn turn(seq: u64) -> TurnRow {
    TurnRow { seq: Seq(seq), at: WallTime(1_000 * i64::try_from(seq).unwrap()), bytes: format!("turn {seq}").into() }
}

/// Appends turns `from..=to`.
pub async fn append(store: &dyn Store, epoch: Epoch, from: u64, to: u64) {
    for seq in from..=to {
        store.append(epoch, turn(seq), &[]).await.unwrap();
    }
}

/// All cases, one after the other, each on a store of its own.
pub async fn run(make: Make<'_>) {
    turns_come_back_in_order(make).await;
    a_repeated_turn_is_success_and_another_one_in_its_place_a_conflict(make).await;
    a_gap_is_a_conflict(make).await;
    an_older_epoch_writes_nothing(make).await;
    an_epoch_that_was_never_given_out_is_refused(make).await;
    a_lease_knows_the_leases_before_it(make).await;
    a_snapshot_takes_the_place_of_the_turns_before_it(make).await;
    turns_before_the_snapshot_are_kept_by_size(make).await;
    a_snapshot_goes_neither_back_nor_ahead(make).await;
    a_large_snapshot_comes_back_whole(make).await;
    history_is_read_in_pieces(make).await;
    open_operations_are_those_not_ended(make).await;
    ended_operations_leave_with_their_turns(make).await;
    checkpoints_come_in_the_order_of_steps_and_replace_each_other(make).await;
    concurrent_readers_see_whole_turns(make).await;
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind().clone()
}

fn operation(number: u64, ended: bool) -> LedgerRow {
    LedgerRow { operation: OperationId(number), ended, bytes: format!("operation {number}").into() }
}

fn checkpoint(step: u32, at: &str) -> Checkpoint {
    Checkpoint { step, name: format!("step {step}"), data: json!({ "poll": at }) }
}

/// An empty store has no turn; appended ones come back in order with their time and bytes.
pub async fn turns_come_back_in_order(make: Make<'_>) {
    let store = make();
    assert_eq!(store.last().await.unwrap(), Seq(0));
    assert_eq!(store.load().await.unwrap(), cocktail_core::contract::Loaded::default());
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 20).await;
    assert_eq!(store.last().await.unwrap(), Seq(20));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.snapshot, None);
    assert_eq!(loaded.turns, (1..=20).map(turn).collect::<Vec<_>>());
}

/// A caller that lost the answer repeats the call.
pub async fn a_repeated_turn_is_success_and_another_one_in_its_place_a_conflict(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 3).await;
    store.append(epoch, turn(3), &[]).await.unwrap();
    store.append(epoch, turn(2), &[]).await.unwrap();
    let other = TurnRow { bytes: b"other".to_vec(), ..turn(3) };
    assert_eq!(kind(store.append(epoch, other, &[]).await), ErrorKind::Conflict);
    assert_eq!(store.load().await.unwrap().turns, (1..=3).map(turn).collect::<Vec<_>>());
}

/// Turns have no gaps.
pub async fn a_gap_is_a_conflict(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    assert_eq!(kind(store.append(epoch, turn(2), &[]).await), ErrorKind::Conflict);
    append(&*store, epoch, 1, 1).await;
    assert_eq!(kind(store.append(epoch, turn(3), &[]).await), ErrorKind::Conflict);
    assert_eq!(store.last().await.unwrap(), Seq(1));
}

/// Who lost the lease can write nothing of any sort.
pub async fn an_older_epoch_writes_nothing(make: Make<'_>) {
    let store = make();
    let older = store.acquire().await.unwrap().epoch;
    append(&*store, older, 1, 1).await;
    let newer = store.acquire().await.unwrap().epoch;
    assert_eq!(newer, older.next());
    assert_eq!(kind(store.append(older, turn(2), &[operation(1, false)]).await), ErrorKind::Refused);
    // Even what is there already: its holder must not go on believing that it writes.
    assert_eq!(kind(store.append(older, turn(1), &[]).await), ErrorKind::Refused);
    assert_eq!(kind(store.snapshot(older, Seq(1), Vec::new(), 0).await), ErrorKind::Refused);
    assert_eq!(kind(store.checkpoint(older, OperationId(1), checkpoint(1, "a")).await), ErrorKind::Refused);
    assert_eq!(store.last().await.unwrap(), Seq(1));
    assert!(store.open_operations().await.unwrap().is_empty());
    append(&*store, newer, 2, 2).await;
}

/// An epoch comes from this store.
pub async fn an_epoch_that_was_never_given_out_is_refused(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    assert_eq!(kind(store.append(epoch.next(), turn(1), &[]).await), ErrorKind::Refused);
}

/// Keys are new each time, come back in order, and the oldest of very many are forgotten.
pub async fn a_lease_knows_the_leases_before_it(make: Make<'_>) {
    let store = make();
    let mut keys: Vec<String> = Vec::new();
    for number in 1..=REMEMBERED_LEASES as u64 + 2 {
        let lease = store.acquire().await.unwrap();
        assert_eq!((&lease.store, lease.epoch), (&store.id(), Epoch(number)));
        assert!(!lease.key.is_empty() && !keys.contains(&lease.key), "{:?} is not new", lease.key);
        assert_eq!(lease.earlier, keys[keys.len().saturating_sub(REMEMBERED_LEASES)..]);
        keys.push(lease.key);
    }
    assert_ne!(make().acquire().await.unwrap().key, keys[0], "another store makes other keys");
}

/// Loading begins with the newest snapshot.
pub async fn a_snapshot_takes_the_place_of_the_turns_before_it(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 10).await;
    store.snapshot(epoch, Seq(4), b"four".to_vec(), u64::MAX).await.unwrap();
    store.snapshot(epoch, Seq(7), b"seven".to_vec(), u64::MAX).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.snapshot, Some((Seq(7), b"seven".to_vec())));
    assert_eq!(loaded.turns, (8..=10).map(turn).collect::<Vec<_>>());
    // History is still there.
    assert_eq!(store.read(Seq(0), 100).await.unwrap().len(), 10);
}

/// The newest turns up to the snapshot stay, as far as they fit; those after it stay in any case.
pub async fn turns_before_the_snapshot_are_kept_by_size(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 9).await;
    let size = turn(1).bytes.len() as u64;
    store.snapshot(epoch, Seq(6), b"six".to_vec(), 3 * size + 1).await.unwrap();
    let seqs = |turns: Vec<TurnRow>| turns.iter().map(|turn| turn.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(store.read(Seq(0), 100).await.unwrap()), [4, 5, 6, 7, 8, 9]);
    store.snapshot(epoch, Seq(9), b"nine".to_vec(), 0).await.unwrap();
    assert!(store.read(Seq(0), 100).await.unwrap().is_empty());
    assert_eq!(store.last().await.unwrap(), Seq(9));
    assert_eq!(kind(store.append(epoch, turn(9), &[]).await), ErrorKind::Conflict);
    append(&*store, epoch, 10, 12).await;
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.snapshot.unwrap().0, seqs(loaded.turns)), (Seq(9), vec![10, 11, 12]));
    store.snapshot(epoch, Seq(12), b"twelve".to_vec(), u64::MAX).await.unwrap();
    assert_eq!(seqs(store.read(Seq(0), 100).await.unwrap()), [10, 11, 12]);
}

/// A snapshot of what is not on disk, or older than the newest, is refused.
pub async fn a_snapshot_goes_neither_back_nor_ahead(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 3).await;
    store.snapshot(epoch, Seq(2), b"two".to_vec(), 0).await.unwrap();
    assert_eq!(kind(store.snapshot(epoch, Seq(1), Vec::new(), 0).await), ErrorKind::Conflict);
    assert_eq!(kind(store.snapshot(epoch, Seq(4), Vec::new(), 0).await), ErrorKind::Conflict);
    store.snapshot(epoch, Seq(2), b"again".to_vec(), 0).await.unwrap();
    assert_eq!(store.load().await.unwrap().snapshot, Some((Seq(2), b"again".to_vec())));
}

/// Also one of several MiB, and a smaller one after it.
pub async fn a_large_snapshot_comes_back_whole(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 2).await;
    let large: Vec<u8> = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
    store.snapshot(epoch, Seq(1), large.clone(), 0).await.unwrap();
    assert!(store.load().await.unwrap().snapshot == Some((Seq(1), large)), "the large snapshot differs");
    store.snapshot(epoch, Seq(2), b"small".to_vec(), 0).await.unwrap();
    assert_eq!(store.load().await.unwrap().snapshot, Some((Seq(2), b"small".to_vec())));
}

/// `read` begins where it is told and gives at most what it is told.
pub async fn history_is_read_in_pieces(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&*store, epoch, 1, 10).await;
    assert_eq!(store.read(Seq(4), 3).await.unwrap(), [turn(4), turn(5), turn(6)]);
    assert_eq!(store.read(Seq(9), 100).await.unwrap(), [turn(9), turn(10)]);
    assert!(store.read(Seq(11), 100).await.unwrap().is_empty());
}

/// The ledger keeps one row per operation, the newest.
pub async fn open_operations_are_those_not_ended(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    store.append(epoch, turn(1), &[operation(1, false), operation(2, false)]).await.unwrap();
    store.append(epoch, turn(2), &[operation(1, true), operation(3, false)]).await.unwrap();
    assert_eq!(store.open_operations().await.unwrap(), [operation(2, false), operation(3, false)]);
}

/// Retention takes ended operations and their checkpoints, and never an open one.
pub async fn ended_operations_leave_with_their_turns(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    store.append(epoch, turn(1), &[operation(1, false), operation(2, false)]).await.unwrap();
    for number in [1, 2] {
        store.checkpoint(epoch, OperationId(number), checkpoint(1, "a")).await.unwrap();
    }
    store.append(epoch, turn(2), &[operation(1, true)]).await.unwrap();
    store.snapshot(epoch, Seq(1), Vec::new(), 0).await.unwrap();
    assert_eq!(store.checkpoints(OperationId(1)).await.unwrap().len(), 1, "turn 2 is still there");
    store.snapshot(epoch, Seq(2), Vec::new(), 0).await.unwrap();
    assert!(store.checkpoints(OperationId(1)).await.unwrap().is_empty());
    assert_eq!(store.checkpoints(OperationId(2)).await.unwrap().len(), 1);
    assert_eq!(store.open_operations().await.unwrap(), [operation(2, false)]);
}

/// A step that is written again replaces itself; operations do not mix.
pub async fn checkpoints_come_in_the_order_of_steps_and_replace_each_other(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    for (step, at) in [(300, "c"), (1, "a"), (2, "b"), (1, "again")] {
        store.checkpoint(epoch, OperationId(7), checkpoint(step, at)).await.unwrap();
    }
    store.checkpoint(epoch, OperationId(8), checkpoint(1, "other")).await.unwrap();
    let expected = [checkpoint(1, "again"), checkpoint(2, "b"), checkpoint(300, "c")];
    assert_eq!(store.checkpoints(OperationId(7)).await.unwrap(), expected);
    assert!(store.checkpoints(OperationId(9)).await.unwrap().is_empty());
}

/// Reading beside writing gives what had been written when the read came.
pub async fn concurrent_readers_see_whole_turns(make: Make<'_>) {
    let store = make();
    let epoch = store.acquire().await.unwrap().epoch;
    let calls = (1..=50).map(|seq| {
        let store = Arc::clone(&store);
        async move {
            store.append(epoch, turn(seq), &[operation(seq, false)]).await.unwrap();
            assert!(store.open_operations().await.unwrap().len() >= usize::try_from(seq).unwrap());
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(store.last().await.unwrap(), Seq(50));
}
