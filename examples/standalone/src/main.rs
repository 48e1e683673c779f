//! The library on this machine, step by step: apply, watch, scale, break, ask why, and leave nothing behind.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use cocktail::{Actor, Cocktail, EventFilter, Manager, ManifestSource, ShutdownMode};
use futures_util::StreamExt;

const MANIFEST: &str = r#"
service = "demo"

[maps.main.units.sleeper]
command  = ["sleep", "3600"]
replicas = 2
restart  = { base = "50ms" }
"#;

fn main() -> Result<()> {
    cocktail::init();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(steps())
}

async fn steps() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("cocktail-standalone-{}", std::process::id()));
    let manager = Cocktail::builder().data_dir(&folder).start().await?;
    let me = Actor::embedder();

    println!("apply: two sleepers");
    let source =
        ManifestSource { file: PathBuf::from("demo.toml"), base: std::env::current_dir()?, text: MANIFEST.into() };
    manager.apply(std::slice::from_ref(&source), &me).await?;
    until_ready(&manager, 2).await?;

    println!("plan: the same again would change {} things", manager.plan(&[source]).await?.actions.len());

    println!("scale: three");
    manager.scale("sleeper", 3, &me).await?;
    until_ready(&manager, 3).await?;

    let victim = manager.containers().await?.into_iter().next().context("three run")?;
    println!("break: {} is killed from outside", victim.id);
    let mut events = manager.events(&EventFilter { tail: Some(0), follow: true, ..EventFilter::default() }).await?;
    let pid = victim.pid.context("a process")?;
    std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    while let Some(event) = events.next().await {
        let event = event?;
        println!("  {} {}: {}", event.kind, event.object, event.reason);
        if event.kind == "started" {
            break;
        }
    }
    for why in manager.why(&victim.id).await? {
        println!("  why {}: {}", why.decision, why.because);
    }

    println!("end: nothing is left");
    manager.shutdown(ShutdownMode::Stop).await?;
    drop(manager);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn until_ready(manager: &Cocktail, count: u32) -> Result<()> {
    loop {
        let units = manager.units().await?;
        if units.iter().all(|unit| unit.ready == count) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
