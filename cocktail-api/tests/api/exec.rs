//! Sessions: both ways, to the end, and not beyond the client's.

use std::time::Duration;

use bytes::Bytes;
use cocktail_api::ApiLimits;
use cocktail_core::contract::{Actor, ExecInput, ExecOutput, ExecSpec, Exit, Manager};
use cocktail_core::error::ErrorKind;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::oneshot;

use crate::support::{Running, me, raw};

fn spec() -> ExecSpec {
    ExecSpec {
        command: vec!["cat".into(), "-".into()],
        tty: Some((24, 80)),
        timeout: Some(Duration::from_millis(1_500)),
    }
}

#[tokio::test]
async fn input_sizes_and_the_end_go_both_ways() {
    let api = Running::start().await;
    let mut session = api.client().await.exec("shop/prod/web", &spec(), &Actor::embedder()).await.unwrap();
    assert_eq!(api.fake.take_asked(), [format!("exec shop/prod/web {:?} by {}", spec(), me())]);

    session.input.send(ExecInput::Stdin(Bytes::from_static(b"a\0\xff"))).await.unwrap();
    let item = session.output.next().await.unwrap().unwrap();
    assert_eq!(item, ExecOutput::Stdout(Bytes::from_static(b"a\0\xff")));
    session.input.send(ExecInput::Resize(50, 132)).await.unwrap();
    let item = session.output.next().await.unwrap().unwrap();
    assert_eq!(item, ExecOutput::Stderr(Bytes::from_static(b"50x132")));
    session.input.send(ExecInput::Eof).await.unwrap();
    assert_eq!(session.output.next().await.unwrap().unwrap(), ExecOutput::Exit(Exit::Code(7)));
    assert!(session.output.next().await.is_none());
}

#[tokio::test]
async fn megabytes_come_back_as_they_went() {
    let api = Running::start().await;
    let session = api.client().await.exec("web", &spec(), &Actor::embedder()).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    let (mut input, mut output) = (session.input, session.output);
    let whole = Bytes::from(sent.clone());
    let sender = tokio::spawn(async move {
        input.send(ExecInput::Stdin(whole)).await.unwrap();
        input.send(ExecInput::Eof).await.unwrap();
    });
    let mut received = Vec::new();
    loop {
        match output.next().await.unwrap().unwrap() {
            ExecOutput::Stdout(bytes) => received.extend_from_slice(&bytes),
            other => {
                assert_eq!(other, ExecOutput::Exit(Exit::Code(7)));
                break;
            }
        }
    }
    assert!(received == sent);
    sender.await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_client_drops_is_dropped_at_the_manager() {
    let api = Running::start().await;
    let (alive, dropped) = oneshot::channel();
    *api.fake.deaf.lock().unwrap() = Some(alive);
    let session = api.client().await.exec("web", &spec(), &Actor::embedder()).await.unwrap();
    drop(session);
    dropped.await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_goes_while_its_input_is_not_taken_is_noticed() {
    let api = Running::start().await;
    let (alive, dropped) = oneshot::channel();
    *api.fake.deaf.lock().unwrap() = Some(alive);
    let mut session = api.client().await.exec("web", &spec(), &Actor::embedder()).await.unwrap();
    for _ in 0..3 {
        session.input.send(ExecInput::Stdin(Bytes::from_static(b"nobody reads this"))).await.unwrap();
    }
    drop(session);
    dropped.await.unwrap_err();
}

#[tokio::test]
async fn a_session_outlives_the_limit_on_stalled_clients() {
    let api = Running::with(ApiLimits { stall: Duration::from_millis(1), ..ApiLimits::default() }).await;
    let session = api.client().await.exec("web", &spec(), &Actor::embedder()).await.unwrap();
    let (mut input, mut output) = (session.input, session.output);
    // More than all buffers hold, so that the API has to wait for us.
    let sender = tokio::spawn(async move {
        input.send(ExecInput::Stdin(vec![7; 8 << 20].into())).await.unwrap();
        input.send(ExecInput::Eof).await.unwrap();
    });
    // That the limit has passed while the API waited cannot be seen from outside; a shorter wait proves less, not wrong.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut length = 0;
    while let Some(item) = output.next().await {
        if let ExecOutput::Stdout(bytes) = item.unwrap() {
            length += bytes.len();
        }
    }
    assert_eq!(length, 8 << 20);
    sender.await.unwrap();
}

#[tokio::test]
async fn a_session_ends_as_unavailable_with_the_manager() {
    for dies in [false, true] {
        let mut api = Running::start().await;
        let mut session = api.client().await.exec("web", &spec(), &Actor::embedder()).await.unwrap();
        session.input.send(ExecInput::Stdin(Bytes::from_static(b"x"))).await.unwrap();
        session.output.next().await.unwrap().unwrap();
        match dies {
            true => api.die().await,
            false => api.ask_to_end(),
        }
        let error = session.output.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable);
        assert_eq!(error.message() == "the Manager ends", !dies, "{error}");
        assert!(session.output.next().await.is_none());
    }
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused() {
    let api = Running::with(ApiLimits { sessions: 1, ..ApiLimits::default() }).await;
    let client = api.client().await;
    let first = client.exec("web", &spec(), &Actor::embedder()).await.unwrap();
    let error = client.exec("web", &spec(), &Actor::embedder()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    drop(first);
    while client.exec("web", &spec(), &Actor::embedder()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_empty_command_is_refused() {
    let api = Running::start().await;
    let error = api.client().await.exec("web", &ExecSpec::default(), &Actor::embedder()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidConfig);
}

/// A whole session in one write: the request and the frames behind it.
async fn session_at_once(api: &Running, frames: &[u8]) -> String {
    let mut request = b"POST /v1/exec/web HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: cocktail-exec\r\n\
        content-length: 19\r\n\r\n{\"command\":[\"cat\"]}"
        .to_vec();
    request.extend_from_slice(frames);
    let answer = String::from_utf8_lossy(&raw(&api.socket(), &request).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    answer
}

#[tokio::test]
async fn a_client_need_not_wait_for_the_answer_before_it_sends_input() {
    let api = Running::start().await;
    let answer = session_at_once(&api, b"\x01\0\0\0\x05hello\x02\0\0\0\0").await;
    assert!(answer.contains("hello"), "{answer}");
    assert!(answer.ends_with(r#"{"code":7}"#), "{answer}");
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_so() {
    let api = Running::start().await;
    for wrong in [&[9, 0, 0, 0, 0][..], &[1, 0xff, 0xff, 0xff, 0xff], &[3, 0, 0, 0, 1, 0], &[4, 0, 0, 0, 1, 0]] {
        let answer = session_at_once(&api, wrong).await;
        assert!(answer.contains("invalid_config"), "{wrong:?}: {answer}");
    }
}
