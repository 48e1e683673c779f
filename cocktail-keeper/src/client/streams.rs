//! Log and exec streams: connections of their own, so that a slow reader delays nobody else.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::Mutex,
};

use super::connection::Connection;
use crate::{
    error::{KeeperError, Result},
    frame::{FrameBuf, push_stream},
    protocol::{ExecRequest, ExitStatus, LogsRequest, Request},
};

/// Kinds of stream frames. Numbers are part of the protocol.
pub(crate) mod kind {
    pub(crate) const STDIN: u8 = 0;
    pub(crate) const STDOUT: u8 = 1;
    pub(crate) const STDERR: u8 = 2;
    /// Four bytes: rows, columns, each big endian.
    pub(crate) const RESIZE: u8 = 3;
    pub(crate) const CLOSE_STDIN: u8 = 4;
    /// JSON of an exit status; the last frame of an exec stream.
    pub(crate) const EXIT: u8 = 5;
    /// Text for people.
    pub(crate) const NOTICE: u8 = 6;
    /// Whole log records, each with its line feed.
    pub(crate) const RECORDS: u8 = 7;
    /// The log is at its end; the last frame of a log stream.
    pub(crate) const END: u8 = 8;
}

/// A container's log. Dropping it ends the stream.
#[derive(Debug)]
pub struct LogStream {
    socket: OwnedReadHalf,
    buf: FrameBuf,
    // Held open: the keeper takes a closed connection for a reader that went away.
    _writer: OwnedWriteHalf,
    ended: bool,
}

/// What a log stream delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// Whole records, one a line, each with its line feed; see [`LogRecord::parse`].
    Records(Bytes),
    /// Why something is missing: the reader was too slow, or files were rotated away.
    Notice(String),
}

impl LogStream {
    /// The next records; `None` at the end of the log (never when following a log that is still written).
    ///
    /// # Errors
    /// [`KeeperError::Disconnected`] when the keeper went away before the end.
    pub async fn next(&mut self) -> Result<Option<LogItem>> {
        if self.ended {
            return Ok(None);
        }
        let (frame, body) = next(&mut self.socket, &mut self.buf).await?;
        Ok(match frame {
            kind::RECORDS => Some(LogItem::Records(body)),
            kind::NOTICE => Some(LogItem::Notice(text(&body))),
            _ => {
                self.ended = true;
                None
            }
        })
    }
}

/// One line of a log file: `2026-11-21T20:00:00.123456Z O text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// When it was read from the worker: RFC 3339, UTC, microseconds.
    pub at: &'a str,
    /// From stderr rather than stdout.
    pub stderr: bool,
    /// The line goes on in the next record of the same stream.
    pub partial: bool,
    /// What the worker wrote.
    pub text: &'a [u8],
}

impl<'a> LogRecord<'a> {
    /// Takes a line, with or without its line feed, apart. `None` for a line that is no record.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (at, rest) = line.split_at_checked(27)?;
        let (stderr, partial) = match rest.get(..3)? {
            b" O " => (false, false),
            b" o " => (false, true),
            b" E " => (true, false),
            b" e " => (true, true),
            _ => return None,
        };
        Some(Self { at: std::str::from_utf8(at).ok()?, stderr, partial, text: &rest[3..] })
    }
}

pub(super) async fn logs(connection: &Connection, request: LogsRequest) -> Result<LogStream> {
    let (stream, buf) = connection.open_stream(Request::Logs(request)).await?;
    let (socket, writer) = stream.into_split();
    Ok(LogStream { socket, buf, _writer: writer, ended: false })
}

/// A command that runs beside a container. Dropping all parts of it kills the command's process group.
#[derive(Debug)]
pub struct ExecSession {
    socket: OwnedReadHalf,
    buf: FrameBuf,
    input: ExecInput,
}

/// What a command delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// From stdout, or from the terminal.
    Stdout(Bytes),
    /// From stderr.
    Stderr(Bytes),
    /// It ended; nothing follows.
    Exit(ExitStatus),
}

/// The writing side of a session. Clones share it.
#[derive(Debug, Clone)]
pub struct ExecInput {
    socket: Arc<Mutex<OwnedWriteHalf>>,
}

impl ExecSession {
    /// The next output.
    ///
    /// # Errors
    /// [`KeeperError::Disconnected`] when the keeper went away, or after the exit was delivered.
    pub async fn next(&mut self) -> Result<ExecOutput> {
        loop {
            let (frame, body) = next(&mut self.socket, &mut self.buf).await?;
            return Ok(match frame {
                kind::STDOUT => ExecOutput::Stdout(body),
                kind::STDERR => ExecOutput::Stderr(body),
                kind::EXIT => ExecOutput::Exit(serde_json::from_slice(&body).unwrap_or(ExitStatus::Unknown)),
                _ => continue,
            });
        }
    }

    /// The writing side.
    pub fn input(&self) -> ExecInput {
        self.input.clone()
    }
}

impl ExecInput {
    /// Sends input. Waits while the command does not read.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        self.send(kind::STDIN, bytes).await
    }

    /// Closes the command's stdin. On a terminal it types the end-of-file character.
    pub async fn close(&self) -> Result<()> {
        self.send(kind::CLOSE_STDIN, &[]).await
    }

    /// Tells the terminal its new size.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        let [a, b] = rows.to_be_bytes();
        let [c, d] = cols.to_be_bytes();
        self.send(kind::RESIZE, &[a, b, c, d]).await
    }

    async fn send(&self, kind: u8, body: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(body.len() + 5);
        push_stream(&mut out, kind, body);
        self.socket.lock().await.write_all(&out).await.map_err(|_| KeeperError::Disconnected)
    }
}

pub(super) async fn exec(connection: &Connection, request: ExecRequest) -> Result<ExecSession> {
    let (stream, buf) = connection.open_stream(Request::Exec(Box::new(request))).await?;
    let (socket, writer) = stream.into_split();
    Ok(ExecSession { socket, buf, input: ExecInput { socket: Arc::new(Mutex::new(writer)) } })
}

async fn next(socket: &mut OwnedReadHalf, buf: &mut FrameBuf) -> Result<(u8, Bytes)> {
    loop {
        match buf.next_stream() {
            Ok(Some((kind, body))) => return Ok((kind, Bytes::copy_from_slice(body))),
            Ok(None) => {}
            Err(e) => return Err(KeeperError::Protocol { why: e.to_string() }),
        }
        match socket.read_buf(buf.spare()).await {
            Ok(0) | Err(_) => return Err(KeeperError::Disconnected),
            Ok(_) => {}
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_time_stream_and_text() {
        let line = b"2026-11-21T20:00:00.123456Z e half a line\n";
        let record = LogRecord::parse(line).unwrap();
        assert_eq!(record.at, "2026-11-21T20:00:00.123456Z");
        assert!(record.stderr && record.partial);
        assert_eq!(record.text, b"half a line");
        assert_eq!(LogRecord::parse(b"torn"), None);
        assert_eq!(LogRecord::parse(b"2026-11-21T20:00:00.123456Z X what"), None);
    }
}
