//! How a container ends and starts again: `restart`, `stop_signal`, `stop_grace_period`, `ulimits`, `user`.

use std::time::Duration;

use cocktail_core::manifest::RLIMITS;

use crate::field::{Field, Keys};
use crate::unit::{Signal, Unit, When};
use crate::yaml::{Outcome, shown};

/// Longest time that a container may take to end.
const LONGEST_GRACE: Duration = Duration::from_secs(3_600);

/// Longest pause that is written.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Most retries of a job: as good as no bound.
const MOST_RETRIES: u64 = 1_000_000;

/// Signals that a manifest knows by name.
const NAMED: [&str; 7] = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"];

/// Other signals, by their numbers on Linux.
const NUMBERED: [(&str, i64); 12] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("PIPE", 13),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("WINCH", 28),
    ("PWR", 30),
    ("SYS", 31),
];

/// Takes `restart`.
pub(crate) fn restart<'a>(keys: &mut Keys<'a>, unit: &mut Unit) -> Outcome<Option<Field<'a>>> {
    let Some(field) = keys.take("restart") else { return Ok(None) };
    let text = field.text()?;
    let (word, count) = text.split_once(':').unwrap_or((&text, ""));
    match word {
        "always" | "unless-stopped" | "" => {}
        // YAML 1.1 reads `no` as a boolean; it is a word here.
        "no" | "false" => unit.restart.when = When::Never,
        "on-failure" => {
            unit.restart.when = When::Failure;
            unit.restart.retries = match count {
                "" => Some(MOST_RETRIES),
                count => {
                    let help = "write restart: on-failure:3";
                    Some(count.parse().map_err(|_| field.problem("the count is no number", help))?)
                }
            };
        }
        other => {
            let help = "it is no, always, on-failure or unless-stopped";
            return Err(field.problem(format!("unknown word `{}`", shown(other)), help));
        }
    }
    bound(unit);
    Ok(Some(field))
}

/// Takes `deploy.restart_policy`.
pub(crate) fn restart_policy(field: &Field<'_>, unit: &mut Unit) -> Outcome<()> {
    let mut keys = field.keys()?;
    let attempts = keys.take("max_attempts").map(|field| field.number()).transpose()?;
    let condition = keys.take("condition");
    match condition.as_ref().map(Field::text).transpose()?.as_deref() {
        None | Some("any" | "always" | "unless-stopped" | "") => unit.restart.when = When::Always,
        Some("none" | "no" | "false") => unit.restart.when = When::Never,
        Some("on-failure") => {
            unit.restart.when = When::Failure;
            unit.restart.retries = Some(attempts.unwrap_or(MOST_RETRIES));
        }
        Some(other) => return Err(field.problem(format!("`{}` is not none, on-failure or any", shown(other)), "")),
    }
    if let (Some(_), When::Always) = (attempts, unit.restart.when) {
        field.note("restarts that never end are not counted", "max_attempts is left out: it belongs to on-failure");
    }
    unit.restart.base = keys.take("delay").map(|field| field.duration()).transpose()?.map(|it| it.min(LONGEST));
    let window = keys.take("window").map(|field| field.duration()).transpose()?;
    unit.restart.reset = window.map(|it| it.clamp(Duration::from_millis(100), LONGEST));
    keys.finish("it is left out");
    bound(unit);
    Ok(())
}

fn bound(unit: &mut Unit) {
    unit.restart.retries = unit.restart.retries.map(|count| count.min(MOST_RETRIES));
}

/// Takes `stop_signal` and `stop_grace_period`.
pub(crate) fn stop(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    if let Some(field) = keys.take("stop_signal") {
        let text = field.text()?;
        let plain = text.trim().to_ascii_uppercase();
        let plain = plain.strip_prefix("SIG").unwrap_or(&plain);
        unit.stop_signal = signal(plain);
        if unit.stop_signal.is_none() {
            field.note(format!("the signal `{}` is not known here", shown(&text)), "TERM is sent: write its number");
        }
    }
    if let Some(field) = keys.take("stop_grace_period") {
        let grace = field.duration()?;
        if grace > LONGEST_GRACE {
            field.note("an end takes at most an hour here", "1h is written");
        }
        unit.stop_grace = Some(grace.min(LONGEST_GRACE));
    }
    Ok(())
}

