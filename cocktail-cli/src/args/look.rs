//! What looks: at what happened, at output, at what would happen.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use cocktail_core::quantity::parse_duration;
use cocktail_core::time::WallTime;

use super::{FilesArgs, duration};

/// What `endpoints` takes.
#[derive(Debug, Default, Args)]
pub(crate) struct EndpointsArgs {
    /// Only those of this Unit: service/map/unit, or the end of that
    pub(crate) unit: Option<String>,
    /// Go on with the table after each change
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N of what is there
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Only events of this object
    pub(crate) object: Option<String>,
}

/// `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The data dir [default: as of every command]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The moment [default: the last turn]
    #[arg(long, value_name = "T")]
    pub(crate) until: Option<Moment>,
    /// Only decisions and events from this moment on
    #[arg(long, value_name = "T")]
    pub(crate) from: Option<Moment>,
    /// Only what concerns this Service, map, Unit, container or server
    #[arg(long, value_name = "OBJECT")]
    pub(crate) object: Option<String>,
}

/// A moment in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After this turn.
    Turn(u64),
    /// At this time.
    At(WallTime),
    /// So long ago.
    Ago(Duration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(turn) = text.strip_prefix("seq:") {
            return turn.parse().map(Self::Turn).map_err(|_| format!("{turn:?} is no number of a turn"));
        }
        if let Ok(age) = parse_duration(text) {
            return Ok(Self::Ago(age));
        }
        WallTime::parse(text)
            .map(Self::At)
            .map_err(|_| "it is no time like 2026-01-01T12:00:00Z, no age like 5m, and no turn like seq:42".to_owned())
    }
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what is written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u64>,
    /// Only lines from this time on: RFC 3339, or an age like 5m
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// Print lines that are JSON as they are, also on a terminal
    #[arg(long)]
    pub(crate) raw: bool,
    /// Begin each line with its time
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Container or Unit
    pub(crate) object: String,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Hand our standard input to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// End the command after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Container by id or unique prefix
    pub(crate) container: String,
    /// Program and arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// `simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// What each Unit is asked for over time, as CSV
    #[arg(long, value_name = "LOAD")]
    pub(crate) load: PathBuf,
    /// What can be bought, as CSV; without it there is room for everything
    #[arg(long, value_name = "PRICES")]
    pub(crate) prices: Option<PathBuf>,
    /// Most servers of each provider at a time [default: 20]
    #[arg(long, value_name = "N", requires = "prices")]
    pub(crate) max_servers: Option<u32>,
    /// Servers of each provider that stay although nothing runs on them [default: 0]
    #[arg(long, value_name = "N", requires = "prices")]
    pub(crate) min_servers: Option<u32>,
    /// How long a server stays empty before it is given back [default: 5m]
    #[arg(long, value_name = "TIME", requires = "prices", value_parser = duration)]
    pub(crate) idle: Option<Duration>,
    /// Time from the order to start a container until it serves
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) start_time: Duration,
    /// Time of a whole core that one request takes, where the load does not say
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub(crate) cpu_per_request: Duration,
    /// What looks like chance: ids, and how much longer a start or boot takes, up to a tenth
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Distance of two rows of the table [default: so that there are about twenty]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) every: Option<Duration>,
    /// Draw it into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}
