//! A Manager for programs that have none: many offer to host it, one does.
//!
//! Start at [`Bootstrap`]. The lock of the data dir decides who: whoever has it hosts, the others wait for it. When the one
//! that hosts ends, or is killed, the next one adopts what runs.

use std::convert::Infallible;
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use cocktail_core::contract::{Actor, EventFilter, Manager, ManifestSource, ShutdownMode};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::manifest;
use cocktail_manager::Ended;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
#[cfg(feature = "api")]
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::builder::{Builder, Cocktail};
use crate::read_manifest;

/// Pause between two looks at the lock of a data dir that somebody else has.
const LOOK: Duration = Duration::from_millis(200);
/// Pause after a Manager could not be started, or lost its lease.
const AGAIN: Duration = Duration::from_secs(5);
/// What answers to those who are asking may take when a Manager ends.
#[cfg(feature = "api")]
const ANSWERS: Duration = Duration::from_millis(500);

/// An offer to host the Manager of a data dir whenever nobody else does.
///
/// ```no_run
/// # async fn work() {}
/// # async fn example() -> cocktail::Result<()> {
/// // In `main`, after `cocktail::init()`:
/// match cocktail::Bootstrap::from_env()? {
///     Some(bootstrap) => bootstrap.beside(work()).await,
///     None => work().await,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Bootstrap {
    builder: Builder,
    manifests: Vec<PathBuf>,
}

/// How one time of hosting ended.
enum Hosted {
    /// Whoever hosts has something else to do: nothing hosts here any more.
    HandedOver,
    /// The Manager ended by itself, or by command.
    Over(Ended),
}

impl Bootstrap {
    /// An offer to host the Manager that `builder` makes.
    pub fn new(builder: Builder) -> Self {
        Self { builder, manifests: Vec::new() }
    }

    /// What the environment asks for: an offer where `COCKTAIL_BOOTSTRAP` is `if-absent`, as it is for workers of a Unit with
    /// `bootstrap = "if-absent"`, and `None` where it is not set. The data dir is `COCKTAIL_DATA_DIR`, or `.cocktail`; a
    /// manifest to begin with may stand in `COCKTAIL_MANIFEST`; its settings are those of the first Manager, and each that
    /// follows has those of the one before.
    ///
    /// # Errors
    /// `InvalidConfig` where it asks for anything else, or the manifest is wrong.
    pub fn from_env() -> Result<Option<Self>> {
        match env::var("COCKTAIL_BOOTSTRAP").as_deref() {
            Err(_) => return Ok(None),
            Ok("if-absent") => {}
            Ok(other) => {
                let message = format!("COCKTAIL_BOOTSTRAP is {other:?}: it can be \"if-absent\", or be left out");
                return Err(Error::invalid(message));
            }
        }
        let mut builder = Cocktail::builder().settings_as_before();
        if let Some(data_dir) = env::var_os("COCKTAIL_DATA_DIR") {
            builder = builder.data_dir(data_dir);
        }
        let manifest = env::var_os("COCKTAIL_MANIFEST").map(PathBuf::from);
        if let Some(file) = &manifest {
            let ManifestSource { file, base, text } = read_manifest(file)?;
            let parsed = manifest::parse(&text, &file, &base);
            let parsed =
                parsed.map_err(|problems| Error::invalid("the manifest is wrong").with_diagnostics(problems))?;
            builder = builder.settings(parsed.settings.unwrap_or_default());
        }
        Ok(Some(Self { builder, manifests: manifest.into_iter().collect() }))
    }

    /// Adds a manifest to begin with. It is applied where nothing ever was; afterwards a Manager keeps to what was applied or
    /// removed last. One that is wrong is tried again until it is right.
    #[must_use]
    pub fn manifest(mut self, file: impl Into<PathBuf>) -> Self {
        self.manifests.push(file.into());
        self
    }

    /// Does what a program is for, and hosts the Manager beside it whenever nobody else does. When the work is done the
    /// Manager ends with it and its workers run on, for the next one that hosts. One that ends by command has a successor as
    /// well: to end everything, take it down and end the programs that offer to host.
    ///
    /// Hosting never ends the work: what it fails with is logged, and tried again. Must be called within a tokio runtime
    /// with more than one thread, or one that the work does not block.
    pub async fn beside<T>(self, work: impl Future<Output = T>) -> T {
        let (done, ended) = watch::channel(());
        let hosting = tokio::spawn(self.host(ended));
        let outcome = work.await;
        drop(done);
        if hosting.await.is_err() {
            tracing::error!("hosting the manager panicked");
        }
        outcome
    }

