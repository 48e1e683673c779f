//! How many requests have begun and not ended, and the moment from which no more may begin.
//!
//! Start at [`InFlight`]. A server puts it around its services as a tower layer, or takes a [`Request`] for each piece of
//! work that is no HTTP request. A request ends when its answer's body ends or is dropped, not when its head is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tower_layer::Layer;
use tower_service::Service;

/// Counts requests. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: AtomicU64,
    ever: AtomicU64,
    refusing: AtomicBool,
    changed: Notify,
}

/// One request, until it is dropped.
#[derive(Debug)]
#[must_use = "the request ends when this is dropped"]
pub struct Request(Arc<Counts>);

impl InFlight {
    /// Begins a request; `None` if the worker is leaving, which is when the connection is to be closed.
    pub fn begin(&self) -> Option<Request> {
        // Counted first, so that whoever refuses from now on and sees zero has seen everything.
        self.0.now.fetch_add(1, Ordering::SeqCst);
        let request = Request(self.0.clone());
        if self.0.refusing.load(Ordering::SeqCst) {
            return None;
        }
        self.0.ever.fetch_add(1, Ordering::Relaxed);
        Some(request)
    }

    /// Requests that have begun and not ended.
    pub fn now(&self) -> u64 {
        self.0.now.load(Ordering::SeqCst)
    }

    /// Requests that have begun since the microservices were loaded.
    pub fn ever(&self) -> u64 {
        self.0.ever.load(Ordering::Relaxed)
    }

    /// Whether new requests are refused.
    pub fn is_refusing(&self) -> bool {
        self.0.refusing.load(Ordering::SeqCst)
    }

    /// Refuses new requests from now on.
    pub(super) fn refuse(&self) {
        self.0.refusing.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Waits until no request is in flight.
    pub(super) async fn idle(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.now() == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<S> Layer<S> for InFlight {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, in_flight: self.clone() }
    }
}

/// A service whose requests are counted. While the worker is leaving it answers 503 with `Retry-After`, and has an HTTP/1
/// connection closed.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    in_flight: InFlight,
}

impl<S, B, R> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>, Response = Response<R>>,
{
    type Response = Response<CountedBody<R>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let version = request.version();
        match self.in_flight.begin() {
            Some(counted) => Answer::Comes { answer: Box::pin(self.inner.call(request)), counted: Some(counted) },
            None => Answer::Refused(version),
        }
    }
}

/// The answer to a counted request.
#[derive(Debug)]
pub enum Answer<F> {
    /// The service works on it.
    Comes {
        /// The service's own.
        answer: Pin<Box<F>>,
        /// Its count, which goes over to the body.
        counted: Option<Request>,
    },
    /// The worker is leaving.
    Refused(Version),
}

impl<F, R, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CountedBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Comes { answer, counted } => answer.as_mut().poll(context).map_ok(|response| {
                let counted = counted.take();
                response.map(|body| CountedBody { body: Some(Box::pin(body)), _counted: counted })
            }),
            Self::Refused(version) => Poll::Ready(Ok(refusal(*version))),
        }
    }
}

fn refusal<R>(version: Version) -> Response<CountedBody<R>> {
    let mut response = Response::new(CountedBody { body: None, _counted: None });
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of a counted request's answer; empty where the request was refused.
#[derive(Debug)]
pub struct CountedBody<R> {
    body: Option<Pin<Box<R>>>,
    _counted: Option<Request>,
}

impl<R: Body> Body for CountedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        match &mut self.body {
            Some(body) => body.as_mut().poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Answers with a body of that text.
    #[derive(Clone)]
    struct Echo;

    impl Service<http::Request<()>> for Echo {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<()>) -> Self::Future {
            std::future::ready(Ok(Response::new("hello".to_owned())))
        }
    }

    #[tokio::test]
    async fn a_request_lasts_until_its_body_is_gone_and_then_no_more_begin() {
        let in_flight = InFlight::default();
        let mut service = in_flight.layer(Echo);
        let answer = service.call(http::Request::new(())).await.unwrap();
        assert_eq!((in_flight.now(), in_flight.ever(), answer.status()), (1, 1, StatusCode::OK));
        in_flight.refuse();
        let idle = in_flight.idle();
        tokio::pin!(idle);
        assert!(futures_util::poll!(&mut idle).is_pending());
        let refused = service.call(http::Request::new(())).await.unwrap();
        assert_eq!((refused.status(), in_flight.now()), (StatusCode::SERVICE_UNAVAILABLE, 1));
        assert_eq!(refused.headers()[RETRY_AFTER], "1");
        assert_eq!(refused.headers()[CONNECTION], "close");
        assert!(refused.body().is_end_stream());
        drop(answer);
        idle.await;
        assert_eq!((in_flight.now(), in_flight.ever()), (0, 1));
        assert!(in_flight.begin().is_none(), "what is refused is not counted");
        assert_eq!(in_flight.now(), 0);
    }

    #[tokio::test]
    async fn a_connection_of_http_2_is_not_told_to_close() {
        let in_flight = InFlight::default();
        in_flight.refuse();
        let mut request = http::Request::new(());
        *request.version_mut() = Version::HTTP_2;
        let refused = in_flight.layer(Echo).call(request).await.unwrap();
        assert_eq!((refused.status(), refused.headers().get(CONNECTION)), (StatusCode::SERVICE_UNAVAILABLE, None));
    }
}
