//! For fuzz targets: frames as they come over the connection of an agent, without one, into the end that takes them.
//!
//! Input is lines. A line is what came in one message, as bytes of the message or as the JSON in it; those that begin with
//! one of three signs are what happens besides:
//!
//! | | |
//! | --- | --- |
//! | `+N` | N milliseconds pass |
//! | `-` | the connection breaks, and there is another one |
//! | `!N` | this end does something by itself, chosen by N |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cocktail_core::contract::{Exit, Lease, StopOrder};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, ServerId, StoreId};
use cocktail_core::session::{
    AgentConfig, AgentEnd, AgentFrame, AgentMemory, AgentOutput, AgentTime, BootId, Claim, Connection, Effect, Fact,
    Failure, ManagerEnd, ManagerFrame, ManagerOutput, OPEN_ORDERS, Order, RETIRED_BOOTS, Record, Standing, Survivors,
    Timing,
};
use cocktail_core::time::ManagerTime;
use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Frame, Incoming, parts};

/// The server, and its containers that were there before.
const SERVER: &str = "rack-1";
const CONTAINERS: [&str; 3] = ["web-1", "web-2", "web-3"];
/// Longest time that passes at once.
const LONGEST: u64 = 120_000;

/// What a line is.
enum Line<T> {
    Passes(u64),
    Breaks,
    Acts(u64),
    Frame(T),
    Nothing,
}

fn lines<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> impl Iterator<Item = Line<T>> {
    let mut whole = Incoming::default();
    bytes.split(|byte| *byte == b'\n').map(move |line| {
        let number =
            |digits: &[u8]| str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(1_u64);
        match line.split_first() {
            Some((b'+', rest)) => Line::Passes(number(rest).min(LONGEST)),
            Some((b'-', _)) => Line::Breaks,
            Some((b'!', rest)) => Line::Acts(number(rest)),
            // What changes one byte hits a length most of the time: what is behind it is tried without one as well.
            _ => read(&mut whole, line)
                .or_else(|| read(&mut whole, &Frame { json: line.to_vec(), more: false }.encode_to_vec()))
                .map_or(Line::Nothing, Line::Frame),
        }
    })
}

/// Takes a message as both ends do. What is in it can be sent on, and is the same then.
fn read<T: Serialize + DeserializeOwned>(whole: &mut Incoming, message: &[u8]) -> Option<T> {
    let json = whole.take(Frame::decode(message).ok()?).ok()??;
    let frame: T = serde_json::from_slice(&json).ok()?;
    let written = serde_json::to_vec(&frame).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert!(serde_json::to_vec(&again).expect("it can be written again") == written, "a frame changes on its way");
    Some(frame)
}

/// Whether it can be sent.
fn send(message: &impl Serialize) -> cocktail_core::error::Result<()> {
    let (outgoing, _parts) = parts();
    outgoing.send(message)
}

fn lease() -> Lease {
    Lease { store: StoreId::new("store"), epoch: Epoch(2), key: "b".into(), earlier: vec!["a".into()] }
}

fn container(number: u64) -> ContainerId {
    ContainerId::new(CONTAINERS[usize::try_from(number % 3).unwrap_or_default()])
}

/// The Manager's end, and what an agent says to it.
///
/// # Panics
/// Where bytes from an agent can do harm.
pub fn from_agent(bytes: &[u8]) {
    let claims =
        CONTAINERS.map(|id| (ContainerId::new(id), Claim { generation: Generation(1), standing: Standing::Wanted }));
    let (server, claims) = (ServerId::new(SERVER), BTreeMap::from(claims));
    let mut now = ManagerTime(1_000);
    let mut end = ManagerEnd::new(Timing::default(), server, lease(), Record::default(), claims, now);
    let (mut connection, mut operations) = (Connection(1), 0);
    let mut open = BTreeSet::new();
    for line in lines::<AgentFrame>(bytes) {
        let out = match line {
            Line::Passes(millis) => {
                now = now + Duration::from_millis(millis);
                let out = end.tick(now);
                assert!(end.wake_at().is_none_or(|at| at > now), "it wants to be woken before now");
                out
            }
            Line::Breaks => {
                let out = end.closed(now, connection);
                connection.0 += 1;
                out
            }
            Line::Acts(number) if number % 4 == 3 => end.fence(now, &container(number / 4)),
            Line::Acts(number) => {
                let (id, generation) = (container(number / 4), Generation(number / 16));
                let order = match number % 4 {
                    0 => Order::Stop(StopOrder { container: id, generation, signal: 15, grace: Duration::ZERO }),
                    1 => Order::Remove { container: id },
                    _ => Order::Admit { container: id, generation },
                };
                operations += 1;
                let operation = OperationId(operations);
                let Ok(out) = end.order(now, operation, order) else { continue };
                open.insert(operation);
                out
            }
            Line::Frame(AgentFrame::Session(message)) => end.received(now, connection, message),
            Line::Frame(_) | Line::Nothing => continue,
        };
        let ManagerOutput { facts, messages, hang_up: _ } = out;
        for (_, message) in messages {
            let frame = ManagerFrame::Session { message, values: BTreeMap::new() };
            send(&frame).expect("what is answered is not too large to be sent");
        }
        for fact in facts {
            if let Fact::Outcome { operation, .. } | Fact::Undecided { operation } = fact {
                assert!(open.remove(&operation), "an order is answered that is not open");
            }
        }
        assert!(end.record().retired.len() <= RETIRED_BOOTS, "boots are remembered for ever");
    }
    assert!(open.len() <= OPEN_ORDERS, "orders stay open");
}

