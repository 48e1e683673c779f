//! The `cocktail` program: a thin one around the library.
//!
//! Start at [`run`]. The command line is a type ([`args`]), each command is a function over a Manager ([`commands`]),
//! and only [`up`], [`serve`] and [`daemon`] start one. Data goes to stdout, everything for people to stderr
//! ([`output`]); every error ends here as one message and one exit code ([`failure`]).
//!
//! Nothing here decides what should run: whatever a command does, an embedding service can do with a method call.

mod args;
mod background;
mod commands;
mod daemon;
mod data_dir;
mod doctor;
mod failure;
mod interrupt;
mod log;
mod manager_link;
mod manifests;
mod output;
mod progress;
mod serve;
mod simulate;
mod terminal;
#[cfg(test)]
mod testing;
mod top;
mod traces;
mod up;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use cocktail_core::contract::{Actor, Manager, ManifestSource, ShutdownMode};

use crate::args::{Cli, Command, DownArgs, FilesArgs, Global, ManifestCommand};
use crate::commands::change::{self, Verb};
use crate::commands::{
    agent, apply, events, exec, import, inspect, list, logs, manifest, release, replay, rollout, server, version,
    volumes,
};
use crate::data_dir::{DataDir, Surroundings};
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};

fn main() -> ExitCode {
    cocktail::init();
    let cli = Cli::parse();
    let mut ui = Ui::of_process(cli.global.output);
    if matches!(&cli.command, Command::Serve(args) if args.background) {
        background::detach();
    }
    let outcome = run(cli, &mut ui);
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    if let Some(report) = failure.report() {
        match failure {
            Failure::Diagnosed(_) => ui.note(&report),
            _ => ui.toned_note(Tone::Bad, "error:", &report),
        }
    }
    ExitCode::from(failure.code())
}

