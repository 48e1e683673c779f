//! One session of one worker, from its first message to its end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::keys::Purpose;
use super::listen::Admission;
use super::{HubEvent, Said, Session, Slot, Workers};
use crate::protocol::workers_server;
use crate::protocol::{
    self, CUSTOM_LIMIT, EndpointTable, FromWorker, NAMES_LIMIT, Register, Registered, Resume, Severity, ToWorker,
    WatchRequest, from_worker::Kind, to_worker,
};

/// Orders that wait to be read by a worker.
const OUTBOX: usize = 8;
/// Bytes of the name of a Unit: three names of 63 and what is between them.
const UNIT_LIMIT: usize = 256;
/// How messages are counted to slow a worker down.
const WINDOW: Duration = Duration::from_millis(200);

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Who speaks in a session.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    container: String,
    generation: u64,
    session: u64,
}

#[async_trait::async_trait]
impl workers_server::Workers for Arc<Workers> {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToWorker, Status>> + Send>>;

    type WatchStream = BoxStream<'static, Result<EndpointTable, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let admission = request.extensions().get::<Admission>().cloned().unwrap_or_default();
        let WatchRequest { unit } = request.into_inner();
        if unit.len() > UNIT_LIMIT {
            return Err(Status::failed_precondition(format!("no unit has a name of more than {UNIT_LIMIT} bytes")));
        }
        let endpoints = self.endpoints.get().ok_or_else(|| Status::unavailable("nobody knows the endpoints yet"))?;
        let Ok(place) = self.followers.clone().try_acquire_owned() else {
            let limit = self.limits.followers;
            return Err(Status::resource_exhausted(format!(
                "{limit} follow the endpoints already, which is the limit"
            )));
        };
        // The socket is that of one user, who may know.
        admission.admit();
        let tables = endpoints(&unit).take_until(self.ends.clone().cancelled_owned());
        let tables = tables.map(move |table| {
            // It is held for as long as somebody follows.
            let _place = &place;
            Ok(table)
        });
        Ok(Response::new(tables.boxed()))
    }

    async fn session(&self, request: Request<Streaming<FromWorker>>) -> Result<Response<Self::SessionStream>, Status> {
        let admission = request.extensions().get::<Admission>().cloned().unwrap_or_default();
        let mut messages = request.into_inner();
        let first = timeout(self.limits.first, messages.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("nobody said who this is"))??;
        let (outbox, orders) = mpsc::channel(OUTBOX);
        let ends = self.ends.child_token();
        let opened = match first.and_then(|first| first.kind) {
            Some(Kind::Register(register)) => self.register(register, &outbox, &ends),
            Some(Kind::Resume(resume)) => self.resume(&resume, &outbox, &ends),
            _ => Err(Refusal {
                of: None,
                status: Status::failed_precondition("the first message is Register or Resume"),
            }),
        };
        let (speaker, said) = match opened {
            Ok(opened) => opened,
            Err(Refusal { of, status }) => {
                if let Some((container, generation)) = of {
                    let said = Said::Refused { because: status.message().to_owned() };
                    self.tell(HubEvent { container, generation, said }).await;
                }
                return Err(status);
            }
        };
        admission.admit();
        self.tell(speaker.says(said)).await;
        let (workers, ended) = (self.clone(), ends.clone());
        let (close, closed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let status = tokio::select! {
                () = ended.cancelled() => Ok(()),
                status = workers.listen(&speaker, messages) => status,
            };
            workers.left(&speaker).await;
            if let Err(status) = status {
                let because = status.message().to_owned();
                workers.tell(speaker.says(Said::Refused { because })).await;
                _ = close.send(status);
            }
        });
        // The stream ends when the session does; a status says why where the worker is to blame.
        let orders = ReceiverStream::new(orders).map(Ok).take_until(ends.cancelled_owned());
        let last = futures_util::stream::once(closed).filter_map(|status| async { status.ok().map(Err) });
        Ok(Response::new(Box::pin(orders.chain(last))))
    }
}

