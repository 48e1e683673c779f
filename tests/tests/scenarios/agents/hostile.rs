//! Peers that mean harm, against the whole program: its memory stays where it was, it answers its users all the while, and
//! the agents that mean none notice nothing.
//!
//! What the gate does with each of them is shown beside it (`cocktail-agent/tests/agent/gate/hostile.rs`). Here they come
//! all at once, stay until the end, and are judged by the Manager's process alone.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use cocktail_agent::identity::{AgentIdentity, JoinToken, pinned_config};
use cocktail_tests::http::Connection;
use cocktail_tests::{Net, Process};
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio_rustls::TlsConnector;

use super::rack::{PORT, Rack, WITNESS};

/// How much more the Manager may have resident than before, at any moment.
///
/// What the gate promises adds up to less: what the strangers of each of three addresses may bring, 8 MiB, the buffers of
/// their 64 connections each, a window of output for each follower, and the program's own pages that are touched for the
/// first time. That was 23 MiB when it was measured. Whoever believes one length, keeps the messages that one stranger
/// begins (100 MiB), or the output that the followers do not read (512 MiB), needs several times as much.
const MORE: u64 = 64 << 20;

/// Bytes of output that nobody reads.
const OUTPUT: u64 = 64 << 20;

/// Hosts that attack; 1 is honest, and 2 has a certificate.
const ATTACKERS: [usize; 3] = [2, 3, 4];

/// Longest wait until the Manager takes more bytes of an attacker.
const PUSH: Duration = Duration::from_secs(1);

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection to the gate, from the host that this thread is on.
fn tcp(rack: &Rack) -> TcpStream {
    let stream = TcpStream::connect((rack.net.host(Net::MANAGER).address(), PORT)).unwrap();
    stream.set_write_timeout(Some(PUSH)).unwrap();
    stream
}

