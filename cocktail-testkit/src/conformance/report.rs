//! What a suite found.

use std::collections::BTreeSet;
use std::fmt;

/// What a suite found, case by case, in the order in which they ran. `Display` is a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was examined, for people.
    pub subject: String,
    /// The cases.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// Suite and fact: `store/a_gap_is_a_conflict`.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The promise is kept.
    Passed,
    /// It could not run, for this reason.
    Skipped(String),
    /// The promise is broken, in this way.
    Failed(String),
}

impl Report {
    /// A report without cases.
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), cases: Vec::new() }
    }

    /// Cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().filter(|case| case.outcome == Outcome::Passed).map(|case| case.name.as_str())
    }

    /// Cases that could not run, with the reason.
    pub fn skipped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Skipped(reason) => Some((case.name.as_str(), reason.as_str())),
            Outcome::Passed | Outcome::Failed(_) => None,
        })
    }

    /// Cases that failed, with what was found.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Failed(message) => Some((case.name.as_str(), message.as_str())),
            Outcome::Passed | Outcome::Skipped(_) => None,
        })
    }

    /// Holds if no case failed and exactly those of `expected_skips` were skipped: a skip that nobody expects hides a
    /// promise that nobody checks, and an expected one that ran should leave the list.
    ///
    /// # Panics
    /// Otherwise, with what differs and the table.
    pub fn assert_passed(&self, expected_skips: &[&str]) {
        let skipped: BTreeSet<&str> = self.skipped().map(|(name, _)| name).collect();
        let expected: BTreeSet<&str> = expected_skips.iter().copied().collect();
        let mut problems: Vec<String> = self.failed().map(|(name, message)| format!("{name}: {message}")).collect();
        problems.extend(skipped.difference(&expected).map(|name| format!("{name}: skipped, and not expected to be")));
        problems
            .extend(expected.difference(&skipped).map(|name| format!("{name}: expected to be skipped, and is not")));
        assert!(problems.is_empty(), "{}\n\n{self}", problems.join("\n"));
    }

    pub(crate) fn add(&mut self, suite: &str, name: &str, outcome: Outcome) {
        self.cases.push(CaseReport { name: format!("{suite}/{name}"), outcome });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "conformance of {}", self.subject)?;
        for case in &self.cases {
            match &case.outcome {
                Outcome::Passed => writeln!(f, "  passed   {}", case.name)?,
                Outcome::Skipped(reason) => writeln!(f, "  skipped  {}: {reason}", case.name)?,
                Outcome::Failed(message) => writeln!(f, "  FAILED   {}: {message}", case.name)?,
            }
        }
        let (passed, skipped, failed) = (self.passed().count(), self.skipped().count(), self.failed().count());
        write!(f, "{passed} passed, {skipped} skipped, {failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("a thing");
        report.add("suite", "one", Outcome::Passed);
        report.add("suite", "two", Outcome::Skipped("not declared: two".into()));
        report
    }

    fn complaint(report: &Report, expected: &[&str]) -> Option<String> {
        let caught = std::panic::catch_unwind(|| report.assert_passed(expected)).err()?;
        caught.downcast_ref::<String>().cloned()
    }

    #[test]
    fn skips_are_exactly_those_that_are_expected() {
        assert_eq!(complaint(&report(), &["suite/two"]), None);
        assert!(complaint(&report(), &[]).unwrap().starts_with("suite/two: skipped, and not expected to be"));
        let missing = complaint(&report(), &["suite/two", "suite/one"]).unwrap();
        assert!(missing.starts_with("suite/one: expected to be skipped, and is not"), "{missing}");
    }

    #[test]
    fn a_failed_case_is_named_with_its_message_and_counted_in_the_table() {
        let mut report = report();
        report.add("suite", "three", Outcome::Failed("a second process".into()));
        assert!(complaint(&report, &["suite/two"]).unwrap().starts_with("suite/three: a second process"));
        let table = report.to_string();
        assert!(table.contains("  FAILED   suite/three: a second process\n"), "{table}");
        assert!(table.ends_with("1 passed, 1 skipped, 1 failed"), "{table}");
    }
}
