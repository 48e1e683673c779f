//! The command line as a type. Start at [`Cli`]; the options of each command are in the files below.
//!
//! Only shapes and help texts live here; what a command does is in [`crate::commands`]. Wrong usage is answered by
//! clap with exit code 2.

mod agent;
mod change;
mod look;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use cocktail_core::quantity::parse_duration;

pub(crate) use self::agent::{AgentArgs, RevokeArgs, RotateArgs, TokenArgs};
pub(crate) use self::change::{
    ObjectArg, ObjectsArgs, RearrangeArgs, RollbackArgs, RolloutCommand, ScaleArgs, ServerArg, StepArgs, UnitArg,
};
pub(crate) use self::look::{EndpointsArgs, EventsArgs, ExecArgs, LogsArgs, Moment, ReplayArgs, SimulateArgs};
pub(crate) use self::run::{
    ApplyArgs, DoctorArgs, DownArgs, FilesArgs, ImportArgs, ManifestCommand, PlanArgs, ServeArgs, UpArgs, WaitArg,
};

/// Text under the help of the program.
const EXIT_CODES: &str = "\
Objects are named service/map/unit; any unambiguous tail will do (web). Containers and servers go by id or unique \
prefix.

Exit codes: 0 done, 1 failed, 2 bad usage or bad manifest, 3 no such object, 4 refused, 5 deadline passed, 6 no Manager reachable. `exec` ends with the exit code of its command.

Examples:
  cocktail up examples/shop/cocktail.toml      run it here and watch; Ctrl-C stops it
  cocktail up -d cocktail.toml                 run it in the background
  cocktail ps -o json                          containers, for a script
  cocktail why web                             why it is as it is";

/// Runs and scales worker processes, and says why.
#[derive(Debug, Parser)]
#[command(name = "cocktail", version, after_help = EXIT_CODES, max_term_width = 120, propagate_version = false)]
pub(crate) struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where all state is [default: $COCKTAIL_DATA_DIR, else the nearest .cocktail upwards]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings of the Manager ([manager], [providers.*]) that `up` and `serve` start [default: ./cocktail.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How data is written
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// How data is written. In JSON, times are RFC 3339 UTC, sizes bytes, and cpu is thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a Manager if none runs, apply manifests, and wait until every Unit is ready
    #[command(after_help = "\
In the foreground it then shows events until Ctrl-C, which stops what it started: with a Manager of its own, all \
workers and the Manager; with one that ran before, the Units that did not run before. With -d everything keeps \
running, also when the deadline of --wait passes, so that `why` and `logs` can tell more.

Examples:
  cocktail up cocktail.toml
  cocktail up -d --wait 5m web.toml db.toml && curl http://127.0.0.1:8080/
  cocktail down                                ends what `up -d` began")]
    Up(UpArgs),
    /// Run a Manager in the foreground, without a manifest; SIGTERM leaves workers running for the next one to adopt
    #[command(after_help = "\
The log goes to stderr; COCKTAIL_LOG filters it, as in COCKTAIL_LOG=cocktail_manager=debug,warn. Under systemd set KillMode=process, or stopping the service kills all workers.")]
    Serve(ServeArgs),
    /// Apply manifests to the running Manager
    #[command(after_help = "\
An apply owns the maps that it names: what left the files is removed. Counts set by `scale` stay unless the file's \
value changed. An image stays what its tag stood for when it was first applied. All files are applied, or none.

Examples:
  cocktail plan shop.toml && cocktail apply shop.toml --wait
  cocktail apply --pull shop.toml
  generate-manifest | cocktail apply -")]
    Apply(ApplyArgs),
    /// Print what apply would do, and why, and do nothing
    Plan(PlanArgs),
    /// List Units: desired, ready, revision, rollout, usage
    Units,
    /// List containers
    Ps,
    /// List servers
    Servers,
    /// List the routing table: service ports and the ready containers behind them
    Endpoints(EndpointsArgs),
    /// List volumes: what they hold, who has them, and those that nobody uses any more
    Volumes,
    /// Watch what every Unit does, live; without a terminal print it once
    #[command(after_help = "\
Keys: arrows select, Enter opens the containers of a Unit, s sorts by the next column, l shows the last lines, w shows \
why, Esc goes back, q ends.")]
    Top,
    /// Print metrics of the Manager, its Units and containers, as Prometheus gets them
    #[command(after_help = "\
[manager] metrics = \"127.0.0.1:9464\" in the settings lets Prometheus scrape them over TCP.")]
    Metrics,
    /// List operations: open ones and the last that ended
    Ops,
    /// Print the journal
    #[command(after_help = "Example:\n  cocktail events -f --tail 0 -o json | jq .kind")]
    Events(EventsArgs),
    /// Print everything known about an object
    Inspect(ObjectArg),
    /// Print the decisions about an object, with reasons, including why nothing happens; newest last
    Why(ObjectArg),
    /// Print what the Manager of a data dir knew at a past moment, and why it acted, from the journal
    #[command(after_help = "\
