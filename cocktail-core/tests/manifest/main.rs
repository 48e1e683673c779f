//! Manifests, good and bad, with the exact words that a user reads about them.

mod accepted;
mod artifact;
mod build;
mod drawings;
mod files;
mod form;
mod image;
mod limits;
mod meaning;
mod properties;
mod registry;
mod scale;
mod worker;

use std::path::Path;

use cocktail_core::manifest::{self, Diagnostic, Parsed};
use cocktail_core::name::Name;
use cocktail_core::spec::UnitSpec;

/// Decodes a text as `bad.toml` in `/srv`.
fn parse(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    manifest::parse(text, Path::new("bad.toml"), Path::new("/srv"))
}

/// A file with one Unit; what is added starts in line 4.
fn unit(body: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\n{body}")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("tests use good names")
}

/// The Unit of a file that is well.
fn web(text: &str) -> UnitSpec {
    let parsed = parse(text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    parsed.service.expect("the file names a Service").maps[&name("prod")].units[&name("web")].clone()
}

/// Each body of a Unit gives exactly these problems, as `line:column: message (help)`.
fn unit_refused(cases: &[(&str, &[&str])]) {
    for (body, expected) in cases {
        refused(&unit(body), expected);
    }
}

/// Each file gives exactly these problems.
fn file_refused(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        refused(text, expected);
    }
}

fn refused(text: &str, expected: &[&str]) {
    let problems = parse(text).expect_err(text);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix("bad.toml:").unwrap_or(line)).collect();
    let expected: Vec<&str> = expected.iter().map(|line| line.strip_prefix("bad.toml:").unwrap_or(line)).collect();
    assert_eq!(lines, expected, "in the file\n{text}");
}