fn client(rack: &Rack, config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::IpAddress(std::net::IpAddr::V4(rack.net.host(Net::MANAGER).address()).into());
    ClientConnection::new(config.clone(), name).unwrap()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The beginning of a call that does not end.
fn call(stream: u32, name: &str) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;
    // POST and https are in the static table; the others are literals that are not kept.
    let mut block = vec![0x83, 0x87];
    let mut literal = |index: &[u8], value: &str| {
        block.extend(index);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    };
    literal(&[0x01], "manager");
    literal(&[0x04], &format!("/cocktail.agent.v1.Gate/{name}"));
    literal(&[0x0f, 0x10], "application/grpc");
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A connection on which HTTP/2 has begun.
fn begun(rack: &Rack, config: &Arc<ClientConfig>) -> Tls {
    let mut stream = StreamOwned::new(client(rack, config), tcp(rack));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream
}

/// Announces a message of two gigabytes and begins to send it, whatever the other end says.
fn two_gigabytes(stream: &mut Tls, name: &str) -> io::Result<()> {
    const DATA: u8 = 0;
    stream.write_all(&call(1, name))?;
    stream.write_all(&frame(DATA, 0, 1, &[0, 0x80, 0, 0, 0, 1, 2, 3]))?;
    let piece = frame(DATA, 0, 1, &[7; 16 << 10]);
    (0..1_024).try_for_each(|_| stream.write_all(&piece))
}

/// Asks for ten thousand streams, which it neither ends nor reads.
fn ten_thousand_streams(stream: &mut Tls, name: &str) -> io::Result<()> {
    (0..10_000).try_for_each(|number| stream.write_all(&call(2 * number + 1, name)))
}

/// Begins as many messages as it may, each as large as it may be, and ends none. They are sent as fast as they are taken, by
/// the rules of HTTP/2, until nothing more is.
async fn large_messages(rack: &Rack, config: &Arc<ClientConfig>) {
    const STREAMS: usize = 100;
    const SIZE: usize = (4 << 20) - 64;
    const PIECE: usize = 64 << 10;
    let name = ServerName::IpAddress(std::net::IpAddr::V4(rack.net.host(Net::MANAGER).address()).into());
    let stream = tokio::net::TcpStream::connect((rack.net.host(Net::MANAGER).address(), PORT)).await.unwrap();
    let stream = TokioIo::new(TlsConnector::from(config.clone()).connect(name, stream).await.unwrap());
    let begun = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut send, connection) = begun.unwrap();
    tokio::spawn(connection);
    let taken = Arc::new(AtomicU64::new(0));
    for _ in 0..STREAMS {
        let mut prefix = vec![0];
        prefix.extend(u32::try_from(SIZE).unwrap().to_be_bytes());
        let counted = taken.clone();
        let pieces = (0..SIZE / PIECE).map(move |_| {
            counted.fetch_add(PIECE as u64, Ordering::Relaxed);
            Bytes::from(vec![7; PIECE])
        });
        let pieces =
            std::iter::once(Bytes::from(prefix)).chain(pieces).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        let body = StreamBody::new(stream::iter(pieces).chain(stream::pending()));
        let request = hyper::Request::post("http://manager/cocktail.agent.v1.Gate/Join");
        let request = request.header("content-type", "application/grpc").body(body).unwrap();
        tokio::spawn(send.send_request(request));
    }
    let mut before = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = taken.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Half of what TLS begins with.
fn half_a_hello(rack: &Rack, config: &Arc<ClientConfig>) -> TcpStream {
    let (mut stream, mut hello) = (tcp(rack), Vec::new());
    client(rack, config).write_tls(&mut hello).unwrap();
    stream.write_all(&hello[..hello.len() / 2]).unwrap();
    stream
}

/// Asks for the output of a container, and reads nothing of it.
fn deaf_follower(rack: &Rack, container: &str) -> UnixStream {
    let mut stream = UnixStream::connect(rack.home.data_dir().join("cocktail.sock")).unwrap();
    write!(stream, "GET /v1/logs/{container}?follow=true HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    stream
}

/// A user who asks again and again, and wants an answer each time.
struct User {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    asks: JoinHandle<Vec<String>>,
}

impl User {
    fn of(rack: &Rack) -> Self {
        let (socket, stop) = (rack.home.data_dir().join("cocktail.sock"), Arc::new(AtomicBool::new(false)));
        let answered = Arc::new(AtomicU64::new(0));
        let (ends, count) = (stop.clone(), answered.clone());
        let ask = move |socket: &PathBuf| Connection::local(socket)?.get("/v1/containers", false);
        let asks = thread::spawn(move || {
            let mut failures = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match ask(&socket) {
                    Ok(answer) if answer.status == 200 => _ = count.fetch_add(1, Ordering::Relaxed),
                    Ok(answer) => failures.push(format!("status {}", answer.status)),
                    Err(error) => failures.push(error.to_string()),
                }
                thread::sleep(Duration::from_millis(5));
            }
            failures
        });
        Self { stop, answered, asks }
    }

    /// Waits until so many more answers have come.
    fn answered(&self, rack: &Rack, more: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        rack.home.eventually("users are answered", || self.answered.load(Ordering::Relaxed) >= before + more);
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.asks.join().unwrap();
        assert!(failures.is_empty(), "{} questions were not answered: {failures:?}", failures.len());
    }
}

/// Waits for a file, then says much at once, and says by a file that it has.
fn chatty(rack: &Rack) {
    let (base, testimony) = (rack.home.base(), rack.testimony());
    let (go, done) = (base.join("go"), base.join("done"));
    let script = format!(
        "(until [ -e {} ]; do sleep 0.1; done; yes 'a line that nobody will ever read' | head -c {OUTPUT}; touch {}) & \
         exec {WITNESS} {}",
        go.display(),
        done.display(),
        testimony.display()
    );
    rack.home.write("script", &script);
    rack.home.write(
        "m.toml",
        format!(
            "service = \"shop\"\n[maps.prod.units.witness]\ncommand = [\"sh\", \"{}\"]\nreplicas = 1\n\
             env = {{ ADDRESS = \"0.0.0.0\" }}\nports.http = {{}}\nready = {{ http = \"/\", every = \"200ms\" }}\n",
            rack.home.root().join("script").display()
        ),
    );
    rack.home.ok(&["apply", "--wait", "m.toml"]);
}

#[test]
fn hostile_peers_cost_the_manager_little_memory_and_nobody_else_anything() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::with_agents(4, 2, "");
    let token: JoinToken = fs::read_to_string(rack.home.root().join("token-2")).unwrap().trim().parse().unwrap();
    let stranger = pinned_config(&token.pin, &token.cluster).unwrap();
    rack.home.ok(&["cordon", "rack-2"]);
    chatty(&rack);
    let container = rack.home.pids("witness");
    let id = container.keys().next().unwrap();
    // From now on whoever has its certificate means harm.
    rack.kill_agent(2);
    let identity = AgentIdentity::load(&rack.agent_dir(2).join("identity")).unwrap().unwrap();
    let agent = identity.client_config().unwrap();
    let session = rack.sessions(1);
    let manager = Process::find(rack.manager.as_ref().unwrap().pid()).unwrap();
    let user = User::of(&rack);
    user.answered(&rack, 50);
    let before = manager.resident();
    manager.forget_peak();

    // Everything stays open until the end.
    let (mut tls, mut runtimes, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    let deaf: Vec<UnixStream> = (0..8).map(|_| deaf_follower(&rack, id)).collect();
    fs::write(rack.home.base().join("go"), "").unwrap();
    for host in ATTACKERS {
        rack.net.host(host).within(|| {
            let mut peers = vec![(stranger.clone(), "Join")];
            if host == ATTACKERS[0] {
                peers.extend(["Renew", "Session", "Fetch", "Aside"].map(|name| (agent.clone(), name)));
            }
            for (config, name) in peers {
                for attack in [two_gigabytes, ten_thousand_streams] {
                    let mut stream = begun(&rack, &config);
                    // It is cut off sooner or later, or has to wait: both are well.
                    _ = attack(&mut stream, name);
                    tls.push(stream);
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(large_messages(&rack, &stranger));
            runtimes.push(runtime);
            sockets.extend((0..200).map(|_| half_a_hello(&rack, &stranger)));
            sockets.extend((0..1_000).map(|_| tcp(&rack)));
        });
        user.answered(&rack, 50);
    }
    rack.home.eventually("the worker has said everything", || rack.home.base().join("done").exists());
    user.answered(&rack, 200);
    user.stop();
    let peak = manager.peak();
    let more = peak.saturating_sub(before) >> 10;
    assert!(peak < before + MORE, "{} KiB before, and {more} KiB more at the most", before >> 10);

    // The honest agent is in the session in which it was, and obeys.
    assert_eq!(rack.sessions(1), session, "{}", rack.home.report());
    assert_eq!(rack.home.pids("witness"), container, "nothing was touched");
    rack.home.ok(&["scale", "witness", "2"]);
    rack.settled(2);
    assert_eq!(rack.sessions(1), session);
    drop((tls, runtimes, sockets, deaf));
    rack.finish(2);
}

/// What is typed for a command travels beside the session of its server.
#[test]
fn commands_that_read_nothing_of_what_is_typed_silence_no_server() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(1);
    rack.witnesses(1, "");
    let container = rack.home.pids("witness");
    let id = container.keys().next().unwrap();
    let (session, typed) = (rack.sessions(1), Arc::new(AtomicU64::new(0)));
    let deaf = || {
        let mut command = rack.home.command(&["exec", "-i", id, "--", "sleep", "1000"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut stdin, typed) = (child.stdin.take().unwrap(), typed.clone());
        thread::spawn(move || {
            while stdin.write_all(&[b'x'; 4096]).is_ok() {
                typed.fetch_add(4096, Ordering::Relaxed);
            }
        });
        child
    };
    let mut all: Vec<Child> = (0..16).map(|_| deaf()).collect();
    let mut before = 0;
    rack.home.eventually("nothing more is taken from anybody who types", || {
        let stood = before;
        thread::sleep(Duration::from_millis(500));
        before = typed.load(Ordering::Relaxed);
        before > 0 && before == stood
    });
    // Another one is heard, and answers.
    let said = rack.home.ok(&["exec", id, "--", "echo", "hello"]);
    assert_eq!(said.stdout, "hello\n");
    rack.home.ok(&["scale", "witness", "2"]);
    rack.settled(2);
    assert_eq!(rack.sessions(1), session, "the session is the same");
    assert!(rack.home.pids("witness").contains_key(id));
    for child in &mut all {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    rack.finish(2);
}
