//! A connection that reads a log.
//!
//! Files are read where blocking is allowed, one chunk at a time and only as fast as the peer takes them. A peer that
//! takes nothing for [`PATIENCE`] is told so and dropped.

use std::{io, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    task::spawn_blocking,
    time::timeout,
};

use super::{Server, containers::check_name};
use crate::{
    client::kind,
    frame::{push_json, push_stream},
    logs::{
        reader::{Chunk, Cursor},
        timestamp,
    },
    protocol::{LogsRequest, Refusal, Reply, ServerFrame},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn stream(
    server: &Rc<Server>,
    id: u64,
    request: LogsRequest,
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) {
    let mut out = Vec::new();
    if let Err(refusal) = check_name(&request.container) {
        // A refusal is small.
        let _ = push_json(&mut out, &ServerFrame::Err(id, refusal));
        let _ = writer.write_all(&out).await;
        return;
    }
    let known = server.container(&request.container).ok();
    if known.is_none() && !server.options.logs.join(&request.container).is_dir() {
        let refusal = Refusal::NoSuchContainer { container: request.container };
        let _ = push_json(&mut out, &ServerFrame::Err(id, refusal));
        let _ = writer.write_all(&out).await;
        return;
    }
    let _ = push_json(&mut out, &ServerFrame::Ok(id, Reply::Done));
    // The peer says nothing more; what can be read is its going away.
    let mut end = [0_u8; 1];
    tokio::select! {
        _ = reader.read(&mut end) => {}
        _ = send(server, request, known.map(|container| container.sink.clone()), writer, out) => {}
    }
}

async fn send(
    server: &Rc<Server>,
    request: LogsRequest,
    sink: Option<std::sync::Arc<crate::logs::Sink>>,
    mut writer: OwnedWriteHalf,
    mut out: Vec<u8>,
) -> io::Result<()> {
    let since = request.since_us.and_then(|at| jiff::Timestamp::from_microsecond(at).ok()).map(timestamp);
    let dir = server.options.logs.join(&request.container);
    // A worker that writes faster than the peer reads must not make a request endless.
    let until = (!request.follow).then(|| timestamp(jiff::Timestamp::now()));
    let mut cursor = blocking(move || {
        let cursor = Cursor::new(dir, since, request.tail)?;
        Ok(match until {
            Some(until) => cursor.until(until),
            None => cursor,
        })
    })
    .await?;
    loop {
        // Registered before reading, so that no write goes unnoticed.
        let changed = sink.as_ref().map(|sink| sink.changed.notified());
        // Looked at before reading, so that what is read then is all there is.
        let over = !request.follow || sink.as_ref().is_none_or(|sink| sink.has_ended());
        let (chunk, back) = blocking(move || {
            let mut cursor = cursor;
            let chunk = cursor.next()?;
            Ok((chunk, cursor))
        })
        .await?;
        cursor = back;
        match chunk {
            Chunk::Records(records) => push_stream(&mut out, kind::RECORDS, &records),
            Chunk::Gap => push_stream(&mut out, kind::NOTICE, b"records were rotated away before they were read"),
            Chunk::End => {
                if over {
                    push_stream(&mut out, kind::END, b"");
                }
                flush(&mut writer, &mut out).await?;
                match changed {
                    Some(changed) if !over => changed.await,
                    _ => return Ok(()),
                }
            }
        }
        flush(&mut writer, &mut out).await?;
    }
}

async fn flush(writer: &mut OwnedWriteHalf, out: &mut Vec<u8>) -> io::Result<()> {
    match timeout(PATIENCE, writer.write_all(out)).await {
        Ok(result) => result?,
        Err(_) => {
            out.clear();
            push_stream(out, kind::NOTICE, b"dropped: nothing was read for a minute");
            // Most likely there is no room for it either.
            let _ = writer.try_write(out);
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    *out = Vec::new();
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}
