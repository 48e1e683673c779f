//! Opening the store's file, and making it.
//!
//! [`open`] checks the whole file, so that damage is found here and not in the middle of a turn.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use cocktail_core::id::{Epoch, Seq, StoreId};
use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use crate::backend::{Backend, Health};
use crate::error::Failure;
use crate::schema::{self, CHECKPOINTS, JOURNAL, JournalRow, LEDGER, META, SNAPSHOT, meta};

/// One more than the number that any piece of a snapshot has: the end of a snapshot whose end is not written down.
pub(crate) const EVERY: u64 = 1 << 32;

/// Pages that redb keeps in memory. The journal is written once and read at the start, so more would not help.
const CACHE: usize = 2 << 20;

/// An open database, and what is known about its content.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) database: Database,
    pub(crate) facts: Facts,
}

/// What is read once when the file is opened. Only this process writes it, so it stays true.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) id: StoreId,
    pub(crate) epoch: Epoch,
    /// Keys of the last leases, oldest first.
    pub(crate) leases: Vec<String>,
    /// The last turn on disk.
    pub(crate) last: Seq,
    /// Bytes of all turns up to it.
    pub(crate) end: u64,
    /// The turn that the snapshot was made after.
    pub(crate) snapshot: Option<Seq>,
    /// Its pieces.
    pub(crate) pieces: Range<u64>,
}

/// Runs work on redb; a panic in it is damage that redb did not expect.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Failure::Damaged(text.unwrap_or("its content is impossible").to_owned()))
    })
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    // A file that was altered is then reported; trusting it could end in a panic later.
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Opens an existing file, checks it, and reads the facts.
pub(crate) fn open(path: &Path, health: &Arc<Health>) -> Result<Open, Failure> {
    let backend = Backend::open(path, false, Arc::clone(health)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Failure::InUse,
        _ => Failure::Disk(error),
    })?;
    open_backend(backend)
}

/// [`open`] for a file that is open already.
pub(crate) fn open_backend(backend: Backend) -> Result<Open, Failure> {
    if redb::StorageBackend::len(&backend).map_err(Failure::Disk)? == 0 {
        return Err(Failure::Damaged("it is empty".into()));
    }
    guarded(|| {
        let database = builder().create_with_backend(backend)?;
        let facts = read_facts(&database)?;
        Ok(Open { database, facts })
    })
}

fn read_facts(database: &Database) -> Result<Facts, Failure> {
    let txn = database.begin_read()?;
    let table = txn.open_table(META)?;
    let value =
        |key: &str| -> Result<Option<Vec<u8>>, Failure> { Ok(table.get(key)?.map(|value| value.value().to_vec())) };
    let text = |key: &str| -> Result<String, Failure> {
        let bytes = value(key)?.ok_or_else(|| Failure::Damaged(format!("it has no {key}")))?;
        String::from_utf8(bytes).map_err(|_| Failure::Damaged(format!("its {key} is no text")))
    };
    let number = |key: &str| value(key)?.map(|bytes| schema::number(&bytes)).transpose();

    let schema = number(meta::SCHEMA)?.ok_or_else(|| Failure::Damaged("it has no schema".into()))?;
    if schema > schema::SCHEMA {
        return Err(Failure::Answer(schema::newer(schema, &text(meta::READ_BY)?)));
    }
    let snapshot = number(meta::SNAPSHOT)?.map(Seq);
    let journal = txn.open_table(JOURNAL)?;
    let (seq, end) = match journal.last()? {
        Some((seq, row)) => (Seq(seq.value()), JournalRow::decode(row.value())?.end),
        None => (Seq(0), 0),
    };
    Ok(Facts {
        id: StoreId::new(text(meta::STORE)?),
        epoch: Epoch(number(meta::EPOCH)?.unwrap_or(0)),
        leases: value(meta::LEASES)?.map(|bytes| schema::decode_leases(&bytes)).transpose()?.unwrap_or_default(),
        last: seq.max(snapshot.unwrap_or_default()),
        end,
        snapshot,
        pieces: number(meta::FIRST_PIECE)?.unwrap_or(0)..number(meta::END_PIECE)?.unwrap_or(EVERY),
    })
}

/// Makes a new store under another name, and gives it its name when it is whole: a file that is there is never half
/// made, so that an empty one is known to be damaged.
pub(crate) fn create(path: &Path, health: &Arc<Health>) -> Result<(), Failure> {
    let draft = path.with_extension("redb.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::Disk(error)),
        _ => {}
    }
    let id = schema::mint()?;
    let backend = Backend::open(&draft, true, Arc::clone(health)).map_err(Failure::Disk)?;
    guarded(|| {
        let database = builder().create_with_backend(backend)?;
        let txn = database.begin_write()?;
        {
            let mut table = txn.open_table(META)?;
            table.insert(meta::SCHEMA, schema::SCHEMA.to_le_bytes().as_slice())?;
            table.insert(meta::READ_BY, schema::READ_BY.as_bytes())?;
            table.insert(meta::STORE, id.as_str().as_bytes())?;
            table.insert(meta::EPOCH, 0_u64.to_le_bytes().as_slice())?;
            txn.open_table(JOURNAL)?;
            txn.open_table(SNAPSHOT)?;
            txn.open_table(LEDGER)?;
            txn.open_table(CHECKPOINTS)?;
        }
        txn.commit()?;
        database.close()?;
        Ok(())
    })?;
    let named = fs::rename(&draft, path).and_then(|()| sync_folder(path));
    named.map_err(Failure::Disk)
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
