//! The terminal of `exec -t`: raw while the command runs, as it was before in every other moment.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Size of a terminal that cannot be asked for it.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// Keeps our terminal raw; dropping it restores what was.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes the terminal on standard input raw; `None` if that is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(crate) fn begin() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody could be told in a way that is readable on a raw terminal.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Rows and columns of our terminal, of whichever stream is one.
pub(crate) fn size() -> (u16, u16) {
    let asked = [tcgetwinsize(io::stdin()), tcgetwinsize(io::stdout()), tcgetwinsize(io::stderr())];
    asked
        .into_iter()
        .flatten()
        .map(|size| (size.ws_row, size.ws_col))
        .find(|&(rows, columns)| rows > 0 && columns > 0)
        .unwrap_or(DEFAULT_SIZE)
}
