//! The least of an HTTP client: requests without a body, over a new connection or one that is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for a connection or for more of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most of an answer that is read.
const MOST: u64 = 64 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// Asks `127.0.0.1:port` for a path over a new connection.
///
/// # Errors
/// There is no connection, or no whole answer.
pub fn get(port: u16, path: &str) -> io::Result<Answer> {
    Connection::open(port)?.get(path, false)
}

/// Sends `PUT path` to `127.0.0.1:port` over a new connection.
///
/// # Errors
/// There is no connection, or no whole answer.
pub fn put(port: u16, path: &str) -> io::Result<Answer> {
    Connection::open(port)?.request("PUT", path, false)
}

/// A connection that answers one request after another.
#[derive(Debug)]
pub struct Connection<S = TcpStream>(BufReader<S>);

impl Connection<UnixStream> {
    /// Connects to a socket in the file system.
    ///
    /// # Errors
    /// There is no connection.
    pub fn local(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl Connection {
    /// Connects to `127.0.0.1:port`.
    ///
    /// # Errors
    /// There is no connection.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Asks for a path. With `keep` the connection stays open for the next request.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn get(&mut self, path: &str, keep: bool) -> io::Result<Answer> {
        self.request("GET", path, keep)
    }

    fn request(&mut self, method: &str, path: &str, keep: bool) -> io::Result<Answer> {
        let connection = if keep { "keep-alive" } else { "close" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: {connection}\r\n\r\n"
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| bad(&line))?;
        let mut length = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<u64>().map_err(|_| bad(&line))?);
            }
        }
        let mut body = Vec::new();
        self.0.by_ref().take(length.unwrap_or(MOST).min(MOST)).read_to_end(&mut body)?;
        if length.is_some_and(|length| body.len() as u64 != length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.by_ref().take(16 << 10).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn bad(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer: {line:?}"))
}
