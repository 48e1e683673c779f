//! What was acknowledged survives kill -9 at any moment.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics where it fails, and its child reports")]

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cocktail_core::contract::{Store, TurnRow};
use cocktail_core::id::Seq;
use cocktail_core::time::WallTime;
use cocktail_store::{DataDir, RedbStore};

/// Set for the child, which is this test started once more.
const CHILD: &str = "COCKTAIL_TEST_STORE";

#[tokio::test]
async fn every_acknowledged_turn_survives_kill_nine_without_a_gap() {
    if let Some(path) = env::var_os(CHILD) {
        return append_for_ever(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    // Each round ends at another point of the child's work.
    for round in 1..=8 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "every_acknowledged_turn_survives_kill_nine_without_a_gap", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: String| {
            if let Some(seq) = line.strip_prefix("acknowledged ") {
                acknowledged = seq.parse().unwrap();
            }
        };
        lines.by_ref().take(20 + round * 17).for_each(&mut note);
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts as well.
        lines.for_each(&mut note);

        let store = RedbStore::open(DataDir::open(folder.path(), false).unwrap().path()).unwrap();
        let last = store.last().await.unwrap().0;
        assert!(last >= acknowledged, "turn {acknowledged} was acknowledged, {last} is the last");
        let loaded = store.load().await.unwrap();
        let from = loaded.snapshot.map_or(0, |(seq, _)| seq.0);
        let seqs: Vec<u64> = loaded.turns.iter().map(|turn| turn.seq.0).collect();
        assert_eq!(seqs, (from + 1..=last).collect::<Vec<_>>());
        assert!(loaded.turns.iter().all(|turn| turn.bytes == bytes(turn.seq.0)));
    }
    assert!(acknowledged > 100, "{acknowledged} turns were acknowledged in all rounds");
}

async fn append_for_ever(path: &Path) {
    let dir = DataDir::open(path, false).unwrap();
    let store = RedbStore::open(dir.path()).unwrap();
    let epoch = store.acquire().await.unwrap().epoch;
    let mut seq = store.last().await.unwrap();
    loop {
        seq = seq.next();
        store.append(epoch, TurnRow { seq, at: WallTime(0), bytes: bytes(seq.0) }, &[]).await.unwrap();
        println!("acknowledged {seq}");
        if seq.0.is_multiple_of(50) {
            store.snapshot(epoch, Seq(seq.0 - 3), vec![1; 200_000], 20_000).await.unwrap();
        }
    }
}

/// Between one byte and a few pages.
fn bytes(seq: u64) -> Vec<u8> {
    vec![seq as u8; 1 + (seq * 7_919 % 9_000) as usize]
}
