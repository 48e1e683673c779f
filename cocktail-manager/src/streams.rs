//! What flows: events of the journal, and commands beside containers.

use std::collections::VecDeque;

use cocktail_core::contract::{Actor, EventFilter, ExecSession, ExecSpec, TurnRow};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Turn;
use cocktail_core::id::Seq;
use cocktail_core::view::EventView;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

use crate::shared::{Committed, Shared};

/// Turns that are read from the store at once.
const PAGE: usize = 256;

/// Events of the journal, then those that happen.
pub(crate) async fn events(shared: &Shared, filter: &EventFilter) -> Result<BoxStream<'static, Result<EventView>>> {
    // The subscription comes first, so that nothing is missed between the journal's end and the first live turn.
    let live = shared.committed.subscribe();
    let durable = shared.look(|_, health| health.seq).await?;
    let from = match (filter.from, filter.tail, &filter.object) {
        (Some(from), ..) => from,
        // Each turn holds at least one event, so that many turns hold that many events; of one object they may not.
        (None, Some(tail), None) => Seq(durable.0.saturating_sub(tail as u64) + 1),
        (None, ..) => Seq(1),
    };
    let mut reader = Reader {
        shared: shared.clone(),
        live,
        next: from,
        durable,
        buffer: VecDeque::new(),
        follow: filter.follow && filter.tail.is_none(),
        object: filter.object.clone(),
    };
    let Some(tail) = filter.tail else { return Ok(reader.stream()) };
    let mut last: VecDeque<Result<EventView>> = VecDeque::new();
    while let Some(event) = reader.next().await {
        last.push_back(event);
        if last.len() > tail {
            last.pop_front();
        }
    }
    let last = stream::iter(last);
    reader.follow = filter.follow;
    Ok(if filter.follow { last.chain(reader.stream()).boxed() } else { last.boxed() })
}

/// Reads the journal up to its end, then what is committed; goes back to the journal when it lags.
struct Reader {
    shared: Shared,
    live: broadcast::Receiver<Committed>,
    next: Seq,
    durable: Seq,
    buffer: VecDeque<EventView>,
    follow: bool,
    object: Option<String>,
}

impl Reader {
    fn stream(self) -> BoxStream<'static, Result<EventView>> {
        stream::unfold(self, |mut reader| async move { reader.next().await.map(|event| (event, reader)) }).boxed()
    }

    async fn next(&mut self) -> Option<Result<EventView>> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Some(Ok(event));
            }
            if self.next <= self.durable {
                if let Err(error) = self.page().await {
                    self.next = self.durable.next();
                    return Some(Err(error));
                }
                continue;
            }
            if !self.follow {
                return None;
            }
            match self.live.recv().await {
                Ok(turn) if turn.seq < self.next => {}
                Ok(turn) => {
                    self.next = turn.seq.next();
                    self.durable = turn.seq;
                    self.take(turn.events.iter().map(|event| event.view(turn.seq, turn.at)));
                }
                Err(RecvError::Lagged(_)) => {
                    self.durable = self.shared.look(|_, health| health.seq).await.ok()?;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn page(&mut self) -> Result<()> {
        let rows = self.shared.store.read(self.next, PAGE).await?;
        let Some(last) = rows.last().map(|row| row.seq) else {
            self.next = self.durable.next();
            return Ok(());
        };
        let durable = self.durable;
        for row in rows.iter().filter(|row| row.seq <= durable) {
            let turn = decode(row)?;
            self.take(turn.events.iter().map(|event| event.view(row.seq, row.at)));
        }
        self.next = last.next();
        Ok(())
    }

    fn take(&mut self, events: impl Iterator<Item = EventView>) {
        let wanted =
            |event: &EventView| self.object.as_ref().is_none_or(|object| event.object.contains(object.as_str()));
        self.buffer.extend(events.filter(wanted));
    }
}

fn decode(row: &TurnRow) -> Result<Turn> {
    serde_json::from_slice(&row.bytes)
        .map_err(|error| Error::unexpected("a turn of the journal cannot be read").with("seq", row.seq).because(error))
}

/// Runs a command beside a container.
pub(crate) async fn exec(shared: &Shared, object: &str, spec: &ExecSpec, actor: &Actor) -> Result<ExecSession> {
    if spec.command.is_empty() {
        return Err(Error::invalid("no command was given"));
    }
    let name = object.to_owned();
    let (container, server) = shared
        .look(move |state, _| {
            let id = state.container_named(&name)?;
            let record = state.containers.get(&id).ok_or_else(|| Error::not_found(format!("no container {id}")))?;
            if record.handle.is_none() {
                return Err(Error::new(
                    cocktail_core::error::ErrorKind::Conflict,
                    format!("{id} is not running: {}", record.reason),
                ));
            }
            Ok((id, record.server.clone()))
        })
        .await??;
    let runtime =
        shared.servers.get(&server).ok_or_else(|| Error::unavailable(format!("{server} is not connected")))?;
    info!(%container, %actor, program = spec.command.first().map(String::as_str), "exec");
    runtime.exec(&container, spec).await
}
