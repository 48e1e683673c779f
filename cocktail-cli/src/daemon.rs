//! A Manager in this process, with the socket that other commands reach it through.
//!
//! Start at [`Daemon::start`]; end with [`Daemon::stop`], which is a method and no destructor because it waits and can
//! fail. `manager.pid` and `cocktail.sock` exist exactly as long as it runs; a crash leaves them behind, and the next
//! one replaces them.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cocktail::{Cocktail, Ended};
use cocktail_api::{Api, MetricsListener};
use cocktail_core::contract::{Manager, ShutdownMode};
use cocktail_core::settings::Settings;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};

/// A running Manager and its socket.
pub(crate) struct Daemon {
    cocktail: Cocktail,
    stop_api: oneshot::Sender<()>,
    api: JoinHandle<()>,
    metrics: Option<Metrics>,
    /// The file that says that `up -d` started it.
    background: Option<PathBuf>,
}

/// Where Prometheus asks.
struct Metrics {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Daemon {
    /// Starts a Manager for a data dir and answers on its socket. With `background`, `down` will end it.
    ///
    /// # Errors
    /// Another Manager has the data dir; what runs belongs to another store; the socket cannot be made; somebody else
    /// listens where the metrics should be.
    pub(crate) async fn start(dir: &DataDir, settings: Settings, background: bool) -> Outcome<Self> {
        // First, because a refusal costs nothing yet.
        let metrics = match settings.metrics {
            Some(address) => Some(MetricsListener::bind(address).await?),
            None => None,
        };
        let cocktail = Cocktail::builder().data_dir(dir.path()).settings(settings).start().await?;
        // The Manager holds the lock on the data dir now, so that a socket that is found is a dead one's.
        let api = match Api::bind(&dir.socket()).await {
            Ok(api) => api,
            Err(error) => {
                let _ = cocktail.shutdown(ShutdownMode::Leave).await;
                return Err(error.into());
            }
        };
        let (stop_api, stopped) = oneshot::channel();
        let api = tokio::spawn(api.run(cocktail.manager(), async {
            // A sender that was dropped means the same.
            let _ = stopped.await;
        }));
        let metrics = metrics.map(|listener| {
            let address = listener.address();
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(listener.run(cocktail.manager(), async {
                let _ = stopped.await;
            }));
            Metrics { address, stop, task }
        });
        let mut daemon = Self { cocktail, stop_api, api, metrics, background: None };
        let mark = dir.background_file();
        if background {
            daemon.background = Some(mark.clone());
            if let Err(error) = fs::write(&mark, format!("{}\n", std::process::id())) {
                daemon.stop(ShutdownMode::Leave).await?;
                return Err(Failure::Failed(format!("cannot write {}: {error}", mark.display())));
            }
        } else {
            // One that a crash left behind.
            let _ = fs::remove_file(mark);
        }
        Ok(daemon)
    }

    /// The Manager.
    pub(crate) fn manager(&self) -> Arc<dyn Manager> {
        self.cocktail.manager()
    }

    /// Where Prometheus may ask for metrics, if the settings say so.
    pub(crate) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|metrics| metrics.address)
    }

    /// Returns when the Manager has ended without [`Daemon::stop`]; what is left is [`Daemon::finish`].
    ///
    /// # Errors
    /// It lost its lease: another Manager acts now, or nobody knows.
    pub(crate) async fn ended(&self) -> Outcome {
        match self.cocktail.ended().await {
            Ended::Shutdown => Ok(()),
            Ended::Refused(why) => Err(Failure::Failed(format!("the Manager must not go on: {why}"))),
            Ended::LeaseLost(why) => Err(Failure::Failed(format!("the Manager lost its lease: {why}"))),
        }
    }

    /// Ends the Manager, then the rest.
    ///
    /// # Errors
    /// What the Manager could not finish; the socket and the files are gone all the same.
    pub(crate) async fn stop(self, mode: ShutdownMode) -> Outcome {
        let outcome = self.cocktail.shutdown(mode).await;
        self.finish().await;
        Ok(outcome?)
    }

    /// Ends what is around a Manager that has ended. Whoever gave the command to end gets an answer first.
    pub(crate) async fn finish(self) {
        let _ = self.stop_api.send(());
        if let Some(metrics) = self.metrics {
            let _ = metrics.stop.send(());
            let _ = metrics.task.await;
        }
        let _ = self.api.await;
        if let Some(mark) = self.background {
            let _ = fs::remove_file(mark);
        }
    }
}
