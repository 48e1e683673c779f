//! A disk that is full, for real: a small tmpfs.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocktail_core::contract::{Store, TurnRow};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{Epoch, Seq};
use cocktail_core::time::WallTime;
use cocktail_store::{DataDir, RedbStore};
use tempfile::TempDir;

/// A tmpfs of that size, unmounted at the end.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=0700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(status.unwrap().success());
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all but about `spare` bytes.
    fn fill(&self, spare: u64) -> PathBuf {
        let path = self.path().join("other");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(spare)).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _left_mounted = Command::new("umount").arg(self.folder.path()).status();
    }
}

fn turn(seq: u64, size: usize) -> TurnRow {
    TurnRow { seq: Seq(seq), at: WallTime(0), bytes: vec![seq as u8; size] }
}

/// Appends until it is refused; the last turn that was taken.
async fn append_until_full(store: &RedbStore, epoch: Epoch, mut last: u64, size: usize) -> u64 {
    for _ in 0..10_000 {
        match store.append(epoch, turn(last + 1, size), &[]).await {
            Ok(()) => last += 1,
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Unavailable, "{}", error.chain());
                assert!(error.message().contains("is full"), "{}", error.chain());
                assert_eq!(store.last().await.unwrap(), Seq(last), "nothing of it was written");
                return last;
            }
        }
    }
    panic!("the disk is never full");
}

async fn assert_whole(store: &RedbStore, last: u64) {
    let seqs: Vec<u64> = store.load().await.unwrap().turns.iter().map(|turn| turn.seq.0).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_store_recovers_when_there_is_room() {
    xtask::skip_if!(NoTmpfsMount);
    let disk = SmallDisk::mount("24m");
    let dir = DataDir::open(disk.path(), true).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    // Sizes below, at and above a page, so that the file's end is met at different moments.
    for size in [100, 3_000, 70_000] {
        let last = store.last().await.unwrap().0;
        let other = disk.fill(64 << 10);
        let last = append_until_full(&store, epoch, last, size).await;
        assert_whole(&store, last).await;
        fs::remove_file(other).unwrap();
        store.append(epoch, turn(last + 1, size), &[]).await.unwrap();
        assert_whole(&store, last + 1).await;
    }
}

#[tokio::test]
async fn the_reserve_lets_restarts_be_recorded_on_a_full_disk_and_comes_back_later() {
    xtask::skip_if!(NoTmpfsMount);
    let disk = SmallDisk::mount("24m");
    let dir = DataDir::open(disk.path(), true).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    let other = disk.fill(0);
    let last = append_until_full(&store, epoch, 0, 2_000).await;
    for seq in last + 1..=last + 300 {
        while store.append(epoch, turn(seq, 2_000), &[]).await.is_err() {
            assert!(store.use_reserve().await.unwrap(), "the reserve does not suffice for turn {seq}");
        }
    }
    assert!(!store.restore_reserve().await.unwrap(), "there is no room for it");
    fs::remove_file(other).unwrap();
    assert!(store.restore_reserve().await.unwrap());
    assert_whole(&store, last + 300).await;
}

#[tokio::test]
async fn the_file_growing_into_a_full_disk_is_survived() {
    xtask::skip_if!(NoTmpfsMount);
    // redb doubles its file: this disk cannot hold the next doubling, and is filled to its end.
    let disk = SmallDisk::mount("13m");
    let dir = DataDir::open(disk.path(), true).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    let last = append_until_full(&store, epoch, 0, 50_000).await;
    assert!(last > 100, "{last} turns fit");
    assert_whole(&store, last).await;
    // A snapshot that drops turns makes room inside the file, once the reserve lets it be written.
    while store.use_reserve().await.unwrap() {}
    store.snapshot(epoch, Seq(last), vec![1; 100_000], 0).await.unwrap();
    for seq in last + 1..=last + 20 {
        store.append(epoch, turn(seq, 50_000), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_manager_can_start_on_a_full_disk() {
    xtask::skip_if!(NoTmpfsMount);
    let disk = SmallDisk::mount("24m");
    let dir = DataDir::open(disk.path(), true).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    store.append(epoch, turn(1, 1_000), &[]).await.unwrap();
    drop((store, dir));
    // A copy that was not closed: redb has to check it, and may want to write for that.
    disk.fill(0);
    let dir = DataDir::open(disk.path(), false).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    assert_eq!(store.last().await.unwrap(), Seq(1));
    let epoch = match store.acquire().await {
        Ok(lease) => lease.epoch,
        Err(error) => {
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{}", error.chain());
            assert!(store.use_reserve().await.unwrap());
            store.acquire().await.unwrap().epoch
        }
    };
    assert_eq!(epoch, Epoch(2));
}

#[tokio::test]
async fn a_store_cannot_be_made_on_a_full_disk_and_can_afterwards() {
    xtask::skip_if!(NoTmpfsMount);
    let disk = SmallDisk::mount("1m");
    let dir = DataDir::open(disk.path(), true).unwrap();
    let other = disk.fill(0);
    let error = RedbStore::open(dir.path()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    fs::remove_file(other).unwrap();
    assert_eq!(RedbStore::open(dir.path()).unwrap().last().await.unwrap(), Seq(0));
}
