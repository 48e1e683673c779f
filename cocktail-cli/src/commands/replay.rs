//! `replay`: what a Manager knew at a past moment, and why it acted.
//!
//! Start at [`replay`]. The store is read from a copy ([`StoreCopy`]), so that nothing in the data dir is touched and a
//! Manager may go on meanwhile. [`history`] finds the turns and rebuilds the state, [`scope`] tells what concerns the
//! object that was asked about, [`page`] shows it to people.
//!
//! What cannot be rebuilt is said and never guessed: a snapshot is newer than the turns before it, and those lead to a
//! state only where the journal still begins with the first one.

mod history;
mod page;
mod scope;

use std::collections::BTreeSet;

use cocktail_core::state::State;
use cocktail_core::view::{ContainerView, EventView, OperationView, ServerView, UnitView, WhyView};
use cocktail_store::StoreCopy;
use serde::Serialize;

use self::history::{History, Past};
use self::scope::Scope;
use crate::args::{Format, ReplayArgs};
use crate::commands::list::unit_name;
use crate::data_dir::DataDir;
use crate::failure::Outcome;
use crate::output::Ui;

/// Decisions, and events, that people see where they did not say from when on.
const SHOWN: usize = 50;

/// The answer.
#[derive(Debug, Serialize)]
struct Replay {
    /// The store's id.
    store: String,
    /// The last turn that is looked at, and when it was.
    seq: u64,
    at: String,
    /// The first turn that is kept, if any is, and the last one.
    oldest: Option<TurnAt>,
    newest: TurnAt,
    /// What was known, or why that cannot be told.
    state: Option<Known>,
    state_missing: Option<String>,
    why: Vec<WhyView>,
    events: Vec<EventView>,
}

/// A turn.
#[derive(Debug, Clone, Serialize)]
struct TurnAt {
    seq: u64,
    at: String,
}

/// What was known.
#[derive(Debug, Serialize)]
struct Known {
    epoch: u64,
    frozen: Option<String>,
    units: Vec<UnitView>,
    containers: Vec<ContainerView>,
    servers: Vec<ServerView>,
    /// Those that had not ended.
    operations: Vec<OperationView>,
}

/// Prints what was known at the end of the turns that were asked for, and the decisions and events that led there.
///
/// # Errors
/// There is no store, or it cannot be read; nothing is kept from that time; nothing of that name was known.
pub(crate) fn replay(dir: &DataDir, args: &ReplayArgs, ui: &mut Ui) -> Outcome {
    let history = History::read(&StoreCopy::of(dir.path())?)?;
    let past = history.until(args.until, ui.now())?;
    let from = history.from(args.from, ui.now(), &past)?;
    let scope = args.object.as_deref().map(|name| Scope::of(name, &past)).transpose()?;
    let mut replay = look(&history, past, scope.as_ref());
    replay.events.retain(|event| event.seq >= from);
    if args.from.is_some() {
        let since = history.time_of(from).map(|at| at.to_string()).unwrap_or_default();
        replay.why.retain(|why| why.at >= since);
    }
    if let Some(missing) = &replay.state_missing {
        ui.note(missing);
    }
    if ui.format == Format::Json {
        return ui.json(&replay);
    }
    if args.from.is_none() {
        let earlier = keep_last(&mut replay.why, SHOWN) + keep_last(&mut replay.events, SHOWN);
        if earlier > 0 {
            ui.note(&format!("{earlier} earlier decisions and events are known; --from shows them"));
        }
    }
    let text = page::page(&replay, ui.colour_for_data());
    ui.data(&text)
}

/// Drops all but the last items, and says how many.
fn keep_last<T>(items: &mut Vec<T>, most: usize) -> usize {
    let earlier = items.len().saturating_sub(most);
    items.drain(..earlier);
    earlier
}

/// Everything of a past that concerns the object.
fn look(history: &History, past: Past<'_>, scope: Option<&Scope>) -> Replay {
    let wanted = |object: &str| scope.is_none_or(|scope| scope.has(object));
    let events = past.turns.iter().flat_map(|(row, turn)| turn.events.iter().map(|event| event.view(row.seq, row.at)));
    let (why, state, state_missing) = match &past.state {
        Ok(state) => (why(state, scope), Some(known(state, scope)), None),
        Err(missing) => (Vec::new(), None, Some(missing.clone())),
    };
    Replay {
        store: history.store().to_string(),
        seq: past.seq.0,
        at: past.at.to_string(),
        oldest: history.oldest().map(|(seq, at)| TurnAt { seq: seq.0, at: at.to_string() }),
        newest: TurnAt { seq: history.last().0, at: history.time_of(history.last().0).unwrap_or(past.at).to_string() },
        state,
        state_missing,
        why,
        events: events.filter(|event| wanted(&event.object)).collect(),
    }
}

fn known(state: &State, scope: Option<&Scope>) -> Known {
    let wanted = |object: &str| scope.is_none_or(|scope| scope.has(object));
    let open = |view: &OperationView| state.operations.keys().any(|id| id.0 == view.id);
    let mut known = Known {
        epoch: state.epoch.0,
        frozen: state.frozen.clone(),
        units: state.unit_views(),
        containers: state.container_views(),
        servers: state.server_views(),
        operations: state.operation_views().into_iter().filter(open).collect(),
    };
    known.containers.retain(|view| wanted(&view.id) || wanted(&view.server));
    known.operations.retain(|view| view.claims.iter().any(|claim| wanted(claim)));
    // Where a container was, or whose it was, is told with it.
    let shown = |of: fn(&ContainerView) -> String, name: &str| known.containers.iter().any(|view| of(view) == name);
    let owner = |view: &ContainerView| format!("{}/{}/{}", view.service, view.map, view.unit);
    known.servers.retain(|view| wanted(&view.id) || shown(|view| view.server.clone(), &view.id));
    known.units.retain(|view| wanted(&unit_name(view)) || shown(owner, &unit_name(view)));
    known
}

/// The decisions that were remembered, oldest first, each once.
fn why(state: &State, scope: Option<&Scope>) -> Vec<WhyView> {
    let names: Vec<String> = match scope {
        // What was decided about a container is told of its Unit, too, and in more words of the container itself.
        Some(scope) => {
            let containers = state.containers.keys().map(ToString::to_string);
            let servers = state.servers.keys().map(ToString::to_string);
            let all = state.units.keys().map(ToString::to_string).chain(containers).chain(servers);
            all.filter(|name| scope.has(name)).collect()
        }
        None => state.units.keys().map(ToString::to_string).collect(),
    };
    let mut decisions: Vec<WhyView> = Vec::new();
    for name in names {
        // A whole name of something that is there is never refused.
        decisions.extend(state.why(&name).unwrap_or_default());
    }
    // The state of a container that is not ready stands beside its Unit, too.
    let mut seen = BTreeSet::new();
    decisions
        .retain(|why| seen.insert((why.at.clone(), why.object.clone(), why.decision.clone(), why.because.clone())));
    // Decisions of one moment stay in the order in which they were made.
    decisions.sort_by(|a, b| a.at.cmp(&b.at));
    decisions
}

#[cfg(test)]
mod tests;
