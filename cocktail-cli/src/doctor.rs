//! `doctor`: whether this machine suits cocktail, and what to change.
//!
//! Start at [`doctor`]. [`facts`] reads the machine and judges nothing; [`checks`] judges and reads nothing, so that
//! every verdict has a test. A warning leaves the exit code 0; what keeps cocktail from working makes it 1.

mod checks;
#[cfg(feature = "docker")]
mod engines;
mod facts;

use cocktail_core::settings::Settings;
use serde::Serialize;

use crate::args::Format;
use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};
use crate::output::{Cell, Table, Tone, Ui, plain};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but less well or less safely.
    Warn,
    /// Does not work.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) check: &'static str,
    /// How it ended.
    pub(crate) status: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to change; empty when all is well.
    pub(crate) advice: String,
}

/// Looks at the machine and prints what was found.
///
/// # Errors
/// [`Failure::Failed`] if something keeps cocktail from working.
pub(crate) async fn doctor(dir: &DataDir, settings: &Settings, provider: &str, ui: &mut Ui) -> Outcome {
    let facts = facts::gather(dir).await;
    #[cfg_attr(not(feature = "docker"), expect(unused_mut, reason = "engines have checks of their own"))]
    let mut checks = checks::all(&facts, settings);
    #[cfg(feature = "docker")]
    if provider == "docker" {
        checks.extend(engines::checks(settings).await);
    }
    #[cfg(not(feature = "docker"))]
    let _only_one = provider;
    match ui.format {
        Format::Json => ui.json(&checks)?,
        Format::Table => show(&checks, ui)?,
    }
    let failed = checks.iter().filter(|check| check.status == Verdict::Fail).count();
    if failed > 0 { Err(Failure::Failed(format!("{failed} of {} checks failed", checks.len()))) } else { Ok(()) }
}

/// The checks as a table, with the advice under it so that no line grows too long.
fn show(checks: &[Check], ui: &mut Ui) -> Outcome {
    let mut table = Table::new(&["CHECK", "STATUS", "FOUND"]);
    for check in checks {
        let (word, tone) = match check.status {
            Verdict::Ok => ("ok", Tone::Good),
            Verdict::Warn => ("warn", Tone::Busy),
            Verdict::Fail => ("fail", Tone::Bad),
        };
        table.row(vec![Cell::text(check.check), Cell::text(word).toned(tone), Cell::tail(&check.found)]);
    }
    ui.table(&table, "nothing was checked")?;
    for check in checks.iter().filter(|check| !check.advice.is_empty()) {
        ui.note(&format!("{}: {}", check.check, plain(&check.advice)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;

    #[tokio::test]
    async fn every_check_has_an_answer_on_this_machine() {
        let root = tempfile::tempdir().unwrap();
        let (mut ui, data, _) = ui(Format::Json);
        let _ = doctor(&DataDir::at(root.path().join("not/there")), &Settings::default(), "standalone", &mut ui).await;
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        let names: Vec<_> = value.as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
        let expected = [
            "kernel",
            "cgroups",
            "open files",
            "processes",
            "ports",
            "systemd",
            "data dir",
            "file system",
            "free disk",
            "manager",
        ];
        assert_eq!(names, expected);
        assert!(!root.path().join("not").exists(), "looking made a folder");
    }

    #[test]
    fn advice_is_for_people_and_stands_under_the_table() {
        let checks = [
            Check { check: "kernel", status: Verdict::Ok, found: "6.12".into(), advice: String::new() },
            Check { check: "cgroups", status: Verdict::Warn, found: "version 1".into(), advice: "boot with 2".into() },
        ];
        let (mut ui, data, people) = ui(Format::Table);
        show(&checks, &mut ui).unwrap();
        assert_eq!(data.text(), "CHECK    STATUS  FOUND\nkernel   ok      6.12\ncgroups  warn    version 1\n");
        assert_eq!(people.text(), "cgroups: boot with 2\n");
    }
}
