//! A terminal for a program that wants one: what somebody would type and see.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::home::PATIENCE;

/// A terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    outer: File,
    inner: OwnedFd,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Opens one of that size.
    ///
    /// # Panics
    /// When there is none to be had.
    pub fn open(rows: u16, columns: u16) -> Self {
        let outer = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("there are terminals");
        rustix::pty::grantpt(&outer).expect("it is ours");
        rustix::pty::unlockpt(&outer).expect("it is ours");
        let name = rustix::pty::ptsname(&outer, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let inner = rustix::fs::open(&name, flags, 0.into()).expect("it can be opened");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&inner, size).expect("it has a size");
        let outer = File::from(outer);
        let mut reader = outer.try_clone().expect("a descriptor can be copied");
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with the terminal.
            while let Ok(read) = reader.read(&mut buffer) {
                if read == 0 || sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { outer, inner, output, seen: String::new() }
    }

    /// Starts a program in it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, mut command: Command) -> Child {
        let stream = || Stdio::from(self.inner.try_clone().expect("a descriptor can be copied"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
    }

    /// Types something. `\r` is the return key.
    ///
    /// # Panics
    /// When it takes nothing.
    pub fn enter(&mut self, keys: &str) {
        self.outer.write_all(keys.as_bytes()).expect("a terminal takes what is typed");
    }

    /// Waits until a text was shown, and returns all that was shown so far.
    ///
    /// # Panics
    /// When it is not shown.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let begin = Instant::now();
        while !self.seen.contains(text) {
            assert!(begin.elapsed() < PATIENCE, "{text:?} was not shown: {}", self.seen);
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        self.seen.clone()
    }

    /// Its modes, to be compared.
    ///
    /// # Panics
    /// When it has none.
    pub fn modes(&self) -> String {
        format!("{:?}", rustix::termios::tcgetattr(&self.inner).expect("a terminal has modes"))
    }
}
