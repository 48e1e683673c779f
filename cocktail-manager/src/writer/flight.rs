//! A turn on its way to the disk, and what follows once it is there.
//!
//! A turn is written by a task of its own, so that the next one can be decided meanwhile where very many containers are to
//! be made. Calls, answers, routes and followers wait until it has landed.

use std::sync::Arc;
use std::time::Duration;

use cocktail_core::command::Commanded;
use cocktail_core::contract::{LedgerRow, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::{Event, Turn};
use cocktail_core::fleet::{FleetEvent, ServerOperation};
use cocktail_core::id::Seq;
use cocktail_core::state::State;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{Span, info, warn};

use super::{End, RETRY, Writer};
use crate::fleet;
use crate::routing::Wanted;
use crate::shared::{Committed, Request, Show};

/// Bytes that an event has about, as JSON.
const EVENT: usize = 400;

/// A turn that is being written.
pub(crate) struct Flight {
    turn: Arc<Turn>,
    /// Operations on servers that have ended in it.
    ended: Arc<Vec<ServerOperation>>,
    replies: Vec<Reply>,
    /// The routing table after it, if that is another one.
    routes: Option<Wanted>,
    /// How long it took to decide it.
    decided: Duration,
    span: Span,
    written: JoinHandle<Result<Written>>,
}

/// How writing a turn went.
struct Written {
    bytes: usize,
    took: Duration,
    outcome: Result<()>,
}

/// Who waits for a command to be durable, with the answer.
pub(super) struct Reply {
    pub(super) to: oneshot::Sender<Result<Commanded>>,
    pub(super) commanded: Commanded,
    /// What it is to see of the state, until it has seen it.
    pub(super) show: Option<Show>,
}

impl Reply {
    /// Shows what was decided.
    pub(super) fn show(&mut self, state: &State) {
        if let Some(show) = self.show.take() {
            show(state, &self.commanded);
        }
    }

    /// Says that it is durable. Whoever asked may have gone.
    pub(super) fn send(self) {
        let _ = self.to.send(Ok(self.commanded));
    }
}

impl Writer {
    /// Begins to write a turn.
    pub(super) fn take_off(&mut self, turn: Turn, replies: Vec<Reply>, began: Instant) {
        debug_assert!(self.flight.is_none(), "one turn is written at a time");
        let turn = Arc::new(turn);
        let ended = Arc::new(self.state.take_ended_server_operations());
        let (seq, epoch, store) = (self.seq.next(), self.epoch, self.shared.store.clone());
        let content = (turn.clone(), ended.clone());
        let written = tokio::spawn(async move {
            let (row, ledger) = rows(seq, &content.0, &content.1)?;
            let (bytes, begin) = (row.bytes.len(), Instant::now());
            let outcome = store.append(epoch, row, &ledger).await;
            Ok(Written { bytes, took: begin.elapsed(), outcome })
        });
        // The next turn may change it before this one has landed.
        let routes = self.take_routes(false);
        let (decided, span) = (began.elapsed(), Span::current());
        self.flight = Some(Flight { turn, ended, replies, routes, decided, span, written });
    }

    /// Waits until the turn that is being written is durable, however long that takes, then sends the calls of its
    /// operations, answers its commands and tells followers. Does nothing where no turn is being written.
    pub(super) async fn land(&mut self) -> Result<(), End> {
        let Some(flight) = self.flight.take() else { return Ok(()) };
        let Flight { turn, ended, replies, routes, decided, span, written } = flight;
        let written = written.await.map_err(|_| Error::unexpected("writing a turn panicked")).flatten();
        let Written { bytes, took, outcome } = written.map_err(unwritable)?;
        let seq = self.seq.next();
        self.persist(seq, &turn, &ended, outcome).await?;
        (self.seq, self.health.seq) = (seq, seq);
        self.snapshots.count(bytes);
        let mut operations = 0;
        for event in &turn.events {
            match event {
                Event::Intended { operation } => {
                    self.executor.send(&self.state, operation);
                    operations += 1;
                }
                Event::DrainBegun { container, .. } => self.executor.leaves(&self.state, container),
                _ => {}
            }
        }
        self.executor.begin(&self.state);
        for operation in fleet::to_send(&self.state, &turn.events) {
            self.send_server_call(operation);
            operations += 1;
        }
        self.forget_servers(&turn.events);
        let events = turn.events.len();
        span.record("seq", seq.0).record("events", events).record("operations", operations);
        // No follower is no error.
        let _ = self.shared.committed.send(Committed { seq, turn });
        self.pace(decided + took, events);
        replies.into_iter().for_each(Reply::send);
        if let Some(routes) = routes {
            self.publish(routes);
        }
        self.release_ports();
        Ok(())
    }

    /// Makes a turn durable whose first attempt had this outcome, however long that takes.
    async fn persist(
        &mut self,
        seq: Seq,
        turn: &Turn,
        ended: &[ServerOperation],
        mut outcome: Result<()>,
    ) -> Result<(), End> {
        let mut told = false;
        while let Err(failed) = outcome {
            if *failed.kind() == ErrorKind::Refused {
                return Err(End::LeaseLost(failed.chain()));
            }
            if *failed.kind() == ErrorKind::OutcomeUnknown
                && matches!(self.shared.store.last().await, Ok(last) if last == seq)
            {
                break;
            }
            if !told {
                warn!(error = failed.chain(), "a turn cannot be written; it is held and tried again");
                told = true;
            }
            self.health.degraded = Some(format!("the store cannot be written: {}", failed.chain()));
            if matches!(self.shared.store.use_reserve().await, Ok(true)) {
                self.reserve_used = true;
            } else if let Some(done) = self.hold(RETRY).await {
                // What is held was not acted on: the next Manager observes and decides it again.
                let _ = done.send(());
                return Err(End::Closed);
            }
            let (row, ledger) = rows(seq, turn, ended).map_err(unwritable)?;
            outcome = self.shared.store.append(self.epoch, row, &ledger).await;
        }
        if told {
            info!("the held turn is written");
        }
        if !self.reserve_used {
            self.health.degraded = None;
        }
        Ok(())
    }

    /// Answers looks and refuses commands while a turn waits for the store. Observations wait in their channel.
    async fn hold(&mut self, pause: Duration) -> Option<oneshot::Sender<()>> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                Some(request) = self.requests.recv() => match request {
                    Request::Look(look) => look(&self.state, &self.health),
                    Request::Command { reply, .. } => {
                        let because = self.health.degraded.clone().unwrap_or_default();
                        let _ = reply.send(Err(Error::refused(because)));
                    }
                    Request::Halt(done) => drop(done),
                    Request::Close(done) => return Some(done),
                },
            }
        }
    }

    pub(super) async fn restore_reserve(&mut self) {
        match self.shared.store.restore_reserve().await {
            Ok(true) => {
                self.reserve_used = false;
                self.health.degraded = None;
                info!("the store has room again");
            }
            Ok(false) => {
                self.health.degraded.get_or_insert_with(|| "the disk under the data dir is full".into());
            }
            Err(error) => self.health.degraded = Some(format!("the store cannot be written: {}", error.chain())),
        }
    }
}

