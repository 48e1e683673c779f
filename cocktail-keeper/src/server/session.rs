//! One connection: hello, then requests that run side by side, or one stream.
//!
//! A connection may command as long as the term that its hello got is the one in command ([`super::command`]). Replies and events gather in one
//! buffer that leaves in one write; a peer that does not read is cut off when the buffer is too large.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::spawn_local,
    time::timeout,
};

use super::{Server, adopt, containers, ending, exec, lease, logs, ports, usage};
use crate::{
    frame::{FrameBuf, push_json},
    protocol::{Refusal, Reply, Request, RequestFrame, ServerFrame, VERSIONS, Welcome, WireHello},
};

/// A peer must say hello within this time.
const HELLO: Duration = Duration::from_secs(10);
/// Requests of one connection that are carried out at a time.
const IN_FLIGHT: usize = 16 * 1024;
/// A peer that lets more than this gather is cut off.
const MOST_OUTPUT: usize = 64 * 1024 * 1024;

/// The writing side of a connection.
#[derive(Debug)]
pub(super) struct Session {
    /// The term that its hello got.
    term: u64,
    out: RefCell<Vec<u8>>,
    wake: Notify,
    /// The next event to send.
    cursor: Cell<Option<u64>>,
    in_flight: Cell<usize>,
    fewer: Notify,
    closed: Cell<bool>,
    flushed: Notify,
}

impl Session {
    pub(super) fn wake(&self) {
        if self.cursor.get().is_some() {
            self.wake.notify_one();
        }
    }

    fn send(&self, frame: &ServerFrame) {
        let pushed = push_json(&mut self.out.borrow_mut(), frame);
        if let (Err(bytes), ServerFrame::Ok(id, _)) = (pushed, frame) {
            let refusal = Refusal::Limit { what: format!("an answer of {bytes} bytes does not fit into a frame") };
            // A refusal is small, so it fits.
            let _ = push_json(&mut self.out.borrow_mut(), &ServerFrame::Err(*id, refusal));
        }
        if self.out.borrow().len() > MOST_OUTPUT {
            self.closed.set(true);
        }
        self.wake.notify_one();
    }

    fn reply(&self, id: u64, result: Result<Reply, Refusal>) {
        self.send(&match result {
            Ok(reply) => ServerFrame::Ok(id, reply),
            Err(refusal) => ServerFrame::Err(id, refusal),
        });
    }

