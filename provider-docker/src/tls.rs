//! Ways to an engine: a Unix socket, TCP, and TCP with TLS where both ends prove who they are.
//!
//! TLS is rustls with a provider of its own choice for this connection, so that nothing is set for the whole process.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use cocktail_core::error::{Error, Result};
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::config::{EngineConfig, EngineTls};
use crate::times;

/// Where an engine listens, as its URL says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    Unix(&'a str),
    Tcp(&'a str, u16),
}

/// Reads the URL of an engine.
pub(crate) fn way(url: &str) -> Result<Way<'_>> {
    let wrong = |why: &str| Error::invalid(format!("the engine's url {url:?} {why}"));
    if let Some(path) = url.strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Ok(Way::Unix(path)),
            false => Err(wrong("has no absolute path: write unix:///var/run/docker.sock")),
        };
    }
    if let Some(rest) = url.strip_prefix("tcp://") {
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("has no port: write tcp://10.0.0.5:2376"))?;
        let port = port.trim_end_matches('/').parse().map_err(|_| wrong("has no port: write tcp://10.0.0.5:2376"))?;
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(wrong("has no host: write tcp://10.0.0.5:2376"));
        }
        return Ok(Way::Tcp(host, port));
    }
    if url.starts_with("ssh://") {
        return Err(wrong("needs ssh, which this version does not speak: forward the engine's socket with `ssh -L`"));
    }
    Err(wrong("begins with neither unix:// nor tcp://"))
}

/// Everything about an engine's address that can be wrong without asking the engine.
///
/// # Errors
/// `InvalidConfig` for a URL or a file that cannot be used.
pub(crate) fn check(config: &EngineConfig) -> Result<()> {
    match (way(&config.url)?, &config.tls) {
        (Way::Unix(_), Some(_)) => Err(Error::invalid(format!("the engine at {} needs no tls: remove it", config.url))),
        (Way::Tcp(host, _), Some(tls)) => {
            server_name(host)?;
            client_config(tls).map(drop)
        }
        (_, None) => Ok(()),
    }
}

/// A client of the engine. It connects for each request.
///
/// # Errors
/// `Unavailable` for a socket that is not there; else as [`check`].
pub(crate) fn connect(config: &EngineConfig) -> Result<Docker> {
    let failed = |error: bollard::errors::Error| {
        Error::unavailable(format!("the engine at {} cannot be reached", config.url)).because(error)
    };
    let limit = times::CLIENT.as_secs();
    match (way(&config.url)?, &config.tls) {
        (Way::Unix(path), _) => Docker::connect_with_unix(path, limit, API_DEFAULT_VERSION).map_err(failed),
        (Way::Tcp(..), None) => Docker::connect_with_http(&config.url, limit, API_DEFAULT_VERSION).map_err(failed),
        (Way::Tcp(host, port), Some(tls)) => {
            let tls = TlsConnector::from(Arc::new(client_config(tls)?));
            let connector = Connector { host: host.to_owned(), port, name: server_name(host)?, tls };
            let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
            let transport = move |request: BollardRequest| {
                let sent = client.request(request);
                async move { sent.await.map_err(bollard::errors::Error::from) }
            };
            let address = format!("https://{host}:{port}");
            Docker::connect_with_custom_transport(transport, Some(address), limit, API_DEFAULT_VERSION).map_err(failed)
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>> {
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| Error::invalid(format!("no certificate can be for the engine's host {host:?}")))
}

/// Trusts the one authority, and shows our certificate.
fn client_config(tls: &EngineTls) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|error| unusable(&tls.ca, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unusable(&tls.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::unexpected("no version of TLS can be spoken").because(error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&tls.cert)?, key);
    config.map_err(|error| unusable(&tls.cert, &error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all: Vec<_> = all.map_err(|error| unusable(file, &error))?;
    match all.is_empty() {
        true => Err(Error::invalid(format!("{} has no certificate in PEM", file.display()))),
        false => Ok(all),
    }
}

fn unusable(file: &Path, error: &dyn std::error::Error) -> Error {
    Error::invalid(format!("the file {} cannot be used: {error}", file.display()))
}

/// Makes connections with TLS.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { host, port, name, tls } = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect((host, port)).await?;
            Ok(Stream(TokioIo::new(tls.connect(name, tcp).await?)))
        })
    }
}

/// A connection as the client wants it.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_reached_by_a_socket_or_over_tcp() {
        assert_eq!(way("unix:///var/run/docker.sock").unwrap(), Way::Unix("/var/run/docker.sock"));
        assert_eq!(way("tcp://10.0.0.5:2376").unwrap(), Way::Tcp("10.0.0.5", 2376));
        assert_eq!(way("tcp://[::1]:2376/").unwrap(), Way::Tcp("::1", 2376));
        for (url, says) in [
            ("unix://docker.sock", "no absolute path"),
            ("tcp://10.0.0.5", "no port"),
            ("tcp://:1", "no host"),
            ("ssh://host", "forward the engine's socket"),
            ("http://host", "neither unix:// nor tcp://"),
        ] {
            assert!(way(url).unwrap_err().to_string().contains(says), "{url}");
        }
    }
}
