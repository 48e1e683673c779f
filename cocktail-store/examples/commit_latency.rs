//! How long a synced commit takes on the disk below a folder: `commit_latency [FOLDER]`.
//!
//! Prints the median and the 99th percentile of turns of 2 KiB, one after the other, and the memory that the process
//! holds at the end.

#![expect(clippy::print_stdout, reason = "an example reports to people")]

use std::time::Instant;

use cocktail_core::contract::{Store, TurnRow};
use cocktail_core::time::WallTime;
use cocktail_store::{DataDir, RedbStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let dir = DataDir::open(folder.path(), true)?;
    let store = RedbStore::open(dir.path())?;
    let epoch = store.acquire().await?.epoch;
    let mut seq = store.last().await?;
    let mut times = Vec::new();
    for _ in 0..4_000 {
        seq = seq.next();
        let started = Instant::now();
        store.append(epoch, TurnRow { seq, at: WallTime(0), bytes: vec![7; 2_048] }, &[]).await?;
        times.push(started.elapsed());
    }
    times.sort();
    println!(
        "{} commits: median {:?}, 99th percentile {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"))
        .for_each(|line| println!("{line}"));
    Ok(())
}
