//! Streams beside sessions whose other end does not do its part.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cocktail_agent::gate::GateLimits;
use cocktail_agent::wire::gate_client::GateClient;
use cocktail_agent::wire::{AsideFrame, Frame, aside_frame};
use cocktail_core::contract::ExecInput;
use cocktail_core::session::{AgentFrame, Readings};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::support::{House, LONG, Opened, Refusal, opening};

const MIB: usize = 1 << 20;
/// What may be under way: windows of both ends, and a channel of 64 messages of 64 KiB.
const MOST: usize = 16 * MIB;
const PIECE: usize = 64 << 10;

/// Waits until a count stands still, and returns it.
async fn settled(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = count.load(Ordering::Relaxed);
        if now == before && now > 0 {
            return now;
        }
        before = now;
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_a_stream_has_little_of_it_kept() {
    let mut house = House::open().await;
    let (mut session, link) = house.session(house.agent("a").calls()).await;
    let (say, frames) = mpsc::channel(1);
    say.send(opening(1)).await.unwrap();
    let unread = session.client.aside(ReceiverStream::new(frames)).await.unwrap();
    let mut aside = link.sender.aside(1).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let flood = tokio::spawn(async move {
        while counted.load(Ordering::Relaxed) < 100 * MIB {
            aside.input.send(ExecInput::Stdin(vec![7; PIECE].into())).await?;
            counted.fetch_add(PIECE, Ordering::Relaxed);
        }
        Ok::<(), cocktail_core::error::Error>(())
    });
    let kept = timeout(LONG, settled(&sent)).await.expect("it stands still");
    assert!(kept < MOST, "{kept} bytes are kept for somebody who does not read");
    // The session beside it, and others, go on.
    link.sender.send(cocktail_core::session::ManagerFrame::Endpoints(std::sync::Arc::default()));
    assert!(timeout(LONG, session.told.message()).await.unwrap().unwrap().is_some());
    house.goes_on().await;
    drop((unread, say));
    // Whoever waits to send learns that nobody reads.
    timeout(LONG, flood).await.expect("it ends").unwrap().unwrap_err();
}

#[tokio::test]
async fn an_agent_that_says_more_than_anybody_reads_has_to_wait() {
    let mut house = House::open().await;
    let (mut session, link) = house.session(house.agent("a").calls()).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let output = stream::iter(0..100 * MIB / PIECE).map(move |_| {
        counted.fetch_add(PIECE, Ordering::Relaxed);
        AsideFrame { kind: Some(aside_frame::Kind::Stdout(vec![7; PIECE])) }
    });
    let _opened = session.client.aside(stream::iter([opening(1)]).chain(output)).await.unwrap();
    let mut aside = link.sender.aside(1).await.unwrap();
    let kept = timeout(LONG, settled(&sent)).await.expect("it stands still");
    assert!(kept < MOST, "{kept} bytes are kept that nobody has read");
    link.sender.send(cocktail_core::session::ManagerFrame::Endpoints(std::sync::Arc::default()));
    assert!(timeout(LONG, session.told.message()).await.unwrap().unwrap().is_some());
    // All of it is there for whoever begins to read.
    let mut pieces = 0;
    while let Some(piece) = timeout(LONG, aside.output.next()).await.expect("more of it") {
        piece.unwrap();
        pieces += 1;
    }
    assert_eq!(pieces, 100 * MIB / PIECE);
}

/// What an agent says over a stream as long as somebody reads, counted.
fn endless(number: u64, sent: &Arc<AtomicUsize>) -> impl futures_util::Stream<Item = AsideFrame> + Send + use<> {
    let counted = sent.clone();
    let output = stream::repeat_with(move || {
        counted.fetch_add(PIECE, Ordering::Relaxed);
        AsideFrame { kind: Some(aside_frame::Kind::Stdout(vec![7; PIECE])) }
    });
    stream::iter([opening(number)]).chain(output)
}

/// Each of them is within its own bounds. The lease of all containers hangs on what is said beside them.
#[tokio::test]
async fn no_number_of_streams_that_nobody_reads_silences_a_session() {
    let mut house = House::open().await;
    let (mut session, mut link) = house.session(house.agent("a").calls()).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut unread = Vec::new();
    // With the session they are as many as there may be.
    for number in 1..u64::from(GateLimits::default().streams) {
        let opened = session.client.aside(endless(number, &sent)).await.unwrap();
        unread.push((opened, link.sender.aside(number).await.unwrap()));
    }
    timeout(LONG, settled(&sent)).await.expect("they stand still");
    let json = serde_json::to_vec(&AgentFrame::Readings(Readings::default())).unwrap();
    session.say.send(Frame { json, more: false }).await.unwrap();
    let heard = timeout(LONG, link.frames.next()).await.expect("the session is heard");
    assert_eq!(heard, Some(AgentFrame::Readings(Readings::default())));
}

/// Opens streams that nobody asks for until one is refused, over one connection after the other.
async fn open_unasked(house: &House, server: &str) -> Vec<(GateClient<Channel>, Vec<Opened>)> {
    let agent = house.agent(server);
    let mut connections = Vec::new();
    for number in 0..20 {
        let mut client = house.client(agent.calls()).await;
        let mut opened = Vec::new();
        for stream in 0..90 {
            match Opened::with(number * 90 + stream, &mut client).await {
                Ok(stream) => opened.push(stream),
                Err(Refusal::Answer(Code::ResourceExhausted)) => {
                    connections.push((client, opened));
                    return connections;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        connections.push((client, opened));
    }
    panic!("somebody keeps what nobody asks for");
}

fn count(connections: &[(GateClient<Channel>, Vec<Opened>)]) -> usize {
    connections.iter().map(|(_, opened)| opened.len()).sum()
}

#[tokio::test]
async fn an_agent_that_opens_what_nobody_asks_for_takes_no_place_of_others() {
    let mut house = House::open().await;
    let rogue = open_unasked(&house, "rogue").await;
    let opened = count(&rogue);
    let (mut session, link) = house.session(house.agent("a").calls()).await;
    let _early = Opened::with(1, &mut session.client).await.unwrap();
    link.sender.aside(1).await.unwrap();
    // Its own places are free again when its streams are gone.
    drop(rogue);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&open_unasked(&house, "rogue").await), opened);
}

#[tokio::test]
async fn a_stream_that_is_gone_answers_no_later_question() {
    let mut house = House::open().await;
    let agent = house.agent("a");
    let (mut session, link) = house.session(agent.calls()).await;
    let early = Opened::with(1, &mut session.client).await.unwrap();
    drop((early, session, link));
    sleep(Duration::from_millis(300)).await;
    let (mut session, link) = house.session(agent.calls()).await;
    let mut asked = std::pin::pin!(link.sender.aside(1));
    assert!(timeout(Duration::from_millis(50), &mut asked).await.is_err(), "it is that of a connection that is gone");
    let _own = Opened::with(1, &mut session.client).await.unwrap();
    timeout(LONG, asked).await.expect("it has come").unwrap();
}