It needs no Manager, changes nothing in the data dir, and may look while one runs. T is a time like 2026-01-01T12:00:00Z, \
an age like 5m, or a turn like seq:42. Without --from, people see the last 50 decisions and events; -o json has all that are kept.

Examples:
  cocktail replay .cocktail --until 5m
  cocktail replay --from 2026-01-01T12:00:00Z --until 2026-01-01T12:05:00Z --object web
  cocktail replay .cocktail --until seq:42 -o json | jq .state.containers")]
    Replay(ReplayArgs),
    /// Print the output of a container, or of all containers of a Unit
    #[command(after_help = "\
Examples:
  cocktail logs -f web
  cocktail logs --tail 20 --since 5m --timestamps web-k3v9qx
  cocktail logs --grep timeout -o json web | jq .fields")]
    Logs(LogsArgs),
    /// Run a command beside a container; its exit code becomes ours
    #[command(after_help = "Examples:\n  cocktail exec web-k3v9qx -- env\n  cocktail exec -it web-k3v9qx -- sh")]
    Exec(ExecArgs),
    /// Set the count of a Unit; an unrelated apply does not undo it
    Scale(ScaleArgs),
    /// Add containers to a Unit
    Extend(StepArgs),
    /// Take containers from a Unit
    Reduce(StepArgs),
    /// Stop a Unit, a map or a Service, and remember that it is stopped
    Stop(ObjectsArgs),
    /// Start what `stop` stopped
    Start(ObjectsArgs),
    /// Replace the containers of a Unit, map or Service, or one container: the replacement is ready first
    Restart(ObjectsArgs),
    /// Watch and steer the rollout of a Unit
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Go back to an earlier revision of a Unit: extends first, like an update
    #[command(after_help = "\
Without --to it goes back to the revision that served before; `inspect UNIT` lists those that are kept.

Examples:
  cocktail rollback web --wait
  cocktail rollback web --to 3")]
    Rollback(RollbackArgs),
    /// Place nothing new on a server; what runs there stays
    Cordon(ServerArg),
    /// Place containers on a server again, and call off that it is emptied
    Uncordon(ServerArg),
    /// Empty a server: others serve first, and nothing new comes
    #[command(after_help = "\
It stays empty until `uncordon`, which also calls it off while it lasts. What finds no room elsewhere stays, and `why SERVER` \
says what is missing.

Examples:
  cocktail rearrange web-7 --wait
  cocktail rearrange web-7 --deadline 10m          what has not moved by then stays, and the server is used again
  cocktail rearrange web-7 --deadline 10m --force  what has not moved by then is drained without a replacement
  cocktail rearrange web-7 --give-back             and the provider gets it back")]
    Rearrange(RearrangeArgs),
    /// Run the agent of this machine: a Manager elsewhere runs containers here
    #[command(after_help = "\
The token is needed once: `cocktail token SERVER` on the Manager's host prints it. Without --data-dir everything is kept in \
.cocktail-agent in the working directory. SIGTERM leaves containers running for the next agent, until the lease is over.

Example:
  cocktail agent --join manager.example.com:7443 --token-file token --address 10.0.0.7")]
    Agent(AgentArgs),
    /// Make a token with which the agent of a server may join, once; one from before is void
    #[command(after_help = "Example:\n  cocktail token rack-1 > token")]
    Token(TokenArgs),
    /// Refuse the agent of a server from now on and cut its connection; what runs there ends with its lease
    Revoke(RevokeArgs),
    /// Let the agent of a server in again that was revoked
    Allow(ServerArg),
    /// Sign certificates of agents with a new authority from now on
    #[command(after_help = "\
Agents renew by themselves; when all have, `--finish` ends the trust in the old authority. Tokens that were made before have to be \
made again then.")]
    RotateCa(RotateArgs),
    /// Remove a Unit, a map or a Service with its containers; volumes stay
    Rm(ObjectsArgs),
    /// Remove everything, wait until it is gone, and end the Manager that `up -d` started
    Down(DownArgs),
    /// Go on with this copy of the data dir, although what runs took orders from a newer one; nothing is ended
    #[command(after_help = "\
