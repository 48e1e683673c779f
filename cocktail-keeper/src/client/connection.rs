//! One control connection: numbering, coalesced writes, routing of replies.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, oneshot, watch},
};

use super::Hello;
use crate::{
    error::{KeeperError, Result},
    frame::{FrameBuf, push_json},
    protocol::{Event, EventFrame, Refusal, Reply, Request, ServerFrame, VERSIONS, Welcome, WireHello},
};

/// Events that wait for a slow reader; more than that become one [`Event::Gap`].
const EVENT_QUEUE: usize = 16 * 1024;

type Answer = Result<Reply, Refusal>;

#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    hello: Hello,
    welcome: Welcome,
    next_id: AtomicU64,
    pending: Mutex<Pending>,
    outgoing: Mutex<Vec<u8>>,
    wake: Notify,
    closed: watch::Sender<bool>,
}

/// Calls that wait for their answer; `None` once the connection is lost.
type Pending = Option<HashMap<u64, oneshot::Sender<Answer>>>;

/// Closes the connection when the last [`super::KeeperClient`] is dropped.
#[derive(Debug)]
pub(super) struct Guard(Arc<Connection>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Events of one connection, in order. Ends when the connection is lost.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<EventFrame>,
    lost: Arc<AtomicBool>,
    last: u64,
}

impl EventStream {
    /// The next event; `None` when the connection is lost. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<EventFrame> {
        // What was queued before the loss comes first, then the news of the loss.
        if self.events.is_empty() && self.lost.swap(false, Ordering::AcqRel) {
            return Some(EventFrame { seq: self.last, event: Event::Gap });
        }
        let frame = self.events.recv().await?;
        self.last = frame.seq;
        Some(frame)
    }
}

/// Connects and says hello; the first frame in answer is the welcome.
pub(super) async fn greet(path: &std::path::Path, hello: &Hello) -> Result<(UnixStream, FrameBuf, Welcome)> {
    let mut stream = UnixStream::connect(path).await.map_err(|source| KeeperError::Unreachable { source })?;
    let mut out = Vec::new();
    let Hello { store, epoch, lease, earlier, intent } = hello.clone();
    let wire = WireHello { versions: VERSIONS, store, epoch, lease, earlier, intent };
    push_json(&mut out, &wire).map_err(|bytes| KeeperError::TooLarge { bytes })?;
    stream.write_all(&out).await.map_err(|_| KeeperError::Disconnected)?;
    let mut buf = FrameBuf::default();
    match next_frame(&mut stream, &mut buf).await? {
        ServerFrame::Welcome(welcome) => Ok((stream, buf, welcome)),
        ServerFrame::Err(_, refusal) => Err(refusal.into()),
        _ => Err(KeeperError::Protocol { why: "no welcome".to_owned() }),
    }
}

/// Reads until a whole control frame is there.
pub(super) async fn next_frame(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buf: &mut FrameBuf,
) -> Result<ServerFrame> {
    loop {
        match buf.next_json() {
            Ok(Some(frame)) => return serde_json::from_slice(frame).map_err(|e| broken(&e)),
            Ok(None) => {}
            Err(e) => return Err(KeeperError::Protocol { why: e.to_string() }),
        }
        match stream.read_buf(buf.spare()).await {
            Ok(0) | Err(_) => return Err(KeeperError::Disconnected),
            Ok(_) => {}
        }
    }
}

fn broken(error: &serde_json::Error) -> KeeperError {
    // Position and class only: the text of a serde error may quote the input.
    KeeperError::Protocol { why: format!("{:?} error at column {}", error.classify(), error.column()) }
}

