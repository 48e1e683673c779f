//! What an agent remembers over its own death and its machine's: a file of memos in its folder.
//!
//! Each memo is a line of JSON, synced before anything else is done; a line that was cut off by a crash was never acted on.
//! When an agent starts it writes the file anew, from what the memos say together.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cocktail_core::contract::Lease;
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{Epoch, StoreId};
use cocktail_core::session::{AgentMemory, BootId, Memo};
use serde::{Deserialize, Serialize};

/// Name of the file below the folder.
const FILE: &str = "memory.jsonl";
/// Memos after which the file is written anew.
const MANY: usize = 50_000;
/// Starts of agents before this one whose keeper it may take over.
const EARLIER: u64 = 1_024;

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    /// Made with the file: a folder that was lost or copied is another memory.
    id: String,
    /// Where the engine of its containers listens; none where it runs programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    memory: AgentMemory,
}

/// The file, and what it says.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    head: Head,
    file: File,
    memos: usize,
}

impl Memory {
    /// Opens the memory in an agent's folder, which the caller holds the lock of; makes it at the first time, for an agent
    /// that runs programs, or images on the `engine` at that URL. It stays with that: nobody would guard what runs elsewhere.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be read or written; `Unexpected` when it is no memory; `InvalidConfig` when it is that of
    /// an agent that runs something else.
    pub fn open(dir: &Path, engine: Option<&str>) -> Result<Self> {
        let path = dir.join(FILE);
        let shown = path.display().to_string();
        let head = match std::fs::read_to_string(&path) {
            Ok(text) => read(&text).ok_or_else(|| Error::unexpected(format!("{shown} is no memory of an agent")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let engine = engine.map(str::to_owned);
                Head { id: random_id()?, engine, memory: AgentMemory::default() }
            }
            Err(error) => return Err(Error::unavailable(format!("{shown} cannot be read")).because(error)),
        };
        if head.engine.as_deref() != engine {
            let what = |engine: Option<&str>| match engine {
                Some(url) => format!("images on the engine at {url}"),
                None => "programs".to_owned(),
            };
            let (was, is) = (what(head.engine.as_deref()), what(engine));
            let folder = dir.display();
            let message = format!("the folder {folder} is of an agent that runs {was}, and this one would run {is}");
            return Err(Error::invalid(format!("{message}: take another data dir, and join anew")));
        }
        let file = write_anew(&path, &head).map_err(|error| unwritable(&path, error))?;
        Ok(Self { path, head, file, memos: 0 })
    }

    /// What is remembered.
    pub fn memory(&self) -> &AgentMemory {
        &self.head.memory
    }

    /// This boot of this machine with this memory.
    ///
    /// # Errors
    /// `Unavailable` when the kernel does not say which boot it is.
    pub fn boot(&self) -> Result<BootId> {
        let path = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(path);
        let boot = boot.map_err(|error| Error::unavailable(format!("{path} cannot be read")).because(error))?;
        Ok(BootId::new(format!("{}/{}", boot.trim(), self.head.id)))
    }

    /// By which right this start of the agent commands what outlived earlier ones.
    pub fn lease(&self) -> Lease {
        let start = self.head.memory.starts + 1;
        let earlier = (start.saturating_sub(EARLIER)..start).map(|start| start.to_string()).collect();
        let store = StoreId::new(format!("agent-{}", self.head.id));
        Lease { store, epoch: Epoch(start), key: start.to_string(), earlier }
    }

    /// Remembers more. Durable when it returns.
    ///
    /// # Errors
    /// `Unavailable` when the disk does not take it: nothing that rests on it may be done.
    pub fn remember(&mut self, memos: &[Memo]) -> Result<()> {
        if memos.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for memo in memos {
            serde_json::to_writer(&mut text, memo)
                .map_err(|error| Error::unexpected("a memo is no JSON").because(error))?;
            text.push(b'\n');
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| unwritable(&self.path, error))?;
        for memo in memos {
            self.head.memory.apply(memo.clone());
        }
        self.memos += memos.len();
        if self.memos > MANY {
            self.file = write_anew(&self.path, &self.head).map_err(|error| unwritable(&self.path, error))?;
            self.memos = 0;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("{} cannot be written", path.display())).because(error)
}

/// Everything that the lines say. The last may be cut off; one before it may not.
fn read(text: &str) -> Option<Head> {
    let mut lines = text.split_inclusive('\n');
    let mut head: Head = serde_json::from_str(lines.next()?).ok()?;
    for line in lines.filter(|line| line.ends_with('\n')) {
        head.memory.apply(serde_json::from_str(line).ok()?);
    }
    Some(head)
}

fn write_anew(path: &Path, head: &Head) -> std::io::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut text = serde_json::to_vec(head)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(data_encoding::HEXLOWER.encode(&bytes)),
        _ => Err(Error::unavailable("the system gives no random numbers")),
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::id::{ContainerId, Generation};

    use super::*;

    fn mark(container: &str, generation: u64) -> Memo {
        Memo::Mark(ContainerId::new(container), Generation(generation))
    }

    #[test]
    fn what_was_remembered_is_there_after_a_death_and_what_was_cut_off_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(dir.path(), None).unwrap();
        memory.remember(&[Memo::Start(1), mark("web-1", 3)]).unwrap();
        memory.remember(&[mark("web-2", 1)]).unwrap();
        let (before, boot) = (memory.memory().clone(), memory.boot().unwrap());
        drop(memory);
        let path = dir.path().join(FILE);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"mark\":[\"web-3\",");
        std::fs::write(&path, text).unwrap();
        let memory = Memory::open(dir.path(), None).unwrap();
        assert_eq!((memory.memory(), memory.boot().unwrap()), (&before, boot));
        assert_eq!(memory.lease().epoch, Epoch(2));
        assert!(memory.lease().earlier.contains(&"1".to_owned()), "it takes over what the last start left");
    }

    #[test]
    fn a_folder_stays_with_what_its_agent_runs_and_where() {
        let (programs, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Memory::open(programs.path(), None).unwrap();
        Memory::open(images.path(), Some("unix:///a")).unwrap();
        Memory::open(images.path(), Some("unix:///a")).unwrap();
        for (dir, engine) in [(&programs, Some("unix:///a")), (&images, None), (&images, Some("unix:///b"))] {
            let refused = Memory::open(dir.path(), engine).unwrap_err();
            assert!(refused.to_string().contains("take another data dir"), "{refused}");
        }
    }

    #[test]
    fn a_memory_that_was_lost_is_another_one_and_a_broken_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Memory::open(dir.path(), None).unwrap().boot().unwrap();
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_ne!(Memory::open(dir.path(), None).unwrap().boot().unwrap(), first);
        std::fs::write(dir.path().join(FILE), "nonsense\n").unwrap();
        assert!(Memory::open(dir.path(), None).unwrap_err().to_string().contains("is no memory of an agent"));
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), "nonsense\n", "nothing is overwritten");
    }
}
