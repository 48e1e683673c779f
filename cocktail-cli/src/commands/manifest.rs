//! `manifest check` and `manifest schema`: no Manager is asked.

use cocktail_core::contract::ManifestSource;
use cocktail_core::manifest::{self, Diagnostic};

use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::manifests;
use crate::output::Ui;

/// Checks manifests. As JSON the problems and warnings are data; for people they go to stderr.
///
/// # Errors
/// [`Failure::Diagnosed`] if there is an error; warnings are none.
pub(crate) fn check(sources: &[ManifestSource], ui: &mut Ui) -> Outcome {
    let (warnings, problems): (Vec<Diagnostic>, Vec<Diagnostic>) = match manifests::check(sources) {
        Ok(parsed) => (parsed.into_iter().flat_map(|file| file.warnings).collect(), Vec::new()),
        Err(problems) => (Vec::new(), problems),
    };
    if ui.format == Format::Json {
        let all: Vec<_> = problems.iter().chain(&warnings).collect();
        ui.json(&all)?;
    } else {
        manifests::warn(&warnings, sources, ui);
    }
    if problems.is_empty() {
        if ui.format == Format::Table {
            for source in sources {
                ui.note(&format!("{} is good", source.file.display()));
            }
        }
        return Ok(());
    }
    Err(match ui.format {
        Format::Table => manifests::failure(&problems, sources, ui),
        Format::Json => Failure::Diagnosed(format!("{} problems", problems.len())),
    })
}

/// Prints the JSON Schema of manifests.
pub(crate) fn schema(ui: &mut Ui) -> Outcome {
    ui.json(&manifest::schema())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;

    fn source(file: &str, text: &str) -> ManifestSource {
        ManifestSource { file: file.into(), base: "/srv".into(), text: text.into() }
    }

    const GOOD: &str = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"60\"]\n";

    #[test]
    fn a_good_file_is_told_to_people_only() {
        let (mut out, data, people) = ui(Format::Table);
        check(&[source("a.toml", GOOD)], &mut out).unwrap();
        assert_eq!((data.text().as_str(), people.text().as_str()), ("", "a.toml is good\n"));
        let (mut out, data, _) = ui(Format::Json);
        check(&[source("a.toml", GOOD)], &mut out).unwrap();
        assert_eq!(data.text(), "[]\n");
    }

    #[test]
    fn problems_of_all_files_are_told_at_once_as_exit_code_2() {
        let sources = [source("a.toml", &GOOD.replace("command", "comand")), source("b.toml", "service = 7\n")];
        let (mut out, _, _) = ui(Format::Table);
        let failure = check(&sources, &mut out).unwrap_err();
        assert_eq!(failure.code(), 2);
        let text = failure.to_string();
        assert!(text.contains("a.toml:3:1") && text.contains("b.toml:1:"), "{text}");
        let (mut out, data, _) = ui(Format::Json);
        assert_eq!(check(&sources, &mut out).unwrap_err().code(), 2);
        let value: Vec<Diagnostic> = serde_json::from_str(&data.text()).unwrap();
        assert!(value.iter().any(|problem| problem.file == "b.toml" && problem.line == 1), "{value:?}");
    }

    #[test]
    fn the_schema_is_json() {
        let (mut ui, data, _) = ui(Format::Table);
        schema(&mut ui).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&data.text()).unwrap().is_object());
    }
}
