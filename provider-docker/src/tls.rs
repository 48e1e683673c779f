//! Ways to an engine: a Unix socket, TCP, TCP with TLS where both ends prove who they are, and ssh.
//!
//! Start at [`connect`]. TLS is rustls with a provider of its own choice for this connection, so that nothing is set for the
//! whole process. How connections are made is in `line`.

use std::path::Path;
use std::sync::Arc;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use cocktail_core::error::{Error, Result};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::{EngineConfig, EngineTls};
use crate::line::{Line, Remote};
use crate::times;

/// Where an engine listens, as its URL says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    Unix(&'a str),
    Tcp(&'a str, u16),
    Ssh(Remote),
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
    if let Some(rest) = url.strip_prefix("ssh://") {
        let remote = Remote::read(rest).ok_or_else(|| wrong("names no host: write ssh://user@10.0.0.5"))?;
        return Ok(Way::Ssh(remote));
    }
    Err(wrong("begins with none of unix://, tcp:// and ssh://"))
}

/// Everything about an engine's address that can be wrong without asking the engine.
///
/// # Errors
/// `InvalidConfig` for a URL or a file that cannot be used.
pub(crate) fn check(config: &EngineConfig) -> Result<()> {
    match (way(&config.url)?, &config.tls) {
        (Way::Unix(_) | Way::Ssh(_), Some(_)) => {
            Err(Error::invalid(format!("the engine at {} needs no tls: remove it", config.url)))
        }
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
    let (line, scheme, host) = match (way(&config.url)?, &config.tls) {
        (Way::Unix(path), _) => {
            return Docker::connect_with_unix(path, limit, API_DEFAULT_VERSION).map_err(failed);
        }
        (Way::Tcp(host, port), None) => (Line::Tcp(host.to_owned(), port), "http", format!("{host}:{port}")),
        (Way::Tcp(host, port), Some(tls)) => {
            let connector = TlsConnector::from(Arc::new(client_config(tls)?));
            let line = Line::Tls { host: host.to_owned(), port, name: server_name(host)?, connector };
            (line, "https", format!("{host}:{port}"))
        }
        // The name of the host is in the command alone.
        (Way::Ssh(remote), _) => (Line::Ssh(Arc::new(remote)), "http", "docker".to_owned()),
    };
    let mut client = Client::builder(TokioExecutor::new());
    // A connection by ssh costs a process here and one there.
    let kept = if matches!(line, Line::Ssh(_)) { times::SSH_KEPT } else { 0 };
    client.pool_max_idle_per_host(kept).pool_timer(TokioTimer::new()).pool_idle_timeout(times::SSH_IDLE);
    let client = client.build(line);
    let transport = move |request: BollardRequest| {
        let sent = client.request(request);
        async move { sent.await.map_err(bollard::errors::Error::from) }
    };
    let address = Some(format!("{scheme}://{host}"));
    Docker::connect_with_custom_transport(transport, address, limit, API_DEFAULT_VERSION).map_err(failed)
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
            ("ssh://", "names no host"),
            ("ssh://-oProxyCommand=x", "names no host"),
            ("http://host", "begins with none of"),
        ] {
            assert!(way(url).unwrap_err().to_string().contains(says), "{url}");
        }
    }
}