impl Connection {
    pub(super) async fn open(path: PathBuf, hello: Hello) -> Result<(Arc<Self>, Guard, EventStream)> {
        let (stream, buf, welcome) = greet(&path, &hello).await?;
        let (events_in, events) = mpsc::channel(EVENT_QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let connection = Arc::new(Self {
            path,
            hello,
            welcome,
            next_id: AtomicU64::new(1),
            pending: Mutex::new(Some(HashMap::new())),
            outgoing: Mutex::default(),
            wake: Notify::new(),
            closed: watch::Sender::new(false),
        });
        let (reader, writer) = stream.into_split();
        tokio::spawn(write(Arc::clone(&connection), writer));
        tokio::spawn(read(Arc::clone(&connection), reader, buf, events_in, Arc::clone(&lost)));
        let guard = Guard(Arc::clone(&connection));
        Ok((connection, guard, EventStream { events, lost, last: 0 }))
    }

    pub(super) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// A connection of its own for a stream, which says `request` after its hello.
    pub(super) async fn open_stream(&self, request: Request) -> Result<(UnixStream, FrameBuf)> {
        let (mut stream, mut buf, _) = greet(&self.path, &self.hello).await?;
        let mut out = Vec::new();
        push_json(&mut out, &Frame { id: 1, req: &request }).map_err(|bytes| KeeperError::TooLarge { bytes })?;
        stream.write_all(&out).await.map_err(|_| KeeperError::Disconnected)?;
        match next_frame(&mut stream, &mut buf).await? {
            ServerFrame::Ok(..) => Ok((stream, buf)),
            ServerFrame::Err(_, refusal) => Err(refusal.into()),
            _ => Err(KeeperError::Protocol { why: "no answer to a stream request".to_owned() }),
        }
    }

    pub(super) async fn call(&self, request: Request) -> Result<Reply> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        lock(&self.pending).as_mut().ok_or(KeeperError::Disconnected)?.insert(id, tell);
        let pushed = push_json(&mut lock(&self.outgoing), &Frame { id, req: &request });
        if let Err(bytes) = pushed {
            if let Some(pending) = lock(&self.pending).as_mut() {
                pending.remove(&id);
            }
            return Err(KeeperError::TooLarge { bytes });
        }
        self.wake.notify_one();
        match answer.await {
            Ok(answer) => answer.map_err(KeeperError::Refused),
            Err(_) => Err(KeeperError::Disconnected),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(super) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives in `self`, so waiting ends with `true` and never with an error.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    fn close(&self) {
        lock(&self.pending).take();
        self.closed.send_replace(true);
        self.wake.notify_one();
    }
}

#[derive(Serialize)]
struct Frame<'a> {
    id: u64,
    req: &'a Request,
}

/// Sends everything that has gathered since the last write, in one write.
async fn write(connection: Arc<Connection>, mut socket: OwnedWriteHalf) {
    let mut batch = Vec::new();
    loop {
        connection.wake.notified().await;
        // Lets calls that are made in the same turn of the runtime join this write.
        tokio::task::yield_now().await;
        std::mem::swap(&mut batch, &mut *lock(&connection.outgoing));
        if !batch.is_empty() && socket.write_all(&batch).await.is_err() {
            connection.close();
        }
        batch.clear();
        batch.shrink_to(64 * 1024);
        if connection.is_closed() {
            return;
        }
    }
}

async fn read(
    connection: Arc<Connection>,
    mut socket: OwnedReadHalf,
    mut buf: FrameBuf,
    events: mpsc::Sender<EventFrame>,
    lost: Arc<AtomicBool>,
) {
    let mut closed = connection.closed.subscribe();
    loop {
        let frame = tokio::select! {
            frame = next_frame(&mut socket, &mut buf) => frame,
            _ = closed.wait_for(|closed| *closed) => break,
        };
        match frame {
            Ok(ServerFrame::Ok(id, reply)) => connection.answer(id, Ok(reply)),
            Ok(ServerFrame::Err(id, refusal)) => connection.answer(id, Err(refusal)),
            Ok(ServerFrame::Event(event)) => {
                if let Err(mpsc::error::TrySendError::Full(_)) = events.try_send(event) {
                    lost.store(true, Ordering::Release);
                }
            }
            Ok(ServerFrame::Welcome(_)) => {}
            Err(_) => break,
        }
    }
    connection.close();
}

impl Connection {
    fn answer(&self, id: u64, answer: Answer) {
        let waiting = lock(&self.pending).as_mut().and_then(|pending| pending.remove(&id));
        if let Some(tell) = waiting {
            // A caller that went away does not want the answer any more.
            let _ = tell.send(answer);
        }
    }
}

/// Nothing panics while holding these locks, and if it did the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
