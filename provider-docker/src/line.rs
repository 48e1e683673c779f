//! Makes connections to engines that are reached over a network, and notices when nobody is there any more.
//!
//! Over ssh each connection is a process of the system's `ssh`, so that keys, known hosts and jump hosts are what the user's
//! own configuration says. It never asks anything.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::times;

/// Most that is kept of what `ssh` complains about.
const COMPLAINT: u64 = 4096;

/// A machine that ssh reaches, and the engine's socket there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The one that the client there takes by itself when `None`.
    pub(crate) socket: Option<String>,
}

impl Remote {
    /// Reads `[user@]host[:port][/path/of/socket]`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let socket = (path.len() > 1).then(|| path.to_owned());
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map(str::parse).transpose().ok()?;
        // What begins with a hyphen would be an option.
        let plain = |text: &str| {
            let allowed = |it: char| it.is_ascii_alphanumeric() || ".-_:%".contains(it);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(allowed)
        };
        let safe = |text: &String| text.chars().all(|it| it.is_ascii_alphanumeric() || "/.-_".contains(it));
        let valid = plain(host) && user.is_none_or(plain) && socket.as_ref().is_none_or(safe);
        valid.then(|| Self { user: user.map(str::to_owned), host: host.to_owned(), port, socket })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        let alive = times::SSH_ALIVE.as_secs();
        // Without questions, and with an end when nobody is there any more.
        command.args(["-T", "-o", "BatchMode=yes", "-o", &format!("ConnectTimeout={}", times::LOOK.as_secs())]);
        command.args(["-o", &format!("ServerAliveInterval={alive}"), "-o", "ServerAliveCountMax=3"]);
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        command.args([&self.host, "--", "docker"]);
        if let Some(socket) = &self.socket {
            command.args(["--host", &format!("unix://{socket}")]);
        }
        command.args(["system", "dial-stdio"]);
        command
    }
}

/// How connections are made.
#[derive(Clone)]
pub(crate) enum Line {
    Tcp(String, u16),
    Tls { host: String, port: u16, name: ServerName<'static>, connector: TlsConnector },
    Ssh(Arc<Remote>),
}

impl Service<Uri> for Line {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let line = self.clone();
        Box::pin(async move {
            let io: Box<dyn Both> = match line {
                Self::Tcp(host, port) => Box::new(dial(&host, port).await?),
                Self::Tls { host, port, name, connector } => {
                    Box::new(connector.connect(name, dial(&host, port).await?).await?)
                }
                Self::Ssh(remote) => Box::new(Ssh::begin(&remote)?),
            };
            Ok(Stream(TokioIo::new(io)))
        })
    }
}

/// A connection that ends when the other side is gone without a word: events and output may be silent for long.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let (after, every) = times::KEEP_ALIVE;
    let alive = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(3);
    SockRef::from(&tcp).set_tcp_keepalive(&alive)?;
    Ok(tcp)
}

/// Both directions.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection as the client wants it.
pub(crate) struct Stream(TokioIo<Box<dyn Both>>);

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

/// A process that carries one connection, and ends with it.
struct Ssh {
    _child: Child,
    read: ChildStdout,
    write: Option<ChildStdin>,
    /// What it complains about, told if it ends before a word came.
    complaint: Option<JoinHandle<String>>,
}

impl Ssh {
    fn begin(remote: &Remote) -> io::Result<Self> {
        let mut command = remote.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let cannot =
            |error: io::Error| io::Error::new(error.kind(), format!("the program `ssh` cannot be run: {error}"));
        let mut child = command.spawn().map_err(cannot)?;
        let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(write), Some(read), Some(error)) = taken else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let complaint = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut limited = error.take(COMPLAINT);
            // What could be read is told.
            let _ended = limited.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).trim().replace("\r\n", "; ").replace('\n', "; ")
        });
        Ok(Self { _child: child, read, write: Some(write), complaint: Some(complaint) })
    }
}

impl AsyncRead for Ssh {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            // It speaks: from now on the other side says what is wrong.
            if let Some(complaint) = self.complaint.take() {
                drop(complaint);
            }
            return Poll::Ready(Ok(()));
        }
        let Some(complaint) = &mut self.complaint else { return Poll::Ready(Ok(())) };
        let text = ready!(Pin::new(complaint).poll(context)).unwrap_or_default();
        self.complaint = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("ssh: {text}"))))
    }
}

impl AsyncWrite for Ssh {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.write {
            Some(write) => Pin::new(write).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().map_or(Poll::Ready(Ok(())), |write| Pin::new(write).poll_flush(context))
    }

    /// The end of what is written is the end of the pipe.
    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_its_url_and_never_becomes_an_option() {
        let remote = Remote::read("ops@rack-1:2222/run/docker.sock").unwrap();
        assert_eq!((remote.user.as_deref(), remote.host.as_str(), remote.port), (Some("ops"), "rack-1", Some(2222)));
        let command = remote.command();
        let words: Vec<_> = command.as_std().get_args().map(|it| it.to_string_lossy().into_owned()).collect();
        let end = ["-p", "2222", "-l", "ops", "rack-1", "--", "docker", "--host", "unix:///run/docker.sock"];
        assert!(words.join(" ").contains(&end.join(" ")), "{words:?}");
        assert_eq!(Remote::read("rack").unwrap().socket, None);
        assert_eq!(Remote::read("[fe80::1]:22").unwrap().host, "fe80::1");
        for text in ["", "-oProxyCommand=x", "-x@host", "a b", "host:port", "host/run/a;b", "us er@host", "host$(x)"] {
            assert_eq!(Remote::read(text), None, "{text}");
        }
    }
}
