//! Artifacts from URLs, against a server that says what it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cocktail_agent::artifact::{HttpConfig, HttpSource, Limits, Source};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::spec::{Artifact, ArtifactSource};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Scene;
use super::made::{Tar, hash};

fn archive() -> Vec<u8> {
    Tar::new().file("web", 0o755, &b"program".repeat(20_000)).end()
}

/// A server on a port of its own, which goes with the test.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let archive = Arc::new(archive());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, port, Arc::clone(&archive)));
        }
    });
    port
}

/// The same with TLS, and the certificate that it shows; what it redirects to is at `plain`.
async fn tls_server(plain: u16) -> (u16, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not believe the certificate goes away here.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                answer(stream, plain, Arc::new(archive())).await;
            });
        }
    });
    (port, certificate)
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, archive: Arc<Vec<u8>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let sized = |size: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
    let to = |place: &str| format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n");
    let (head, body) = match path.as_str() {
        "/a.tar" => (sized(archive.len()), archive.as_slice()),
        "/open-end" => ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".into(), archive.as_slice()),
        "/cut" => (sized(archive.len()), &archive[..5_000]),
        "/stalls" => (sized(archive.len()), &archive[..5_000]),
        "/mute" => (String::new(), &[][..]),
        "/partly" => ("HTTP/1.1 206 Partial Content\r\ncontent-length: 1\r\n\r\n".into(), &b"x"[..]),
        "/loop" => (to("/loop"), &[][..]),
        "/file" => (to("file:///etc/passwd"), &[][..]),
        _ => match path.strip_prefix("/hops/").map(|left| left.parse::<u32>().unwrap()) {
            Some(0) => (to("../a.tar"), &[][..]),
            Some(left) => (to(&format!("http://localhost:{port}/hops/{}", left - 1)), &[][..]),
            None => ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(), &[][..]),
        },
    };
    // Who asked may have gone by now.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    if matches!(path.as_str(), "/stalls" | "/mute") {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

fn source() -> HttpSource {
    HttpSource::new(&HttpConfig { idle: Duration::from_millis(300), ..HttpConfig::default() }).unwrap()
}

fn at(port: u16, path: &str) -> Artifact {
    Artifact { source: ArtifactSource::Url(format!("http://127.0.0.1:{port}{path}")), sha256: hash(&archive()) }
}

async fn failed(port: u16, path: &str) -> Error {
    let scene = Scene::new();
    let error = scene.artifacts.ready(&at(port, path), &source()).await.expect_err(path);
    scene.assert_only(&[]);
    error
}

#[tokio::test]
async fn an_artifact_comes_from_a_url_also_after_a_few_redirects() {
    let port = server().await;
    for path in ["/a.tar", "/open-end", "/hops/0", "/hops/4"] {
        let scene = Scene::new();
        let files =
            scene.artifacts.ready(&at(port, path), &source()).await.unwrap_or_else(|why| panic!("{path}: {why}"));
        assert_eq!(std::fs::read(files.join("web")).unwrap().len(), 140_000);
    }
}

#[tokio::test]
async fn what_a_server_does_wrong_is_said_and_may_be_tried_again() {
    let port = server().await;
    for (path, words) in [
        ("/nowhere", "answered 404, host 127.0.0.1"),
        ("/partly", "answered 206"),
        ("/cut", "the source of the artifact failed"),
        ("/stalls", "the source of the artifact failed"),
        ("/mute", "the artifact's URL cannot be read"),
    ] {
        let started = Instant::now();
        let error = failed(port, path).await;
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{path}: {}", error.chain());
        assert!(error.chain().contains(words), "{path}: {}", error.chain());
        assert!(started.elapsed() < Duration::from_secs(10), "{path}");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert_eq!(*failed(free, "/a.tar").await.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn redirects_that_go_on_or_leave_the_web_are_refused() {
    let port = server().await;
    for path in ["/loop", "/hops/5", "/hops/9"] {
        let error = failed(port, path).await;
        assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{path}: {}", error.chain());
        assert!(error.chain().contains("more than five redirects"), "{path}: {}", error.chain());
    }
    failed(port, "/file").await;
}

#[tokio::test]
async fn tls_believes_its_authorities_and_is_not_left_by_a_redirect() {
    let plain = server().await;
    let (port, certificate) = tls_server(plain).await;
    let at = |path: &str| {
        let url = format!("https://localhost:{port}{path}");
        Artifact { source: ArtifactSource::Url(url), sha256: hash(&archive()) }
    };
    let scene = Scene::new();
    let error = scene.artifacts.ready(&at("/a.tar"), &source()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(error.chain().contains("certificate"), "{}", error.chain());
    let trusting = HttpSource::new(&HttpConfig { authorities: vec![certificate], ..HttpConfig::default() }).unwrap();
    let error = scene.artifacts.ready(&at("/hops/1"), &trusting).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
    assert!(error.chain().contains("a redirect from https to http"), "{}", error.chain());
    scene.assert_only(&[]);
    scene.artifacts.ready(&at("/hops/0"), &trusting).await.unwrap();
}

#[tokio::test]
async fn more_than_the_limit_is_not_read_to_its_end() {
    let port = server().await;
    let scene = Scene::with(Limits { download: 50_000, ..Limits::default() });
    let error = scene.artifacts.ready(&at(port, "/a.tar"), &source()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("larger than 50000 bytes"), "{error}");
    scene.assert_only(&[]);
}

#[tokio::test]
async fn what_is_no_plain_url_is_not_asked_for_and_not_repeated() {
    for text in ["ftp://hunter2/a", "http://user:hunter2@127.0.0.1:1/a", "hunter2", "https:///user:hunter2@x/"] {
        let artifact = Artifact { source: ArtifactSource::Url(text.into()), sha256: hash(b"") };
        let Err(error) = source().open(&artifact).await else { panic!("{text} is read") };
        assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }
    let artifact = Artifact { source: ArtifactSource::File("/etc/passwd".into()), sha256: hash(b"") };
    assert!(source().open(&artifact).await.is_err());
    let artifact =
        Artifact { source: ArtifactSource::Url("http://127.0.0.1:1/a?token=hunter2".into()), sha256: hash(b"") };
    let Err(error) = source().open(&artifact).await else { panic!("nobody listens there") };
    assert!(!error.chain().contains("hunter2"), "{}", error.chain());
}
