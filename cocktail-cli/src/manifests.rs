//! Manifests and settings as files: read with a limit, checked, and explained when they are wrong.
//!
//! Start at [`read`]. What a manifest means is decided in core ([`cocktail_core::manifest`]); here is only what needs
//! files: `-` for standard input, the folder that relative paths start from, and which file holds the settings of a
//! Manager that `up` or `serve` starts. No more than the longest manifest is ever read, whatever the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cocktail_core::contract::ManifestSource;
use cocktail_core::error::Error;
use cocktail_core::manifest::{self, Colour, Diagnostic, MAX_TEXT, Parsed, Severity};
use cocktail_core::settings::Settings;

use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// File that settings are read from when nothing else has any.
const DEFAULT_CONFIG: &str = "cocktail.toml";

/// Settings, and the file that they come from so that another process can read the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chosen {
    /// The settings.
    pub(crate) settings: Settings,
    /// The file, absolute; `None` for the defaults.
    pub(crate) file: Option<PathBuf>,
}

/// Reads manifests. `-` is `input`; its relative paths start from `working_dir`.
///
/// # Errors
/// [`Failure::Manifest`] for a file that cannot be read, is too long, is no text or is named twice.
pub(crate) fn read(files: &[PathBuf], working_dir: &Path, input: &mut dyn Read) -> Outcome<Vec<ManifestSource>> {
    let mut sources: Vec<ManifestSource> = Vec::new();
    for file in files {
        if sources.iter().any(|source| source.file == *file) {
            return Err(Failure::Usage(format!("{} is named twice", file.display())));
        }
        let (text, base) = if file == Path::new("-") {
            (text_of(file, &mut *input)?, working_dir.to_owned())
        } else {
            read_file(file, working_dir)?
        };
        sources.push(ManifestSource { file: file.clone(), base, text });
    }
    Ok(sources)
}

/// Text of a file, and the folder that its relative paths start from.
fn read_file(file: &Path, working_dir: &Path) -> Outcome<(String, PathBuf)> {
    let path = working_dir.join(file);
    let failed = |error: io::Error| Failure::Manifest(format!("cannot read {}: {error}", file.display()));
    let opened = File::open(&path).map_err(failed)?;
    let meta = opened.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if meta.len() > MAX_TEXT as u64 {
        return Err(too_long(file));
    }
    // The folder of a pipe, as in `apply <(generate)`, means nothing to whoever wrote the manifest.
    let base = if meta.is_file() { path.parent().unwrap_or(working_dir).to_owned() } else { working_dir.to_owned() };
    Ok((text_of(file, opened)?, std::path::absolute(base).map_err(failed)?))
}

/// Reads no more than a manifest may have.
fn text_of(file: &Path, from: impl Read) -> Outcome<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Manifest(format!("cannot read {}: {error}", file.display())))?;
    if bytes.len() > MAX_TEXT {
        return Err(too_long(file));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Manifest(format!("{} is no text: byte {at} is not UTF-8; is it the right file?", file.display()))
    })
}

fn too_long(file: &Path) -> Failure {
    Failure::Manifest(format!("{} is longer than 1MiB, which no manifest needs; is it the right file?", file.display()))
}

