//! The library on a Docker engine, step by step: apply, scale, break, read the output, and leave nothing behind.
//!
//! `docker [IMAGE]`, with an image that has a `sh`; the engine is that of `DOCKER_HOST`, or the one of this machine.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cocktail::docker::{DockerBuilder, DockerConfig};
use cocktail::name::Name;
use cocktail::{Actor, Cocktail, EventFilter, LogOptions, Manager, ManifestSource, ShutdownMode};
use futures_util::StreamExt;

/// What a user waits for until looking for another way.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    cocktail::init();
    let image = std::env::args().nth(1).unwrap_or_else(|| "busybox:stable".to_owned());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(steps(&image))
}

async fn steps(image: &str) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("cocktail-docker-{}", std::process::id()));
    let config = DockerConfig { endpoint: std::env::var("DOCKER_HOST").ok(), ..DockerConfig::default() };
    let engine = DockerBuilder::new(Name::new("docker")?).with_config(config).build()?;
    let manager = Cocktail::builder().data_dir(&folder).provider(Arc::new(engine)).start().await?;
    let done = run(&manager, image).await;

    println!("end: nothing is left");
    manager.shutdown(ShutdownMode::Stop).await?;
    drop(manager);
    std::fs::remove_dir_all(folder)?;
    done
}

async fn run(manager: &Cocktail, image: &str) -> Result<()> {
    let me = Actor::embedder();
    let text = format!(
        "service = \"demo\"\n[maps.main.units.greeter]\nimage = \"{image}\"\nreplicas = 2\n\
         command = [\"sh\", \"-c\", \"echo hello from ${{CONTAINER}}; exec sleep 3600\"]\n\
         restart = {{ base = \"50ms\" }}\nstop = {{ grace = \"1s\" }}\n"
    );
    println!("apply: two containers of {image}");
    let source = ManifestSource { file: PathBuf::from("demo.toml"), base: std::env::current_dir()?, text };
    manager.apply(&[source], &me).await?;
    until_ready(manager, 2).await?;
    for container in manager.containers().await? {
        println!("  {} is {}", container.id, container.docker_id.as_deref().unwrap_or("nowhere"));
    }

    println!("scale: three");
    manager.scale("greeter", 3, &me).await?;
    until_ready(manager, 3).await?;

    let victim = manager.containers().await?.into_iter().next().context("three run")?;
    println!("break: the engine is told to kill {}", victim.id);
    let mut events = manager.events(&EventFilter { tail: Some(0), follow: true, ..EventFilter::default() }).await?;
    let id = victim.docker_id.context("an id of the engine")?;
    std::process::Command::new("docker").args(["kill", &id]).stdout(std::process::Stdio::null()).status()?;
    while let Some(event) = events.next().await {
        let event = event?;
        println!("  {} {}: {}", event.kind, event.object, event.reason);
        if event.kind == "started" {
            break;
        }
    }
    until_ready(manager, 3).await?;

    println!("output:");
    let mut lines = manager.logs("greeter", &LogOptions { tail: Some(1), ..LogOptions::default() }).await?;
    while let Some(line) = lines.next().await {
        println!("  {}", line?.text);
    }
    Ok(())
}

async fn until_ready(manager: &Cocktail, count: u32) -> Result<()> {
    let ready = async {
        loop {
            let units = manager.units().await?;
            if units.iter().all(|unit| unit.ready == count) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, ready).await {
        Ok(ready) => ready,
        Err(_) => {
            let waiting = manager.containers().await?.into_iter().map(|it| format!("{}: {}", it.id, it.reason));
            bail!("not ready after {PATIENCE:?}: {}", waiting.collect::<Vec<_>>().join("; "))
        }
    }
}
