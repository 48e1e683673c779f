//! Which workers lived when, as their own records tell: the oracle for "never two at once".
//!
//! Start at [`Oracle::read`]. The worker `witness` appends the time to a file of its own every [`PERIOD`]. From its first
//! record to its last is a [`Life`], whatever lies between: a process that is stopped or starved writes nothing and is
//! still there. One that is there while its file is read lives until then. So a life is never longer than the
//! process's own, and what is found to overlap did overlap; it misses the process's first moments, and of one that has
//! ended the last ones, up to a [`PERIOD`] or more on a busy machine.
//!
//! [`Oracle::only`] narrows the question, to a Unit for example.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{env, fmt, fs, io, process};

use rustix::time::{ClockId, clock_gettime};

use crate::process::Process;

/// From one record to the next.
pub const PERIOD: Duration = Duration::from_millis(10);

/// First word of a file.
const MARK: &str = "witness";

/// The time since boot, suspension included: one clock for all processes of a machine.
pub fn now() -> Duration {
    clock_gettime(ClockId::Boottime).try_into().expect("the time since boot is not negative")
}

/// One record: nanoseconds since boot, always as long.
pub fn record(time: Duration) -> String {
    format!("{:020}\n", time.as_nanos())
}

/// A process that testifies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The container that it runs in. The replacement of a container has another id.
    pub container: String,
    /// The server that it was told it runs on.
    pub server: String,
    /// The Unit that it was told it is of, as `service/map/unit`.
    pub unit: String,
    /// The revision of the Unit.
    pub revision: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in ticks since boot: tells two processes of one container apart, like a generation.
    pub started: u64,
}

impl Who {
    /// This process, as its environment tells. What it is not told is `-`.
    ///
    /// # Errors
    /// When it is not told its container.
    pub fn this_process() -> io::Result<Self> {
        let word = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let told = |name: &str| word(name).unwrap_or_else(|| "-".to_owned());
        let pid = process::id();
        Ok(Self {
            container: word("COCKTAIL_CONTAINER").ok_or_else(|| io::Error::other("no COCKTAIL_CONTAINER is set"))?,
            server: told("COCKTAIL_SERVER"),
            unit: told("COCKTAIL_UNIT"),
            revision: told("COCKTAIL_REVISION"),
            pid,
            started: Process::find(pid).ok_or(io::ErrorKind::NotFound)?.started,
        })
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{}.{}.{}", self.container, self.started, self.pid)
    }

    /// The first line of its file.
    pub fn header(&self) -> String {
        let Self { container, server, unit, revision, pid, started } = self;
        format!("{MARK} {container} {server} {unit} {revision} {pid} {started}\n")
    }

    /// Whether this very process is there, stopped or not.
    fn runs(&self) -> bool {
        Process::find(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        (words.next()? == MARK).then_some(())?;
        let mut word = || words.next().map(str::to_owned);
        let (container, server, unit, revision) = (word()?, word()?, word()?, word()?);
        Some(Self { container, server, unit, revision, pid: word()?.parse().ok()?, started: word()?.parse().ok()? })
    }
}

/// The life of one process, as far as it has testified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Whose it is.
    pub who: Who,
    /// Its first record, since boot.
    pub first: Duration,
    /// Its last record, since boot, or the moment of reading if it was still there.
    pub last: Duration,
    /// How many there are.
    pub records: usize,
    /// The longest time between two of them: long for one that was stopped.
    pub longest_pause: Duration,
}

impl Life {
    /// Whether it lived at that time.
    pub fn at(&self, time: Duration) -> bool {
        (self.first..=self.last).contains(&time)
    }

    /// How long both lived at once; `None` if they never did.
    pub fn overlap(&self, other: &Self) -> Option<Duration> {
        self.last.min(other.last).checked_sub(self.first.max(other.first))
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who: Who { container, server, unit, revision, pid, started }, first, last, records, .. } = self;
        write!(
            f,
            "{container} of {unit} revision {revision} on {server}, process {pid} started {started}: {:.3} s to {:.3} s \
             since boot, {records} records, longest pause {:?}",
            first.as_secs_f64(),
            last.as_secs_f64(),
            self.longest_pause
        )
    }
}

/// What all witnesses of a folder have said.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    lives: Vec<Life>,
}

impl Oracle {
    /// Reads the files of a folder. A file without a whole record yet, and the beginning of one at its end, are left out.
    ///
    /// # Panics
    /// When a file is not of a witness, or its times go backwards.
    #[track_caller]
    pub fn read(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut lives = Vec::new();
        for path in entries.map(|entry| entry.expect("a folder can be read to its end").path()) {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let life = life(&text).unwrap_or_else(|complaint| panic!("{}: {complaint}", path.display()));
            let Some(mut life) = life else { continue };
            let time = now();
            if life.who.runs() {
                life.last = time;
            }
            lives.push(life);
        }
        Self::of(lives)
    }

    /// What is known of these lives.
    pub fn of(mut lives: Vec<Life>) -> Self {
        lives.sort_by(|one, other| one.first.cmp(&other.first).then_with(|| one.who.cmp(&other.who)));
        Self { lives }
    }

