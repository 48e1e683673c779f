//! `tests/expected-skips.toml`: which tests may be skipped, and under which condition.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use xtask::{Condition, skip};

/// One allowed skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    test: String,
    condition: Condition,
}

/// One skip that a test reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skip {
    pub(super) test: String,
    pub(super) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    skip: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    test: String,
    condition: String,
    reason: String,
}

/// Reads the list. Every entry needs a condition that we can evaluate, and a reason for people.
pub(super) fn read(path: &Path) -> Result<Vec<Expected>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Expected>> {
    let file: File = toml::from_str(text)?;
    let mut expected = Vec::new();
    for Entry { test, condition, reason } in file.skip {
        let Some(condition) = Condition::from_name(&condition) else {
            bail!(
                "{test}: there is no condition {condition:?}, but {}",
                Condition::ALL.map(Condition::name).join(", ")
            );
        };
        if reason.trim().is_empty() {
            bail!("{test}: a reason is missing");
        }
        expected.push(Expected { test, condition });
    }
    Ok(expected)
}

/// Reads what the tests reported. The same test, reported by several runs of it, is one skip.
pub(super) fn parse_log(text: &str) -> Result<Vec<Skip>> {
    let mut skips: Vec<Skip> = Vec::new();
    for line in text.lines() {
        let words = line.strip_prefix(skip::PREFIX).and_then(|rest| rest.trim().split_once(' '));
        let (test, reason) = words.with_context(|| format!("not a report of a skip: {line:?}"))?;
        let skip = Skip { test: test.to_owned(), reason: reason.to_owned() };
        if !skips.contains(&skip) {
            skips.push(skip);
        }
    }
    Ok(skips)
}

/// What is wrong with the skips: those that are not listed, and those whose condition does not hold here.
pub(super) fn complaints(skips: &[Skip], expected: &[Expected], holds: impl Fn(Condition) -> bool) -> Vec<String> {
    let complaint = |skip: &Skip| {
        let mut listed = expected.iter().filter(|expected| expected.test == skip.test).peekable();
        if listed.peek().is_none() {
            return Some(format!(
                "{} was skipped ({}) and is not in tests/expected-skips.toml",
                skip.test, skip.reason
            ));
        }
        let conditions: Vec<Condition> = listed.map(|expected| expected.condition).collect();
        let names = || conditions.iter().map(|condition| condition.name()).collect::<Vec<_>>().join(", ");
        (!conditions.iter().any(|&condition| holds(condition)))
            .then(|| format!("{} was skipped ({}), but this does not hold here: {}", skip.test, skip.reason, names()))
    };
    skips.iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "[[skip]]\ntest = \"a::b\"\ncondition = \"no-ipv6\"\nreason = \"binds [::1]\"\n";
    const LOG: &str = "COCKTAIL-SKIP a::b no-ipv6\nCOCKTAIL-SKIP a::b no-ipv6\n";

    #[test]
    fn a_listed_skip_whose_condition_holds_is_allowed() {
        let skips = parse_log(LOG).unwrap();
        assert_eq!(skips.len(), 1);
        assert_eq!(complaints(&skips, &parse(LIST).unwrap(), |_| true), Vec::<String>::new());
    }

    #[test]
    fn a_listed_skip_whose_condition_does_not_hold_is_a_complaint() {
        let complaints = complaints(&parse_log(LOG).unwrap(), &parse(LIST).unwrap(), |_| false);
        assert!(complaints[0].contains("does not hold here: no-ipv6"), "{complaints:?}");
    }

    #[test]
    fn a_skip_that_is_not_listed_is_a_complaint() {
        let skips = parse_log("COCKTAIL-SKIP a::c not-root: needs nobody\n").unwrap();
        let complaints = complaints(&skips, &parse(LIST).unwrap(), |_| true);
        assert!(complaints[0].contains("a::c was skipped (not-root: needs nobody)"), "{complaints:?}");
    }

    #[test]
    fn a_condition_that_nobody_can_evaluate_is_refused() {
        let error = parse(&LIST.replace("no-ipv6", "no-moon")).unwrap_err().to_string();
        assert!(error.contains("no-moon") && error.contains("not-root"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_report_is_refused() {
        assert!(parse_log("hello\n").is_err());
        assert!(parse_log("COCKTAIL-SKIP lonely\n").is_err());
    }
}
