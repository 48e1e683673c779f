//! Commands beside a container: the connection is upgraded and carries [`frame`](crate::frame)s both ways.
//!
//! The client that closes its end drops the session, which ends the command; so does the end of the API. The
//! command's own end is the last frame.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession, ExecSpec};
use cocktail_core::error::Error;
use futures_util::stream::BoxStream;
use futures_util::{Sink, SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, Chain, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::extract::{Caller, Object, read_json};
use super::failure::Failure;
use super::shared::Shared;
use super::stall::Stall;
use crate::frame::{Frame, FrameCodec, FrameError};
use crate::wire::{EXEC_PROTOCOL, Exec};

pub(super) async fn exec(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(container): Object,
    mut request: Request,
) -> Result<Response, Failure> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let Some(on_upgrade) = on_upgrade.filter(|_| asks_for_session(request.headers())) else {
        let error = Error::invalid(format!("exec needs the headers Connection: upgrade and Upgrade: {EXEC_PROTOCOL}"));
        return Err(Failure::of_request(StatusCode::UPGRADE_REQUIRED, error));
    };
    let body: Exec = read_json(request.into_body(), &shared).await?;
    if body.command.is_empty() {
        return Err(Error::invalid("the command is empty").into());
    }
    let room = shared.session()?;
    let manager = Arc::clone(shared.manager());
    let spec = ExecSpec::from(body);
    let session = shared.complete(async move { manager.exec(&container, &spec, &actor).await }).await?;
    let task = shared.clone();
    shared.spawn(async move {
        let _room = room;
        match on_upgrade.await.map(|upgraded| upgraded.downcast::<TokioIo<Stall<UnixStream>>>()) {
            Ok(Ok(parts)) => run(session, parts.io.into_inner().into_inner(), &parts.read_buf, &task).await,
            Ok(Err(_)) => tracing::error!("a session came over something else than our socket"),
            Err(error) => tracing::debug!(%error, "a client went away before its session began"),
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, EXEC_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}

fn asks_for_session(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(EXEC_PROTOCOL.as_bytes()))
}

/// Carries a session until one side ends it. `early` is what the client sent before it had its answer.
async fn run(session: ExecSession, stream: UnixStream, early: &[u8], shared: &Shared) {
    let (from_client, to_client) = stream.into_split();
    let mut from_client = FramedRead::new(early.chain(from_client), FrameCodec);
    let mut to_client = FramedWrite::new(to_client, FrameCodec);
    let ExecSession { input, output } = session;
    let last = tokio::select! {
        biased;
        () = carry_output(output, &mut to_client) => None,
        problem = carry_input(&mut from_client, input) => problem,
        () = shared.ending().cancelled() => Some(Error::unavailable("the Manager ends")),
    };
    if let Some(error) = last {
        let say = to_client.send(Frame::from(Err(error)));
        // Who does not take the last word in time does without it.
        let _ = tokio::time::timeout(shared.limits().grace, say).await;
    }
}

/// Ends after the last frame, or when the client takes no more.
async fn carry_output(
    mut output: BoxStream<'static, Result<ExecOutput, Error>>,
    to_client: &mut FramedWrite<OwnedWriteHalf, FrameCodec>,
) {
    while let Some(item) = output.next().await {
        let frame = Frame::from(item);
        let last = matches!(frame, Frame::Exit(_));
        if to_client.send(frame).await.is_err() || last {
            return;
        }
    }
}

/// Ends when the client goes, with an error if it broke the protocol.
async fn carry_input(
    from_client: &mut FramedRead<Chain<&[u8], OwnedReadHalf>, FrameCodec>,
    mut input: Pin<Box<dyn Sink<ExecInput, Error = Error> + Send>>,
) -> Option<Error> {
    loop {
        let item = match from_client.next().await {
            None | Some(Err(FrameError::Io(_))) => return None,
            Some(Err(error @ FrameError::Malformed(_))) => return Some(Error::invalid(error.to_string())),
            Some(Ok(frame)) => match frame.into_input() {
                Some(item) => item,
                None => return Some(Error::invalid("a client sends input, its end, and sizes of the terminal")),
            },
        };
        tokio::select! {
            // A command may close its input and go on; what is sent to it then is lost, as in a pipe.
            _ = input.send(item) => {}
            // While a command takes no input nothing is read, so a client that goes away must be noticed otherwise:
            // this readiness comes with the close and is not covered up by bytes that wait before it.
            _ = from_client.get_ref().get_ref().1.ready(Interest::PRIORITY) => return None,
        }
    }
}
