//! What flows: events of the journal, output of containers, commands beside them.

use std::collections::VecDeque;

use cocktail_core::contract::{Actor, EventFilter, ExecSession, ExecSpec, LogOptions, LogStream, TurnRow};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Turn;
use cocktail_core::id::{ContainerId, Seq, ServerId};
use cocktail_core::state::Object;
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
    let from = match (filter.from, filter.tail) {
        (Some(from), _) => from,
        // Each turn holds at least one event, so that many turns hold that many events.
        (None, Some(tail)) => Seq(durable.0.saturating_sub(tail as u64) + 1),
        (None, None) => Seq(1),
    };
    let reader = Reader {
        shared: shared.clone(),
        live,
        next: from,
        durable,
        buffer: VecDeque::new(),
        follow: filter.follow,
        object: filter.object.clone(),
    };
    let all = stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) });
    match (filter.tail, filter.follow) {
        (Some(tail), false) => {
            let mut last: VecDeque<Result<EventView>> = VecDeque::new();
            let mut all = all.boxed();
            while let Some(event) = all.next().await {
                if last.len() == tail {
                    last.pop_front();
                }
                last.push_back(event);
            }
            Ok(stream::iter(last).boxed())
        }
        _ => Ok(all.boxed()),
    }
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

/// Output of a container, or of all containers of a Unit.
pub(crate) async fn logs(shared: &Shared, object: &str, options: &LogOptions) -> Result<LogStream> {
    let name = object.to_owned();
    let containers: Vec<(ContainerId, ServerId)> = shared
        .look(move |state, _| {
            let found = match state.object(&name)? {
                Object::Container(id) => vec![id],
                Object::Server(id) => return Err(Error::invalid(format!("{id} is a server, which has no output"))),
                object => state
                    .units_of(&object)
                    .iter()
                    .filter_map(|id| state.units.get(id))
                    .flat_map(|unit| unit.containers.iter().cloned())
                    .collect(),
            };
            Ok(found
                .into_iter()
                .filter_map(|id| state.containers.get(&id).map(|record| (id.clone(), record.server.clone())))
                .collect())
        })
        .await??;
    let mut streams = Vec::new();
    for (container, server) in containers {
        let runtime =
            shared.servers.get(&server).ok_or_else(|| Error::unavailable(format!("{server} is not connected")))?;
        match runtime.logs(&container, options).await {
            Ok(stream) => streams.push(stream),
            // A container that never started has no output.
            Err(error) if *error.kind() == cocktail_core::error::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if options.follow {
        return Ok(stream::select_all(streams).boxed());
    }
    match streams.len() {
        1 => Ok(streams.remove(0)),
        _ => Ok(stream::iter(streams).flatten().boxed()),
    }
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
