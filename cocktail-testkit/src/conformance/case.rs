//! Running cases: one after the other, each with a deadline, none able to stop the next.
//!
//! A case is an async function of its suite's scene that answers with a [`Verdict`]. [`cases!`] makes the table of a
//! suite; `if tty` behind a name says which declared capability the case needs.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::time::human;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::report::{Outcome, Report};

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// How a case ends.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// Why a case ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It cannot run here.
    Skipped(String),
    /// The promise is broken.
    Failed(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("{} ({:?})", error.chain(), error.kind()))
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &str) -> Verdict<T>;
}

impl<T> Doing<T> for Result<T, Error> {
    fn doing(self, what: &str) -> Verdict<T> {
        self.map_err(|error| Stop::Failed(format!("{what}: {} ({:?})", error.chain(), error.kind())))
    }
}

/// Ends the case as failed unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::case::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// Ends the case as failed unless both are equal.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {{
        let (found, expected) = (&$found, &$expected);
        if *found != *expected {
            let what = format!($($what)+);
            let message = format!("{what}: found {found:?}, expected {expected:?}");
            return Err($crate::conformance::case::Stop::Failed(message));
        }
    }};
}
pub(crate) use ensure_eq;

/// Ends the case as failed unless the call failed with a kind of this shape.
macro_rules! ensure_error {
    ($result:expr, $kind:pat, $($what:tt)+) => {
        match $result {
            Err(error) if matches!(error.kind(), $kind) => {}
            Err(error) => {
                let (what, kind) = (format!($($what)+), stringify!($kind));
                let message = format!("{what}: {} ({:?}), expected {kind}", error.chain(), error.kind());
                return Err($crate::conformance::case::Stop::Failed(message));
            }
            Ok(_) => {
                let (what, kind) = (format!($($what)+), stringify!($kind));
                return Err($crate::conformance::case::Stop::Failed(format!("{what}: succeeded, expected {kind}")));
            }
        }
    };
}
pub(crate) use ensure_error;

/// A case of a suite whose scene is an `S`.
pub(crate) struct Case<S> {
    pub(crate) name: &'static str,
    pub(crate) needs: Option<Need<S>>,
    pub(crate) run: for<'a> fn(&'a S) -> BoxFuture<'a, Verdict>,
}

/// A capability by name, and whether the scene's back end declares it.
type Need<S> = (&'static str, fn(&S) -> bool);

/// The table of a suite: names of functions, each with the capability that it needs, if it needs one.
macro_rules! cases {
    (@needs) => { None };
    (@needs $capability:ident) => { Some((stringify!($capability), |scene| scene.capabilities.$capability)) };
    ($($name:ident $(if $capability:ident)?),* $(,)?) => {
        vec![$($crate::conformance::case::Case {
            name: stringify!($name),
            needs: $crate::conformance::case::cases!(@needs $($capability)?),
            run: |scene| Box::pin($name(scene)),
        }),*]
    };
}
pub(crate) use cases;

impl<S> Case<S> {
    /// Runs the case and writes down what became of it.
    pub(crate) async fn report(&self, report: &mut Report, suite: &str, scene: &S, limit: Duration, waiting: &Waiting) {
        let outcome = match self.needs {
            Some((capability, declared)) if !declared(scene) => {
                Outcome::Skipped(format!("the capability `{capability}` is not declared"))
            }
            _ => guarded((self.run)(scene), limit, waiting).await.err().unwrap_or(Outcome::Passed),
        };
        report.add(suite, self.name, outcome);
    }
}

/// Runs something to its end, its panic or its deadline.
pub(crate) async fn guarded<T>(
    work: impl Future<Output = Verdict<T>>,
    limit: Duration,
    waiting: &Waiting,
) -> Result<T, Outcome> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(Stop::Skipped(reason)))) => Err(Outcome::Skipped(reason)),
        Ok(Ok(Err(Stop::Failed(message)))) => Err(Outcome::Failed(message)),
        Ok(Err(panic)) => Err(Outcome::Failed(format!("panicked: {}", text_of(&*panic)))),
        Err(_) => Err(Outcome::Failed(format!("not done within {}{waiting}", human(limit)))),
    }
}

