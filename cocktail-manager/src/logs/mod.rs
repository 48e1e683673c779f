//! Output of containers: of one, or of a Unit, a map or a Service as one stream of lines by time.
//!
//! Start at [`logs`]. `since` and `grep` drop lines where they are read, `tail` counts over the whole. What is followed
//! goes on with the containers that its Units get later, and ends with the last Unit, or with the Manager.

mod merge;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use cocktail_core::contract::{LogLine, LogOptions, LogStream};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, ServerId, UnitId};
use cocktail_core::state::{Object, State};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use self::merge::{Filter, Merge, Next};
use crate::shared::{Committed, Shared};

/// Lines that `tail` may ask for where they are picked here: they are held until the last one is known.
const MOST_TAIL: u64 = 100_000;

/// Output of a container, or of all containers of an object; with `follow` of those, too, that it gets later.
///
/// # Errors
/// As [`State::object`]; `InvalidConfig` for a server, or for too long a `tail` over several containers;
/// `Unavailable` while a server is not connected.
pub(crate) async fn logs(shared: &Shared, object: &str, options: &LogOptions) -> Result<LogStream> {
    // The subscription comes first, so that no container is missed between the look and the first turn.
    let turns = shared.committed.subscribe();
    let name = object.to_owned();
    let Sources { units, containers } = shared.look(move |state, _| sources(state, &name)).await??;
    let filter = Filter { grep: options.grep.as_deref().map(Arc::from), since: options.since };
    // Which of the last lines hold the text is known only after they were read.
    let tail = options.tail.filter(|_| options.grep.is_none());
    let each = LogOptions { tail, ..options.clone() };
    let mut open = BTreeSet::new();
    let mut streams = Vec::new();
    let opened = join_all(containers.iter().map(|(container, server)| output(shared, container, server, &each))).await;
    for ((container, _), stream) in containers.into_iter().zip(opened) {
        if let Some(stream) = stream? {
            open.insert(container);
            streams.push(stream);
        }
    }
    let follows = options.follow && !units.is_empty();
    if streams.len() == 1 && !follows && (options.grep.is_none() || options.tail.is_none()) {
        let takes = move |line: &Result<LogLine>| line.as_ref().map_or(true, |line| filter.takes(line));
        let lines = streams.remove(0).filter(move |line| std::future::ready(takes(line)));
        return Ok(lines.boxed());
    }
    if options.tail.is_some_and(|tail| tail > MOST_TAIL) {
        return Err(Error::invalid(format!("the last {MOST_TAIL} lines are the most that can be asked for at once")));
    }
    let mut merge = Merge::new(filter);
    streams.into_iter().for_each(|stream| merge.add(stream));
    let lines = Lines {
        merge,
        held: options
            .tail
            .map(|tail| Tail { most: usize::try_from(tail).unwrap_or(usize::MAX), lines: VecDeque::new() }),
        ready: VecDeque::new(),
        follow: follows.then(|| Follow { shared: shared.clone(), turns, units, open }),
    };
    Ok(stream::unfold(lines, |mut lines| async move { lines.next().await.map(|line| (line, lines)) }).boxed())
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

/// The merged lines on their way out.
struct Lines {
    merge: Merge,
    /// The last lines so far, while it is not known which are the last.
    held: Option<Tail>,
    ready: VecDeque<LogLine>,
    follow: Option<Follow>,
}

struct Tail {
    most: usize,
    lines: VecDeque<LogLine>,
}

impl Tail {
    fn push(&mut self, line: LogLine) {
        self.lines.push_back(line);
        if self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }
}

impl Lines {
    async fn next(&mut self) -> Option<Result<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            let next = match &mut self.follow {
                None => Some(self.merge.next().await),
                Some(follow) => tokio::select! {
                    next = self.merge.next(), if !self.merge.is_empty() => Some(next),
                    went_on = follow.turn() => {
                        if !went_on {
                            // What is still to be read of containers that have gone ends by itself.
                            self.follow = None;
                        } else if let Err(error) = follow.look(&mut self.merge).await {
                            return Some(Err(error));
                        } else if follow.units.is_empty() {
                            self.follow = None;
                        }
                        None
                    }
                },
            };
            match next {
                None => {}
                Some(Some(Next::Line(Ok(line)))) => match &mut self.held {
                    // From a line on that was written since nothing is old any more.
                    Some(_) if self.follow.is_some() && self.merge.is_new(&line) => {
                        self.release();
                        self.ready.push_back(line);
                    }
                    Some(tail) => tail.push(line),
                    None => return Some(Ok(line)),
                },
                Some(Some(Next::Line(Err(error)))) => return Some(Err(error)),
                Some(Some(Next::Settled)) if self.follow.is_some() => self.release(),
                Some(Some(Next::Settled)) => {}
                Some(None) => {
                    self.release();
                    if self.ready.is_empty() && self.follow.is_none() {
                        return None;
                    }
                }
            }
        }
    }

    /// The last lines are known.
    fn release(&mut self) {
        if let Some(tail) = self.held.take() {
            self.ready = tail.lines;
        }
    }
}

/// Units whose containers come and go.
struct Follow {
    shared: Shared,
    turns: Receiver<Committed>,
    units: Vec<UnitId>,
    /// Containers whose output is read, or was.
    open: BTreeSet<ContainerId>,
}

impl Follow {
    /// Waits for a turn; false when the Manager has ended.
    async fn turn(&mut self) -> bool {
        !matches!(self.turns.recv().await, Err(RecvError::Closed))
    }

    /// Begins to read from containers that are new, and forgets Units that are gone.
    async fn look(&mut self, merge: &mut Merge) -> Result<()> {
        let units = self.units.clone();
        let look = move |state: &State, _: &_| {
            let left: Vec<UnitId> = units.into_iter().filter(|unit| state.units.contains_key(unit)).collect();
            let containers = on_servers(state, containers_of(state, &left));
            (left, containers)
        };
        let containers;
        (self.units, containers) = self.shared.look(look).await?;
        // Those that come later give all that they write.
        let options = LogOptions { follow: true, ..LogOptions::default() };
        for (container, server) in containers {
            if self.open.contains(&container) {
                continue;
            }
            if let Some(stream) = output(&self.shared, &container, &server, &options).await? {
                self.open.insert(container);
                merge.add(stream);
            }
        }
        Ok(())
    }
}
