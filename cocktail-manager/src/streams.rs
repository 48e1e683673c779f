//! What flows: events of the journal, and commands beside containers.

use std::collections::{BTreeSet, VecDeque};

use cocktail_core::contract::{Actor, BuildStream, EventFilter, ExecSession, ExecSpec, TurnRow};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Turn;
use cocktail_core::id::{Seq, UnitId};
use cocktail_core::name::Name;
use cocktail_core::state::{Object, State};
use cocktail_core::view::EventView;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

use crate::shared::{Committed, Shared};

/// Turns that are read from the store at once.
const PAGE: usize = 256;
/// Events that are shown with an object.
const LAST: usize = 20;
/// Pages that are looked through for them.
const LAST_PAGES: usize = 8;

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

/// What builds of images say from now on.
pub(crate) fn builds(shared: &Shared) -> BuildStream {
    let lines = stream::unfold(shared.builds.listen(), |mut lines| async move {
        loop {
            match lines.recv().await {
                Ok(line) => return Some((Ok(line), lines)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    lines.take_until(shared.ended.clone().cancelled_owned()).boxed()
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
                Ok(Committed { seq, .. }) if seq < self.next => {}
                Ok(Committed { seq, turn }) => {
                    self.next = seq.next();
                    self.durable = seq;
                    self.take(turn.events.iter().map(|event| event.view(seq, turn.at)));
                }
                Err(RecvError::Lagged(_)) => {
                    self.durable = self.shared.look(|_, health| health.seq).await.ok()?;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn page(&mut self) -> Result<()> {
        let mut rows = self.shared.store.read(self.next, PAGE).await?;
        // What the store has beyond comes live: to go on behind it would be to leave it out.
        rows.retain(|row| row.seq <= self.durable);
        for row in &rows {
            let turn = decode(row)?;
            self.take(turn.events.iter().map(|event| event.view(row.seq, row.at)));
        }
        self.next = rows.last().map_or(self.durable, |row| row.seq).next();
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

/// Whose events are looked for: Units, or the groups that they are in, and their containers.
#[derive(Debug)]
pub(crate) struct About {
    objects: BTreeSet<String>,
    /// Containers of others: of theirs that are gone only the name is left.
    others: BTreeSet<String>,
    /// Names of Units that no other Unit has, so that a container that is gone says by its name whose it was.
    names: BTreeSet<String>,
}

impl About {
    /// What a name stands for; `None` for containers and servers, whose events can be asked for by their own names.
    ///
    /// # Errors
    /// As [`State::object`].
    pub(crate) fn of(state: &State, name: &str) -> Result<Option<Self>> {
        let object = state.object(name)?;
        let service = match &object {
            Object::Container(_) | Object::Server(_) => return Ok(None),
            Object::Service(service) | Object::Map(service, _) => service.to_string(),
            Object::Unit(unit) => unit.service.to_string(),
        };
        let units: BTreeSet<UnitId> = state.units_of(&object).into_iter().collect();
        let (mut objects, mut others) = (BTreeSet::from([service]), BTreeSet::new());
        for record in state.containers.values() {
            let set = if units.contains(&record.unit) { &mut objects } else { &mut others };
            set.insert(record.id.to_string());
        }
        objects.extend(units.iter().map(ToString::to_string));
        let is_other = |name: &Name| state.units.keys().any(|other| other.unit == *name && !units.contains(other));
        let names = units.iter().map(|id| &id.unit).filter(|name| !is_other(name)).map(ToString::to_string).collect();
        Ok(Some(Self { objects, others, names }))
    }

    fn is_about(&self, object: &str) -> bool {
        let by_name = || object.rsplit_once('-').is_some_and(|(name, _)| self.names.contains(name));
        self.objects.contains(object) || !self.others.contains(object) && !object.contains('/') && by_name()
    }
}

/// The last events about something, oldest first, without their details: those are in the journal.
pub(crate) async fn last(shared: &Shared, about: &About) -> Result<Vec<serde_json::Value>> {
    let durable = shared.look(|_, health| health.seq).await?;
    let mut found = VecDeque::new();
    let mut upto = durable.0;
    for _ in 0..LAST_PAGES {
        let from = upto.saturating_sub(PAGE as u64) + 1;
        let rows = shared.store.read(Seq(from), usize::try_from(upto + 1 - from).unwrap_or(PAGE)).await?;
        for row in rows.iter().rev().filter(|row| row.seq.0 <= upto) {
            let turn = decode(row)?;
            for event in turn.events.iter().rev() {
                let (kind, object, reason) = event.describe();
                if about.is_about(&object) {
                    let at = row.at.to_string();
                    found.push_front(
                        json!({ "seq": row.seq, "at": at, "kind": kind, "object": object, "reason": reason }),
                    );
                }
                if found.len() == LAST {
                    return Ok(found.into());
                }
            }
        }
        upto = from - 1;
        // Turns before the first that is kept are missing.
        if upto == 0 || rows.is_empty() {
            break;
        }
    }
    Ok(found.into())
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
