//! What flows: events of the journal, output of containers, commands beside them.

use std::collections::{BTreeSet, VecDeque};

use cocktail_core::contract::{Actor, EventFilter, ExecSession, ExecSpec, LogLine, LogOptions, LogStream, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::Turn;
use cocktail_core::id::{ContainerId, Seq, ServerId, UnitId};
use cocktail_core::state::{Object, State};
use cocktail_core::view::EventView;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
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

/// Output of a container, or of all containers of a Unit; with `follow` of those, too, that the Unit gets later.
pub(crate) async fn logs(shared: &Shared, object: &str, options: &LogOptions) -> Result<LogStream> {
    // The subscription comes first, so that no container is missed between the look and the first turn.
    let turns = shared.committed.subscribe();
    let name = object.to_owned();
    let sources = shared.look(move |state, _| sources(state, &name)).await??;
    let mut streams = Vec::new();
    let mut open = BTreeSet::new();
    for (container, server) in &sources.containers {
        if let Some(stream) = output(shared, container, server, options).await? {
            streams.push(stream);
            open.insert(container.clone());
        }
    }
    if options.follow {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let streams = stream::select_all(streams);
        if sources.units.is_empty() {
            return Ok(streams.boxed());
        }
        let follow = Follow { shared: shared.clone(), turns, units: sources.units, open, streams, options };
        let lines = stream::unfold(follow, |mut follow| async move { follow.next().await.map(|line| (line, follow)) });
        return Ok(lines.boxed());
    }
    match streams.len() {
        1 => Ok(streams.remove(0)),
        _ => Ok(stream::iter(streams).flatten().boxed()),
    }
}

/// Whose output an object stands for.
struct Sources {
    /// Units whose later containers belong to it, too.
    units: Vec<UnitId>,
    containers: Vec<(ContainerId, ServerId)>,
}

fn sources(state: &State, name: &str) -> Result<Sources> {
    let (units, containers) = match state.object(name)? {
        Object::Container(id) => (Vec::new(), vec![id]),
        Object::Server(id) => return Err(Error::invalid(format!("{id} is a server, which has no output"))),
        object => {
            let units = state.units_of(&object);
            let containers = containers_of(state, &units);
            (units, containers)
        }
    };
    Ok(Sources { units, containers: on_servers(state, containers) })
}

fn containers_of(state: &State, units: &[UnitId]) -> Vec<ContainerId> {
    units.iter().filter_map(|id| state.units.get(id)).flat_map(|unit| unit.containers.iter().cloned()).collect()
}

fn on_servers(state: &State, containers: Vec<ContainerId>) -> Vec<(ContainerId, ServerId)> {
    let with_server = |id: ContainerId| state.containers.get(&id).map(|record| (id.clone(), record.server.clone()));
    containers.into_iter().filter_map(with_server).collect()
}

/// Output of one container; `None` while it has none because it never started.
async fn output(
    shared: &Shared,
    container: &ContainerId,
    server: &ServerId,
    options: &LogOptions,
) -> Result<Option<LogStream>> {
    let runtime = shared.servers.get(server).ok_or_else(|| Error::unavailable(format!("{server} is not connected")))?;
    match runtime.logs(container, options).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Output of Units as their containers come and go. Ends with the last Unit, or with the Manager.
struct Follow {
    shared: Shared,
    turns: broadcast::Receiver<Committed>,
    units: Vec<UnitId>,
    /// Containers whose output is read, or was.
    open: BTreeSet<ContainerId>,
    streams: SelectAll<LogStream>,
    /// For those that come later: all that they write.
    options: LogOptions,
}

impl Follow {
    async fn next(&mut self) -> Option<Result<LogLine>> {
        loop {
            tokio::select! {
                Some(line) = self.streams.next() => return Some(line),
                turn = self.turns.recv() => match turn {
                    Ok(_) | Err(RecvError::Lagged(_)) => match self.look().await {
                        Ok(true) => {}
                        // What is still to be read of containers that have gone ends by itself.
                        Ok(false) => return self.streams.next().await,
                        Err(error) => return Some(Err(error)),
                    },
                    Err(RecvError::Closed) => return self.streams.next().await,
                },
            }
        }
    }

    /// Begins to read from containers that are new; false when no Unit is left.
    async fn look(&mut self) -> Result<bool> {
        let units = self.units.clone();
        let look = move |state: &State, _: &_| {
            let left = units.iter().any(|unit| state.units.contains_key(unit));
            (left, on_servers(state, containers_of(state, &units)))
        };
        let (left, containers) = self.shared.look(look).await?;
        for (container, server) in containers {
            if self.open.contains(&container) {
                continue;
            }
            if let Some(stream) = output(&self.shared, &container, &server, &self.options).await? {
                self.open.insert(container);
                self.streams.push(stream);
            }
        }
        Ok(left)
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