/// Runs one command on a runtime of one thread: it waits for a socket most of its time, and so does a Manager.
fn run(cli: Cli, ui: &mut Ui) -> Outcome {
    match cli.command {
        // What needs neither a Manager nor a runtime.
        Command::Manifest(ManifestCommand::Schema) => return manifest::schema(ui),
        Command::Manifest(ManifestCommand::Check(files)) => return manifest::check(&read(&files, &cli.global)?, ui),
        Command::Manifest(ManifestCommand::ImportCompose(args)) => {
            let from = Surroundings::of_process(cli.global.data_dir.clone())?;
            return import::import(&args, &from.working_dir, &mut io::stdin(), ui);
        }
        Command::Completions { shell } => return completions(shell, ui),
        Command::Simulate(args) => {
            let from = Surroundings::of_process(cli.global.data_dir.clone())?;
            let sources = read(&args.files, &cli.global)?;
            let config = cli.global.config.as_deref();
            return commands::simulate::simulate(&args, &sources, config, &from.working_dir, ui);
        }
        Command::Replay(args) => {
            let from = Surroundings::of_process(args.dir.clone().or(cli.global.data_dir))?;
            return replay::replay(&DataDir::find(&from, false)?, &args, ui);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot begin: {error}")))?;
    let outcome = runtime.block_on(dispatch(cli.command, &cli.global, ui));
    // A read of a terminal that never returns must not keep the program.
    runtime.shutdown_background();
    #[cfg(feature = "otel")]
    traces::end();
    outcome
}

async fn dispatch(command: Command, global: &Global, ui: &mut Ui) -> Outcome {
    let from = Surroundings::of_process(global.data_dir.clone())?;
    let connect = async || manager_link::connect(&DataDir::find(&from, false)?).await;
    let actor = manager_link::actor();
    match command {
        Command::Version => {
            let manager = match DataDir::find(&from, false) {
                Ok(dir) => manager_link::find(&dir).await.ok().flatten(),
                Err(_) => None,
            };
            version::version(manager.as_deref(), ui).await
        }
        Command::Apply(args) => {
            let sources = read(&args.files, global)?;
            let manager = manager_link::connect(&DataDir::find(&from, true)?).await?;
            apply::apply(&*manager, &actor, &sources, args.pull.options(), args.wait, ui).await
        }
        Command::Plan(args) => {
            let sources = read(&args.files, global)?;
            apply::plan(&*connect().await?, &sources, args.pull.options(), ui).await
        }
        Command::Units => list::units(&*connect().await?, ui).await,
        Command::Ps => list::containers(&*connect().await?, ui).await,
        Command::Servers => list::servers(&*connect().await?, ui).await,
        Command::Endpoints(args) => list::endpoints(&*connect().await?, &args, ui).await,
        Command::Volumes => volumes::volumes(&*connect().await?, ui).await,
        Command::Top => top::top(connect().await?, ui).await,
        Command::Metrics => ui.data(&cocktail_api::metrics(&*connect().await?).await?),
        Command::Ops => list::operations(&*connect().await?, ui).await,
        Command::Events(args) => events::events(&*connect().await?, args, ui).await,
        Command::Inspect(args) => inspect::inspect(&*connect().await?, &args.object, ui).await,
        Command::Why(args) => inspect::why(&*connect().await?, &args.object, ui).await,
        Command::Logs(args) => logs::logs(&*connect().await?, args, ui).await,
        Command::Exec(args) => exec::exec(&*connect().await?, &actor, args, ui).await,
        Command::Scale(args) => change::scale(&*connect().await?, &actor, args, ui).await,
        Command::Extend(args) => change::extend(&*connect().await?, &actor, args, ui).await,
        Command::Reduce(args) => change::reduce(&*connect().await?, &actor, args, ui).await,
        Command::Stop(args) => change::objects(&*connect().await?, &actor, Verb::Stop, args, ui).await,
        Command::Start(args) => change::objects(&*connect().await?, &actor, Verb::Start, args, ui).await,
        Command::Restart(args) => change::objects(&*connect().await?, &actor, Verb::Restart, args, ui).await,
        Command::Rollout(command) => rollout::rollout(&*connect().await?, &actor, command, ui).await,
        Command::Rollback(args) => rollout::rollback(&*connect().await?, &actor, args, ui).await,
        Command::Cordon(args) => server::cordon(&*connect().await?, &actor, &args.server, ui).await,
        Command::Uncordon(args) => server::uncordon(&*connect().await?, &actor, &args.server, ui).await,
        Command::Rearrange(args) => server::rearrange(&*connect().await?, &actor, args, ui).await,
        Command::Agent(args) => agent::agent(args, global, ui).await,
        Command::Token(args) => agent::token(&*connect().await?, &actor, &args, ui).await,
        Command::Revoke(args) => agent::revoke(&*connect().await?, &actor, &args, ui).await,
        Command::Allow(args) => agent::allow(&*connect().await?, &actor, &args.server, ui).await,
        Command::RotateCa(args) => agent::rotate(&*connect().await?, &actor, &args, ui).await,
        Command::Rm(args) => change::objects(&*connect().await?, &actor, Verb::Remove, args, ui).await,
        Command::Down(args) => {
            let dir = DataDir::find(&from, false)?;
            down(&dir, &*manager_link::connect(&dir).await?, &actor, &args, ui).await
        }
        Command::Adopt => {
            let chosen = manifests::settings(global.config.as_deref(), &[], &from.working_dir, ui)?;
            release::adopt(&DataDir::find(&from, false)?, chosen.settings, ui).await
        }
        Command::Release => {
            let chosen = manifests::settings(global.config.as_deref(), &[], &from.working_dir, ui)?;
            release::release(&DataDir::find(&from, false)?, chosen.settings, ui).await
        }
        Command::Doctor(asked) => {
            // The folder that `up` would use: a doctor is asked before anything runs, too.
            let dir = DataDir::find(&from, true)?;
            let chosen = manifests::settings(global.config.as_deref(), &[], &from.working_dir, ui)?;
            doctor::doctor(&dir, &chosen.settings, &asked.provider, ui).await
        }
        Command::Up(args) => up::up(&args, global, &from, ui).await,
        Command::Serve(args) => serve::serve(&args, global, &from, ui).await,
        Command::Manifest(_) | Command::Completions { .. } | Command::Replay(_) | Command::Simulate(_) => {
            unreachable!("answered before there was a runtime")
        }
    }
}

/// `down`: removes everything, and ends a Manager that `up -d` started. Any other is its owner's to end.
async fn down(dir: &DataDir, manager: &dyn Manager, actor: &Actor, args: &DownArgs, ui: &mut Ui) -> Outcome {
    let about = manager.about().await?;
    change::down(manager, actor, args.wait, ui).await?;
    if manager_link::is_in_background(dir, &about) {
        manager_link::end(manager, ShutdownMode::Stop).await?;
    }
    Ok(())
}

/// Reads manifests from the command line's files.
fn read(files: &FilesArgs, global: &Global) -> Outcome<Vec<ManifestSource>> {
    let from = Surroundings::of_process(global.data_dir.clone())?;
    manifests::read(&files.files, &from.working_dir, &mut io::stdin())
}

/// Prints a completion script.
fn completions(shell: clap_complete::Shell, ui: &mut Ui) -> Outcome {
    // Into memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cocktail", &mut script);
    ui.bytes(&script)
}
