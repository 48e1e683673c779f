//! What runs a Manager, gives it manifests, and ends it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use cocktail_core::contract::ApplyOptions;
use cocktail_core::name::Name;

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

/// Whether images stay what they were.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PullArg {
    /// Ask again what the tags of images stand for: one that has moved is a new revision
    #[arg(long)]
    pub(crate) pull: bool,
}

impl PullArg {
    /// What the Manager is asked.
    pub(crate) fn options(self) -> ApplyOptions {
        ApplyOptions { pull: self.pull }
    }
}

/// `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    #[command(flatten)]
    pub(crate) pull: PullArg,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FilesArgs,
    #[command(flatten)]
    pub(crate) pull: PullArg,
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
    /// Turn a Docker Compose file into a manifest, and say what has no counterpart
    #[command(after_help = "\
The manifest goes to stdout, or with --out into a new file; what has no counterpart goes to stderr, with its line. With -o json both \
are data: {manifest, notes}. Variables come from the environment and from .env beside the file. A file that is no Compose file is exit code 2.

Examples:
  cocktail manifest import-compose compose.yaml --out shop.toml
  cocktail manifest import-compose compose.yaml -o json | jq '.notes[] | .what'
  docker compose config | cocktail manifest import-compose -")]
    ImportCompose(ImportArgs),
}

/// `manifest import-compose`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The Compose file; - is standard input
    #[arg(value_name = "COMPOSE.yaml")]
    pub(crate) file: PathBuf,
    /// Name of the Service; by default that of the file, or of its folder
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) service: Option<Name>,
    /// Name of the application map
    #[arg(long, value_name = "NAME", default_value = "prod", value_parser = name)]
    pub(crate) map: Name,
    /// Write the manifest into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Check what this provider needs, too
    #[cfg_attr(feature = "docker", arg(default_value = "standalone", value_parser = ["standalone", "docker"]))]
    #[cfg_attr(not(feature = "docker"), arg(default_value = "standalone", value_parser = ["standalone"]))]
    pub(crate) provider: String,
}
