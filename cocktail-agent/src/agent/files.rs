//! The files of commands: from the Manager's session, or from where a URL leads.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::Launch;
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::{Artifact, ArtifactSource};
use futures_util::StreamExt as _;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio_util::io::StreamReader;

use super::link::Sender;
use crate::artifact::{Artifacts, HttpConfig, HttpSource, Limits, Source};

/// Everything that has been fetched, and where the rest comes from.
#[derive(Debug)]
pub(super) struct Files {
    artifacts: Artifacts,
    origin: Origin,
}

#[derive(Debug)]
struct Origin {
    http: HttpSource,
    /// The connection to the Manager, while there is one.
    link: watch::Receiver<Option<Sender>>,
}

impl Files {
    /// Keeps artifacts in `folder`.
    pub(super) fn new(folder: PathBuf, link: watch::Receiver<Option<Sender>>) -> Result<Self> {
        let origin = Origin { http: HttpSource::new(&HttpConfig::default())?, link };
        Ok(Self { artifacts: Artifacts::new(folder, Limits::default())?, origin })
    }

    /// A start as this machine carries it out: where there is an artifact, its folder is the working directory.
    pub(super) async fn place(&self, launch: Arc<Launch>) -> Result<Arc<Launch>> {
        let Some(artifact) = &launch.artifact else { return Ok(launch) };
        let cwd = self.artifacts.ready(artifact, &self.origin).await?;
        Ok(Arc::new(Launch { cwd, ..(*launch).clone() }))
    }

    /// Removes what nothing uses any more, as far as room is needed.
    pub(super) async fn prune(&self, used: impl Iterator<Item = Arc<Launch>>) {
        let keep = used.filter_map(|launch| Some(launch.artifact.as_ref()?.sha256.clone())).collect();
        if let Err(error) = self.artifacts.prune(&keep).await {
            tracing::warn!(error = error.chain(), "artifacts that nothing uses cannot be removed");
        }
    }
}

#[async_trait]
impl Source for Origin {
    async fn open(&self, artifact: &Artifact) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        if let ArtifactSource::Url(_) = &artifact.source {
            return self.http.open(artifact).await;
        }
        let link = self.link.borrow().clone();
        let link = link.ok_or_else(|| Error::unavailable("the manager that has the artifact is not connected"))?;
        let bytes = link.fetch(&artifact.sha256).await?;
        let bytes = bytes.map(|chunk| match chunk {
            Ok(chunk) => Ok(bytes::Bytes::from(chunk.bytes)),
            Err(status) => Err(std::io::Error::other(status.message().to_owned())),
        });
        Ok(Box::new(StreamReader::new(bytes)))
    }
}
