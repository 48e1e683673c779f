//! A Manager in this process, with the socket that other commands reach it through.
//!
//! Start at [`Daemon::start`]; end with [`Daemon::stop`], which is a method and no destructor because it waits and can
//! fail. `manager.pid` and `cocktail.sock` exist exactly as long as it runs; a crash leaves them behind, and the next
//! one replaces them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cocktail_api::Api;
use cocktail_core::contract::{Manager, ShutdownMode};
use cocktail_core::error::{Error, Result};
use cocktail_core::settings::Settings;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};

/// A running Manager and its socket.
pub(crate) struct Daemon {
    manager: Arc<dyn Manager>,
    /// Completes when the Manager has ended by itself: by a command from elsewhere, or because it lost its lease.
    ended: BoxFuture<'static, Result<()>>,
    stop_api: oneshot::Sender<()>,
    api: JoinHandle<()>,
    files: Vec<PathBuf>,
}

/// A Manager that was started, and its end.
struct Started {
    manager: Arc<dyn Manager>,
    ended: BoxFuture<'static, Result<()>>,
}

/// Starts a Manager over a data dir.
async fn build(dir: &Path, settings: Settings) -> Result<Started> {
    let _ = (dir, settings);
    Err(Error::unexpected("this build has no Manager"))
}

impl Daemon {
    /// Starts a Manager for a data dir and answers on its socket. With `background`, `down` will end it.
    ///
    /// # Errors
    /// Another Manager has the data dir; the store belongs to another machine or version; the socket cannot be made.
    pub(crate) async fn start(dir: &DataDir, settings: Settings, background: bool) -> Outcome<Self> {
        dir.make()?;
        let Started { manager, ended } = build(dir.path(), settings).await?;
        // The Manager holds the lock on the data dir now, so that a socket or pid that is found is a dead one's.
        let api = match Api::bind(&dir.socket()).await {
            Ok(api) => api,
            Err(error) => {
                let _ = manager.shutdown(ShutdownMode::Leave).await;
                return Err(error.into());
            }
        };
        let (stop_api, stopped) = oneshot::channel();
        let serving = api.run(Arc::clone(&manager), async {
            // A sender that was dropped means the same.
            let _ = stopped.await;
        });
        let api = tokio::spawn(serving);
        let mut daemon = Self { manager, ended, stop_api, api, files: Vec::new() };
        let mut files = vec![dir.pid_file()];
        files.extend(background.then(|| dir.background_file()));
        for file in files {
            if let Err(error) = write_pid(&file) {
                let failure = Failure::Failed(format!("cannot write {}: {error}", file.display()));
                daemon.stop(ShutdownMode::Leave).await?;
                return Err(failure);
            }
            daemon.files.push(file);
        }
        if !background {
            let _ = fs::remove_file(dir.background_file());
        }
        Ok(daemon)
    }

    /// The Manager.
    pub(crate) fn manager(&self) -> Arc<dyn Manager> {
        Arc::clone(&self.manager)
    }

    /// Returns when the Manager has ended without [`Daemon::stop`].
    ///
    /// # Errors
    /// It lost its lease or cannot go on.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        (&mut self.ended).await
    }

    /// Ends the Manager, then the socket, and removes the files that say that it runs. A Manager that has ended
    /// already is no error.
    ///
    /// # Errors
    /// What the Manager could not finish; the socket and the files are gone all the same.
    pub(crate) async fn stop(self, mode: ShutdownMode) -> Outcome {
        let outcome = self.manager.shutdown(mode).await;
        let _ = self.stop_api.send(());
        let _ = self.api.await;
        for file in self.files {
            let _ = fs::remove_file(file);
        }
        Ok(outcome?)
    }
}

/// Writes our process id so that nobody reads half of it.
fn write_pid(file: &Path) -> io::Result<()> {
    let part = file.with_extension("new");
    fs::write(&part, format!("{}\n", std::process::id()))?;
    fs::rename(part, file)
}
