//! What happens on one server, told to whoever reads it.
//!
//! A queue of [`tokio::sync::broadcast`] takes all its room at once, for each server; this one grows with what waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cocktail_core::contract::RuntimeEvent;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Events that a reader may lag behind.
const LAG: usize = 1_024;

/// Where events of one server go.
#[derive(Debug, Default)]
pub(super) struct Events {
    readers: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    queue: mpsc::Sender<RuntimeEvent>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// Tells every reader. One that lags behind misses it, and is told that it did.
    pub(super) fn emit(&self, event: &RuntimeEvent) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| match reader.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                reader.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
    }

    /// Everything from now on, until the server is gone.
    pub(super) fn read(&self) -> BoxStream<'static, RuntimeEvent> {
        let (queue, waiting) = mpsc::channel(LAG);
        let missed = Arc::new(AtomicU64::new(0));
        let reader = Reader { queue, missed: missed.clone() };
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        stream::unfold((waiting, missed), |(mut waiting, missed)| async move {
            let event = match missed.swap(0, Ordering::Relaxed) {
                0 => waiting.recv().await?,
                // Only a full queue misses anything, so this is told before long.
                missed => RuntimeEvent::Resync { why: format!("{missed} events were missed") },
            };
            Some((event, (waiting, missed)))
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> RuntimeEvent {
        RuntimeEvent::Resync { why: number.to_string() }
    }

    #[tokio::test]
    async fn each_reader_gets_all_and_one_that_lags_is_told() {
        let events = Events::default();
        let (mut quick, mut slow) = (events.read(), events.read());
        for number in 0..LAG + 3 {
            events.emit(&event(number));
            assert_eq!(quick.next().await, Some(event(number)));
        }
        assert_eq!(slow.next().await, Some(RuntimeEvent::Resync { why: "3 events were missed".into() }));
        for number in 0..LAG {
            assert_eq!(slow.next().await, Some(event(number)), "what waited is still told");
        }
        drop(quick);
        events.emit(&event(7));
        assert_eq!(events.readers.lock().unwrap().len(), 1, "who has gone is forgotten");
        drop(events);
        assert_eq!(slow.next().await, Some(event(7)));
        assert_eq!(slow.next().await, None);
    }
}
