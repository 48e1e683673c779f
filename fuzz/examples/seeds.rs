//! Writes what the targets start from: `seeds FOLDER MANIFEST…` makes `FOLDER/TARGET/…` and `FOLDER/TARGET.dict`.
//!
//! Journals and snapshots are those of a Manager that applies the manifests to one server and is told that everything
//! starts; frames are those that a client sends for it. So the seeds follow the code, and nothing has to be kept.

#![expect(clippy::unwrap_used, reason = "a development program: it may end where something is missing")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use cocktail_agent::protocol::{self as worker, from_worker::Kind};
use cocktail_core::contract::{Exit, Handle, ProbeKind};
use cocktail_core::event::{Event, Turn};
use cocktail_core::fleet::Tenure;
use cocktail_core::id::{Epoch, ServerId, StoreId};
use cocktail_core::manifest;
use cocktail_core::name::Name;
use cocktail_core::operation::OperationKind;
use cocktail_core::plan;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::{Resources, ServiceSpec};
use cocktail_core::state::State;
use cocktail_core::time::{ManagerTime, WallTime};
use prost::Message as _;
use serde_json::Value;

/// Turns that one journal gets at most.
const TURNS: u64 = 24;

fn main() {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().unwrap();
    let texts: Vec<String> = arguments.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let target = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (manifests, journals, snapshots) = (target("manifest"), target("journal"), target("snapshot"));
    let (rows, frames) = (target("store"), target("keeper"));
    for (number, session) in sessions().into_iter().enumerate() {
        fs::write(target("worker").join(number.to_string()), session).unwrap();
    }
    let mut words = BTreeSet::new();
    for (number, text) in texts.iter().enumerate() {
        fs::write(manifests.join(number.to_string()), text).unwrap();
        let parsed = manifest::parse(text, Path::new("cocktail.toml"), Path::new("/srv/shop"));
        let Some(service) = parsed.ok().and_then(|parsed| parsed.service) else { continue };
        let (turns, state) = history(service);
        let mut journal = Vec::new();
        for turn in &turns {
            let line = serde_json::to_vec(turn).unwrap();
            keys(&serde_json::from_slice(&line).unwrap(), &mut words);
            journal.extend_from_slice(&line);
            journal.push(b'\n');
            // A row of the journal begins with two numbers.
            fs::write(rows.join(format!("{number}-{}", turn.now.0)), [&[0; 16], &line[..]].concat()).unwrap();
        }
        fs::write(journals.join(number.to_string()), journal).unwrap();
        let snapshot = state.to_snapshot().unwrap();
        keys(&serde_json::from_slice(&snapshot).unwrap(), &mut words);
        fs::write(snapshots.join(number.to_string()), snapshot).unwrap();
    }
    for (number, frame) in cocktail_keeper::fuzzing::seeds().into_iter().enumerate() {
        fs::write(frames.join(number.to_string()), frame).unwrap();
    }
    for (name, lines) in cocktail_agent::wire::fuzzing::seeds() {
        let mut words = BTreeSet::new();
        let frames = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        frames.for_each(|frame| keys(&frame, &mut words));
        // Numbers that count further than they may.
        words.extend([u64::MAX, u64::MAX - 1, 0].map(|number| number.to_string()));
        write_words(&folder.join(format!("{name}.dict")), &words);
        fs::write(target(name).join("0"), lines).unwrap();
    }
    let mut manifest_words = BTreeSet::new();
    keys(&manifest::schema(), &mut manifest_words);
    write_words(&folder.join("manifest.dict"), &manifest_words);
    for target in ["journal", "snapshot"] {
        write_words(&folder.join(format!("{target}.dict")), &words);
    }
    let mut request_words = BTreeSet::new();
    for frame in cocktail_keeper::fuzzing::seeds() {
        if let Some(value) = frame.get(5..).and_then(|json| serde_json::from_slice(json).ok()) {
            keys(&value, &mut request_words);
        }
    }
    write_words(&folder.join("keeper.dict"), &request_words);
    write_words(&folder.join("store.dict"), &BTreeSet::from(["name".to_owned(), "data".to_owned()]));
}

