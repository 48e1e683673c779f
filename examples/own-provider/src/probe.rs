//! Probes of one container: a task for each, from the start of the container to its end.

use std::process::Stdio;
use std::sync::Arc;

use cocktail_core::contract::{Launch, LaunchProbe, RuntimeEvent};
use cocktail_core::spec::Check;
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::worker::{Worker, command};

/// Tells each change of a probe's result. It turns bad after as many failures in a row as it says, good at once.
pub(crate) fn watch(launch: &Arc<Launch>, worker: &Arc<Worker>, events: &broadcast::Sender<RuntimeEvent>) {
    for probe in &launch.probes {
        let (launch, worker, events, probe) = (Arc::clone(launch), Arc::clone(worker), events.clone(), probe.clone());
        tokio::spawn(async move {
            let probing = async {
                let (mut told, mut failures) = (None, 0);
                loop {
                    let checked = tokio::time::timeout(probe.timeout, check(&launch, &probe)).await;
                    let found = checked.unwrap_or_else(|_| Err("it took too long".into()));
                    failures = if found.is_ok() { 0 } else { failures + 1 };
                    let ok = found.is_ok();
                    if told != Some(ok) && (ok || failures >= probe.failures) {
                        told = Some(ok);
                        let (container, generation) = (launch.container.clone(), launch.generation);
                        let detail = found.err().unwrap_or_else(|| "well".into());
                        let _nobody =
                            events.send(RuntimeEvent::Probe { container, generation, kind: probe.kind, ok, detail });
                    }
                    tokio::time::sleep(probe.every).await;
                }
            };
            tokio::select! {
                () = probing => {}
                _ = worker.ended() => {}
            }
        });
    }
}

async fn check(launch: &Launch, probe: &LaunchProbe) -> Result<(), String> {
    match (&probe.check, probe.port) {
        (Check::Tcp { .. }, Some(port)) => {
            TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        }
        (Check::Exec { command: argv }, _) => {
            let mut command = command(launch, argv).map_err(|error| error.to_string())?;
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
            let status = status.map_err(|error| error.to_string())?;
            if status.success() { Ok(()) } else { Err(format!("the command ended with {status}")) }
        }
        _ => Err("this check cannot be made here".into()),
    }
}