    /// Hosts whenever nobody else does, until the sender is dropped.
    async fn host(self, ended: watch::Receiver<()>) {
        loop {
            let hosted = self.host_once(ended.clone()).await;
            match &hosted {
                Ok(Hosted::HandedOver) => return,
                Ok(Hosted::Over(end)) => tracing::info!(?end, "the manager that was hosted here has ended"),
                Err(error) => tracing::warn!(error = error.chain(), "no manager can be hosted here now"),
            }
            tokio::select! {
                () = over(ended.clone()) => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn host_once(&self, ended: watch::Receiver<()>) -> Result<Hosted> {
        let cocktail = tokio::select! {
            () = over(ended.clone()) => return Ok(Hosted::HandedOver),
            started = self.builder.clone().start_when_absent() => started?,
        };
        tracing::info!(data_dir = %cocktail.data_dir().path().display(), "this program hosts the manager");
        #[cfg(feature = "api")]
        let answering = answer(&cocktail).await;
        let hosted = tokio::select! {
            () = over(ended) => Hosted::HandedOver,
            end = cocktail.ended() => Hosted::Over(end),
            never = self.begin(&cocktail) => match never {},
        };
        // Also of one that has ended by itself: what it has started here is to end with it.
        let left = cocktail.shutdown(ShutdownMode::Leave).await;
        #[cfg(feature = "api")]
        if let Some((stop, answering)) = answering {
            drop(stop);
            // Whoever was asking gets an answer, if that is soon.
            _ = timeout(ANSWERS, answering).await;
        }
        left.map(|()| hosted)
    }

    /// Applies the manifests to begin with, as soon as that can be done.
    async fn begin(&self, cocktail: &Cocktail) -> Infallible {
        while let Err(error) = self.apply_first(cocktail).await {
            tracing::warn!(error = error.chain(), "the manifests to begin with cannot be applied; it is tried again");
            sleep(AGAIN).await;
        }
        std::future::pending().await
    }

    async fn apply_first(&self, cocktail: &Cocktail) -> Result<()> {
        if self.manifests.is_empty() || !is_new(cocktail).await? {
            return Ok(());
        }
        let sources = self.manifests.iter().map(read_manifest).collect::<Result<Vec<_>>>()?;
        cocktail.apply(&sources, &Actor("bootstrap".into())).await.map(drop)
    }
}

/// Whether nothing was ever applied: what is not there because somebody took it down is not to come back.
async fn is_new(cocktail: &Cocktail) -> Result<bool> {
    let mut events = cocktail.events(&EventFilter::default()).await?;
    let mut expected = 1;
    while let Some(event) = events.next().await {
        let event = event?;
        // What is not kept any more is long ago.
        if event.seq > expected || event.kind == "applied" {
            return Ok(false);
        }
        expected = event.seq + 1;
    }
    Ok(true)
}

/// Answers commands, so that the program `cocktail` reaches the Manager. One that cannot be reached still does its work.
#[cfg(feature = "api")]
async fn answer(cocktail: &Cocktail) -> Option<(oneshot::Sender<()>, JoinHandle<()>)> {
    let api = match cocktail_api::Api::bind(&cocktail.data_dir().socket()).await {
        Ok(api) => api,
        Err(error) => {
            tracing::error!(error = error.chain(), "the manager that is hosted here cannot be reached");
            return None;
        }
    };
    let (stop, stopped) = oneshot::channel();
    let task = api.run(cocktail.manager(), async {
        // Nothing is sent: it is dropped.
        _ = stopped.await;
    });
    Some((stop, tokio::spawn(task)))
}

impl Builder {
    /// As [`Builder::start`], and where another Manager has the data dir it is waited for until that has ended; then this one
    /// adopts what runs, within a fraction of a second. Dropping the future gives up.
    ///
    /// # Errors
    /// As [`Builder::start`], without the first of them.
    pub async fn start_when_absent(self) -> Result<Cocktail> {
        loop {
            match self.clone().start().await {
                Err(error) if *error.kind() == ErrorKind::Refused && error.context("held_by").is_some() => {}
                other => return other,
            }
            sleep(LOOK).await;
        }
    }
}

/// Returns when the work is done.
async fn over(mut ended: watch::Receiver<()>) {
    // Nothing is ever sent.
    while ended.changed().await.is_ok() {}
}
