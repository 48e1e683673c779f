//! What the fuzz targets reach that no user should: only with the feature `fuzzing`, and no promise to anybody.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{FrameBuf, push_json};
use crate::protocol::{
    Adopt, Exit, ExitStatus, Listen, LogsRequest, Ports, Prepare, Remove, Reply, Request, RequestFrame, ServerFrame,
    Service, SetLease, SetServices, Shutdown, Signal, Stop, Subscribe, VERSIONS, Welcome, WireHello,
};

/// Takes bytes as either side of a connection would get them, in pieces whose sizes the bytes themselves choose. What is
/// a frame is written again, and must then be the same frame.
///
/// # Panics
/// Where bytes from outside can do harm.
pub fn frames(bytes: &[u8]) {
    let Some((first, wire)) = bytes.split_first() else { return };
    let piece = usize::from(*first) + 1;
    let mut control = FrameBuf::default();
    'control: for part in wire.chunks(piece) {
        control.spare().extend_from_slice(part);
        loop {
            match control.next_json() {
                Ok(Some(frame)) => decode(frame),
                Ok(None) => break,
                Err(_) => break 'control,
            }
        }
    }
    let mut stream = FrameBuf::default();
    'stream: for part in wire.chunks(piece) {
        stream.spare().extend_from_slice(part);
        loop {
            match stream.next_stream() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    // Most mutations hit a length; the words behind it are tried without one as well.
    decode(wire);
}

fn decode(frame: &[u8]) {
    again::<WireHello>(frame);
    again::<RequestFrame>(frame);
    again::<ServerFrame>(frame);
}

/// Reads a frame and, where it can be read, writes it and reads it once more.
fn again<T: Serialize + DeserializeOwned>(frame: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(frame) else { return };
    let written = serde_json::to_vec(&read).expect("a frame that was read can be written");
    let once_more: T = serde_json::from_slice(&written).expect("a frame that was written can be read");
    let rewritten = serde_json::to_vec(&once_more).expect("a frame that was read can be written");
    assert!(written == rewritten, "a frame changes on its way");
}

/// One of each kind of frame, with its length before it.
pub fn seeds() -> Vec<Vec<u8>> {
    let requests = [
        Request::Prepare(Prepare::default()),
        Request::Start(Box::default()),
        Request::Stop(Stop::default()),
        Request::Signal(Signal::default()),
        Request::Remove(Remove::default()),
        Request::ReleasePort(Ports::default()),
        Request::List,
        Request::Adopt(Adopt::default()),
        Request::Usage,
        Request::SetServices(SetServices { services: vec![Service::default()], ..SetServices::default() }),
        Request::CheckListen(Listen::default()),
        Request::Connections,
        Request::Subscribe(Subscribe::default()),
        Request::SetLease(SetLease::default()),
        Request::Shutdown(Shutdown::default()),
        Request::Logs(LogsRequest::default()),
        Request::Exec(Box::default()),
    ];
    let hello = WireHello {
        versions: VERSIONS,
        store: "store".into(),
        epoch: 1,
        lease: Some("key".into()),
        earlier: vec!["older".into()],
        intent: crate::protocol::Intent::Lead,
    };
    let answers = [
        ServerFrame::Welcome(Welcome::default()),
        ServerFrame::Ok(1, Reply::Done),
        ServerFrame::Ok(2, Reply::Exit(Exit { status: ExitStatus::Unknown, at_ms: 0 })),
    ];
    let mut seeds = vec![framed(&hello)];
    seeds.extend((1..).zip(requests).map(|(id, req)| framed(&RequestFrame { id, req })));
    seeds.extend(answers.iter().map(framed));
    seeds
}

fn framed(frame: &impl Serialize) -> Vec<u8> {
    // The byte that chooses the size of the pieces.
    let mut wire = vec![0xff];
    push_json(&mut wire, frame).expect("a frame of defaults is short");
    wire
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_seed_is_a_frame() {
        for seed in super::seeds() {
            super::frames(&seed);
            let frame = &seed[5..];
            assert!(serde_json::from_slice::<serde_json::Value>(frame).is_ok(), "{}", String::from_utf8_lossy(frame));
        }
    }
}
