//! How a test reports that it could not run.
//!
//! [`skip_if!`](crate::skip_if) is what tests use. A skip is one line, `COCKTAIL-SKIP <test> <reason>`, appended to the
//! file that [`LOG`] names; `cargo xtask test` sets it, counts the lines and compares them with
//! `tests/expected-skips.toml`. Without the variable the line goes to stderr, where a test runner shows it on request.

use std::fs::OpenOptions;
use std::io::Write;
use std::{env, io};

use crate::Condition;

/// The environment variable that names the file to append to.
pub const LOG: &str = "COCKTAIL_SKIP_LOG";

/// What every line begins with.
pub const PREFIX: &str = "COCKTAIL-SKIP";

/// Ends the calling test as skipped if this machine lacks what the [`Condition`] names.
///
/// The test is reported under its full path (`crate::module::function`), which is what `tests/expected-skips.toml`
/// lists. An optional second argument is returned, for tests that return a value.
///
/// ```no_run
/// fn limits_hold() {
///     xtask::skip_if!(NoCgroupV2Controllers);
///     // … the test …
/// }
/// # limits_hold();
/// ```
#[macro_export]
macro_rules! skip_if {
    ($condition:ident) => {
        $crate::skip_if!($condition, ())
    };
    ($condition:ident, $value:expr) => {{
        fn here() {}
        if $crate::skip::unless_available(::std::any::type_name_of_val(&here), $crate::Condition::$condition) {
            return $value;
        }
    }};
}

/// Reports a skip if the condition holds, and says whether it does. `here` is the type name of a function inside the
/// test. Prefer [`skip_if!`](crate::skip_if).
pub fn unless_available(here: &str, condition: Condition) -> bool {
    let holds = condition.holds();
    if holds {
        report(test_name(here), condition.name());
    }
    holds
}

/// Reports that `test` could not run. `reason` begins with the name of a condition; more text may follow a colon.
///
/// A report that cannot be written fails the test: a skip that nobody counts would look like a pass.
///
/// # Panics
/// When the file that [`LOG`] names cannot be appended to.
pub fn report(test: &str, reason: &str) {
    let line = format!("{PREFIX} {test} {reason}\n");
    let written = match env::var_os(LOG) {
        // One write call of one short line in append mode: lines of tests that run at once do not mix.
        Some(path) => {
            OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()))
        }
        None => io::stderr().write_all(line.as_bytes()),
    };
    assert!(written.is_ok(), "cannot report the skip of {test}: {written:?}");
}

/// The test's path out of the type name of a function in it: without that function, and without closures between, which
/// is what an async test consists of.
fn test_name(here: &str) -> &str {
    let mut name = here.strip_suffix("::here").unwrap_or(here);
    while let Some(outer) = name.strip_suffix("::{{closure}}") {
        name = outer;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_its_path_also_inside_async_blocks() {
        assert_eq!(test_name("shop::web::answers::here"), "shop::web::answers");
        assert_eq!(test_name("shop::web::answers::{{closure}}::{{closure}}::here"), "shop::web::answers");
    }

    #[test]
    fn a_condition_that_does_not_hold_lets_the_test_go_on() {
        let holding = Condition::ALL.into_iter().find(|condition| !condition.holds());
        let Some(available) = holding else { return };
        assert!(!unless_available("a::b::here", available));
    }
}