/// Why a session is not opened, and about which start that says something.
pub(super) struct Refusal {
    of: Option<(String, u64)>,
    status: Status,
}

impl Workers {
    /// Opens the first session of a worker.
    pub(super) fn register(
        &self,
        register: Register,
        outbox: &mpsc::Sender<ToWorker>,
        ends: &CancellationToken,
    ) -> Result<(Speaker, Said), Refusal> {
        let Register { container, token, pid, build, microservices } = register;
        if microservices.len() > NAMES_LIMIT {
            let status = Status::failed_precondition(format!("a worker has at most {NAMES_LIMIT} microservices"));
            return Err(Refusal { of: None, status });
        }
        let mut slots = self.slots();
        let slot = known(&mut slots, &container)?;
        let generation = slot.generation;
        let refuse = |text: &str| Refusal {
            of: Some((container.clone(), generation)),
            status: Status::unauthenticated(text.to_owned()),
        };
        if !self.keys.verify(Purpose::Token, &container, generation, &token) {
            return Err(refuse("the token is not that of this start"));
        }
        if slot.registered {
            return Err(refuse("the token was used already"));
        }
        slot.registered = true;
        let session = self.begin(slot, &container, outbox, ends);
        let build = protocol::shortened(build);
        let microservices = microservices.into_iter().map(protocol::shortened).collect();
        Ok((Speaker { container, generation, session }, Said::Registered { pid, build, microservices }))
    }

    /// Opens another session of a worker; one that is still open ends.
    pub(super) fn resume(
        &self,
        resume: &Resume,
        outbox: &mpsc::Sender<ToWorker>,
        ends: &CancellationToken,
    ) -> Result<(Speaker, Said), Refusal> {
        let Resume { container, key, assignment, .. } = resume;
        let mut slots = self.slots();
        let slot = known(&mut slots, container)?;
        let generation = slot.generation;
        if !self.keys.verify(Purpose::Session, container, generation, key) {
            // It may be of another start: then its keeper ends it, or this hub learns of it in a moment.
            let status = Status::unavailable("the key is not that of this start");
            return Err(Refusal { of: Some((container.clone(), generation)), status });
        }
        slot.registered = true;
        slot.assignment = slot.assignment.max(*assignment);
        let session = self.begin(slot, container, outbox, ends);
        let speaker = Speaker { container: container.clone(), generation, session };
        Ok((speaker, Said::Resumed { assignment: *assignment }))
    }

    fn begin(
        &self,
        slot: &mut Slot,
        container: &str,
        outbox: &mpsc::Sender<ToWorker>,
        ends: &CancellationToken,
    ) -> u64 {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let key = self.keys.derive(Purpose::Session, container, slot.generation);
        let usage_every_ms = u32::try_from(self.limits.usage.as_millis()).unwrap_or(u32::MAX);
        let registered = to_worker::Kind::Registered(Registered { key, usage_every_ms });
        _ = outbox.try_send(ToWorker { kind: Some(registered) });
        let session = Session { number, outbox: outbox.clone(), ends: ends.clone() };
        if let Some(before) = slot.session.replace(session) {
            before.ends.cancel();
        }
        slot.send_order();
        number
    }

