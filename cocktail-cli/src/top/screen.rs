//! The terminal of `top`: taken over while it runs, and given back whatever happens.
//!
//! [`Screen`] gives it back when it goes; a panic does so before its message is printed.

use std::io::{self, IsTerminal};
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::model::{Key, Model};
use super::view;
use crate::failure::{Failure, Outcome};

/// Keys that wait to be taken.
const KEYS: usize = 64;

/// What comes from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Key(Key),
    /// The size has changed, so that all must be drawn anew.
    Resized,
}

/// The terminal, taken over.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    input: mpsc::Receiver<Input>,
}

impl Screen {
    /// Whether somebody looks and can type.
    pub(super) fn is_possible() -> bool {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        !dumb && io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal over.
    ///
    /// # Errors
    /// It refuses; then it is as it was.
    pub(super) fn open() -> Outcome<Self> {
        // Sets a hook too that gives the terminal back before a panic is told.
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            Failure::Failed(format!("the terminal refuses: {error}"))
        })?;
        let (to, input) = mpsc::channel(KEYS);
        // Reading a terminal blocks, and nothing ends it: the thread goes with the process.
        thread::spawn(move || {
            while let Ok(event) = event::read() {
                let input = match event {
                    Event::Key(key) => key_of(key).map(Input::Key),
                    Event::Resize(..) => Some(Input::Resized),
                    _ => None,
                };
                if let Some(input) = input
                    && to.blocking_send(input).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { terminal, input })
    }

    /// Draws.
    ///
    /// # Errors
    /// The terminal has gone.
    pub(super) fn draw(&mut self, model: &Model) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, model)).map(drop)
    }

    /// What comes next; `None` when the terminal has gone.
    pub(super) async fn input(&mut self) -> Option<Input> {
        self.input.recv().await
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What a key means here.
fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        _ if control => return None,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter | KeyCode::Right => Key::Enter,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => Key::Back,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('l') => Key::Logs,
        KeyCode::Char('w') => Key::Why,
        KeyCode::Char('q') => Key::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_footer_says() {
        let plain = |code| key_of(KeyEvent::new(code, KeyModifiers::NONE));
        for (code, key) in [
            (KeyCode::Up, Key::Up),
            (KeyCode::Down, Key::Down),
            (KeyCode::Enter, Key::Enter),
            (KeyCode::Esc, Key::Back),
            (KeyCode::Char('s'), Key::Sort),
            (KeyCode::Char('l'), Key::Logs),
            (KeyCode::Char('w'), Key::Why),
            (KeyCode::Char('q'), Key::Quit),
        ] {
            assert_eq!(plain(code), Some(key), "{code:?}");
        }
        assert_eq!(plain(KeyCode::Char('x')), None);
        assert_eq!(key_of(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Key::Quit));
        assert_eq!(key_of(KeyEvent::new(KeyCode::Char('s'), KeyModifiers::CONTROL)), None);
    }

    #[test]
    fn a_key_that_is_let_go_means_nothing() {
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(key_of(released), None);
    }
}