    /// Waits, for a moment at most, until what was said has left.
    async fn flush(&self) {
        let _ = timeout(Duration::from_millis(200), async {
            while !self.out.borrow().is_empty() && !self.closed.get() {
                self.flushed.notified().await;
            }
            // The last swap left the buffer empty before its write ended.
            self.flushed.notified().await;
        })
        .await;
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(server: Rc<Server>, stream: UnixStream) {
    let id = server.next_session.get();
    server.next_session.set(id + 1);
    let peer = stream.peer_cred().map(|cred| cred.uid());
    let own = rustix::process::geteuid().as_raw();
    let (mut reader, mut writer) = stream.into_split();
    let mut buf = FrameBuf::default();
    let hello = timeout(HELLO, next::<WireHello>(&mut reader, &mut buf)).await;
    let Ok(Some(hello)) = hello else { return };
    let welcome = match peer {
        Ok(uid) if uid == own || uid == 0 => greet(&server, &hello),
        Ok(uid) => Err(Refusal::Peer { uid }),
        Err(_) => Err(Refusal::Peer { uid: u32::MAX }),
    };
    let mut first = Vec::new();
    let greeting = match &welcome {
        Ok(welcome) => ServerFrame::Welcome(welcome.clone()),
        Err(refusal) => ServerFrame::Err(0, refusal.clone()),
    };
    // Both frames are small.
    let _ = push_json(&mut first, &greeting);
    if welcome.is_err() {
        let _ = writer.write_all(&first).await;
        return;
    }
    let term = server.command.borrow().term();
    let session = Rc::new(Session {
        term,
        out: RefCell::new(first),
        wake: Notify::new(),
        cursor: Cell::new(None),
        in_flight: Cell::new(0),
        fewer: Notify::new(),
        closed: Cell::new(false),
        flushed: Notify::new(),
    });
    session.wake.notify_one();
    server.sessions.borrow_mut().insert(id, Rc::clone(&session));
    server.activity.notify_one();
    converse(&server, &session, reader, writer, buf).await;
    server.sessions.borrow_mut().remove(&id);
    server.activity.notify_one();
}

fn greet(server: &Server, hello: &WireHello) -> Result<Welcome, Refusal> {
    let version = hello.versions.1.min(VERSIONS.1);
    if version < hello.versions.0.max(VERSIONS.0) {
        return Err(Refusal::Version { min: VERSIONS.0, max: VERSIONS.1 });
    }
    if server.ending.get() {
        return Err(Refusal::Ending);
    }
    if hello.store.is_empty() || hello.store.contains('\0') {
        return Err(Refusal::BadRequest { why: "a hello without store".to_owned() });
    }
    let mut command = server.command.borrow_mut();
    command.take(hello)?;
    Ok(Welcome {
        version,
        pid: std::process::id(),
        boot_id: server.boot_id.clone(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        store: command.owner().unwrap_or_default().to_owned(),
        epoch: command.epoch(),
        started_at_ms: server.started_at_ms,
        in_process: server.mode == super::Mode::InProcess,
        descended: command.is_descended(),
        guards: true,
    })
}

/// The next frame; `None` ends the connection, whatever the reason.
async fn next<T: serde::de::DeserializeOwned>(reader: &mut OwnedReadHalf, buf: &mut FrameBuf) -> Option<T> {
    loop {
        match buf.next_json() {
            Ok(Some(frame)) => return serde_json::from_slice(frame).ok(),
            Ok(None) => {}
            Err(_) => return None,
        }
        match reader.read_buf(buf.spare()).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn converse(
    server: &Rc<Server>,
    session: &Rc<Session>,
    mut reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    mut buf: FrameBuf,
) {
    let writing = spawn_local(write(Rc::clone(server), Rc::clone(session), writer));
    let mut first = true;
    let stream = loop {
        let Some(frame) = next::<RequestFrame>(&mut reader, &mut buf).await else { break None };
        if server.command.borrow().term() != session.term {
            let current = server.command.borrow().epoch();
            session.reply(frame.id, Err(Refusal::StaleEpoch { current }));
            continue;
        }
        if frame.req.is_order() {
            server.command.borrow_mut().obey();
        }
        if matches!(frame.req, Request::Logs(_) | Request::Exec(_)) {
            if first {
                break Some(frame);
            }
            let why = "a stream needs a connection of its own".to_owned();
            session.reply(frame.id, Err(Refusal::BadRequest { why }));
            continue;
        }
        first = false;
        while session.in_flight.get() >= IN_FLIGHT {
            session.fewer.notified().await;
        }
        dispatch(server, session, frame);
        if session.closed.get() {
            break None;
        }
    };
    session.closed.set(true);
    session.wake.notify_one();
    // The writer ends on `closed`; it hands its half back.
    let Ok(Some(writer)) = writing.await else { return };
    if let Some(RequestFrame { id, req }) = stream {
        match req {
            Request::Logs(request) => logs::stream(server, id, request, reader, writer).await,
            Request::Exec(request) => exec::stream(server, id, *request, reader, writer, buf).await,
            _ => {}
        }
    }
}

/// Sends what gathered until the session is closed.
async fn write(server: Rc<Server>, session: Rc<Session>, mut writer: OwnedWriteHalf) -> Option<OwnedWriteHalf> {
    let mut batch = Vec::new();
    loop {
        session.wake.notified().await;
        // Lets replies that are made in the same turn join this write.
        tokio::task::yield_now().await;
        if let Some(mut cursor) = session.cursor.get() {
            let events = server.events.since(&mut cursor);
            session.cursor.set(Some(cursor));
            for event in events {
                // Events are small.
                let _ = push_json(&mut session.out.borrow_mut(), &ServerFrame::Event(event));
            }
        }
        std::mem::swap(&mut batch, &mut *session.out.borrow_mut());
        if !batch.is_empty() && writer.write_all(&batch).await.is_err() {
            session.closed.set(true);
            session.flushed.notify_waiters();
            return None;
        }
        batch = Vec::new();
        session.flushed.notify_waiters();
        if session.closed.get() {
            return Some(writer);
        }
    }
}

fn dispatch(server: &Rc<Server>, session: &Rc<Session>, frame: RequestFrame) {
    let RequestFrame { id, req } = frame;
    let s = Rc::clone(server);
    match req {
        Request::Prepare(request) => run(session, id, containers::prepare(s, request)),
        Request::Start(request) => run(session, id, containers::start(s, request)),
        Request::Stop(request) => run(session, id, ending::stop(s, request)),
        Request::Remove(request) => run(session, id, containers::remove(s, request)),
        Request::Adopt(request) => run(session, id, adopt::adopt(s, request)),
        Request::List => run(session, id, containers::list(s)),
        Request::Usage => run(session, id, usage::usage(s)),
        Request::Signal(request) => session.reply(id, containers::signal(server, &request)),
        Request::ReleasePort(request) => {
            ports::release(server, &request.ports);
            session.reply(id, Ok(Reply::Done));
        }
        Request::SetServices(request) => {
            run(session, id, async move { s.forwarder.set(request).await.map(Reply::Services) });
        }
        Request::CheckListen(request) => {
            run(session, id, async move { s.forwarder.reserve(request.addrs).await.map(Reply::Listen) });
        }
        Request::Connections => {
            run(session, id, async move { Ok(Reply::Connections(s.forwarder.connections().await)) });
        }
        Request::SetLease(request) => session.reply(id, lease::set(server, request)),
        Request::Lease => session.reply(id, Ok(Reply::Lease(lease::left(server)))),
        Request::Subscribe(request) => {
            let begin = server.events.begin(request.from_seq);
            session.reply(id, begin.clone().map(|_| Reply::Done));
            session.cursor.set(begin.ok().or(session.cursor.get()));
            session.wake();
        }
        Request::Shutdown(request) => {
            let session = Rc::clone(session);
            spawn_local(async move {
                let result = ending::shutdown(&s, request).await;
                let ends = result.is_ok();
                session.reply(id, result);
                if ends {
                    session.flush().await;
                    s.finish();
                }
            });
        }
        Request::Logs(_) | Request::Exec(_) => {}
    }
}

/// Carries a request out beside others and sends its reply.
fn run(session: &Rc<Session>, id: u64, work: impl Future<Output = Result<Reply, Refusal>> + 'static) {
    let session = Rc::clone(session);
    session.in_flight.set(session.in_flight.get() + 1);
    spawn_local(async move {
        let result = work.await;
        session.in_flight.set(session.in_flight.get() - 1);
        session.fewer.notify_one();
        session.reply(id, result);
    });
}
