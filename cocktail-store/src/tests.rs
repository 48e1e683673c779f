//! What only a file can suffer. What every store must do is in `tests/conformance.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cocktail_core::contract::{Store, TurnRow};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{Epoch, Seq, StoreId};
use cocktail_core::time::WallTime;
use redb::ReadableDatabase;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::backend::{Fault, Health, Op};
use crate::engine::Engine;
use crate::reserve::{self, Reserve};
use crate::schema::{META, PIECE, meta};
use crate::{DataDir, MemoryStore, RedbStore, StoreCopy};

/// A turn whose bytes follow from its position.
fn turn(seq: u64) -> TurnRow {
    TurnRow { seq: Seq(seq), at: WallTime(1_000 * i64::try_from(seq).unwrap()), bytes: format!("turn {seq}").into() }
}

/// Appends turns `from..=to`.
async fn append(store: &dyn Store, epoch: Epoch, from: u64, to: u64) {
    for seq in from..=to {
        store.append(epoch, turn(seq), &[]).await.unwrap();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn everything_survives_closing_and_opening() {
    let folder = folder();
    let store = RedbStore::open(folder.path()).unwrap();
    let (id, epoch) = (store.id(), store.acquire().await.unwrap().epoch);
    append(&store, epoch, 1, 5).await;
    store.snapshot(epoch, Seq(3), b"three".to_vec(), 0).await.unwrap();
    let loaded = store.load().await.unwrap();
    drop(store);
    let store = RedbStore::open(folder.path()).unwrap();
    assert_eq!((store.id(), store.load().await.unwrap()), (id, loaded));
    assert_eq!(store.acquire().await.unwrap().epoch, epoch.next());
    append(&store, epoch.next(), 6, 7).await;
}

#[tokio::test]
async fn the_id_is_128_random_bits_as_a_name() {
    let (one, two) = (folder(), folder());
    let ids = [one.path(), two.path()].map(|path| RedbStore::open(path).unwrap().id());
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        assert_eq!(id.as_str().len(), 26);
        assert!(cocktail_core::name::Name::new(id.as_str()).is_ok());
    }
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused() {
    let folder = folder();
    let _first = RedbStore::open(folder.path()).unwrap();
    let error = RedbStore::open(folder.path()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused, "{}", error.chain());
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_the_version_that_reads_it() {
    let folder = folder();
    drop(RedbStore::open(folder.path()).unwrap());
    let database = redb::Database::open(folder.path().join("store.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(meta::SCHEMA, 7_u64.to_le_bytes().as_slice()).unwrap();
    txn.open_table(META).unwrap().insert(meta::READ_BY, b"0.9.0".as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let error = RedbStore::open(folder.path()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("schema 7") && error.message().contains("run cocktail 0.9.0"), "{error}");
    // The refusal changed nothing.
    let database = redb::Database::open(folder.path().join("store.redb")).unwrap();
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.open_table(META).unwrap().get(meta::SCHEMA).unwrap().unwrap().value(), 7_u64.to_le_bytes());
}

/// The engine on a file of its own, with ten turns.
fn engine(folder: &Path) -> (Engine, Epoch) {
    let reserve = Reserve::new(folder.join(reserve::FILE));
    let mut engine = Engine::open(folder.join("store.redb"), reserve, Arc::default()).unwrap();
    let epoch = engine.acquire().unwrap().epoch;
    for seq in 1..=10 {
        engine.append(epoch, &turn(seq), &[]).unwrap();
    }
    (engine, epoch)
}

fn snapshot_of(engine: &mut Engine) -> Option<(Seq, Vec<u8>)> {
    engine.load().unwrap().snapshot
}

#[test]
fn a_snapshot_counts_once_it_is_whole_and_turns_come_between_its_pieces() {
    let folder = folder();
    let (mut engine, epoch) = engine(folder.path());
    let (old, new) = (vec![1; 3 * PIECE], vec![2; 2 * PIECE + 5]);
    let pieces = engine.begin_snapshot(epoch, Seq(3), old.len()).unwrap();
    engine.write_pieces(epoch, pieces.start, &old).unwrap();
    engine.append(epoch, &turn(11), &[]).unwrap();
    assert_eq!(snapshot_of(&mut engine), None);
    engine.finish_snapshot(epoch, Seq(3), pieces).unwrap();
    assert_eq!(snapshot_of(&mut engine), Some((Seq(3), old.clone())));

    // One that nobody finishes is forgotten by the next one.
    let left = engine.begin_snapshot(epoch, Seq(5), 9 * PIECE).unwrap();
    engine.write_pieces(epoch, left.start, &vec![9; 4 * PIECE]).unwrap();
    engine.close();
    assert_eq!(snapshot_of(&mut engine), Some((Seq(3), old)));
    let pieces = engine.begin_snapshot(epoch, Seq(11), new.len()).unwrap();
    engine.write_pieces(epoch, pieces.start, &new[..PIECE]).unwrap();
    engine.write_pieces(epoch, pieces.start + 1, &new[PIECE..]).unwrap();
    engine.finish_snapshot(epoch, Seq(11), pieces).unwrap();
    assert_eq!(snapshot_of(&mut engine), Some((Seq(11), new.clone())));
    let error = engine.finish_snapshot(epoch, Seq(5), left).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "an older one came late: {}", error.chain());
    let mut rounds = 1;
    while engine.forget_pieces(epoch, 2).unwrap() {
        rounds += 1;
    }
    assert_eq!(rounds, 3, "three of the first snapshot and one that was left over, two at a time");
    assert_eq!(snapshot_of(&mut engine), Some((Seq(11), new)));
}

#[test]
fn a_snapshot_of_an_older_version_counts_until_the_next_one_is_whole() {
    let folder = folder();
    let (mut engine, epoch) = engine(folder.path());
    let old = vec![1; 2 * PIECE];
    let pieces = engine.begin_snapshot(epoch, Seq(3), old.len()).unwrap();
    engine.write_pieces(epoch, pieces.start, &old).unwrap();
    engine.finish_snapshot(epoch, Seq(3), pieces).unwrap();
    engine.close();
    let database = redb::Database::open(folder.path().join("store.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    for key in [meta::FIRST_PIECE, meta::END_PIECE] {
        txn.open_table(META).unwrap().remove(key).unwrap();
    }
    txn.commit().unwrap();
    drop(database);
    assert_eq!(snapshot_of(&mut engine), Some((Seq(3), old.clone())));
    let pieces = engine.begin_snapshot(epoch, Seq(5), 5).unwrap();
    engine.write_pieces(epoch, pieces.start, b"newer").unwrap();
    engine.close();
    assert_eq!(snapshot_of(&mut engine), Some((Seq(3), old)));
    engine.finish_snapshot(epoch, Seq(5), pieces).unwrap();
    assert_eq!(snapshot_of(&mut engine), Some((Seq(5), b"newer".to_vec())));
}

#[test]
fn what_is_too_old_is_dropped_in_steps() {
    let folder = folder();
    let (mut engine, epoch) = engine(folder.path());
    let mut left = Vec::new();
    while engine.drop_old(epoch, Seq(9), 0, 4).unwrap() {
        left.push(engine.turns(Seq(0), usize::MAX).unwrap().len());
    }
    assert_eq!(left, [6, 2]);
    assert_eq!(engine.turns(Seq(0), usize::MAX).unwrap(), [turn(10)]);
}

async fn filled(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&store, epoch, 1, 200).await;
    store.snapshot(epoch, Seq(100), vec![7; 300_000], u64::MAX).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_a_sentence_wherever_the_damage_is() {
    let sound = folder();
    filled(sound.path()).await;
    let bytes = fs::read(sound.path().join("store.redb")).unwrap();
    let damages: Vec<(String, Vec<u8>)> = [0, 1, 100, 4096, 5000, bytes.len() / 2, bytes.len() - 1]
        .map(|len| (format!("cut to {len}"), bytes[..len].to_vec()))
        .into_iter()
        .chain((0..bytes.len()).step_by(bytes.len() / 60).map(|at| {
            let mut damaged = bytes.clone();
            damaged[at..].iter_mut().take(3000).for_each(|byte| *byte ^= 0x5a);
            (format!("changed at {at}"), damaged)
        }))
        .chain([(
            "garbage".to_owned(),
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        )])
        .collect();
    let mut found = 0;
    for (what, damaged) in damages {
        let folder = folder();
        fs::write(folder.path().join("store.redb"), damaged).unwrap();
        match RedbStore::open(folder.path()) {
            // Damage in a page that holds nothing hurts nobody, but then all must be there.
            Ok(store) => assert_eq!(store.load().await.unwrap().turns.len(), 100, "{what}"),
            Err(error) => {
                found += 1;
                assert_eq!(*error.kind(), ErrorKind::Unexpected, "{what}: {}", error.chain());
                assert!(error.message().contains("damaged"), "{what}: {error}");
            }
        }
    }
    assert!(found > 10, "{found} damages were found");
}

#[tokio::test]
async fn a_store_that_was_not_finished_is_made_anew() {
    let folder = folder();
    fs::write(folder.path().join("store.redb.new"), b"half").unwrap();
    let store = RedbStore::open(folder.path()).unwrap();
    assert_eq!(store.last().await.unwrap(), Seq(0));
    assert!(!folder.path().join("store.redb.new").exists());
}

/// Fails every operation of every kind in turn, and proves after each that the store goes on by itself.
#[tokio::test]
async fn a_failing_disk_loses_nothing_at_any_step() {
    for (op, errno) in
        [(Op::Write, Errno::NOSPC), (Op::Sync, Errno::IO), (Op::SetLen, Errno::NOSPC), (Op::Write, Errno::IO)]
    {
        for count in [1, 3] {
            let mut skip = 0;
            loop {
                let folder = folder();
                let health = Arc::new(Health::default());
                let store = RedbStore::open_with(folder.path(), Arc::clone(&health)).unwrap();
                let epoch = store.acquire().await.unwrap().epoch;
                append(&store, epoch, 1, 3).await;
                health.faults.set(Some(Fault { op, skip, count, errno }));
                // Long enough to make the file grow.
                let mut large = turn(4);
                large.bytes = vec![4; 700_000];
                let mut attempts = 0;
                while let Err(error) = store.append(epoch, large.clone(), &[]).await {
                    attempts += 1;
                    assert!(attempts <= 10, "{op:?} {skip}: it does not recover: {}", error.chain());
                    match (error.kind(), store.last().await) {
                        (ErrorKind::Unavailable, Ok(last)) => assert_eq!(last, Seq(3), "{op:?} {skip}"),
                        (ErrorKind::OutcomeUnknown, Ok(last)) => assert!(last >= Seq(3), "{op:?} {skip}"),
                        (ErrorKind::Unavailable | ErrorKind::OutcomeUnknown, Err(_)) => {}
                        (kind, _) => panic!("{op:?} {skip}: {kind:?} {}", error.chain()),
                    }
                }
                let spent = health.faults.spent();
                health.faults.set(None);
                append(&store, epoch, 5, 6).await;
                let seqs: Vec<u64> = store.load().await.unwrap().turns.iter().map(|turn| turn.seq.0).collect();
                assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "{op:?} {skip}");
                if !spent {
                    break;
                }
                skip += 1;
            }
            assert!(skip > 0, "{op:?} was never met");
        }
    }
}

#[tokio::test]
async fn the_reserve_is_real_and_can_be_given_up_and_taken_back() {
    let folder = folder();
    let store = RedbStore::open(folder.path()).unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(folder.path().join("ballast")).unwrap());
    assert!(blocks() * 512 >= 4 << 20);
    let whole = blocks();
    assert!(store.use_reserve().await.unwrap());
    assert!((1..whole).contains(&blocks()), "a part of it is left");
    while store.use_reserve().await.unwrap() {}
    assert!(!folder.path().join("ballast").exists());
    assert!(store.restore_reserve().await.unwrap());
    assert!(store.restore_reserve().await.unwrap());
    assert!(blocks() * 512 >= 4 << 20);
}

#[test]
fn a_data_dir_is_made_for_its_owner_alone_and_holds_its_pid_while_open() {
    let folder = folder();
    let path = folder.path().join("a/b");
    assert_eq!(*DataDir::open(&path, false).unwrap_err().kind(), ErrorKind::NotFound);
    let dir = DataDir::open(&path, true).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(dir.pid_file()).unwrap(), format!("{}\n", std::process::id()));
    let pid_file = dir.pid_file();
    drop(dir);
    assert!(!pid_file.exists());
    DataDir::open(&path, false).unwrap();
}

#[test]
fn a_second_manager_hears_the_pid_of_the_first() {
    let folder = folder();
    let first = DataDir::open(folder.path(), true).unwrap();
    let error = DataDir::open(folder.path(), true).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Refused);
    assert!(error.message().contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(first.pid_file().exists(), "the second attempt took nothing away");
}

#[test]
fn a_folder_that_is_open_to_others_is_closed_when_empty_and_refused_when_not() {
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let (empty, used) = (folder(), folder());
    open(empty.path());
    drop(DataDir::open(empty.path(), true).unwrap());
    assert_eq!(fs::metadata(empty.path()).unwrap().permissions().mode() & 0o777, 0o700);
    open(used.path());
    fs::write(used.path().join("x"), "").unwrap();
    let error = DataDir::open(used.path(), true).unwrap_err();
    assert!(error.message().contains("mode 755") && error.message().contains("chmod 700"), "{error}");
}

#[test]
fn a_folder_that_others_may_only_pass_through_is_taken_as_it_is() {
    let folder = folder();
    fs::write(folder.path().join("x"), "").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    drop(DataDir::open(folder.path(), true).unwrap());
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o711);
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_with_the_length() {
    let folder = folder();
    let error = DataDir::open(&folder.path().join("x".repeat(100)), true).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error.message().contains("too long for a socket") && error.message().contains("91 are possible"),
        "{error}"
    );
}

#[test]
fn a_file_is_no_data_dir() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(DataDir::open(&folder.path().join("file"), true).is_err());
    assert!(DataDir::open(&folder.path().join("file"), false).unwrap_err().message().contains("not a folder"));
}

