//! Bytes between two sockets, both ways, until both sides are done or the client goes on with another backend.
//!
//! All connections of a thread share one buffer: what was read is written at once, and only what a slow receiver does not
//! take is kept, up to one buffer for each direction. A side that ends its sending is passed on as such, so half-closed
//! connections work. What the bytes mean is [`Exchange`]'s business.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::exchange::{Exchange, Traffic};

/// Read at once.
const BUFFER: usize = 32 * 1024;
/// Buffers moved before others get their turn.
const AT_ONCE: usize = 8;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// What became of a connection.
pub(super) enum Carried {
    /// Both sockets are closed.
    Ended,
    /// The client goes on with another backend.
    Again(Onward),
}

/// A client that goes on with another backend.
pub(super) struct Onward<S = TcpStream> {
    pub(super) client: S,
    /// What the next backend gets first; empty while the client sends nothing.
    pub(super) request: Vec<u8>,
    /// The backend before had the request already and did not answer it, or ended before anything was said.
    pub(super) repeated: bool,
    /// The backend before answered any other.
    pub(super) answered: bool,
}

impl<S> Onward<S> {
    pub(super) fn try_map<T>(self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Onward<T>> {
        let Self { client, request, repeated, answered } = self;
        Ok(Onward { client: change(client)?, request, repeated, answered })
    }
}

/// Carries a connection.
pub(super) struct Relay {
    /// `None` after it was given back.
    client: Option<TcpStream>,
    backend: TcpStream,
    up: Direction,
    down: Direction,
    exchange: Exchange,
    traffic: Arc<Traffic>,
    told: Option<u64>,
    answered: bool,
}

#[derive(Default)]
struct Direction {
    /// Read and not yet taken by the other side.
    rest: Vec<u8>,
    taken: usize,
    ended: bool,
    closed: bool,
}

/// What a direction came to.
enum Went {
    /// Nothing more comes, and the other side knows.
    Done,
    /// What was read does not go on its way.
    Kept(Vec<u8>),
    /// Whoever it goes to has broken off.
    Refused(io::Error),
}

/// What a relay came to.
enum Turn {
    Waits,
    Done,
    /// The client goes on elsewhere with this request, which the backend had already or not.
    Elsewhere(Vec<u8>, bool),
}

impl Relay {
    /// A relay that sends `request` to the backend before anything else.
    pub(super) fn new(client: TcpStream, backend: TcpStream, request: Vec<u8>, traffic: Arc<Traffic>) -> Self {
        let mut exchange = Exchange::default();
        if !request.is_empty() {
            exchange.sent(&traffic, &request);
        }
        let up = Direction { rest: request, ..Direction::default() };
        Self {
            client: Some(client),
            backend,
            up,
            down: Direction::default(),
            exchange,
            traffic,
            told: None,
            answered: false,
        }
    }
}

impl Future for Relay {
    type Output = io::Result<Carried>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let relay = &mut *self;
        if relay.told.is_none() {
            relay.told = Some(relay.traffic.tell(cx.waker()));
        }
        let turn = SHARED.with_borrow_mut(|buf| relay.turn(cx, buf));
        Poll::Ready(Ok(match turn? {
            Turn::Waits => return Poll::Pending,
            Turn::Done => Carried::Ended,
            Turn::Elsewhere(request, repeated) => match relay.client.take() {
                Some(client) => Carried::Again(Onward { client, request, repeated, answered: relay.answered }),
                None => Carried::Ended,
            },
        }))
    }
}

impl Relay {
    fn turn(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> io::Result<Turn> {
        let Some(client) = self.client.as_mut() else { return Ok(Turn::Done) };
        let (exchange, traffic) = (&mut self.exchange, &*self.traffic);
        let sent = self.up.carry(cx, client, &mut self.backend, buf, |bytes| {
            let stays = !(traffic.is_leaving() && exchange.may_move(bytes));
            if stays {
                exchange.sent(traffic, bytes);
            }
            stays
        });
        let up = match sent {
            Poll::Ready(Ok(Went::Kept(request))) => return Ok(Turn::Elsewhere(request, false)),
            // It died before it took all of the request.
            Poll::Ready(Ok(Went::Refused(e))) => {
                return exchange.take_request(traffic).map(|request| Turn::Elsewhere(request, true)).ok_or(e);
            }
            Poll::Ready(Err(e)) => return Err(e),
            Poll::Ready(Ok(Went::Done)) => true,
            Poll::Pending => false,
        };
        let answers = self.down.carry(cx, &mut self.backend, client, buf, |bytes| {
            exchange.answered(traffic, bytes);
            true
        });
        self.answered |= exchange.has_answer();
        let broke = match answers {
            Poll::Ready(Ok(Went::Refused(e))) => return Err(e),
            Poll::Ready(Err(e)) => Some(e),
            Poll::Ready(Ok(Went::Done | Went::Kept(_))) | Poll::Pending => None,
        };
        // The client still waits for something, and does not know yet that the backend is gone.
        let waits = !self.up.ended && !self.down.closed && self.down.rest.is_empty();
        if waits && (self.down.ended || broke.is_some() || traffic.is_leaving()) {
            if exchange.is_idle() {
                return Ok(Turn::Elsewhere(Vec::new(), false));
            }
            if self.down.ended || broke.is_some() {
                // Nobody knows of this backend yet: the client has said nothing, and was told nothing.
                if exchange.is_untouched() {
                    return Ok(Turn::Elsewhere(Vec::new(), true));
                }
                if let Some(request) = exchange.take_request(traffic) {
                    return Ok(Turn::Elsewhere(request, true));
                }
            }
        }
        match broke {
            Some(e) => Err(e),
            None if up && self.down.closed => Ok(Turn::Done),
            None => Ok(Turn::Waits),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.exchange.end(&self.traffic);
        if let Some(told) = self.told {
            self.traffic.forget(told);
        }
    }
}

impl Direction {
    /// Moves what there is. `look` sees all that is read, and says whether it goes on its way.
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buf: &mut [u8],
        mut look: impl FnMut(&[u8]) -> bool,
    ) -> Poll<io::Result<Went>> {
        for _ in 0..AT_ONCE {
            while self.taken < self.rest.len() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..])) {
                    Ok(0) => return Poll::Ready(Ok(Went::Refused(io::ErrorKind::WriteZero.into()))),
                    Ok(length) => self.taken += length,
                    Err(e) => return Poll::Ready(Ok(Went::Refused(e))),
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
                return Poll::Ready(Ok(Went::Done));
            }
            let mut read = ReadBuf::new(buf);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                // Whoever looks decides what an end means, before it is passed on.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !look(bytes) {
                return Poll::Ready(Ok(Went::Kept(bytes.to_vec())));
            }
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(length)) if length == bytes.len() => {}
                Poll::Ready(Ok(length)) => self.rest = bytes[length..].to_vec(),
                Poll::Ready(Err(e)) => return Poll::Ready(Ok(Went::Refused(e))),
                Poll::Pending => self.rest = bytes.to_vec(),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