/// The agent's end, and what a Manager says to it.
///
/// # Panics
/// Where bytes from a Manager can do harm.
pub fn to_agent(bytes: &[u8]) {
    let config =
        AgentConfig { server: ServerId::new(SERVER), boot: BootId::new("boot"), hello_every: Duration::from_secs(1) };
    let mut now = AgentTime(1_000);
    let (mut end, out) = AgentEnd::new(config, AgentMemory::default(), Survivors::default(), now);
    let mut connection = Connection(1);
    let mut asked = Vec::new();
    take(&end, out, &mut asked);
    let out = end.opened(now, connection);
    take(&end, out, &mut asked);
    for line in lines::<ManagerFrame>(bytes) {
        let out = match line {
            Line::Passes(millis) => {
                now = now + Duration::from_millis(millis);
                let out = end.tick(now);
                assert!(end.wake_at().is_none_or(|at| at > now), "it wants to be woken before now");
                out
            }
            Line::Breaks => {
                let closed = end.closed(now, connection);
                take(&end, closed, &mut asked);
                connection.0 += 1;
                end.opened(now, connection)
            }
            // The runtime has done what it was asked for, in any order.
            Line::Acts(number) => {
                let Some(last) = asked.len().checked_sub(1) else { continue };
                let at = usize::try_from(number / 3).unwrap_or(usize::MAX).min(last);
                match asked.swap_remove(at) {
                    Effect::Run { launch, .. } if number % 3 == 0 => {
                        let failure = Failure { kind: ErrorKind::Refused, text: "no".into(), port: None, engine: None };
                        end.start_failed(now, &launch.container, launch.generation, failure)
                    }
                    Effect::Run { launch, .. } => end.started(now, &launch.container, launch.generation),
                    Effect::End { container, generation, .. } => end.exited(now, &container, generation, Exit::Code(0)),
                    _ => continue,
                }
            }
            Line::Frame(ManagerFrame::Session { message, .. }) => end.received(now, connection, message),
            Line::Frame(_) | Line::Nothing => continue,
        };
        take(&end, out, &mut asked);
    }
}

/// What an agent's end asks for can be sent and done.
fn take(end: &AgentEnd, out: AgentOutput, asked: &mut Vec<Effect>) {
    assert!(end.session().is_none() || end.lease().is_some(), "a session outlives its lease");
    for (_, message) in out.messages {
        send(&AgentFrame::Session(message)).expect("what is said is not too large to be sent");
    }
    asked.extend(out.effects.into_iter().filter(|effect| matches!(effect, Effect::Run { .. } | Effect::End { .. })));
}

/// What the targets start from: what two ends say to each other, as each of them hears it, with the target's name.
///
/// # Panics
/// When a session does not come about.
pub fn seeds() -> [(&'static str, Vec<u8>); 2] {
    let (mut to_manager, mut to_agent) = (Vec::new(), Vec::new());
    let claims =
        CONTAINERS.map(|id| (ContainerId::new(id), Claim { generation: Generation(1), standing: Standing::Wanted }));
    let (server, boot) = (ServerId::new(SERVER), BootId::new("boot"));
    let mut manager = ManagerEnd::new(
        Timing::default(),
        server.clone(),
        lease(),
        Record::default(),
        BTreeMap::from(claims),
        ManagerTime(1_000),
    );
    let config = AgentConfig { server, boot, hello_every: Duration::from_secs(1) };
    let (mut agent, out) = AgentEnd::new(config, AgentMemory::default(), Survivors::default(), AgentTime(1_000));
    let mut said: Vec<_> = out.messages;
    said.extend(agent.opened(AgentTime(1_000), Connection(1)).messages);
    let push = |into: &mut Vec<u8>, line: &[u8]| {
        into.extend_from_slice(line);
        into.push(b'\n');
    };
    for round in 0..6_u64 {
        let (manager_now, agent_now) = (ManagerTime(1_000 + round * 3_000), AgentTime(1_000 + round * 3_000));
        push(&mut to_manager, b"+3000");
        push(&mut to_agent, b"+3000");
        said.extend(agent.tick(agent_now).messages);
        let mut answers = manager.tick(manager_now).messages;
        // Each says what the other's words lead to, until both are silent.
        while !said.is_empty() || !answers.is_empty() {
            for (_, message) in std::mem::take(&mut said) {
                let json = serde_json::to_vec(&AgentFrame::Session(message.clone())).expect("it can be written");
                push(&mut to_manager, &json);
                answers.extend(manager.received(manager_now, Connection(1), message).messages);
            }
            for (_, message) in std::mem::take(&mut answers) {
                let frame = ManagerFrame::Session { message: message.clone(), values: BTreeMap::new() };
                push(&mut to_agent, &serde_json::to_vec(&frame).expect("it can be written"));
                said.extend(agent.received(agent_now, Connection(1), message).messages);
            }
        }
        if round > 0 {
            let stop =
                StopOrder { container: container(round), generation: Generation(1), signal: 15, grace: Duration::ZERO };
            let ordered = manager.order(manager_now, OperationId(round), Order::Stop(stop));
            answers = ordered.expect("there is a session").messages;
            push(&mut to_manager, format!("!{}", 16 + round % 3 * 4).as_bytes());
            for (_, message) in answers {
                let frame = ManagerFrame::Session { message: message.clone(), values: BTreeMap::new() };
                push(&mut to_agent, &serde_json::to_vec(&frame).expect("it can be written"));
                said.extend(agent.received(agent_now, Connection(1), message).messages);
            }
        }
    }
    [("from_agent", to_manager), ("to_agent", to_agent)]
}
