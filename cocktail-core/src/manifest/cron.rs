//! Checks when an entry of a schedule begins: five fields, and a time zone if need be.
//!
//! Start at [`decode`]. Fields mean what `cronexpr` says they mean, which is also what the Manager asks for the next
//! time. Only the five fields go to it here: it would look a time zone up in files of the machine, and whether one
//! exists there is for the Manager to say. Its extensions (`L`, `15W`, `MON#1`) are refused: no other cron promises
//! them, and its last day of the month never comes in December.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};

use super::table::{Item, shown};

/// Longest text, in bytes: a list of all minutes needs less.
const MAX_TEXT: usize = 512;

/// Longest name of a time zone, in bytes.
const MAX_ZONE: usize = 64;

/// 2001-01-01 in seconds. A day that never comes in the four years from here never comes.
const START: i64 = 978_307_200;

const CRON: &str = "write cron = \"0 8 * * MON-FRI\", or with a time zone: \"0 8 * * MON-FRI Europe/Zurich\"";

/// What the fields are, and what may stand in them.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7 from Sunday to Sunday, or SUN to SAT"),
];

/// Decodes `cron` into words with one space between them.
pub(super) fn decode(item: &Item<'_>) -> Option<String> {
    let text = item.text(CRON)?;
    if text.len() > MAX_TEXT {
        item.problem(format!("must have at most {MAX_TEXT} characters"), Some(CRON.to_owned()));
        return None;
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some((fields, zone)) = words.split_at_checked(FIELDS.len()).filter(|(_, zone)| zone.len() <= 1) else {
        let message = format!("five fields and perhaps a time zone are wanted, not {} words", words.len());
        item.problem(message, Some(CRON.to_owned()));
        return None;
    };
    let mut well = true;
    for (at, (field, (name, values))) in fields.iter().zip(FIELDS).enumerate() {
        if !is_plain(name, field) || parse(&alone(at, field)).is_none() {
            let help = format!("write *, {values}; lists 1,3, ranges 1-5 and steps */2 of them");
            item.problem(format!("`{}` is no {name}", shown(field)), Some(help));
            well = false;
        }
    }
    for zone in zone.iter().filter(|zone| !is_zone(zone)) {
        let help = "write a name like Europe/Zurich, or leave it out for UTC";
        item.problem(format!("`{}` is no name of a time zone", shown(zone)), Some(help.to_owned()));
        well = false;
    }
    if !well {
        return None;
    }
    // Looking for a day that never comes takes longest, and further problems are only counted.
    if !item.report.is_full() && !happens(&fields.join(" ")) {
        let help = "check that one of its months has one of its days";
        item.problem("this does not happen within four years", Some(help.to_owned()));
        return None;
    }
    Some(words.join(" "))
}

/// Whether a field uses nothing but what every cron has.
fn is_plain(name: &str, field: &str) -> bool {
    match name {
        "day of the month" => !field.contains(|c: char| c.is_ascii_alphabetic()),
        // No weekday has an L in its name.
        "day of the week" => !field.contains(['#', 'L', 'l']),
        _ => true,
    }
}

/// An expression in which only the field at `at` says something.
fn alone(at: usize, field: &str) -> String {
    let mut fields = ["*"; FIELDS.len()];
    fields[at] = field;
    fields.join(" ")
}

fn parse(fields: &str) -> Option<Crontab> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    fields.is_ascii().then(|| cronexpr::parse_crontab_with(fields, options).ok()).flatten()
}

fn happens(fields: &str) -> bool {
    let start = MakeTimestamp::from_second(START).ok();
    parse(fields).zip(start).is_some_and(|(crontab, start)| crontab.find_next(start).is_ok())
}

fn is_zone(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'/' | b'-');
    text.len() <= MAX_ZONE && text.bytes().all(allowed)
}
