//! Decodes how a worker ends, starts again, is limited, and is replaced by a new revision.
//!
//! Defaults: SIGTERM and 10 s of grace; a back-off from 100 ms to 5 min that starts anew after 10 min, three retries of a
//! job that may have some; one container more while updating, 2 s of monitoring, 60 s to become ready, roll back on
//! failure, wait where there is no room, and no canary.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::table::{Item, Table, nearest, shown};
use crate::name::Name;
use crate::spec::{Domain, NoRoom, OnFailure, Partition, Place, PlaceOrder, Restart, RestartWhen, Stop, Update};

const LEAST: Duration = Duration::from_millis(100);

/// Entries of a list below `place` that are read.
const MAX_ENTRIES: usize = 64;
/// Retries of a job that says only that it may have some.
const RETRIES: u32 = 3;

/// Most retries of a job.
pub(super) const MAX_RETRIES: u32 = 1_000_000;

/// Longest time that a worker may take to end.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// Signals by name, with their numbers on Linux.
const SIGNALS: [(&str, i32); 7] =
    [("TERM", 15), ("INT", 2), ("QUIT", 3), ("HUP", 1), ("USR1", 10), ("USR2", 12), ("KILL", 9)];

/// Resource limits by name; the flag says whether the value is a size.
pub const RLIMITS: [(&str, bool); 15] = [
    ("as", true),
    ("core", true),
    ("cpu", false),
    ("data", true),
    ("fsize", true),
    ("locks", false),
    ("memlock", true),
    ("msgqueue", true),
    ("nice", false),
    ("nofile", false),
    ("nproc", false),
    ("rss", true),
    ("rtprio", false),
    ("sigpending", false),
    ("stack", true),
];

/// Decodes `stop`.
pub(super) fn decode_stop(item: Option<Item<'_>>) -> Stop {
    let mut stop = Stop { signal: 15, grace: Duration::from_secs(10) };
    let Some(mut table) = item.and_then(|item| item.table("write stop = { signal = \"TERM\", grace = \"10s\" }"))
    else {
        return stop;
    };
    if let Some(signal) = table.take("signal").and_then(|item| decode_signal(&item)) {
        stop.signal = signal;
    }
    if let Some(item) = table.take("grace")
        && let Some(grace) = item.duration(Duration::ZERO)
    {
        if grace > LONGEST_GRACE {
            item.problem("must be at most 1h", None);
        }
        stop.grace = grace;
    }
    table.finish();
    stop
}

fn decode_signal(item: &Item<'_>) -> Option<i32> {
    if matches!(item.value(), DeValue::Integer(_)) {
        return item.number(1..=64);
    }
    let all = || SIGNALS.iter().map(|(name, _)| *name);
    let help = format!("one of: {}, or a number", all().collect::<Vec<_>>().join(", "));
    let text = item.text(&help)?;
    let plain = text.strip_prefix("SIG").unwrap_or(text);
    let found = SIGNALS.iter().find(|(name, _)| *name == plain).map(|(_, number)| *number);
    if found.is_none() {
        let help = nearest(plain, all()).map_or(help, |near| format!("did you mean {near:?}?"));
        item.problem(format!("unknown signal \"{}\"", shown(text)), Some(help));
    }
    found
}

/// Decodes `restart`.
pub(super) fn decode_restart(item: Option<Item<'_>>) -> Restart {
    let mut restart = Restart {
        base: Duration::from_millis(100),
        max: Duration::from_secs(5 * 60),
        reset: Duration::from_secs(10 * 60),
        when: RestartWhen::Always,
        retries: 0,
        deadline: None,
    };
    let Some(mut table) = item.and_then(|item| item.table("write restart = { base = \"100ms\", max = \"5m\" }")) else {
        return restart;
    };
    let base = table.take("base");
    let max = table.take("max");
    let read = |item: &Option<Item<'_>>, least| item.as_ref().and_then(|item| item.duration(least));
    restart.base = read(&base, Duration::ZERO).unwrap_or(restart.base);
    restart.max = read(&max, Duration::ZERO).unwrap_or(restart.max.max(restart.base));
    restart.reset = table.take("reset").and_then(|item| item.duration(LEAST)).unwrap_or(restart.reset);
    if let (true, Some(item)) = (restart.base > restart.max, max.or(base)) {
        item.problem("the longest back-off (max) is below the first one (base)", None);
    }
    decode_job(&mut table, &mut restart);
    table.finish();
    restart
}

/// Takes what makes a Unit a job.
fn decode_job(table: &mut Table<'_>, restart: &mut Restart) {
    let (when, retries, deadline) = (table.take("when"), table.take("retries"), table.take("deadline"));
    let choices = [("always", RestartWhen::Always), ("failure", RestartWhen::Failure), ("never", RestartWhen::Never)];
    let known = when.map_or(Some(RestartWhen::Always), |item| item.one_of(&choices));
    restart.when = known.unwrap_or_default();
    let most = i128::from(MAX_RETRIES);
    let allowed = retries.as_ref().and_then(|item| item.number(0..=most));
    restart.retries = match restart.when {
        RestartWhen::Failure => allowed.unwrap_or(RETRIES),
        RestartWhen::Always | RestartWhen::Never => 0,
    };
    restart.deadline = deadline.as_ref().and_then(|item| item.duration(LEAST));
    if known == Some(RestartWhen::Always) {
        for item in [&retries, &deadline].into_iter().flatten() {
            let help = "add when = \"failure\" if it is a job, or leave it out";
            let message = format!("`{}` has no meaning for what is always restarted", item.name);
            item.key_problem(message, Some(help.to_owned()));
        }
    }
    if let (Some(RestartWhen::Never), Some(item), Some(1..)) = (known, retries, allowed) {
        let help = "write when = \"failure\", or leave `retries` out";
        item.key_problem("`when = \"never\"` and retries exclude each other", Some(help.to_owned()));
    }
}

