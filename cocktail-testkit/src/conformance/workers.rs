//! Workers for cases that run containers: what they are made from, and how to count them from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cocktail_core::contract::{Launch, Lease};
use cocktail_core::id::{ContainerId, Epoch, Generation, StoreId};
use cocktail_core::spec::Resources;

/// Variable in the environment of every worker that a case starts; its value names the start.
pub const MARK: &str = "COCKTAIL_CONFORMANCE";

/// What cases run, and what can be said about it from outside.
pub trait Workers: Send + Sync {
    /// A start of a container that runs a script for a POSIX shell: `sh -c SCRIPT`, in a folder that it can write to.
    /// The scripts use what every small system has (`sleep`, `cat`, `test`, `kill`, `stty`, `head`, `tail`).
    ///
    /// Store and epoch are those of the lease that the last connection was made with. Containers of one suite may share
    /// the folder. A case adds ports, environment and probes.
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch;

    /// How many living processes have `mark` as the value of [`MARK`] in their environment, counted without the back
    /// end's help; `None` where that cannot be done. Cases then believe what the back end says.
    fn processes(&self, mark: &str) -> Option<usize> {
        let _ = mark;
        None
    }

    /// Takes a port where containers run, as another program would, and gives it back when dropped. `None` where that
    /// cannot be done.
    fn occupy(&self) -> Option<Occupied> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).ok()?;
        let port = listener.local_addr().ok()?.port();
        Some(Occupied { port, guard: Box::new(listener) })
    }

    /// Longest that one case may take. It is no measure, only the end of waiting for what never comes.
    fn deadline(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// A port that another program has.
pub struct Occupied {
    /// The number.
    pub port: u16,
    /// Whatever holds it.
    pub guard: Box<dyn Send + Sync>,
}

impl fmt::Debug for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occupied").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Processes of this machine: most of a fixture for a back end that runs them here.
#[derive(Debug)]
pub struct LocalWorkers {
    folder: PathBuf,
    store: StoreId,
    epoch: AtomicU64,
}

impl LocalWorkers {
    /// Workers that run in `folder`, for a store with this id. Marks are told apart by the id, so two suites that run at
    /// once need two.
    pub fn new(folder: &Path, store: StoreId) -> Self {
        Self { folder: folder.to_owned(), store, epoch: AtomicU64::new(0) }
    }

    /// The lease of the next Manager. Launches carry it from now on.
    pub fn next_lease(&self) -> Lease {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let earlier = (1..epoch).map(|number| number.to_string()).collect();
        Lease { store: self.store.clone(), epoch: Epoch(epoch), key: epoch.to_string(), earlier }
    }
}

impl Workers for LocalWorkers {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        Launch {
            container: container.clone(),
            generation,
            store: self.store.clone(),
            epoch: Epoch(self.epoch.load(Ordering::SeqCst)),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("COCKTAIL_CONTAINER".to_owned(), container.to_string())]),
            env_from: Vec::new(),
            secrets: BTreeMap::new(),
            cwd: self.folder.clone(),
            user: None,
            ports: Vec::new(),
            resources: Resources::default(),
            rlimits: BTreeMap::new(),
            volumes: Vec::new(),
            probes: Vec::new(),
            worker: None,
            paused: false,
            outlives_lease: false,
            image: None,
            artifact: None,
        }
    }

    fn processes(&self, mark: &str) -> Option<usize> {
        marked_processes(mark)
    }
}

/// How many processes of this machine have `mark` as the value of [`MARK`] in their environment; `None` without `/proc`.
/// One that has ended and was not reaped yet has no environment and does not count.
pub fn marked_processes(mark: &str) -> Option<usize> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let is_marked = |pid: &str| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    Some(pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(|pid| is_marked(pid)).count())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_are_counted_by_their_mark_until_they_end() {
        let mark = format!("counted/{}", std::process::id());
        assert_eq!(marked_processes(&mark), Some(0));
        let mut child = Command::new("sleep").arg("600").env(MARK, &mark).spawn().unwrap();
        // The kernel shows the new environment a moment after the start.
        while marked_processes(&mark) != Some(1) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        while marked_processes(&mark) != Some(0) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn each_lease_descends_from_those_before_it_and_launches_carry_its_epoch() {
        let workers = LocalWorkers::new(Path::new("/"), StoreId::new("store"));
        let (first, second) = (workers.next_lease(), workers.next_lease());
        assert_eq!((second.epoch, second.earlier), (Epoch(2), vec![first.key]));
        assert_eq!(workers.launch(&ContainerId::new("a"), Generation(1), "true").epoch, Epoch(2));
    }
}
