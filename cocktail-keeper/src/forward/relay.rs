//! Bytes between two sockets, both ways, until both sides are done.
//!
//! All connections share one buffer: what was read is written at once, and only what a slow receiver does not take is
//! kept, up to one buffer for each direction. An idle connection holds no buffer. A side that ends its sending
//! is passed on as such, so half-closed connections work.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Read at once.
const BUFFER: usize = 32 * 1024;
/// Buffers moved before others get their turn.
const TURN: usize = 8;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Carries a connection to its end.
pub(super) struct Relay {
    client: TcpStream,
    backend: TcpStream,
    up: Direction,
    down: Direction,
}

#[derive(Default)]
struct Direction {
    /// Read and not yet taken by the other side.
    rest: Vec<u8>,
    taken: usize,
    ended: bool,
    closed: bool,
}

impl Relay {
    pub(super) fn new(client: TcpStream, backend: TcpStream) -> Self {
        Self { client, backend, up: Direction::default(), down: Direction::default() }
    }
}

impl Future for Relay {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { client, backend, up, down } = &mut *self;
        SHARED.with_borrow_mut(|buf| {
            let up = up.carry(cx, client, backend, buf)?;
            let down = down.carry(cx, backend, client, buf)?;
            match (up, down) {
                (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        })
    }
}

impl Direction {
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buf: &mut [u8],
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            while self.taken < self.rest.len() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    length => self.taken += length,
                }
            }
            self.rest = Vec::new();
            self.taken = 0;
            if self.ended {
                if !self.closed {
                    // A receiver that is gone needs no goodbye.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(buf);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                continue;
            }
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(length)) if length == bytes.len() => {}
                Poll::Ready(Ok(length)) => self.rest = bytes[length..].to_vec(),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => self.rest = bytes.to_vec(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