/// Decodes `update`.
pub(super) fn decode_update(item: Option<Item<'_>>) -> Update {
    let mut update = Update {
        surge: 1,
        monitor: Duration::from_secs(2),
        progress: Duration::from_secs(60),
        on_failure: OnFailure::Rollback,
        no_room: NoRoom::Wait,
        canary: 0,
        promote: None,
    };
    let Some(mut table) = item.and_then(|item| item.table("write update = { surge = 1, on_failure = \"rollback\" }"))
    else {
        return update;
    };
    update.surge = table.take("surge").and_then(|item| item.number(1..=1_000)).unwrap_or(update.surge);
    update.monitor = table.take("monitor").and_then(|item| item.duration(Duration::ZERO)).unwrap_or(update.monitor);
    update.progress = table.take("progress").and_then(|item| item.duration(LEAST)).unwrap_or(update.progress);
    let reactions = [("rollback", OnFailure::Rollback), ("pause", OnFailure::Pause)];
    update.on_failure = table.take("on_failure").and_then(|item| item.one_of(&reactions)).unwrap_or(update.on_failure);
    let reactions = [("wait", NoRoom::Wait), ("replace", NoRoom::Replace)];
    update.no_room = table.take("no_room").and_then(|item| item.one_of(&reactions)).unwrap_or(update.no_room);
    let (canary, promote) = (table.take("canary"), table.take("promote"));
    table.finish();
    if let (None, Some(promote)) = (&canary, &promote) {
        let help = "add canary = 1, the containers that go first";
        promote.key_problem("`promote` needs `canary`: it is when the others follow", Some(help.to_owned()));
    }
    update.canary = canary.and_then(|item| item.number(1..=1_000)).unwrap_or(update.canary);
    update.promote = promote.and_then(|item| item.duration(LEAST));
    update
}

/// Decodes `place`.
pub(super) fn decode_place(item: Option<Item<'_>>) -> Place {
    let mut place = Place::default();
    let Some(mut table) = item.and_then(|item| item.table("write place = { spread = \"server\" }")) else {
        return place;
    };
    let (spread, pack) = (table.take("spread"), table.take("pack"));
    if let (Some(_), Some(pack)) = (&spread, &pack) {
        pack.key_problem("`spread` and `pack` exclude each other", Some("keep one of them".to_owned()));
    }
    let domains = [("server", Domain::Server), ("zone", Domain::Zone)];
    let domain = |item: Option<Item<'_>>| item.and_then(|item| item.one_of(&domains));
    let (spread, pack) = (domain(spread).map(PlaceOrder::Spread), domain(pack).map(PlaceOrder::Pack));
    place.order = pack.or(spread).unwrap_or_default();
    let help = "write constraints = { zone = [\"a\"] }";
    if let Some(mut constraints) = table.take("constraints").and_then(|item| item.table(help)) {
        place.zones = texts(constraints.take("zone"), help);
        place.offerings = texts(constraints.take("offering"), help);
        constraints.finish();
    }
    let help = "write affinity = { apart = [\"web\"] }";
    if let Some(mut affinity) = table.take("affinity").and_then(|item| item.table(help)) {
        place.near = units(affinity.take("near"), help);
        place.apart = units(affinity.take("apart"), help);
        affinity.finish();
    }
    place.priority = table.take("priority").and_then(|item| item.number(-1_000..=1_000)).unwrap_or_default();
    let partitions = [("replace", Partition::Replace), ("wait", Partition::Wait), ("stop", Partition::Stop)];
    place.partition = table.take("partition").and_then(|item| item.one_of(&partitions)).unwrap_or_default();
    table.finish();
    place
}

/// An array of texts that are not empty.
fn texts(item: Option<Item<'_>>, help: &str) -> Vec<String> {
    let items = item.and_then(|item| item.items(help)).unwrap_or_default();
    let texts = items.iter().take(MAX_ENTRIES).filter_map(|item| item.filled_text(help));
    texts.map(str::to_owned).collect()
}

/// An array of names of Units.
fn units(item: Option<Item<'_>>, help: &str) -> Vec<Name> {
    let items = item.and_then(|item| item.items(help)).unwrap_or_default();
    items.iter().take(MAX_ENTRIES).filter_map(|item| item.name_value(help)).collect()
}

/// Decodes `rlimits`: sizes for what is counted in bytes, whole numbers for the rest.
pub(super) fn decode_rlimits(item: Option<Item<'_>>) -> BTreeMap<String, u64> {
    let help = "write rlimits = { nofile = 4096, core = \"0B\" }";
    let Some(mut table) = item.and_then(|item| item.table(help)) else {
        return BTreeMap::new();
    };
    let mut limits = BTreeMap::new();
    for (name, is_size) in RLIMITS {
        let Some(item) = table.take(name) else { continue };
        let value = match item.value() {
            DeValue::String(text) if text == "unlimited" => Some(u64::MAX),
            DeValue::String(_) if is_size => item.any_size().map(|size| size.0),
            _ => item.number(0..=i128::from(i64::MAX)),
        };
        limits.extend(value.map(|value| (name.to_owned(), value)));
    }
    table.finish();
    limits
}
