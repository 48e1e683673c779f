//! What a worker can load.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::context::Context;

/// Why something failed, in words.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One loadable thing: it is made when it is loaded, and dropped when it is unloaded.
///
/// The calls come in this order: `init` once; `drain` at most once; `close` once, if `init` was successful. None of them may
/// block its thread. A panic in one of them is its failure and nobody else's.
///
/// ```
/// use cocktail_agent::worker::{BoxError, Context, MicroService, async_trait};
///
/// #[derive(Default)]
/// struct Orders;
///
/// #[async_trait]
/// impl MicroService for Orders {
///     async fn init(&mut self, context: Context) -> Result<(), BoxError> {
///         let listener = context.listener("http")?;
///         let down = context.shutdown();
///         context.spawn(async move {
///             while let Some(connection) = down.run_until_cancelled(listener.accept()).await {
///                 let (_stream, _peer) = connection?;
///                 // …serve it, with `context.in_flight()` around the service.
///             }
///             Ok(())
///         });
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait MicroService: Send + 'static {
    /// Does what is needed before the first request, and returns when requests are taken.
    ///
    /// # Errors
    /// Whatever keeps it from serving. What was loaded before it is closed again.
    async fn init(&mut self, context: Context) -> Result<(), BoxError>;

    /// New requests are refused from now on; returns when nothing is left that is not counted as in flight.
    async fn drain(&mut self) {}

    /// Gives back what `init` took. Its tasks were told by [`Context::shutdown`], and end when this returns.
    async fn close(&mut self) {}
}

type Maker = Box<dyn Fn() -> Box<dyn MicroService> + Send + Sync>;

/// Microservices by name.
#[derive(Default)]
pub(super) struct Register(BTreeMap<String, Maker>);

impl Register {
    pub(super) fn insert<S: MicroService>(&mut self, name: String, make: impl Fn() -> S + Send + Sync + 'static) {
        self.0.insert(name, Box::new(move || Box::new(make())));
    }

    pub(super) fn make(&self, name: &str) -> Option<Box<dyn MicroService>> {
        self.0.get(name).map(|make| make())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
