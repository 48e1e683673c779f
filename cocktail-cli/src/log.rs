//! The log of a Manager: stderr in the foreground, `DIR/manager.log` in the background.
//!
//! `COCKTAIL_LOG` filters it, as in `COCKTAIL_LOG=cocktail_manager=debug,warn`. The file never grows beyond
//! [`MAX_BYTES`]: then it becomes `manager.log.1`, and what that held is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::failure::{Failure, Outcome};

/// Size at which the file is put aside.
const MAX_BYTES: u64 = 10 << 20;

/// Begins to log to stderr from `default` on (`info`, `warn`), unless `COCKTAIL_LOG` says otherwise.
///
/// # Errors
/// `COCKTAIL_LOG` is no filter.
pub(crate) fn to_stderr(default: &str) -> Outcome {
    begin(default, io::stderr)
}

/// Begins to log to a file.
///
/// # Errors
/// The file cannot be opened, or `COCKTAIL_LOG` is no filter.
pub(crate) fn to_file(path: PathBuf) -> Outcome {
    let file = Rotating::open(path.clone(), MAX_BYTES)
        .map_err(|error| Failure::Failed(format!("cannot open {}: {error}", path.display())))?;
    begin("info", Mutex::new(file))
}

/// Begins to log, and to send traces where the environment asks for them.
fn begin<W>(default: &str, writer: W) -> Outcome
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(false).with_filter(filter("COCKTAIL_LOG", default)?);
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "otel")]
    let registry = registry.with(crate::traces::layer()?);
    registry.try_init().map_err(|error| Failure::Failed(format!("cannot begin to log: {error}")))
}

/// The filter that a variable holds, or the default.
///
/// # Errors
/// It holds something else.
pub(crate) fn filter(variable: &str, default: &str) -> Outcome<EnvFilter> {
    let wanted = std::env::var(variable).ok().filter(|text| !text.is_empty());
    EnvFilter::try_new(wanted.as_deref().unwrap_or(default))
        .map_err(|error| Failure::Usage(format!("{variable} is no filter like cocktail_manager=debug,warn: {error}")))
}

/// Opens a log file for appending, for us alone; a link in its place is refused.
///
/// # Errors
/// Those of the system.
pub(crate) fn open(path: &std::path::Path) -> io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

/// A file that is put aside when it is full.
#[derive(Debug)]
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    max: u64,
}

impl Rotating {
    fn open(path: PathBuf, max: u64) -> io::Result<Self> {
        let file = open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, max })
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.max {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            *self = Self::open(self.path.clone(), self.max)?;
        }
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_once() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("manager.log");
        let mut log = Rotating::open(path.clone(), 10).unwrap();
        for line in ["first line\n", "second line\n", "third\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(std::fs::read_to_string(root.path().join("manager.log.1")).unwrap(), "second line\n");
    }

    #[test]
    fn a_link_in_place_of_the_log_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("manager.log")).unwrap();
        assert!(open(&root.path().join("manager.log")).is_err());
    }
}
