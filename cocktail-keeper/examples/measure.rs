//! Measures a keeper: `measure spawn [N]`, `measure idle [N]`.
//!
//! `spawn` compares N starts through the socket with a bare loop of `posix_spawn` on the same command, on one and on two
//! threads; `idle` prints what a keeper with N sleeping workers costs. Build it with `--release`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program talks to whoever runs it")]

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cocktail_keeper::{
    Hello, KeeperClient, KeeperOptions,
    protocol::{Prepare, Shutdown, Start, StopPolicy},
};

fn main() {
    cocktail_keeper::init();
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: usize = args.next().map_or(1000, |count| count.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match what.as_str() {
        "spawn" => {
            for _ in 0..5 {
                let one = bare(count, 1);
                let two = bare(count, 2);
                let ours = runtime.block_on(through_a_keeper(count, false));
                let best = one.max(two);
                println!(
                    "bare 1 thread {one:.0}/s, 2 threads {two:.0}/s; keeper {ours:.0}/s = {:.2} of bare",
                    ours / best
                );
            }
        }
        "idle" => _ = runtime.block_on(through_a_keeper(count, true)),
        _ => println!("usage: measure spawn|idle [N]"),
    }
}

/// Starts a second of what std does, which is posix_spawn. Returns starts a second.
fn bare(count: usize, threads: usize) -> f64 {
    let own = ticks(std::process::id());
    let begin = Instant::now();
    let workers: Vec<thread::JoinHandle<Vec<Child>>> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                let start = || Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
                (0..count / threads).map(|_| start()).collect()
            })
        })
        .collect();
    let mut children: Vec<Child> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("{} ticks of CPU in the bare loop", ticks(std::process::id()) - own);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    rate
}

async fn through_a_keeper(count: usize, idle: bool) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let options = KeeperOptions::new(dir.path().join("run"), dir.path().join("logs"));
    cocktail_keeper::spawn(&options).unwrap();
    let hello = Hello { store: "measure".to_owned(), epoch: 1, ..Default::default() };
    let (client, _events) = KeeperClient::connect(options.socket(), hello).await.unwrap();
    let env: BTreeMap<String, String> =
        [("PATH", "/usr/bin:/bin"), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("COCKTAIL_UNIT", "web")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    let own = ticks(std::process::id());
    let begin = Instant::now();
    let starts: Vec<_> = (0..count)
        .map(|number| {
            let (client, env) = (client.clone(), env.clone());
            tokio::task::spawn(async move {
                let container = format!("w{number}");
                let prepare = Prepare { container: container.clone(), generation: 1, ports: Vec::new() };
                client.prepare(prepare).await.unwrap();
                let argv = vec!["sleep".to_owned(), if idle { "600" } else { "60" }.to_owned()];
                let start = Start { container, generation: 1, argv, env, cwd: "/".into(), ..Start::default() };
                client.start(start).await.unwrap()
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap();
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let pid = client.welcome().pid;
    println!("{} ticks of CPU in the keeper, {} here", ticks(pid), ticks(std::process::id()) - own);
    if idle {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = ticks(pid);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        for line in rollup
            .lines()
            .filter(|line| line.starts_with("Pss:") || line.starts_with("Rss:") || line.starts_with("Pss_Anon"))
        {
            println!("{line}");
        }
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        println!("{} ticks of CPU in 10 s, {threads} threads, {descriptors} descriptors", ticks(pid) - before);
        let asked = Instant::now();
        let usage = client.usage().await.unwrap();
        println!("usage of {} containers took {:?}", usage.len(), asked.elapsed());
    }
    let stop = Shutdown { kill: true, policy: StopPolicy { signal: 9, grace_ms: 0 } };
    let asked = Instant::now();
    client.shutdown(stop).await.unwrap();
    if idle {
        println!("ending all took {:?}", asked.elapsed());
    }
    rate
}

/// User and system time of a process, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