    /// The same for some of the lives.
    #[must_use]
    pub fn only(&self, is_meant: impl Fn(&Life) -> bool) -> Self {
        Self { lives: self.lives.iter().filter(|life| is_meant(life)).cloned().collect() }
    }

    /// The same for the workers of one Unit, `service/map/unit`.
    #[must_use]
    pub fn of_unit(&self, unit: &str) -> Self {
        self.only(|life| life.who.unit == unit)
    }

    /// All lives, by their beginnings.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// Those who lived at that time.
    pub fn alive_at(&self, time: Duration) -> Vec<&Life> {
        self.lives.iter().filter(|life| life.at(time)).collect()
    }

    /// Every two lives of one container that were there at once, and for how long. There must never be any.
    pub fn overlaps(&self) -> Vec<(&Life, &Life, Duration)> {
        let mut containers: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
        for life in &self.lives {
            containers.entry(&life.who.container).or_default().push(life);
        }
        let mut found = Vec::new();
        for lives in containers.values() {
            for (number, one) in lives.iter().enumerate() {
                found.extend(lives[number + 1..].iter().filter_map(|other| Some((*one, *other, one.overlap(other)?))));
            }
        }
        found
    }

    /// How many lived at once at most, and since when they first did: `(0, 0)` if nobody has lived.
    ///
    /// A container that is replaced gives way to one with another id. That both never ran at once shows in this number,
    /// for the Unit: it must not exceed the desired count, and what an update may add.
    pub fn most_at_once(&self) -> (usize, Duration) {
        let mut most = (0, Duration::ZERO);
        for (time, alive) in self.counts() {
            if alive > most.0 {
                most = (alive, time);
            }
        }
        most
    }

    /// The times between `from` and `to` at which fewer than `count` lived.
    ///
    /// A worker that has ended lived up to a [`PERIOD`] longer than it testified, and more on a busy machine: gaps of that
    /// length mean nothing. `to` must not be later than the moment of reading: nobody lives after that.
    pub fn gaps_below(&self, count: usize, from: Duration, to: Duration) -> Vec<(Duration, Duration)> {
        let mut gaps = Vec::new();
        let mut since = (count > 0).then_some(Duration::ZERO);
        for (time, alive) in self.counts() {
            match since {
                None if alive < count => since = Some(time),
                Some(begin) if alive >= count => {
                    gaps.push((begin, time));
                    since = None;
                }
                _ => {}
            }
        }
        gaps.extend(since.map(|begin| (begin, Duration::MAX)));
        let within = gaps.into_iter().map(|(begin, end)| (begin.max(from), end.min(to)));
        within.filter(|(begin, end)| begin < end).collect()
    }

    /// Fails if two lives of one container were there at once.
    ///
    /// # Panics
    /// In that case, with all of them.
    #[track_caller]
    pub fn nobody_met_themselves(&self) {
        let overlaps = self.overlaps();
        let text = |(one, other, time): &(&Life, &Life, Duration)| format!("{one}\n{other}\nfor {time:?} at once\n");
        assert!(overlaps.is_empty(), "{}{self}", overlaps.iter().map(text).collect::<String>());
    }

    /// How many live from each time on at which that changes, in order. Both ends of a life belong to it.
    fn counts(&self) -> Vec<(Duration, usize)> {
        let begins = self.lives.iter().map(|life| (life.first, false));
        let mut changes: Vec<_> = begins.chain(self.lives.iter().map(|life| (life.last, true))).collect();
        // Who begins at the time at which another ends lives at once with it.
        changes.sort_unstable();
        let mut alive = 0_usize;
        let count = |(time, ends): (Duration, bool)| {
            alive = if ends { alive.saturating_sub(1) } else { alive + 1 };
            (time, alive)
        };
        changes.into_iter().map(count).collect()
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lives.iter().try_for_each(|life| writeln!(f, "{life}"))
    }
}

/// The life that a file tells of, if there is a record in it.
fn life(text: &str) -> Result<Option<Life>, String> {
    // What is not a whole line is being written, or was when its writer was killed.
    let Some((whole, _)) = text.rsplit_once('\n') else { return Ok(None) };
    let mut lines = whole.lines();
    let header = lines.next().unwrap_or_default();
    let who = Who::parse(header).ok_or_else(|| format!("not the first line of a witness: {header:?}"))?;
    let mut life: Option<Life> = None;
    for line in lines {
        let time = line.parse().map(Duration::from_nanos).map_err(|error| format!("{line:?}: {error}"))?;
        match &mut life {
            None => {
                let who = who.clone();
                life = Some(Life { who, first: time, last: time, records: 1, longest_pause: Duration::ZERO });
            }
            Some(life) => {
                let pause = time.checked_sub(life.last).ok_or_else(|| format!("{line:?} is before the one before"))?;
                life.longest_pause = life.longest_pause.max(pause);
                life.last = time;
                life.records += 1;
            }
        }
    }
    Ok(life)
}

#[cfg(test)]
mod tests;
