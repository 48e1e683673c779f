//! Bounds by the clock: which entry of a Unit's schedule is in force.
//!
//! Start at [`Schedule`]: a value that is asked about times and reads no clock. [`run`] asks it with the wall clock,
//! tells the writer when another entry has begun, and sleeps until the next one or until a Unit changes. What an entry
//! set stays as long as the Unit knows no later one, also while no Manager runs. Rules of time zones are those of the
//! machine; where it has none, those that are built in.

use std::time::Duration;

use cocktail_core::event::Event;
use cocktail_core::id::UnitId;
use cocktail_core::scaling::Bounds;
use cocktail_core::spec::{Scheduled, UnitSpec};
use cocktail_core::state::State;
use cocktail_core::unit::Unit;
use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::clock::Clock;
use crate::shared::{Committed, Observation, Shared};

/// How far back an entry may have begun that is in force: what happens once a year has happened by then.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Entries begin at whole minutes, so two times that are closer than this have the same one before them.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Longest sleep before the wall clock is read again: it may be set, and a suspended machine does not count sleep.
const LONGEST: Duration = Duration::from_secs(30);

/// When the entries of a schedule begin.
#[derive(Debug)]
pub(crate) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Its place in the manifest.
    index: usize,
    crontab: Crontab,
}

impl Schedule {
    /// Understands a schedule. Entries that cannot be understood here (an unknown time zone) are left out and named.
    pub(crate) fn of(schedule: &[Scheduled]) -> (Self, Vec<(usize, String)>) {
        let mut problems = Vec::new();
        let mut entries = Vec::new();
        for (index, entry) in schedule.iter().enumerate() {
            match parse(&entry.cron) {
                Ok(crontab) => entries.push(Entry { index, crontab }),
                Err(problem) => problems.push((index, problem)),
            }
        }
        (Self { entries }, problems)
    }

    /// The entry that began last, and when; the later one in the manifest where two began at once. `None` when none has
    /// begun within a year.
    pub(crate) fn in_force(&self, now: Timestamp) -> Option<(usize, Timestamp)> {
        let began = |entry: &Entry| Some((entry.last(now)?, entry.index));
        let (at, index) = self.entries.iter().filter_map(began).max()?;
        Some((index, at))
    }

    /// When an entry begins after `now`, if ever.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.entries.iter().filter_map(|entry| entry.next(now)).min()
    }
}

impl Entry {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.crontab.find_next(MakeTimestamp(after)).ok().map(|at| at.timestamp())
    }

    /// The last beginning up to `now`: between a time that has one after it, and a later one that has none, halved until
    /// nothing is between them.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let begun = |after: Timestamp| self.next(after).filter(|at| *at <= now);
        let mut last = begun(now.checked_sub(LOOK_BACK).ok()?)?;
        let mut none = now;
        while none.duration_since(last) >= MINUTE {
            let middle = last.checked_add(none.duration_since(last) / 2).ok()?;
            match begun(middle) {
                Some(later) => last = later,
                None => none = middle,
            }
        }
        Some(last)
    }
}

fn parse(cron: &str) -> Result<Crontab, String> {
    let mut fields: Vec<String> = cron.split_whitespace().map(str::to_owned).collect();
    if let Some(zone) = fields.get(5)
        && jiff::tz::TimeZone::get(zone).is_err()
    {
        return Err(format!("no time zone {zone:?} is known here"));
    }
    if let Some(days) = fields.get_mut(2) {
        // cronexpr takes no day of December for a month's last one. The 31st is the last day of every month that has it.
        let days_of: Vec<&str> =
            days.split(',').map(|day| if day.eq_ignore_ascii_case("L") { "31,L" } else { day }).collect();
        *days = days_of.join(",");
    }
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    cronexpr::parse_crontab_with(&fields.join(" "), options).map_err(|error| error.to_string())
}

/// What a manifest says that only this machine can check: the place of each entry whose time zone is not known here.
pub(crate) fn problems(unit: &UnitSpec) -> Vec<(usize, String)> {
    unit.replicas.scaling.as_ref().map(|scaling| Schedule::of(&scaling.schedule).1).unwrap_or_default()
}

/// Whether bounds that were decided by a schedule are still news: the schedule may have changed meanwhile.
pub(crate) fn is_news(unit: Option<&Unit>, bounds: Option<Bounds>) -> bool {
    unit.is_some_and(|unit| {
        let entries = unit.spec.replicas.scaling.iter().flat_map(|scaling| &scaling.schedule);
        unit.bounds != bounds && entries.map(bounds_of).any(|entry| Some(entry) == bounds)
    })
}

/// Sets bounds until the Manager ends.
pub(crate) async fn run(shared: Shared, mut turns: Receiver<Committed>) {
    loop {
        let Ok(units) = shared.look(|state, _| scheduled(state)).await else { return };
        let now = wall();
        let mut wake: Option<Timestamp> = None;
        for (unit, schedule, bounds) in units {
            let (entries, problems) = Schedule::of(&schedule);
            for (index, problem) in problems {
                warn!(%unit, index, problem, "an entry of a schedule is left out");
            }
            if let Some((index, began)) = entries.in_force(now)
                && bounds != Some(bounds_of(&schedule[index]))
            {
                let bounds = bounds_of(&schedule[index]);
                let (Bounds { min, max }, cron) = (bounds, &schedule[index].cron);
                let because = format!("the schedule says {min} to {max} from {began} on ({cron})");
                let event = Event::BoundsSet { unit, bounds: Some(bounds), because };
                shared.observe(Observation::Event(event)).await;
            }
            wake = [wake, entries.next(now)].into_iter().flatten().min();
        }
        if !until(wake, &mut turns).await {
            return;
        }
    }
}

/// Waits for a time, or for a turn after which there may be other schedules; false when the Manager has ended.
async fn until(wake: Option<Timestamp>, turns: &mut Receiver<Committed>) -> bool {
    loop {
        let left = wake.map(|wake| wall().duration_until(wake));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default().min(LONGEST));
        let time = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {
                if wake.is_some_and(|wake| wall() >= wake) {
                    return true;
                }
            }
            turn = turns.recv() => match turn {
                Ok(committed) if committed.turn.events.iter().any(|event| matches!(event, Event::Applied { .. })) => return true,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            },
        }
    }
}

/// Units with a schedule, and the bounds that they have.
fn scheduled(state: &State) -> Vec<(UnitId, Vec<Scheduled>, Option<Bounds>)> {
    let schedule = |(id, unit): (&UnitId, &Unit)| {
        let schedule = unit.spec.replicas.scaling.as_ref().map(|scaling| &scaling.schedule)?;
        (!schedule.is_empty() && !unit.removing).then(|| (id.clone(), schedule.clone(), unit.bounds))
    };
    state.units.iter().filter_map(schedule).collect()
}

fn bounds_of(entry: &Scheduled) -> Bounds {
    Bounds { min: entry.min, max: entry.max }
}

fn wall() -> Timestamp {
    Timestamp::from_microsecond(Clock::wall().0).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
