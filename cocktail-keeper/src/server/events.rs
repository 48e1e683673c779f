//! The last events, by number.

use std::{cell::RefCell, collections::VecDeque};

use crate::protocol::{Event, EventFrame, Refusal};

/// Events kept for those who come back.
const KEPT: usize = 4096;

/// A bounded list of events. Numbers start at 1 and never repeat within one keeper.
#[derive(Debug)]
pub(super) struct EventLog {
    ring: RefCell<(u64, VecDeque<EventFrame>)>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { ring: RefCell::new((0, VecDeque::new())) }
    }
}

impl EventLog {
    pub(super) fn push(&self, event: Event) {
        let (last, ring) = &mut *self.ring.borrow_mut();
        *last += 1;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(EventFrame { seq: *last, event });
    }

    /// The number of the newest event, 0 when there was none.
    pub(super) fn last(&self) -> u64 {
        self.ring.borrow().0
    }

    /// Where a subscription from this number begins.
    pub(super) fn begin(&self, from: u64) -> Result<u64, Refusal> {
        let (last, ring) = &*self.ring.borrow();
        let oldest = last + 1 - ring.len() as u64;
        match from {
            0 => Ok(last + 1),
            from if from < oldest || from > last + 1 => Err(Refusal::Gap { oldest }),
            from => Ok(from),
        }
    }

    /// The events from `cursor` on, which is moved behind them; a [`Event::Gap`] stands for those that are gone.
    pub(super) fn since(&self, cursor: &mut u64) -> Vec<EventFrame> {
        let (last, ring) = &*self.ring.borrow();
        let oldest = last + 1 - ring.len() as u64;
        let mut events = Vec::new();
        if *cursor < oldest {
            events.push(EventFrame { seq: oldest.saturating_sub(1), event: Event::Gap });
            *cursor = oldest;
        }
        let skip = usize::try_from(*cursor - oldest).unwrap_or(usize::MAX);
        events.extend(ring.iter().skip(skip).cloned());
        *cursor = last + 1;
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_from_one_and_delivered_once() {
        let log = EventLog::default();
        let mut cursor = log.begin(0).unwrap();
        log.push(Event::LeaseExpired);
        log.push(Event::LeaseExpired);
        assert_eq!(log.since(&mut cursor).iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(log.since(&mut cursor), []);
        assert_eq!(log.begin(2), Ok(2));
    }

    #[test]
    fn what_is_gone_or_was_never_there_is_a_gap() {
        let log = EventLog::default();
        let mut cursor = log.begin(1).unwrap();
        for _ in 0..=KEPT {
            log.push(Event::LeaseExpired);
        }
        assert_eq!(log.begin(1), Err(Refusal::Gap { oldest: 2 }));
        assert_eq!(log.begin(u64::MAX), Err(Refusal::Gap { oldest: 2 }));
        let events = log.since(&mut cursor);
        assert_eq!((events[0].event.clone(), events[1].seq, events.len()), (Event::Gap, 2, KEPT + 1));
    }
}