/// The signal of a name without SIG, or of a number; none for what is the default as well.
fn signal(plain: &str) -> Option<Signal> {
    if NAMED.contains(&plain) {
        return Some(Signal::Name(plain.to_owned()));
    }
    let real_time = plain.strip_prefix("RTMIN").and_then(|rest| match rest {
        "" => Some(34),
        rest => rest.strip_prefix('+')?.parse::<i64>().ok()?.checked_add(34),
    });
    let number = NUMBERED.iter().find(|(name, _)| *name == plain).map(|(_, number)| *number);
    let number = number.or(real_time).or_else(|| plain.parse().ok());
    number.filter(|number| (1..=64).contains(number)).map(Signal::Number)
}

/// Takes `ulimits`.
pub(crate) fn limits(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    let Some(field) = keys.take("ulimits") else { return Ok(()) };
    for (name, field) in field.keys()?.all() {
        let value = if field.is_map() {
            let mut keys = field.keys()?;
            let mut take = |key: &str| keys.take(key).map(|field| number(&field)).transpose();
            let (soft, hard) = (take("soft")?, take("hard")?);
            keys.finish("it is left out");
            if soft.is_some() && hard.is_some() && soft != hard {
                field.note("soft and hard are one number here", "the soft one is taken, which is in force");
            }
            soft.or(hard)
        } else {
            Some(number(&field)?)
        };
        // Engines and manifests have the same names for them.
        match RLIMITS.iter().find(|(known, _)| *known == name) {
            Some((known, _)) => unit.rlimits.extend(value.map(|value| (*known, value))),
            None => field.note("is no limit that cocktail knows", "it is left out"),
        }
    }
    Ok(())
}

/// A limit; -1 is none.
fn number(field: &Field<'_>) -> Outcome<i64> {
    let text = field.text()?;
    let number = text.trim().parse::<i64>().ok().filter(|number| *number >= -1);
    number.ok_or_else(|| field.problem(format!("expected a limit, found `{}`", shown(&text)), "write a number, or -1"))
}

/// Takes `user` and `working_dir`.
pub(crate) fn place(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    if let Some(field) = keys.take("user") {
        let text = field.text()?;
        let (user, group) = text.split_once(':').unwrap_or((&text, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.$@\\+".contains(c);
        if !group.is_empty() {
            let what = format!("the group {} has no counterpart", shown(group));
            field.note(what, "the image says which groups the user has");
        }
        if user.is_empty() {
            field.note("names no user", "the image's own is used");
        } else if user.starts_with('-') || user.len() > 256 || !user.chars().all(allowed) {
            field.note(format!("`{}` is no user name", shown(user)), "the image's own user is used");
        } else {
            unit.user = Some(user.to_owned());
        }
    }
    if let Some(field) = keys.take("working_dir") {
        let text = field.text()?;
        if text.starts_with('/') && !text.contains('\0') {
            unit.cwd = Some(text);
        } else {
            let what = format!("`{}` is no absolute path in the image", shown(&text));
            field.note(what, "the image's own working directory is used");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_name_or_the_number_that_a_manifest_takes() {
        for (text, expected) in [("INT", Some(Signal::Name("INT".into()))), ("WINCH", Some(Signal::Number(28)))] {
            assert_eq!(signal(text), expected);
        }
        assert_eq!(signal("RTMIN+3"), Some(Signal::Number(37)));
        assert_eq!(signal("9"), Some(Signal::Number(9)));
        for bad in ["", "0", "65", "RTMIN+99", "RTMIN-1", "NOPE"] {
            assert_eq!(signal(bad), None, "{bad}");
        }
    }
}