    /// Takes what a worker says until its session ends; with a status if it said what has no sense.
    async fn listen(&self, speaker: &Speaker, mut messages: Streaming<FromWorker>) -> Result<(), Status> {
        let mut window = (Instant::now() + WINDOW, 0_u32);
        let most = (u64::from(self.limits.messages) * WINDOW.as_millis() as u64 / 1_000).max(1);
        loop {
            // A stream that breaks is no fault of the worker's; a message over the limit is.
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(status) if status.code() == tonic::Code::OutOfRange => return Err(status),
                Err(_) => return Ok(()),
            };
            if Instant::now() >= window.0 {
                window = (Instant::now() + WINDOW, 0);
            }
            window.1 += 1;
            if u64::from(window.1) > most {
                sleep_until(window.0).await;
            }
            let Some(kind) = message.kind else { continue };
            let said = match self.understand(speaker, kind)? {
                Some(said) => said,
                None => continue,
            };
            self.tell(speaker.says(said)).await;
        }
    }

    /// What a message says; `None` if it is to be kept and not told.
    pub(super) fn understand(&self, speaker: &Speaker, kind: Kind) -> Result<Option<Said>, Status> {
        let given = |assignment: u64, what: &str| {
            let slots = self.slots();
            let highest = slots.get(&speaker.container).map_or(0, |slot| slot.assignment);
            match assignment {
                1.. if assignment <= highest => Ok(()),
                _ => Err(Status::failed_precondition(format!(
                    "{what} of assignment {assignment}, which was never given"
                ))),
            }
        };
        Ok(Some(match kind {
            Kind::Register(_) | Kind::Resume(_) => {
                return Err(Status::failed_precondition("a session begins once: Register or Resume after its begin"));
            }
            Kind::Ready(ready) => {
                given(ready.assignment, "Ready")?;
                Said::Ready { assignment: ready.assignment }
            }
            Kind::Failed(mut failed) => {
                given(failed.assignment, "Failed")?;
                failed.error = protocol::shortened(failed.error);
                failed.microservice = protocol::shortened(failed.microservice);
                failed.port_taken = protocol::shortened(failed.port_taken);
                Said::Failed(failed)
            }
            Kind::Drained(drained) => {
                given(drained.assignment, "Drained")?;
                Said::Drained { assignment: drained.assignment }
            }
            Kind::Unloaded(unloaded) => {
                given(unloaded.assignment, "Unloaded")?;
                Said::Unloaded { assignment: unloaded.assignment }
            }
            Kind::Usage(mut usage) => {
                if usage.custom.len() > CUSTOM_LIMIT {
                    return Err(Status::failed_precondition(format!(
                        "Usage has at most {CUSTOM_LIMIT} numbers of its own"
                    )));
                }
                usage.custom.retain(|name, value| value.is_finite() && name.len() <= protocol::TEXT_LIMIT);
                if let Some(slot) = self.slots().get_mut(&speaker.container)
                    && slot.generation == speaker.generation
                {
                    slot.usage = Some(usage);
                }
                return Ok(None);
            }
            Kind::ExtendRequest(mut request) => {
                request.microservice = protocol::shortened(request.microservice);
                request.reason = protocol::shortened(request.reason);
                Said::Extend(request)
            }
            Kind::ErrorReport(mut report) => {
                if report.severity() == Severity::Unspecified {
                    return Err(Status::failed_precondition("ErrorReport says neither degraded nor broken"));
                }
                report.microservice = protocol::shortened(report.microservice);
                report.error = protocol::shortened(report.error);
                Said::Report(report)
            }
        }))
    }

    /// A session ended; nothing is told if another one has taken its place.
    async fn left(&self, speaker: &Speaker) {
        let was = {
            let mut slots = self.slots();
            let slot = slots.get_mut(&speaker.container);
            let own = |session: &mut Session| session.number == speaker.session;
            slot.is_some_and(|slot| {
                let left = slot.session.take_if(own).is_some();
                if left {
                    // What it said last is not what it does now.
                    slot.usage = None;
                }
                left
            })
        };
        if was {
            self.tell(speaker.says(Said::Left)).await;
        }
    }

    async fn tell(&self, event: HubEvent) {
        // Nobody listens when the hub is closing.
        _ = self.events.send(event).await;
    }
}

impl Speaker {
    fn says(&self, said: Said) -> HubEvent {
        HubEvent { container: self.container.clone(), generation: self.generation, said }
    }
}

/// The slot of a container that is expected.
fn known<'a>(slots: &'a mut BTreeMap<String, Slot>, container: &str) -> Result<&'a mut Slot, Refusal> {
    // The id of a stranger is not repeated: it may be anything. It may be expected in a moment, when whoever runs it has
    // found it again; if it is not wanted any more, its keeper ends it.
    let status = || Status::unavailable("no such container is expected here");
    slots.get_mut(container).ok_or_else(|| Refusal { of: None, status: status() })
}
