//! The turns that a store has kept, and the state at the end of one of them.

use cocktail_core::contract::TurnRow;
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Turn;
use cocktail_core::id::{Seq, StoreId};
use cocktail_core::state::State;
use cocktail_core::time::WallTime;
use cocktail_store::StoreCopy;

use crate::args::Moment;
use crate::failure::{Failure, Outcome};

/// What a store has kept.
pub(super) struct History {
    store: StoreId,
    /// Turns without gaps, oldest first.
    turns: Vec<(TurnRow, Turn)>,
    snapshot: Option<(Seq, State)>,
}

/// The end of one turn, with what led there.
pub(super) struct Past<'a> {
    /// The turn.
    pub(super) seq: Seq,
    /// When it was.
    pub(super) at: WallTime,
    /// All turns up to it that are kept.
    pub(super) turns: &'a [(TurnRow, Turn)],
    /// What was known at its end, or a sentence why that cannot be rebuilt.
    pub(super) state: std::result::Result<State, String>,
}

impl History {
    /// Reads everything that is kept.
    ///
    /// # Errors
    /// A turn or the snapshot cannot be read; nothing was ever written.
    pub(super) fn read(copy: &StoreCopy) -> Result<Self> {
        let rows = copy.turns(Seq(1), usize::MAX)?;
        let snapshot = copy.load()?.snapshot;
        Self::of(copy.id(), rows, snapshot)
    }

    fn of(store: StoreId, rows: Vec<TurnRow>, snapshot: Option<(Seq, Vec<u8>)>) -> Result<Self> {
        let mut turns = Vec::with_capacity(rows.len());
        for row in rows {
            let turn = serde_json::from_slice(&row.bytes).map_err(|error| {
                Error::unexpected("a turn of the journal cannot be read").with("seq", row.seq).because(error)
            })?;
            turns.push((TurnRow { bytes: Vec::new(), ..row }, turn));
        }
        let snapshot = match snapshot {
            None => None,
            Some((upto, bytes)) => {
                let state = State::from_snapshot(&bytes)
                    .map_err(|error| Error::unexpected("the snapshot in the store cannot be read").because(error))?;
                Some((upto, state))
            }
        };
        if turns.is_empty() && snapshot.is_none() {
            return Err(Error::not_found("the journal is empty: no Manager has written to this store yet"));
        }
        Ok(Self { store, turns, snapshot })
    }

    /// The store's id.
    pub(super) fn store(&self) -> &StoreId {
        &self.store
    }

    /// The first turn that is kept.
    pub(super) fn oldest(&self) -> Option<(Seq, WallTime)> {
        self.turns.first().map(|(row, _)| (row.seq, row.at))
    }

    /// The last turn.
    pub(super) fn last(&self) -> Seq {
        let journal = self.turns.last().map(|(row, _)| row.seq);
        journal.max(self.snapshot.as_ref().map(|(upto, _)| *upto)).unwrap_or_default()
    }

    /// When a turn was.
    pub(super) fn time_of(&self, seq: u64) -> Option<WallTime> {
        let kept = self.turns.iter().find(|(row, _)| row.seq.0 == seq).map(|(row, _)| row.at);
        kept.or_else(|| self.snapshot.as_ref().filter(|(upto, _)| upto.0 == seq).map(|(_, state)| state.at))
    }

    /// The end of the last turn that was not after the moment; of the newest one without a moment. Where the clock was
    /// set back, a time has come twice, and the second one counts.
    ///
    /// # Errors
    /// Nothing is kept from so early, or there was no such turn yet.
    pub(super) fn until(&self, moment: Option<Moment>, now: WallTime) -> Result<Past<'_>> {
        let seq = match moment {
            None => self.last(),
            Some(Moment::Turn(seq)) => {
                if seq > self.last().0 {
                    let (last, at) = (self.last(), self.time_of(self.last().0).unwrap_or_default());
                    return Err(Error::not_found(format!("the journal ends with turn {last}, at {at}")));
                }
                Seq(seq)
            }
            Some(Moment::At(at)) => self.at(at),
            Some(Moment::Ago(age)) => self.at(before(now, age)),
        };
        let Some(at) = self.time_of(seq.0) else { return Err(self.too_early()) };
        let end = self.turns.partition_point(|(row, _)| row.seq <= seq);
        let turns = &self.turns[..end];
        Ok(Past { seq, at, turns, state: self.state(seq, turns) })
    }

    /// The first turn whose events are wanted.
    ///
    /// # Errors
    /// It would be after the last one.
    pub(super) fn from(&self, moment: Option<Moment>, now: WallTime, past: &Past<'_>) -> Outcome<u64> {
        let time = match moment {
            None => return Ok(0),
            Some(Moment::Turn(seq)) if seq > past.seq.0 => {
                return Err(Failure::Usage(format!("--from is after turn {}, which --until stands for", past.seq)));
            }
            Some(Moment::Turn(seq)) => return Ok(seq),
            Some(Moment::At(at)) => at,
            Some(Moment::Ago(age)) => before(now, age),
        };
        // A moment after the last turn leaves no event, which is no mistake: nothing happened since.
        Ok(past.turns.iter().find(|(row, _)| row.at >= time).map_or(past.seq.0 + 1, |(row, _)| row.seq.0))
    }

    /// The last turn that was not after a time; zero where all were.
    fn at(&self, time: WallTime) -> Seq {
        let journal = self.turns.iter().rfind(|(row, _)| row.at <= time).map(|(row, _)| row.seq);
        let snapshot = self.snapshot.as_ref().filter(|(_, state)| state.at <= time).map(|(upto, _)| *upto);
        journal.max(snapshot).unwrap_or_default()
    }

    fn too_early(&self) -> Error {
        match (self.oldest(), &self.snapshot) {
            (Some((seq, at)), _) => Error::not_found(format!(
                "nothing is kept from then: the oldest moment is turn {seq}, at {at} (--until seq:{seq})"
            )),
            (None, Some((upto, state))) => Error::not_found(format!(
                "nothing is kept from then: the oldest moment is turn {upto}, at {} (--until seq:{upto})",
                state.at
            )),
            (None, None) => Error::not_found("nothing is kept"),
        }
    }

    fn state(&self, seq: Seq, turns: &[(TurnRow, Turn)]) -> std::result::Result<State, String> {
        let snapshot = self.snapshot.as_ref().filter(|(upto, _)| *upto <= seq);
        let (mut reached, mut state) = match snapshot {
            Some((upto, state)) => (*upto, state.clone()),
            None => (Seq(0), State::new(self.store.clone())),
        };
        let after = turns.partition_point(|(row, _)| row.seq <= reached);
        for (row, turn) in &turns[after..] {
            if row.seq != reached.next() {
                break;
            }
            state.replay(turn);
            // Told to whoever leads; here they would only grow.
            state.take_anomalies();
            reached = row.seq;
        }
        if reached == seq {
            return Ok(state);
        }
        let (first, upto) = (self.oldest().unwrap_or_default().0, self.snapshot.as_ref().map(|(upto, _)| *upto));
        Err(match upto {
            Some(upto) => format!(
                "what was known at turn {seq} cannot be rebuilt: the snapshot is of turn {upto}, and of the turns before \
                 it those from {first} on are kept; their events tell what happened and why"
            ),
            None => format!("what was known at turn {seq} cannot be rebuilt: the journal begins with turn {first}"),
        })
    }
}

fn before(now: WallTime, age: std::time::Duration) -> WallTime {
    WallTime(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}