#[test]
fn a_child_does_not_inherit_the_lock() {
    let folder = folder();
    let dir = DataDir::open(folder.path(), true).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    drop(dir);
    let again = DataDir::open(folder.path(), true).map(drop);
    child.kill().unwrap();
    child.wait().unwrap();
    again.unwrap();
}

#[tokio::test]
async fn a_memory_store_can_be_made_to_fail() {
    let store = MemoryStore::new(StoreId::new("memory"));
    let epoch = store.acquire().await.unwrap().epoch;
    store.fail_writes(Some(ErrorKind::Unavailable));
    assert_eq!(*store.append(epoch, turn(1), &[]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.fail_writes(None);
    append(&store, epoch, 1, 1).await;
}

/// Every file of a folder with its content and times.
fn content(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_copy_shows_what_is_stored_and_changes_nothing() {
    let folder = folder();
    let store = RedbStore::open(folder.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    append(&store, epoch, 1, 5).await;
    store.snapshot(epoch, Seq(3), b"three".to_vec(), u64::MAX).await.unwrap();
    let (loaded, rows) = (store.load().await.unwrap(), store.read(Seq(2), 2).await.unwrap());
    for killed in [false, true] {
        if killed {
            // As a Manager that was killed leaves it: never closed.
            let left = fs::read(folder.path().join("store.redb")).unwrap();
            fs::remove_file(folder.path().join("store.redb")).unwrap();
            fs::write(folder.path().join("store.redb"), left).unwrap();
        }
        let before = content(folder.path());
        let copy = StoreCopy::of(folder.path()).unwrap();
        assert_eq!(copy.id(), store.id());
        assert_eq!(copy.load().unwrap(), loaded, "killed: {killed}");
        assert_eq!(copy.turns(Seq(2), 2).unwrap(), rows);
        drop(copy);
        assert!(content(folder.path()) == before, "killed: {killed}: a file was changed");
    }
}

#[tokio::test]
async fn a_copy_is_whole_while_turns_are_appended() {
    let folder = folder();
    let store = RedbStore::open(folder.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let copies = {
        let (path, stop) = (folder.path().to_owned(), stop.clone());
        std::thread::spawn(move || {
            let copied: Vec<_> =
                (0..20).map(|_| StoreCopy::of(&path).and_then(|copy| copy.turns(Seq(1), usize::MAX))).collect();
            stop.store(true, std::sync::atomic::Ordering::Release);
            copied
        })
    };
    let mut last = 0;
    while !stop.load(std::sync::atomic::Ordering::Acquire) {
        last += 1;
        append(&store, epoch, last, last).await;
    }
    for rows in copies.join().unwrap() {
        let rows = rows.unwrap();
        assert!(rows.iter().zip(1..).all(|(row, seq)| row.seq == Seq(seq)), "a turn is missing from {}", rows.len());
    }
}

#[test]
fn a_copy_of_no_store_or_of_a_damaged_one_is_refused() {
    let folder = folder();
    assert_eq!(*StoreCopy::of(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
    fs::write(folder.path().join("store.redb"), "this is no store").unwrap();
    let file = fs::File::options().write(true).open(folder.path().join("store.redb")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let old = StoreCopy::of(folder.path()).unwrap_err();
    assert_eq!(*old.kind(), ErrorKind::Unexpected);
    assert!(old.to_string().contains("damaged") && old.to_string().contains("store.redb"), "{old}");
}
