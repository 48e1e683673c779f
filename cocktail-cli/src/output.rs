//! How the program speaks: data to stdout, everything for people to stderr.
//!
//! Start at [`Ui`]. Commands get one and write through nothing else, so that tests see both streams apart. A reader
//! of stdout that goes away is [`crate::failure::Failure::BrokenPipe`]; a lost stderr is ignored, because there is
//! nobody left to tell. Colour needs a terminal, and `NO_COLOR` and `TERM=dumb` are obeyed; no meaning is carried by
//! colour alone.

mod amount;
mod table;

use std::io::{self, IsTerminal, Write};

use cocktail_core::time::WallTime;
use serde::Serialize;

pub(crate) use amount::{age, cores, memory};
pub(crate) use table::{Cell, Table, Tone, plain};

use crate::args::Format;
use crate::failure::Outcome;

/// Both streams, and how to write to them.
pub(crate) struct Ui {
    /// How data is written.
    pub(crate) format: Format,
    /// Whether data goes to somebody who looks at it.
    data_terminal: bool,
    /// Whether data may be coloured.
    data_colour: bool,
    /// Whether what is for people may be coloured and moved.
    people_live: bool,
    data: Box<dyn Write>,
    people: Box<dyn Write>,
    now: fn() -> WallTime,
}

impl Ui {
    /// The streams of this process.
    pub(crate) fn of_process(format: Format) -> Self {
        let wanted =
            |variable: &str, refused: fn(&str) -> bool| std::env::var(variable).is_ok_and(|value| refused(&value));
        let plain = wanted("NO_COLOR", |value| !value.is_empty()) || wanted("TERM", |value| value == "dumb");
        Self {
            format,
            data_terminal: io::stdout().is_terminal(),
            data_colour: !plain && io::stdout().is_terminal(),
            people_live: !plain && io::stderr().is_terminal(),
            data: Box::new(io::stdout()),
            people: Box::new(io::stderr()),
            now: || WallTime(jiff::Timestamp::now().as_microsecond()),
        }
    }

    /// Whether stdout is a terminal.
    pub(crate) fn data_is_seen(&self) -> bool {
        self.data_terminal
    }

    /// Whether data may be coloured.
    pub(crate) fn colour_for_data(&self) -> bool {
        self.data_colour
    }

    /// Whether stderr is a terminal that may show colour and movement.
    pub(crate) fn is_live(&self) -> bool {
        self.people_live
    }

    /// The time, for ages.
    pub(crate) fn now(&self) -> WallTime {
        (self.now)()
    }

    /// Writes data as it is.
    ///
    /// # Errors
    /// The stream is closed or full.
    pub(crate) fn data(&mut self, text: &str) -> Outcome {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes of data as they are.
    ///
    /// # Errors
    /// The stream is closed or full.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.data.write_all(bytes)?;
        Ok(self.data.flush()?)
    }

    /// Writes bytes to stderr as they are: output of a command that `exec` runs.
    pub(crate) fn error_bytes(&mut self, bytes: &[u8]) {
        let _ = self.people.write_all(bytes).and_then(|()| self.people.flush());
    }

    /// Writes one value as indented JSON.
    ///
    /// # Errors
    /// The stream is closed or full.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Outcome {
        let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        text.push('\n');
        self.data(&text)
    }

    /// Writes one value as JSON on one line.
    ///
    /// # Errors
    /// The stream is closed or full.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Outcome {
        let mut text = serde_json::to_string(value).map_err(io::Error::other)?;
        text.push('\n');
        self.data(&text)
    }

    /// Writes a table; one without rows says so to people instead.
    ///
    /// # Errors
    /// The stream is closed or full.
    pub(crate) fn table(&mut self, table: &Table, nothing: &str) -> Outcome {
        if table.is_empty() {
            self.note(nothing);
            return Ok(());
        }
        let text = table.render(self.data_colour);
        self.data(&text)
    }

    /// Tells people something, on a line of its own.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.people, "{text}");
    }

    /// Tells people something with its first word in a colour.
    pub(crate) fn toned_note(&mut self, tone: Tone, word: &str, text: &str) {
        let word = tone.paint(word, self.people_live);
        let _ = writeln!(self.people, "{word} {text}");
    }

    /// Whether text for people may be coloured.
    pub(crate) fn colour_for_people(&self) -> bool {
        self.people_live
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A [`Ui`] whose streams a test can read.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written to one stream.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        /// All of it.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stream that nobody reads.
    pub(crate) struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A [`Ui`] without colour at 2026-01-01T12:00:00Z, and its two streams: data, people.
    pub(crate) fn ui(format: Format) -> (Ui, Written, Written) {
        let (data, people) = (Written::default(), Written::default());
        let ui = Ui {
            format,
            data_terminal: false,
            data_colour: false,
            people_live: false,
            data: Box::new(data.clone()),
            people: Box::new(people.clone()),
            now: || WallTime(1_767_268_800_000_000),
        };
        (ui, data, people)
    }

    /// The same as [`ui`] with a terminal, in colour or not.
    pub(crate) fn seen(format: Format, colour: bool) -> (Ui, Written, Written) {
        let (ui, data, people) = ui(format);
        (Ui { data_terminal: true, data_colour: colour, ..ui }, data, people)
    }

    /// A [`Ui`] whose stdout is closed.
    pub(crate) fn closed() -> Ui {
        Ui { data: Box::new(Closed), ..ui(Format::Table).0 }
    }
}
