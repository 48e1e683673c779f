//! Draws diagnostics for people: place, source line, caret, help.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity};

/// Longest line that the drawing crate is given; it shows a part that fits a terminal. A line can be as long as a file,
/// and of a longer one only this much around the place is handed on.
const WINDOW: usize = 4096;

/// Whether a drawing may use terminal colours. Nothing is said by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// With escape sequences of a terminal.
    Always,
}

/// Draws the problems of one file without colour.
pub fn render(problems: &[Diagnostic], text: &str) -> String {
    render_files(problems, |_| Some(text), Colour::Never)
}

/// Draws the problems of several files, each separated by an empty line. `text_of` gives the text of a file; without
/// it, or if it does not fit to the place, only the place is shown.
pub fn render_files<'t>(problems: &[Diagnostic], text_of: impl Fn(&str) -> Option<&'t str>, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Never => Renderer::plain(),
        Colour::Always => Renderer::styled(),
    };
    let mut drawn = String::new();
    for problem in problems {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let quoted = text_of(&problem.file).filter(|_| problem.line > 0 && problem.may_quote());
        let quoted = quoted.and_then(|text| quote(text, problem.span.clone()));
        let line = problem.line as usize;
        let mut group: Group<'_> = level.primary_title(problem.message.as_str()).elements(Vec::<Origin<'_>>::new());
        // The crate counts the column in the line that it is given; where that is cut, we say the column ourselves.
        let whole = quoted.as_ref().is_some_and(|quoted| quoted.whole);
        if !whole {
            let origin = Origin::path(problem.file.as_str());
            let placed = || Origin::path(problem.file.as_str()).line(line).char_column(problem.column as usize);
            group = group.element(if line == 0 { origin } else { placed() });
        }
        if let Some(quoted) = quoted {
            let mark = AnnotationKind::Primary.span(quoted.span);
            let snippet = Snippet::source(quoted.line).line_start(line).annotation(mark);
            group = group.element(if whole { snippet.path(problem.file.as_str()) } else { snippet });
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        drawn.push_str(&renderer.render(&[group]));
        drawn.push_str("\n\n");
    }
    drawn.truncate(drawn.trim_end().len());
    if !drawn.is_empty() {
        drawn.push('\n');
    }
    drawn
}

/// A line, and the place in it.
struct Quoted<'t> {
    line: &'t str,
    span: Range<usize>,
    whole: bool,
}

/// The first line of the place, cut to a window around it if it is too long. `None` if the text does not have it.
fn quote(text: &str, span: Range<usize>) -> Option<Quoted<'_>> {
    let before = text.get(..span.start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
    let start = (span.start - line_start).min(line.len());
    let end = (span.end.saturating_sub(line_start)).min(line.len());
    if line.len() <= WINDOW {
        return Some(Quoted { line, span: start..line.ceil_char_boundary(end).max(start), whole: true });
    }
    let from = line.floor_char_boundary(start.saturating_sub(WINDOW / 2));
    let to = line.floor_char_boundary(from + WINDOW);
    let line = &line[from..to];
    let end = line.floor_char_boundary(end.saturating_sub(from));
    Some(Quoted { line, span: start - from..end.max(start - from), whole: false })
}
