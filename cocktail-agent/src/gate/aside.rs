//! Streams beside sessions: those that are waited for, and those that have come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cocktail_core::contract::{Aside, AsideOutput, ExecInput, ExecOutput};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::session::Failure;
use futures_util::{Stream, StreamExt as _, sink, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use crate::wire::{AsideFrame, Size, aside_frame};

/// Longest time until a stream comes that an agent was asked for, or until somebody asks for one that came.
const COME: Duration = Duration::from_secs(10);
/// Streams of one server that nobody has asked for yet.
const EARLY: usize = 64;

/// One end of a stream that has come.
type Came = (Streaming<AsideFrame>, mpsc::Sender<AsideFrame>);

/// Streams by server and number: whoever comes first waits for the other, but not for long.
#[derive(Debug, Clone, Default)]
pub(super) struct Asides(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    asked: BTreeMap<(ServerId, u64), oneshot::Sender<Came>>,
    /// With what ends the wait for whoever asks.
    came: BTreeMap<(ServerId, u64), (Came, DropGuard)>,
}

impl Waiting {
    /// How many streams of a server nobody has asked for.
    fn early(&self, server: &ServerId) -> usize {
        self.came.range((server.clone(), 0)..=(server.clone(), u64::MAX)).count()
    }
}

impl Asides {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Single inserts and removals are all that happens under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream that an agent opens.
    pub(super) async fn open(
        &self,
        server: &ServerId,
        mut incoming: Streaming<AsideFrame>,
    ) -> Result<impl Stream<Item = Result<AsideFrame, Status>> + Send + use<>, Status> {
        let first = timeout(COME, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("which stream is it?"))??;
        let Some(AsideFrame { kind: Some(aside_frame::Kind::Number(number)) }) = first else {
            return Err(Status::invalid_argument("the first message of a stream is its number"));
        };
        let (back, outgoing) = mpsc::channel(64);
        let mut waiting = self.lock();
        let came = (incoming, back);
        match waiting.asked.remove(&(server.clone(), number)) {
            // Whoever asked may have gone: the stream ends with that.
            Some(asked) => drop(asked.send(came)),
            None if waiting.early(server) < EARLY => {
                let key = (server.clone(), number);
                let (ours, taken) = (came.1.clone(), CancellationToken::new());
                waiting.came.insert(key.clone(), (came, taken.clone().drop_guard()));
                tokio::spawn(self.clone().forget(key, ours, taken));
            }
            None => return Err(Status::resource_exhausted("nobody has asked for this stream")),
        }
        Ok(ReceiverStream::new(outgoing).map(Ok))
    }

    /// Lets a stream that came go when nobody asks for it in time, or whoever opened it has gone.
    async fn forget(self, key: (ServerId, u64), ours: mpsc::Sender<AsideFrame>, taken: CancellationToken) {
        tokio::select! {
            () = taken.cancelled() => return,
            () = ours.closed() => {}
            () = sleep(COME) => {}
        }
        let mut waiting = self.lock();
        // Another one may have come with its number.
        if waiting.came.get(&key).is_some_and(|((_, back), _)| back.same_channel(&ours)) {
            waiting.came.remove(&key);
        }
    }

    /// The stream of that number.
    pub(super) async fn wait(&self, server: &ServerId, number: u64, over: &CancellationToken) -> Result<Aside> {
        let key = (server.clone(), number);
        let asked = {
            let mut waiting = self.lock();
            match waiting.came.remove(&key) {
                Some((came, _)) => return Ok(aside(came)),
                None => {
                    let (sender, asked) = oneshot::channel();
                    waiting.asked.insert(key.clone(), sender);
                    asked
                }
            }
        };
        let came = tokio::select! {
            () = over.cancelled() => Err(Error::unavailable("the connection of the agent is over")),
            came = timeout(COME, asked) => match came {
                Ok(Ok(came)) => Ok(aside(came)),
                _ => Err(Error::new(ErrorKind::Deadline, "the agent did not open the stream in time")),
            },
        };
        self.lock().asked.remove(&key);
        came
    }
}

fn aside((incoming, back): Came) -> Aside {
    let output = stream::unfold(incoming, |mut incoming| async move {
        loop {
            let item = match incoming.message().await {
                Ok(Some(frame)) => of_frame(frame)?,
                Ok(None) => return None,
                Err(status) => Some(Err(Error::unavailable(status.message()))),
            };
            if let Some(item) = item {
                return Some((item, incoming));
            }
        }
    });
    let input = sink::unfold(back, |back, item: ExecInput| async move {
        let kind = match item {
            ExecInput::Stdin(bytes) => aside_frame::Kind::Stdin(bytes.to_vec()),
            ExecInput::Eof => aside_frame::Kind::Eof(true),
            ExecInput::Resize(rows, columns) => {
                aside_frame::Kind::Resize(Size { rows: rows.into(), columns: columns.into() })
            }
        };
        let sent = back.send(AsideFrame { kind: Some(kind) }).await;
        sent.map_err(|_| Error::not_found("the command has ended"))?;
        Ok(back)
    });
    Aside { output: output.boxed(), input: Box::pin(input) }
}

/// What a frame says; the outer `None` ends the stream, the inner one says nothing.
#[expect(clippy::option_option, reason = "both are told apart where it is called")]
fn of_frame(frame: AsideFrame) -> Option<Option<Result<AsideOutput>>> {
    let Some(kind) = frame.kind else { return Some(None) };
    Some(match kind {
        aside_frame::Kind::Line(json) => Some(Ok(AsideOutput::Line(serde_json::from_slice(&json).ok()?))),
        aside_frame::Kind::Stdout(bytes) => Some(Ok(AsideOutput::Exec(ExecOutput::Stdout(bytes.into())))),
        aside_frame::Kind::Stderr(bytes) => Some(Ok(AsideOutput::Exec(ExecOutput::Stderr(bytes.into())))),
        aside_frame::Kind::Exit(json) => {
            Some(Ok(AsideOutput::Exec(ExecOutput::Exit(serde_json::from_slice(&json).ok()?))))
        }
        aside_frame::Kind::Failed(json) => {
            let failure: Failure = serde_json::from_slice(&json).ok()?;
            Some(Err(failure.into_error()))
        }
        _ => None,
    })
}
