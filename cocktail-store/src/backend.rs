//! The file below redb: grown in allocated steps, locked, and honest about what has failed.
//!
//! redb grows its file by doubling, without allocating; a full disk would then be met in the middle of a commit. Here
//! room is allocated a step before it is written, so that a full disk is met at the allocation, with nothing written.
//! [`Health`] survives the database that it watched, and says whether a sync has failed: then the page cache may hold
//! what the disk does not, and it is dropped before the file is read again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

/// Room that is allocated at once. Small enough that the last MiB of a disk is still of use.
const STEP: u64 = 256 << 10;

/// What is known about the file beyond the life of one database on it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    sync_failed: AtomicBool,
    /// Injected failures, for tests.
    #[cfg(test)]
    pub(crate) faults: Faults,
}

impl Health {
    /// Whether a sync has failed since the last call.
    fn take_sync_failed(&self) -> bool {
        self.sync_failed.swap(false, Ordering::AcqRel)
    }
}

/// The file of a store, as redb sees it.
#[derive(Debug)]
pub(crate) struct Backend {
    file: File,
    health: Arc<Health>,
    /// Steps that are known to be allocated since this file was opened.
    allocated: Mutex<BTreeSet<u64>>,
    /// Cleared where the file system cannot allocate ahead.
    allocates: AtomicBool,
}

impl Backend {
    /// Opens the file; makes it where `create` says so and it is missing.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it open.
    pub(crate) fn open(path: &Path, create: bool, health: Arc<Health>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            std::fs::TryLockError::Error(error) => error,
        })?;
        if health.take_sync_failed() {
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(Self::over(file, health))
    }

    /// Takes a file that is nobody else's.
    pub(crate) fn over(file: File, health: Arc<Health>) -> Self {
        Self { file, health, allocated: Mutex::new(BTreeSet::new()), allocates: AtomicBool::new(true) }
    }

    /// Makes sure that a write to this range meets no full disk.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || !self.allocates.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        for step in offset / STEP..=(offset + len - 1) / STEP {
            if allocated.contains(&step) {
                continue;
            }
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, step * STEP, STEP) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.allocates.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            allocated.insert(step);
        }
        Ok(())
    }

    #[cfg(test)]
    fn fault(&self, op: Op) -> io::Result<()> {
        self.health.faults.meet(op)
    }
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests inject failures")]
    fn fault(&self, _op: Op) -> io::Result<()> {
        Ok(())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.fault(Op::Read)?;
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault(Op::SetLen)?;
        self.file.set_len(len)?;
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.retain(|step| (step + 1) * STEP <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault(Op::Sync).and_then(|()| self.file.sync_data()).inspect_err(|_| {
            self.health.sync_failed.store(true, Ordering::Release);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.allocate(offset, data.len() as u64)?;
        self.fault(Op::Write)?;
        self.file.write_all_at(data, offset)
    }

    fn close(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

/// What a failure can be injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    SetLen,
    Sync,
    Write,
}

/// A plan of failures: after `skip` operations of one kind, `count` of them fail.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Mutex<Option<Fault>>,
}

#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) op: Op,
    pub(crate) skip: u32,
    pub(crate) count: u32,
    pub(crate) errno: Errno,
}

#[cfg(test)]
impl Faults {
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.plan.lock().expect("no test panics while it holds the plan") = fault;
    }

    /// Whether everything that was planned has happened.
    pub(crate) fn spent(&self) -> bool {
        self.plan.lock().expect("no test panics while it holds the plan").is_none_or(|fault| fault.count == 0)
    }

    fn meet(&self, op: Op) -> io::Result<()> {
        let mut plan = self.plan.lock().expect("no test panics while it holds the plan");
        let Some(fault) = plan.as_mut().filter(|fault| fault.op == op && fault.count > 0) else { return Ok(()) };
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        fault.count -= 1;
        Err(fault.errno.into())
    }
}