/// What a Manager would journal for a Service: what was decided starts, becomes ready, and one of it crashes.
fn history(service: ServiceSpec) -> (Vec<Turn>, State) {
    let epoch = Epoch(1);
    let mut state = State::new(StoreId::new("fuzz"));
    let mut turns = Vec::new();
    let mut next = vec![
        Event::ManagerStarted { epoch, settings: Box::new(Settings::default()) },
        Event::ServerSeen { server: Box::new(server()) },
        Event::Applied { service: Box::new(service), actor: "uid 1".into() },
    ];
    for number in 1..=TURNS {
        let (now, at) = (ManagerTime(number * 1_000), WallTime(1_700_000_000_000_000 + number as i64 * 1_000_000));
        state.advance(now, at);
        let mut events = std::mem::take(&mut next);
        events.extend(commanded(&state, number));
        events.iter().for_each(|event| state.apply(event));
        events.extend(plan::decide(&mut state));
        for event in &events {
            let Event::Intended { operation } = event else { continue };
            let (container, generation) = (operation.container.clone(), operation.generation);
            match operation.kind {
                OperationKind::Start => {
                    let handle = Handle { pid: Some(4711), ..Handle::default() };
                    next.push(Event::Started { container: container.clone(), generation, handle });
                    let (probe, detail) = (ProbeKind::Ready, "GET / answered 200".to_owned());
                    next.push(Event::Probed { container: container.clone(), generation, probe, ok: true, detail });
                    if number == 2 && next.len() == 2 {
                        next.push(Event::Exited { container, generation, exit: Exit::Code(3) });
                    }
                }
                OperationKind::Remove => next.push(Event::Removed { container }),
                _ => next.push(Event::Exited { container, generation, exit: Exit::Code(0) }),
            }
        }
        if !events.is_empty() {
            turns.push(Turn { now, at, epoch, events });
        }
    }
    (turns, state)
}

/// What a user asks of the first Unit in some of the turns.
fn commanded(state: &State, number: u64) -> Option<Event> {
    let unit = state.units.keys().next()?.clone();
    let actor = "uid 1".to_owned();
    let container = state.containers.keys().next().cloned();
    match number {
        4 => Some(Event::Scaled { unit, desired: 4, actor }),
        7 => container.map(|container| Event::ReplaceAsked { container, because: "restart by uid 1".into() }),
        10 => Some(Event::Scaled { unit, desired: 1, actor }),
        13 => Some(Event::Froze { because: Some("all are unwell".into()) }),
        14 => Some(Event::Froze { because: None }),
        15 => Some(Event::Switched { unit, stopped: true, actor }),
        18 => Some(Event::Switched { unit, stopped: false, actor }),
        21 => Some(Event::UnitRemoved { unit, actor }),
        _ => None,
    }
}

fn server() -> Server {
    Server {
        id: ServerId::new("local"),
        provider: Name::new("standalone").unwrap(),
        provider_id: "m-1".into(),
        state: ServerState::Ready,
        reason: "joined".into(),
        since: WallTime(0),
        zone: None,
        offering: "local".into(),
        incarnation: "b-1".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        capacity: Resources { cpu: CpuMillis(64_000), memory: Bytes(64 << 30) },
        allocated: Resources::default(),
        containers: 0,
        tenure: Tenure::default(),
    }
}

/// Every key of a value, and every short text in it that looks like a word.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            into.insert(key.clone());
            keys(value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        Value::String(text) if text.len() <= 20 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            into.insert(text.clone());
        }
        _ => {}
    }
}

/// A dictionary as libFuzzer reads it.
fn write_words(path: &Path, words: &BTreeSet<String>) {
    let plain = words.iter().filter(|word| word.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\'));
    let text: String = plain.filter(|word| !word.is_empty()).map(|word| format!("\"{word}\"\n")).collect();
    fs::write(path, text).unwrap();
}

/// Sessions of workers: one that says everything, and one that comes back.
fn sessions() -> [Vec<u8>; 2] {
    let (container, microservice, assignment) = ("orders-abc123".to_owned(), "orders".to_owned(), 1);
    let first = [
        Kind::Register(worker::Register {
            container: container.clone(),
            token: "TOKEN".into(),
            pid: 4711,
            build: "1.0".into(),
            microservices: vec![microservice.clone(), "mail".into()],
        }),
        Kind::Ready(worker::Ready { assignment }),
        Kind::Usage(worker::Usage {
            in_flight: 3,
            requests: 70,
            queue: 2,
            custom: [("sessions".to_owned(), 31.5)].into(),
        }),
        Kind::ExtendRequest(worker::ExtendRequest { microservice: microservice.clone(), reason: "queue".into() }),
        Kind::ErrorReport(worker::ErrorReport {
            microservice: microservice.clone(),
            severity: worker::Severity::Broken.into(),
            error: "no database".into(),
        }),
        Kind::Drained(worker::Drained { assignment }),
        Kind::Unloaded(worker::Unloaded { assignment }),
    ];
    let error = "address in use".to_owned();
    let second = [
        Kind::Resume(worker::Resume { container, key: "KEY".into(), pid: 4711, assignment: 2 }),
        Kind::Failed(worker::Failed { assignment: 2, microservice, error, port_taken: "http".into() }),
    ];
    [session(first), session(second)]
}

/// Messages, each after its length.
fn session(kinds: impl IntoIterator<Item = Kind>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for kind in kinds {
        let message = worker::FromWorker { kind: Some(kind) }.encode_to_vec();
        bytes.extend(u16::try_from(message.len()).unwrap().to_le_bytes());
        bytes.extend(message);
    }
    bytes
}
