//! What a program does that knows everything beforehand: the same bodies, straight to the engine.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::api::Api;
use super::unique;

pub(super) struct Bare {
    api: Api,
    bodies: Arc<Vec<String>>,
    /// What runs: the engine's ids, in the order of the bodies.
    made: Arc<Mutex<Vec<String>>>,
    network: String,
}

impl Bare {
    /// With a network of its own in the place of the one in the bodies, which is gone.
    pub(super) fn new(api: &Api, bodies: Vec<String>) -> Result<Self> {
        let first: Value = serde_json::from_str(bodies.first().context("there are no bodies")?)?;
        let theirs = first["HostConfig"]["NetworkMode"].as_str().context("a body has no network")?.to_owned();
        let made = api.call("POST", "/networks/create", &json!({ "Name": unique("bare") }).to_string())?;
        let network = made["Id"].as_str().context("a network has no id")?.to_owned();
        ensure!(network.len() == theirs.len(), "the network of a body is no id: {theirs}");
        let bodies = bodies.iter().map(|body| body.replace(&theirs, &network)).collect();
        Ok(Self { api: api.clone(), bodies: Arc::new(bodies), made: Arc::default(), network })
    }

    /// Makes and starts all of them, by so many threads.
    pub(super) fn up(&self, threads: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let work = || -> Result<()> {
                while let Some(body) = self.bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let id = run(&self.api, body)?;
                    self.made.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                }
                Ok(())
            };
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
        })
    }

    /// Stops and removes all of them, by so many threads.
    pub(super) fn down(&self, threads: usize) -> Result<()> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let work = || -> Result<()> {
                while let Some(id) = made.get(next.fetch_add(1, Ordering::Relaxed)) {
                    self.api.call("POST", &format!("/containers/{id}/stop?t=10"), "")?;
                    self.api.call("DELETE", &format!("/containers/{id}?v=true"), "")?;
                }
                Ok(())
            };
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
        })
    }

    /// Follows the engine's events, and has another one run for each that ends. Ends with the value.
    pub(super) fn restart_what_dies(&self) -> Result<Watching> {
        let events = self.api.events(&["die"])?;
        let (api, bodies, made) = (self.api.clone(), self.bodies.clone(), self.made.clone());
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let Ok((_, _, died)) = events.next(Duration::from_millis(100)) else { continue };
                let place = made.lock().unwrap_or_else(PoisonError::into_inner).iter().position(|id| *id == died);
                let Some((place, body)) = place.and_then(|place| Some((place, bodies.get(place)?))) else { continue };
                if let Ok(id) = run(&api, body) {
                    made.lock().unwrap_or_else(PoisonError::into_inner)[place] = id;
                }
                // What has ended goes when its successor runs.
                let _gone = api.call("DELETE", &format!("/containers/{died}?v=true"), "");
            }
        });
        Ok(Watching(over))
    }

    /// Removes the network. Some engines count one container too many under load, and keep it until they are restarted.
    pub(super) fn end(self) {
        let gone = self.api.call("DELETE", &format!("/networks/{}", self.network), "");
        if let Err(error) = gone {
            eprintln!("docker: a network stays: {error:#}");
        }
    }
}

/// A loop that goes on until this is dropped.
pub(super) struct Watching(Arc<AtomicBool>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
    }
}

fn run(api: &Api, body: &str) -> Result<String> {
    let made = api.call("POST", "/containers/create", body)?;
    let id = made["Id"].as_str().context("a container has no id")?.to_owned();
    api.call("POST", &format!("/containers/{id}/start"), "")?;
    Ok(id)
}