/// A turn that is no JSON cannot be made durable by anybody.
fn unwritable(error: Error) -> End {
    End::LeaseLost(error.chain())
}

/// A turn as the store keeps it: its row, and those of the operations on servers that it intends or that have `ended` in it.
/// Operations on containers are in the turn itself and nowhere else.
pub(super) fn rows(seq: Seq, turn: &Turn, ended: &[ServerOperation]) -> Result<(TurnRow, Vec<LedgerRow>)> {
    let json = |error| Error::unexpected("a turn cannot be written as JSON").because(error);
    let intended = turn.events.iter().filter_map(|event| match event {
        Event::Fleet { event } => match &**event {
            FleetEvent::Intended { operation } if ended.iter().all(|ended| ended.id != operation.id) => Some(operation),
            _ => None,
        },
        _ => None,
    });
    let row = |operation: &ServerOperation, ended| {
        let bytes = serde_json::to_vec(operation).map_err(json)?;
        Ok(LedgerRow { operation: operation.id, ended, bytes })
    };
    let ledger = intended.map(|open| row(open, false)).chain(ended.iter().map(|ended| row(ended, true)));
    let ledger = ledger.collect::<Result<_>>()?;
    // A turn of a burst has megabytes, which are not to be copied while it grows.
    let mut bytes = Vec::with_capacity(turn.events.len() * EVENT);
    serde_json::to_writer(&mut bytes, turn).map_err(json)?;
    Ok((TurnRow { seq, at: turn.at, bytes }, ledger))
}
