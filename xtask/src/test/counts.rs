//! How many tests passed and failed, from what the runners report.

use anyhow::{Context as _, Result};

/// The sums over all runners.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// A runner failed although no test of its did: something did not compile, or a runner crashed.
    pub(super) broken: bool,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
    }

    /// Moves tests that returned early from the passed to the skipped.
    pub(super) fn skip(&mut self, tests: usize) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }
}

/// Reads the sums in the head of a JUnit report.
pub(super) fn from_junit(report: &str) -> Result<Counts> {
    let start = report.find("<testsuites").context("the JUnit report has no <testsuites>")?;
    let head = report[start..].split_once('>').map(|(head, _)| head).context("the JUnit report is cut off")?;
    let number = |key: &str| -> Result<usize> {
        let value = head.split_once(&format!(" {key}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        let (value, _) = value.with_context(|| format!("the JUnit report does not count {key}"))?;
        value.parse().with_context(|| format!("the JUnit report counts {value:?} {key}"))
    };
    let failed = number("failures")? + number("errors")?;
    Ok(Counts { passed: number("tests")?.saturating_sub(failed), failed, ..Counts::default() })
}

/// What one line of `cargo test` adds: `test result: ok. 3 passed; 0 failed; 1 ignored; …` and nothing otherwise.
pub(super) fn from_libtest_line(line: &str) -> Counts {
    let Some(result) = line.trim().strip_prefix("test result:") else { return Counts::default() };
    let number = |word: &str| {
        result.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
    };
    Counts { passed: number("passed"), failed: number("failed"), skipped: number("ignored"), broken: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_junit_report_is_summed_from_its_head() {
        let report = "<?xml version=\"1.0\"?>\n<testsuites name=\"run\" tests=\"12\" failures=\"2\" errors=\"1\" uuid=\"x\">\
                      <testsuite tests=\"5\" failures=\"9\"/></testsuites>";
        assert_eq!(from_junit(report).unwrap(), Counts { passed: 9, failed: 3, ..Counts::default() });
        assert!(from_junit("<html>").is_err());
    }

    #[test]
    fn only_result_lines_of_libtest_count() {
        let line = "test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(from_libtest_line(line), Counts { passed: 4, failed: 1, skipped: 2, broken: false });
        assert_eq!(from_libtest_line("test a::b ... ok"), Counts::default());
    }

    #[test]
    fn a_skipped_test_no_longer_counts_as_passed() {
        let mut counts = Counts { passed: 3, ..Counts::default() };
        counts.skip(2);
        assert_eq!((counts.passed, counts.skipped), (1, 2));
    }
}
