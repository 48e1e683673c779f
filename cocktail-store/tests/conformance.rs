//! Both stores pass the suite that every store passes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use cocktail_core::contract::Store;
use cocktail_core::error::Result;
use cocktail_core::id::StoreId;
use cocktail_store::{MemoryStore, RedbStore};
use cocktail_testkit::conformance::{self, StoreFixture};
use tempfile::TempDir;

/// Stores in memory live as long as their value, so that one that is opened again is the same value.
#[derive(Default)]
struct Memory {
    made: AtomicU32,
}

#[async_trait]
impl StoreFixture for Memory {
    async fn create(&self) -> Result<Arc<dyn Store>> {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(MemoryStore::new(StoreId::new(format!("memory-{number}")))))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        Ok(store)
    }
}

/// Stores in folders. A case opens again only the one that it made last.
struct Files {
    folders: TempDir,
    made: AtomicU32,
}

impl Files {
    fn last(&self) -> PathBuf {
        self.folders.path().join(self.made.load(Ordering::SeqCst).to_string())
    }
}

#[async_trait]
impl StoreFixture for Files {
    async fn create(&self) -> Result<Arc<dyn Store>> {
        self.made.fetch_add(1, Ordering::SeqCst);
        fs::create_dir(self.last()).unwrap();
        Ok(Arc::new(RedbStore::open(&self.last())?))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        drop(store);
        Ok(Arc::new(RedbStore::open(&self.last())?))
    }
}

#[tokio::test]
async fn the_memory_store_passes_the_suite() {
    let report = conformance::store("the memory store", &Memory::default()).await;
    report.assert_passed(&["store/the_reserve_can_be_used_up_and_taken_back"]);
}

#[tokio::test]
async fn the_redb_store_passes_the_suite() {
    let fixture = Files { folders: tempfile::tempdir().unwrap(), made: AtomicU32::new(0) };
    conformance::store("the redb store", &fixture).await.assert_passed(&[]);
}
