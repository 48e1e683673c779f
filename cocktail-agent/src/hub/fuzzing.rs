//! For fuzz targets: messages as they come from workers, without a connection.

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::keys::Purpose;
use super::{Keys, Limits, Said, Slot, Workers};
use crate::protocol::{CUSTOM_LIMIT, FROM_WORKER_LIMIT, FromWorker, NAMES_LIMIT, TEXT_LIMIT, from_worker::Kind};

/// The container of whose session the bytes are.
const CONTAINER: &str = "orders-abc123";
/// Assignments that it was given.
const GIVEN: u64 = 3;

/// Takes bytes as the messages of one worker, each after two bytes that say how long it is, until one ends the session.
///
/// # Panics
/// What is told on is larger than may be, or about what was never given.
pub fn messages(mut bytes: &[u8]) {
    let (events, _taken) = mpsc::channel(1);
    let ends = CancellationToken::new();
    let (keys, limits) = (Keys::new(&[7; 32]), Limits::default());
    let workers = Arc::new(Workers::new(keys, limits, events, ends.clone()));
    let slot = Slot { generation: 1, registered: false, order: None, assignment: GIVEN, usage: None, session: None };
    workers.slots().insert(CONTAINER.to_owned(), slot);
    let (outbox, _orders) = mpsc::channel(8);
    let mut speaker = None;
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        bytes = rest;
        assert!(message.len() <= FROM_WORKER_LIMIT, "it is not read");
        let Ok(FromWorker { kind: Some(kind) }) = FromWorker::decode(message) else { return };
        let said = match (&speaker, kind) {
            // Nobody guesses a token: the right one is put in its place.
            (None, Kind::Register(mut register)) => {
                register.token = workers.keys.derive(Purpose::Token, CONTAINER, 1);
                let Ok((who, said)) = workers.register(register, &outbox, &ends) else { return };
                speaker = Some(who);
                said
            }
            (None, Kind::Resume(mut resume)) => {
                resume.key = workers.keys.derive(Purpose::Session, CONTAINER, 1);
                let Ok((who, said)) = workers.resume(&resume, &outbox, &ends) else { return };
                speaker = Some(who);
                said
            }
            (None, _) => return,
            (Some(speaker), kind) => match workers.understand(speaker, kind) {
                Ok(Some(said)) => said,
                Ok(None) => continue,
                Err(status) => return assert!(status.message().len() <= TEXT_LIMIT, "a reason is for people"),
            },
        };
        check(&said);
    }
    for slot in workers.slots().values() {
        let custom = slot.usage.iter().flat_map(|usage| &usage.custom);
        assert!(custom.clone().count() <= CUSTOM_LIMIT, "too many numbers are kept");
        assert!(
            custom.clone().all(|(name, value)| value.is_finite() && name.len() <= TEXT_LIMIT),
            "what is no number is"
        );
    }
}

fn check(said: &Said) {
    let texts: Vec<&String> = match said {
        Said::Registered { build, microservices, .. } => {
            assert!(microservices.len() <= NAMES_LIMIT, "too many names are told on");
            microservices.iter().chain([build]).collect()
        }
        Said::Failed(failed) => vec![&failed.error, &failed.microservice, &failed.port_taken],
        Said::Extend(asked) => vec![&asked.microservice, &asked.reason],
        Said::Report(report) => vec![&report.microservice, &report.error],
        Said::Ready { assignment } | Said::Drained { assignment } | Said::Unloaded { assignment } => {
            assert_ne!(*assignment, 0, "nothing was given as number 0");
            Vec::new()
        }
        _ => Vec::new(),
    };
    assert!(texts.iter().all(|text| text.len() <= TEXT_LIMIT), "a text for people is cut off");
}