Where a Manager is refused because its data dir is an older copy, put the newer copy back if there is one. Else this \
command lets the next Manager take over. Containers that the copy does not know run on; `inspect SERVER` lists them.")]
    Adopt,
    /// End everything that runs for the data dir while no Manager can: its workers, after naming them, and its keeper
    #[command(after_help = "\
For a data dir that was emptied, exchanged or put back from an older copy while workers ran. With a Manager use `down`.

Example:
  cocktail release --data-dir /var/lib/cocktail")]
    Release,
    /// Print what the planner would do over time with a load and a price list; nothing runs, no Manager is asked
    #[command(after_help = "\
LOAD is CSV: at,unit,requests_per_s[,cpu_per_request] or at,unit,load (in cores). A row holds until the next one of its Unit, and \
the last row ends the simulation. PRICES is CSV, too: offering,cpu,memory,price_per_hour,boot[,provider][,zone]. Without one there \
is room for everything. The same files and seed give the same output.

Examples:
  cocktail simulate cocktail.toml --load load.csv
  cocktail simulate cocktail.toml --load load.csv --prices prices.csv --svg shop.svg
  cocktail simulate cocktail.toml --load load.csv --prices prices.csv -o json | jq .summary")]
    Simulate(SimulateArgs),
    /// Work with manifests, without a Manager
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Check whether this machine suits cocktail, and say what to change
    Doctor(DoctorArgs),
    /// Print a completion script
    #[command(
        after_help = "Example:\n  cocktail completions bash > ~/.local/share/bash-completion/completions/cocktail"
    )]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the version, and that of the running Manager
    Version,
}

/// Reads `10s`.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use cocktail_core::time::WallTime;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["cocktail --data-dir d -o json ps", "cocktail ps --data-dir d --output json"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.data_dir, Some(PathBuf::from("d")), "{line}");
            assert_eq!(cli.global.output, Format::Json, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "cocktail",
            "cocktail fly",
            "cocktail up",
            "cocktail scale web",
            "cocktail scale web -1",
            "cocktail extend web 0",
            "cocktail ps -o yaml",
            "cocktail up f --wait 10",
            "cocktail exec web",
            "cocktail doctor mars",
            "cocktail rollout",
            "cocktail rollout stop web",
            "cocktail rollout status",
            "cocktail rollback",
            "cocktail rollback web --to one",
            "cocktail cordon",
            "cocktail simulate a.toml",
            "cocktail simulate a.toml --load l.csv --max-servers 3",
            "cocktail rearrange s --force",
            "cocktail rearrange s --deadline soon",
            "cocktail replay --until yesterday",
            "cocktail replay --until seq:last",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn wait_takes_its_time_after_an_equals_sign_only() {
        let Command::Apply(args) = parse("cocktail apply --wait a.toml").unwrap().command else { panic!() };
        assert_eq!((args.wait.wait, args.files.files.len()), (Some(Duration::from_secs(120)), 1));
        let Command::Scale(args) = parse("cocktail scale web 3 --wait=5s").unwrap().command else { panic!() };
        assert_eq!(args.wait.wait, Some(Duration::from_secs(5)));
        let Command::Stop(args) = parse("cocktail stop web").unwrap().command else { panic!() };
        assert_eq!(args.wait.wait, None);
    }

    #[test]
    fn a_moment_is_a_turn_an_age_or_a_time() {
        let line = "cocktail replay d --until seq:42 --from 5m";
        let Command::Replay(args) = parse(line).unwrap().command else { panic!() };
        assert_eq!((args.dir, args.until), (Some("d".into()), Some(Moment::Turn(42))));
        assert_eq!(args.from, Some(Moment::Ago(Duration::from_secs(300))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Moment::At(WallTime(1_000_000))));
    }

    #[test]
    fn what_follows_two_hyphens_belongs_to_the_command_of_exec() {
        let Command::Exec(args) = parse("cocktail exec -it web-1 -- ls -l --all").unwrap().command else { panic!() };
        assert!(args.interactive && args.tty);
        assert_eq!(args.command, ["ls", "-l", "--all"]);
    }

    #[test]
    fn extend_and_reduce_go_by_one_unless_told() {
        let Command::Extend(args) = parse("cocktail extend web").unwrap().command else { panic!() };
        assert_eq!(args.count, 1);
        let Command::Reduce(args) = parse("cocktail reduce web 4").unwrap().command else { panic!() };
        assert_eq!(args.count, 4);
    }
}