/// Decodes manifests and compares them with each other, without a Manager.
///
/// # Errors
/// All problems, those of the single files first; warnings are among them only if there is an error.
pub(crate) fn check(sources: &[ManifestSource]) -> Result<Vec<Parsed>, Vec<Diagnostic>> {
    let mut parsed = Vec::new();
    let mut problems = Vec::new();
    for source in sources {
        match manifest::parse(&source.text, &source.file, &source.base) {
            Ok(file) => parsed.push(file),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        let across = manifest::check(&parsed);
        if across.iter().any(|problem| problem.severity == Severity::Error) {
            problems = across;
        } else if let Some(last) = parsed.last_mut() {
            last.warnings.extend(across);
        }
    }
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Draws problems for people, with the lines that they are about.
pub(crate) fn explain(problems: &[Diagnostic], sources: &[ManifestSource], colour: bool) -> String {
    let text_of = |file: &str| {
        sources.iter().find(|source| source.file.to_string_lossy() == file).map(|source| source.text.as_str())
    };
    let colour = if colour { Colour::Always } else { Colour::Never };
    manifest::render_files(problems, text_of, colour).trim_end().to_owned()
}

/// Problems as the failure of a command.
pub(crate) fn failure(problems: &[Diagnostic], sources: &[ManifestSource], ui: &Ui) -> Failure {
    Failure::Diagnosed(explain(problems, sources, ui.colour_for_people()))
}

/// What a Manager says about manifests, with the lines that it is about where we have them.
pub(crate) fn answered(error: Error, sources: &[ManifestSource], ui: &Ui) -> Failure {
    if error.diagnostics().is_empty() { Failure::Manager(error) } else { failure(error.diagnostics(), sources, ui) }
}

/// Shows warnings to people.
pub(crate) fn warn(warnings: &[Diagnostic], sources: &[ManifestSource], ui: &mut Ui) {
    if !warnings.is_empty() {
        let text = explain(warnings, sources, ui.colour_for_people());
        ui.note(&text);
    }
}

/// Chooses the settings of a Manager that is to be started: `--config`, else the manifests, else `cocktail.toml` in
/// the working directory if there is one, else the defaults. Nothing is merged.
///
/// # Errors
/// [`Failure::Diagnosed`] for a bad file, [`Failure::Manifest`] for one that cannot be read, and for two manifests with settings.
pub(crate) fn settings(
    config: Option<&Path>,
    manifests: &[(&ManifestSource, &Parsed)],
    working_dir: &Path,
    ui: &mut Ui,
) -> Outcome<Chosen> {
    if let Some(config) = config {
        return settings_of(config, working_dir, ui);
    }
    let mut with: Vec<_> =
        manifests.iter().filter_map(|(source, parsed)| Some((source, parsed.settings.as_ref()?))).collect();
    if with.len() > 1 {
        let files: Vec<_> = with.iter().map(|(source, _)| source.file.display().to_string()).collect();
        let files = files.join(" and ");
        return Err(Failure::Manifest(format!("{files} both have settings of the Manager; choose with --config FILE")));
    }
    if let Some((source, settings)) = with.pop() {
        let file = (source.file != Path::new("-")).then(|| working_dir.join(&source.file));
        return Ok(Chosen { settings: settings.clone(), file });
    }
    let default = Path::new(DEFAULT_CONFIG);
    let named = manifests.iter().any(|(source, _)| working_dir.join(&source.file) == working_dir.join(default));
    if named || !working_dir.join(default).is_file() {
        return Ok(Chosen::default());
    }
    settings_of(default, working_dir, ui)
}

/// Settings of one file.
fn settings_of(file: &Path, working_dir: &Path, ui: &mut Ui) -> Outcome<Chosen> {
    let (text, base) = read_file(file, working_dir)?;
    let source = [ManifestSource { file: file.to_owned(), base, text }];
    let [only] = &source;
    let (settings, warnings) = manifest::parse_settings(&only.text, &only.file, &only.base)
        .map_err(|problems| failure(&problems, &source, ui))?;
    warn(&warnings, &source, ui);
    Ok(Chosen { settings, file: Some(working_dir.join(file)) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::args::Format;
    use crate::output::testing::ui;

    const GOOD: &str = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"60\"]\n";

    fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(folder.join(name), text).unwrap();
        name.into()
    }

    #[test]
    fn relative_paths_start_from_the_folder_of_the_manifest() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        write(root.path(), "sub/a.toml", GOOD);
        let sources = read(&["sub/a.toml".into(), "-".into()], root.path(), &mut GOOD.as_bytes()).unwrap();
        assert_eq!(sources[0].base, root.path().join("sub"));
        assert_eq!(sources[0].file, Path::new("sub/a.toml"));
        assert_eq!((sources[1].base.as_path(), sources[1].text.as_str()), (root.path(), GOOD));
    }

    #[test]
    fn what_is_no_manifest_is_refused_without_reading_it_whole() {
        let root = tempfile::tempdir().unwrap();
        File::create(root.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
        write(root.path(), "binary", [b'a', 0xff]);
        for (file, expected) in [
            ("huge", "huge is longer than 1MiB"),
            ("/dev/zero", "/dev/zero is longer than 1MiB"),
            ("binary", "binary is no text: byte 1 is not UTF-8"),
            (".", "cannot read .: is a directory"),
            ("missing", "cannot read missing: No such file"),
        ] {
            let failure = read(&[file.into()], root.path(), &mut io::empty()).unwrap_err();
            assert_eq!(failure.code(), 2, "{file}");
            assert!(failure.to_string().starts_with(expected), "{failure}");
        }
        write(root.path(), "a", GOOD);
        assert_eq!(read(&["a".into(), "a".into()], root.path(), &mut io::empty()).unwrap_err().code(), 2);
    }

    #[test]
    fn problems_are_shown_with_the_line_that_they_are_about() {
        let bad = GOOD.replace("command", "comand");
        let source = ManifestSource { file: "shop.toml".into(), base: "/".into(), text: bad };
        let problems = check(std::slice::from_ref(&source)).unwrap_err();
        let text = explain(&problems, &[source], false);
        assert!(text.contains("shop.toml:3:1"), "{text}");
        assert!(
            text.contains("comand = ") && text.contains("^^^^^^") && text.contains("did you mean `command`"),
            "{text}"
        );
    }

    #[test]
    fn settings_come_from_the_option_then_the_manifests_then_the_working_directory() {
        let root = tempfile::tempdir().unwrap();
        let (mut ui, _, _) = ui(Format::Table);
        let range = |n: u16| format!("[manager]\nport_range = \"{n}-{n}\"\n");
        write(root.path(), "option.toml", range(21_001));
        let sources =
            read(&[write(root.path(), "m.toml", GOOD.to_owned() + &range(21_002))], root.path(), &mut io::empty())
                .unwrap();
        let parsed = check(&sources).unwrap();
        let manifests: Vec<_> = sources.iter().zip(&parsed).collect();
        let mut first = |config: Option<&str>, manifests: &[(&ManifestSource, &Parsed)]| {
            let chosen = settings(config.map(Path::new), manifests, root.path(), &mut ui).unwrap();
            (chosen.settings.port_range.first, chosen.file)
        };
        assert_eq!(first(Some("option.toml"), &manifests), (21_001, Some(root.path().join("option.toml"))));
        assert_eq!(first(None, &manifests), (21_002, Some(root.path().join("m.toml"))));
        assert_eq!(first(None, &[]), (Settings::default().port_range.first, None));
        write(root.path(), "cocktail.toml", range(21_003));
        assert_eq!(first(None, &[]), (21_003, Some(root.path().join("cocktail.toml"))));
        assert_eq!(first(None, &manifests).0, 21_002);
    }

    #[test]
    fn two_manifests_with_settings_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let (mut ui, _, _) = ui(Format::Table);
        let one = "[manager]\nport_range = \"21000-21009\"\n";
        let files = [write(root.path(), "a.toml", one), write(root.path(), "b.toml", one)];
        let sources = read(&files, root.path(), &mut io::empty()).unwrap();
        let parsed: Vec<_> =
            sources.iter().map(|source| manifest::parse(&source.text, &source.file, &source.base).unwrap()).collect();
        let manifests: Vec<_> = sources.iter().zip(&parsed).collect();
        let failure = settings(None, &manifests, root.path(), &mut ui).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("a.toml and b.toml"), "{failure}");
    }
}
