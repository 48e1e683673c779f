//! The session with whoever runs this worker: opened, and opened again when it breaks.
//!
//! Start at [`Link::open`]. The link knows what a session begins with and nothing of what is said in it. Between two sessions
//! the worker goes on with what it does; what it says then is kept by whoever says it.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::Error;
use crate::channel::{self, Pauses};
use crate::protocol::workers_client::WorkersClient;
use crate::protocol::{
    FROM_WORKER_LIMIT, FromWorker, Register, Registered, Resume, TO_WORKER_LIMIT, from_worker, to_worker,
};

/// Messages that wait to be sent.
const OUTBOX: usize = 64;
/// How long the other end may take to answer the first message.
const ANSWER: Duration = Duration::from_secs(10);

/// What the link tells the worker.
#[derive(Debug)]
pub(super) enum News {
    /// A session is open; the worker says what became of its last assignment. Usage is told at this pace.
    Up { outbox: mpsc::Sender<FromWorker>, usage: Duration },
    /// What the worker is told.
    Told(to_worker::Kind),
    /// The session broke. Another one is opened.
    Down,
    /// The other end does not know this worker any more.
    Refused(Error),
}

/// A link that opens sessions until it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    news: mpsc::Receiver<News>,
    task: tokio::task::JoinHandle<()>,
}

/// Who this worker is.
pub(super) struct Identity {
    pub(super) socket: PathBuf,
    pub(super) register: Register,
}

impl Link {
    /// Opens sessions from now on. `assignment` is the last one that the worker was given.
    pub(super) fn open(identity: Identity, assignment: watch::Receiver<u64>) -> Self {
        let (sender, news) = mpsc::channel(OUTBOX);
        let task = tokio::spawn(async move {
            let Err(error) = Sessions { identity, assignment, key: None, news: sender.clone() }.run().await else {
                return;
            };
            _ = sender.send(News::Refused(error)).await;
        });
        Self { news, task }
    }

    /// What comes next; never `None` before [`News::Refused`].
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sessions {
    identity: Identity,
    assignment: watch::Receiver<u64>,
    /// What the first session has given.
    key: Option<String>,
    news: mpsc::Sender<News>,
}

impl Sessions {
    /// Returns when nobody listens to the news any more.
    async fn run(mut self) -> Result<(), Error> {
        let mut pauses = Pauses::new();
        loop {
            let mut lasted = false;
            match self.session(&mut lasted).await {
                Ok(()) => {}
                Err(status) if is_final(&status) => return Err(Error::Refused(status.message().to_owned())),
                Err(status) => tracing::debug!(error = %status, "no session with the manager"),
            }
            if self.news.is_closed() || (lasted && self.news.send(News::Down).await.is_err()) {
                return Ok(());
            }
            pauses.wait(lasted).await;
        }
    }

    /// One session, until it ends. `lasted` says whether it was ever open.
    async fn session(&mut self, lasted: &mut bool) -> Result<(), Status> {
        let mut client = WorkersClient::new(channel::open(&self.identity.socket).await?)
            .max_decoding_message_size(TO_WORKER_LIMIT)
            .max_encoding_message_size(FROM_WORKER_LIMIT);
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let first = FromWorker { kind: Some(self.first()) };
        _ = outbox.try_send(first);
        let answered = async {
            let mut told = client.session(ReceiverStream::new(messages)).await?.into_inner();
            let first = told.message().await?.and_then(|message| message.kind);
            match first {
                Some(to_worker::Kind::Registered(registered)) => Ok((registered, told)),
                _ => Err(Status::unavailable("the first answer is none")),
            }
        };
        let late = |_| Status::unavailable("no answer to the first message");
        let (Registered { key, usage_every_ms }, mut told) =
            tokio::time::timeout(ANSWER, answered).await.map_err(late)??;
        self.key = Some(key);
        *lasted = true;
        let usage = Duration::from_millis(u64::from(usage_every_ms.max(100)));
        if self.news.send(News::Up { outbox, usage }).await.is_err() {
            return Ok(());
        }
        while let Some(message) = told.next().await {
            // What this version does not know is nothing that it must do.
            if let Some(kind) = message?.kind
                && self.news.send(News::Told(kind)).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn first(&self) -> from_worker::Kind {
        let register = &self.identity.register;
        match &self.key {
            None => from_worker::Kind::Register(register.clone()),
            Some(key) => from_worker::Kind::Resume(Resume {
                container: register.container.clone(),
                key: key.clone(),
                pid: register.pid,
                assignment: *self.assignment.borrow(),
            }),
        }
    }
}

/// Whether another attempt has no sense.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::FailedPrecondition | Code::PermissionDenied)
}
