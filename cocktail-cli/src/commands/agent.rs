//! `agent`, and what a Manager is told about agents: `token`, `revoke`, `allow`, `rotate-ca`.

use std::fs::File;
use std::io::Read as _;

use cocktail::agent::AgentOptions;
use cocktail_core::contract::{Actor, Manager};
use cocktail_core::error::Error;
use tokio_util::sync::CancellationToken;

use super::server::told;
use crate::args::{AgentArgs, Format, Global, RevokeArgs, RotateArgs, TokenArgs};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::log;
use crate::output::Ui;

/// Bytes of the longest file that is taken for a token.
const TOKEN: u64 = 4 << 10;

/// `agent`: until a signal, which leaves its containers running.
pub(crate) async fn agent(args: AgentArgs, global: &Global, ui: &mut Ui) -> Outcome {
    let AgentArgs { join, token_file, address, engine, cpu, memory } = args;
    log::to_stderr("info")?;
    let token = token_file.map(|path| {
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(TOKEN).read_to_string(&mut text));
        let unreadable =
            |error| Error::invalid(format!("the token in {} cannot be read", path.display())).because(error);
        read.map(|_| text).map_err(unreadable)
    });
    let token = token.transpose().map_err(Failure::Manager)?;
    let mut interrupt = Interrupt::listen()?;
    let (data_dir, managers) = (global.data_dir.clone(), join);
    let options = AgentOptions { data_dir, managers, token, address, engine, cpu, memory };
    let until = CancellationToken::new();
    let running = cocktail::agent::run(options, until.clone());
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = interrupt.wait() => {
            ui.note("a signal came: containers run on for the next agent, until the lease is over");
            until.cancel();
            running.await
        }
    };
    ended.map_err(Failure::Manager)
}

/// `token`.
pub(crate) async fn token(manager: &dyn Manager, actor: &Actor, args: &TokenArgs, ui: &mut Ui) -> Outcome {
    let ticket = manager.join_token(&args.server, args.ttl, actor).await?;
    match ui.format {
        Format::Json => ui.json(&ticket),
        Format::Table => {
            ui.data(&format!("{}\n", ticket.token))?;
            let (server, join) = (&ticket.server, ticket.managers.join(","));
            ui.note(&format!("on {server}: cocktail agent --join {join} --token-file FILE"));
            Ok(())
        }
    }
}

/// `revoke`.
pub(crate) async fn revoke(manager: &dyn Manager, actor: &Actor, args: &RevokeArgs, ui: &mut Ui) -> Outcome {
    told(&manager.revoke(&args.server, Some(&args.because), actor).await?, ui)
}

/// `allow`.
pub(crate) async fn allow(manager: &dyn Manager, actor: &Actor, server: &str, ui: &mut Ui) -> Outcome {
    told(&manager.revoke(server, None, actor).await?, ui)
}

/// `rotate-ca`.
pub(crate) async fn rotate(manager: &dyn Manager, actor: &Actor, args: &RotateArgs, ui: &mut Ui) -> Outcome {
    manager.rotate_authority(args.finish, actor).await?;
    ui.note(match args.finish {
        false => "certificates are signed by a new authority; the old one is trusted until `rotate-ca --finish`",
        true => "only the new authority is trusted",
    });
    Ok(())
}