/// Clears up, as far as that is possible: what is broken has failed a case already.
pub(crate) async fn clear_up(work: impl Future<Output = Verdict>, limit: Duration) {
    let _broken = guarded(work, limit, &Waiting::default()).await;
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// What a case waits for, so that its deadline can say so.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Option<String>>);

impl Waiting {
    fn set(&self, what: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.map(str::to_owned);
    }

    /// Waits for something that comes by itself.
    pub(crate) async fn on<T>(&self, what: &str, coming: impl Future<Output = T>) -> T {
        self.set(Some(what));
        let came = coming.await;
        self.set(None);
        came
    }

    /// Looks until something is there.
    pub(crate) async fn find<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> Verdict<T>
    where
        F: Future<Output = Verdict<Option<T>>>,
    {
        self.on(what, async {
            loop {
                if let Some(found) = look().await? {
                    return Ok(found);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }

    /// Repeats a call for as long as its error says that the same call may succeed later.
    pub(crate) async fn ready<T, F>(&self, what: &str, mut call: impl FnMut() -> F) -> Verdict<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.find(what, || {
            let call = call();
            async move {
                match call.await {
                    Ok(done) => Ok(Some(done)),
                    Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Throttled { .. }) => {
                        Ok(None)
                    }
                    Err(error) => Err(error).doing(what),
                }
            }
        })
        .await
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(what) => write!(f, ", while waiting for: {what}"),
            None => Ok(()),
        }
    }
}

/// Lets a call make that many steps and drops it, as a caller does that dies in the middle. Says whether it was still
/// going on.
pub(crate) async fn abandon<T>(call: impl Future<Output = T>, steps: usize) -> bool {
    let mut call = pin!(call);
    let mut left = steps;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if left == 0 => Poll::Ready(true),
            // It wakes us when it can go on.
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        capabilities: Capabilities,
        waiting: Waiting,
    }

    struct Capabilities {
        flies: bool,
    }

    #[tokio::test]
    async fn a_call_is_abandoned_after_as_many_steps_as_it_is_given() {
        let made = Mutex::new(0);
        for steps in 0..5 {
            *made.lock().unwrap() = 0;
            let call = async {
                for _ in 0..3 {
                    *made.lock().unwrap() += 1;
                    tokio::task::yield_now().await;
                }
            };
            assert_eq!((abandon(call, steps).await, *made.lock().unwrap()), (steps < 4, steps.min(3)));
        }
    }

    async fn passes(_: &Scene) -> Verdict {
        Ok(())
    }

    async fn fails(_: &Scene) -> Verdict {
        ensure_eq!(1 + 1, 3, "the sum");
        Ok(())
    }

    async fn panics(_: &Scene) -> Verdict {
        panic!("no sum at all")
    }

    async fn hangs(scene: &Scene) -> Verdict {
        scene.waiting.on("Godot", std::future::pending()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_case_that_fails_panics_or_hangs_does_not_stop_those_after_it() {
        let scene = Scene { capabilities: Capabilities { flies: false }, waiting: Waiting::default() };
        let mut report = Report::new("a scene");
        let cases: Vec<Case<Scene>> = cases![fails, panics, hangs, passes if flies, passes];
        for case in cases {
            case.report(&mut report, "s", &scene, Duration::from_secs(1), &scene.waiting).await;
        }
        let found: Vec<Outcome> = report.cases.into_iter().map(|case| case.outcome).collect();
        let expected = [
            Outcome::Failed("the sum: found 2, expected 3".into()),
            Outcome::Failed("panicked: no sum at all".into()),
            Outcome::Failed("not done within 1s, while waiting for: Godot".into()),
            Outcome::Skipped("the capability `flies` is not declared".into()),
            Outcome::Passed,
        ];
        assert_eq!(found, expected);
    }
}
