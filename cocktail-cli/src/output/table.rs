//! Tables as aligned columns, without frames, so that `grep` and `awk` work on them.
//!
//! Start at [`Table`]. Text of others (reasons, errors) is stripped of control characters here, once, so that a worker
//! cannot move the cursor of whoever looks at it.

use std::borrow::Cow;

/// What a cell says about well-being. Only ever repeated by colour, never told by it alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Not as it should be.
    Bad,
    /// Of little interest.
    Faint,
}

impl Tone {
    /// The tone of a state of a container, server, operation or rollout.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "ready" | "succeeded" | "resolved" | "completed" | "ok" | "running" => Self::Good,
            "backoff" | "failed" | "lost" | "fenced" | "outcome-unknown" | "rolled-back" | "fail" | "frozen"
            | "degraded" => Self::Bad,
            "stopped" | "superseded" | "gone" => Self::Faint,
            _ => Self::Busy,
        }
    }

    /// `text` in the colour of this tone, if `colour`.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "31",
            Self::Faint => "2",
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text; an empty one is written as `-`, so that the columns can be counted.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        let text = plain(text.as_ref());
        let text = if text.is_empty() { "-".to_owned() } else { text.into_owned() };
        Self { text, tone: Tone::Plain, right: false }
    }

    /// The last cell of a row, which may stay empty.
    pub(crate) fn tail(text: impl AsRef<str>) -> Self {
        Self { text: plain(text.as_ref()).into_owned(), tone: Tone::Plain, right: false }
    }

    /// A number, on the right.
    pub(crate) fn number(value: impl ToString) -> Self {
        Self { text: value.to_string(), tone: Tone::Plain, right: true }
    }

    /// A state in its colour.
    pub(crate) fn state(state: &str) -> Self {
        Self { tone: Tone::of_state(state), ..Self::text(state) }
    }

    /// The same in another tone.
    #[must_use]
    pub(crate) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// Rows under a heading.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a row has as many cells as the heading");
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text; every line ends with a newline and none with a space.
    pub(crate) fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
            cells.chain(self.head.get(column).map(|text| text.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let right = |column: usize| self.rows.first().and_then(|row| row.get(column)).is_some_and(|cell| cell.right);
        let mut text = String::new();
        let head = self.head.iter().enumerate().map(|(column, title)| (*title, right(column), Tone::Plain));
        line(&mut text, head, &widths, colour);
        for row in &self.rows {
            line(&mut text, row.iter().map(|cell| (cell.text.as_str(), cell.right, cell.tone)), &widths, colour);
        }
        text
    }
}

/// Writes one line.
fn line<'a>(text: &mut String, cells: impl Iterator<Item = (&'a str, bool, Tone)>, widths: &[usize], colour: bool) {
    let mut padding = 0;
    for (column, ((cell, right, tone), width)) in cells.zip(widths).enumerate() {
        let missing = width.saturating_sub(cell.chars().count());
        // Padding is written only before more text, so that no line ends with spaces.
        let before = padding + if column == 0 { 0 } else { 2 } + if right { missing } else { 0 };
        padding = if right { 0 } else { missing };
        if cell.is_empty() {
            padding += before;
            continue;
        }
        text.extend(std::iter::repeat_n(' ', before));
        text.push_str(&tone.paint(cell, colour));
    }
    text.push('\n');
}

/// `text` on one line without control characters.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "N", "STATE", "REASON"]);
        table.row(vec![Cell::text("web-1"), Cell::number(7), Cell::state("ready"), Cell::tail("")]);
        table.row(vec![Cell::text(""), Cell::number(1234), Cell::state("backoff"), Cell::tail("exit\x1b[2J code\n1")]);
        table
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_a_space() {
        let expected = "\
ID        N  STATE    REASON
web-1     7  ready
-      1234  backoff  exit [2J code 1
";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let coloured = table().render(true);
        assert!(coloured.contains("\x1b[32mready\x1b[0m"), "{coloured}");
        let mut stripped = coloured;
        for code in ["\x1b[32m", "\x1b[31m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, table().render(false));
    }
}
