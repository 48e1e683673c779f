//! Artifacts from `http` and `https` URLs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::{Artifact, ArtifactSource};
use futures_util::TryStreamExt;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Proxy, Url};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::Source;

/// Most redirects in a row.
const REDIRECTS: usize = 5;

/// How URLs are read.
#[derive(Clone)]
pub struct HttpConfig {
    /// Longest time until a connection stands.
    pub connect: Duration,
    /// Longest time in which an answer brings nothing.
    pub idle: Duration,
    /// A proxy for all URLs, as a URL. There is none otherwise: the environment is not asked.
    pub proxy: Option<String>,
    /// Authorities that are believed besides those of the machine.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(30), proxy: None, authorities: Vec::new() }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        let Self { connect, idle, proxy, authorities } = self;
        f.debug_struct("HttpConfig")
            .field("connect", connect)
            .field("idle", idle)
            .field("proxy", &proxy.is_some())
            .field("authorities", &authorities.len())
            .finish()
    }
}

/// Reads artifacts that name a URL.
///
/// It follows five redirects, and none from `https` to `http`. It tries once: trying again is up to who asked, as it is for
/// every other source. The content is taken as it comes, whatever its headers say of it.
#[derive(Debug, Clone)]
pub struct HttpSource {
    client: Client,
}

impl HttpSource {
    /// Reads the machine's authorities from the disk, once.
    ///
    /// # Errors
    /// `InvalidConfig` for a proxy that is no URL, or an authority that is no certificate.
    pub fn new(config: &HttpConfig) -> Result<Self> {
        let unusable = |what: &'static str| move |error: rustls::Error| Error::invalid(what).because(error);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for authority in &config.authorities {
            roots.add(authority.clone()).map_err(unusable("an authority is no certificate"))?;
        }
        // Said here, and not for the whole process: that belongs to the program.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable("TLS cannot be used"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(config.connect)
            .read_timeout(config.idle)
            .redirect(Policy::custom(redirect))
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(concat!("cocktail/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        let invalid = |error: reqwest::Error| Error::invalid("HTTP cannot be used").because(error.without_url());
        if let Some(proxy) = &config.proxy {
            builder = builder.proxy(Proxy::all(proxy).map_err(invalid)?);
        }
        Ok(Self { client: builder.build().map_err(invalid)? })
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn open(&self, artifact: &Artifact) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let ArtifactSource::Url(url) = &artifact.source else {
            return Err(Error::invalid("the artifact is a file, and this source reads URLs"));
        };
        let url = Url::parse(url).map_err(|error| Error::invalid("the artifact's URL is none").because(error))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid("the artifact's URL is no plain http or https"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let response = match self.client.get(url).send().await {
            Ok(response) => response,
            Err(error) if error.is_redirect() => {
                return Err(Error::invalid("the artifact's URL leads where it may not")
                    .with("host", host)
                    .because(error.without_url()));
            }
            Err(error) => {
                let error = error.without_url();
                return Err(Error::unavailable("the artifact's URL cannot be read").with("host", host).because(error));
            }
        };
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let message = format!("the artifact's URL answered {}", status.as_u16());
            return Err(Error::unavailable(message).with("host", host));
        }
        let body = response.bytes_stream().map_err(|error| io::Error::other(error.without_url()));
        Ok(Box::new(StreamReader::new(body)))
    }
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        attempt.error("more than five redirects")
    } else if from_tls && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http")
    } else {
        attempt.follow()
    }
}
