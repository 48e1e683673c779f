//! What runs a Manager, gives it manifests, and ends it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

/// Manifests.
#[derive(Debug, Clone, Args)]
pub(crate) struct FilesArgs {
    /// Manifests; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    /// Leave it all running in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Longest wait until every Unit is ready; passing it is exit code 5
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) wait: Duration,
}

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Started by `up -d`: leave the terminal, and let `down` end it.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// Whether to wait until a command has come true.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArg {
    /// Wait until it has come true, at most this long; passing it is exit code 5
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "120s", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

/// `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Longest wait until everything is gone; passing it is exit code 5
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    pub(crate) wait: Duration,
}

/// `manifest`.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Check manifests: what is wrong, where, and what to write instead
    Check(FilesArgs),
    /// Print the JSON Schema of manifests
    Schema,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Check what this provider needs, too
    #[cfg_attr(feature = "docker", arg(default_value = "standalone", value_parser = ["standalone", "docker"]))]
    #[cfg_attr(not(feature = "docker"), arg(default_value = "standalone", value_parser = ["standalone"]))]
    pub(crate) provider: String,
}
