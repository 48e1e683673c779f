//! Building images on an engine from files of this machine.
//!
//! Start at [`build()`]. What is built is called by a hash of everything that goes into it, so the same is never built twice,
//! and what has a name is what the name says: files that change while they are sent end the build. The builder is the engine's
//! own, which every engine has.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;

use bollard::body_try_stream;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptionsBuilder, PushImageOptionsBuilder};
use bytes::Bytes as Chunk;
use cocktail_core::contract::{BuildOutput, Built};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{StoreId, UnitId};
use cocktail_core::quantity::Bytes;
use cocktail_core::spec::{BUILT_HERE, Build};
use data_encoding::HEXLOWER;
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::error::{self, Call};
use crate::shared::Shared;
use crate::steps::{self, Stages};
use crate::{context, image, label, resolve, times};

/// Bytes of the hash that a name has.
const HASH: usize = 10;
/// Bytes that are sent at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the engine.
const WAITING: usize = 16;
/// Lines of output that a failure shows.
const LINES: usize = 20;
/// Longest of them, in characters.
const LONGEST: usize = 400;

/// What an image is called that is built from these files.
///
/// # Errors
/// `InvalidConfig` for files that cannot be read or are too many, and for a registry that this Service may not use.
pub(crate) async fn name(shared: &Shared, build: &Build, unit: &UnitId) -> Result<String> {
    let repository = match &build.registry {
        None => format!("{BUILT_HERE}{}/{}/{}", unit.service, unit.map, unit.unit),
        Some(table) => {
            let host = shared.fixed.registries.host(table, &unit.service)?;
            match &build.name {
                Some(name) => format!("{host}/{name}"),
                None => format!("{host}/{}/{}/{}", unit.service, unit.map, unit.unit),
            }
        }
    };
    let (recipe, build, most) = (recipe(shared, build)?, build.clone(), shared.fixed.build_bytes);
    let hashing = tokio::task::spawn_blocking(move || hash(&build, &recipe, most));
    let hash = hashing.await.map_err(|error| panicked().because(error))??;
    Ok(format!("{repository}:{hash}"))
}

/// Has an image where the Unit's containers get it: in its registry, or on this engine. What is there already is not built.
///
/// # Errors
/// `InvalidConfig` for what cannot be built, with the context `output`; `Conflict` for files that are not those of the name any
/// more; `Denied` and `Unavailable` by a registry, `Unavailable` by an engine that cannot be reached.
pub(crate) async fn build(
    shared: &Shared,
    build: &Build,
    unit: &UnitId,
    reference: &str,
    output: &BuildOutput,
) -> Result<Built> {
    let turn = shared.images.turn(reference);
    let _turn = turn.lock().await;
    if build.registry.is_none() {
        if !image::has(&shared.engine, reference).await? {
            make(shared, build, unit, reference, output).await?;
        }
        return Ok(Built { digest: None });
    }
    match resolve::ask(shared, reference, &unit.service).await {
        Ok(digest) => return Ok(Built { digest: Some(digest) }),
        Err(error) if error.kind().is_transient() => return Err(error),
        // A registry has its own words for what is not there yet; if it refuses us, it refuses the push as well.
        Err(_) => {}
    }
    if !image::has(&shared.engine, reference).await? {
        make(shared, build, unit, reference, output).await?;
    }
    push(shared, unit, reference, output).await?;
    resolve::ask(shared, reference, &unit.service).await.map(|digest| Built { digest: Some(digest) })
}

async fn make(shared: &Shared, build: &Build, unit: &UnitId, reference: &str, output: &BuildOutput) -> Result<()> {
    let what = format!("build image {reference}");
    let wanted = reference.rsplit_once(':').map(|(_, hash)| hash.to_owned()).unwrap_or_default();
    let docker = shared.engine.api().await?;
    let docker = shared.fixed.registries.show_all(docker, &unit.service).await;
    let labels = HashMap::from([
        (label::BUILT_FOR.to_owned(), shared.store()?.to_string()),
        (label::BUILT_AS.to_owned(), reference.to_owned()),
        (label::BUILT_UNIT.to_owned(), unit.to_string()),
        // Nobody but us says which they are.
        (label::BUILT_STEPS.to_owned(), String::new()),
    ]);
    let file = dockerfile(build)?;
    let file = file.to_str().ok_or_else(|| Error::invalid("the name of the Dockerfile is no text"))?;
    let args: HashMap<String, String> = build.args.clone().into_iter().collect();
    let mut options = BuildImageOptionsBuilder::new().dockerfile(file).t(reference).rm(true).forcerm(true);
    options = options.labels(&labels).buildargs(&args);
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    if let Some(platform) = &build.platform {
        options = options.platform(platform);
    }
    tracing::info!(image = reference, context = %build.context.display(), "an image is built");
    let (sender, receiver) = mpsc::channel(WAITING);
    let (recipe, files, most) = (recipe(shared, build)?, build.clone(), shared.fixed.build_bytes);
    let sending = tokio::task::spawn_blocking(move || send(&files, &recipe, most, &wanted, sender));
    let archive = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let said = docker.build_image(options.build(), None, Some(body_try_stream(archive)));
    let (mut tail, mut stages) = (Tail::default(), Stages::default());
    let built = tokio::time::timeout(times::BUILD, follow(said, &mut tail, &mut stages, output)).await;
    let sent = sending.await.map_err(|error| panicked().because(error))?;
    match (built, sent) {
        (Ok(Ok(())), Ok(())) => {
            if let Err(error) = steps::record(shared, build, reference, &stages).await {
                tracing::debug!(image = reference, error = error.chain(), "its steps stay when it goes");
            }
            Ok(())
        }
        // Why the engine got no whole archive, or why it wanted no more of it.
        (_, Err(error)) if *error.kind() != ErrorKind::Unavailable => Err(error),
        (Ok(Err(failed)), _) => Err(of_build(&failed, &what).with("output", tail)),
        (Err(_), _) => Err(error::timed_out(Call::Reads, &what).with("output", tail)),
        (Ok(Ok(())), Err(error)) => Err(error),
    }
}

/// Reads what a build says until it ends.
async fn follow(
    steps: impl Stream<Item = std::result::Result<BuildInfo, bollard::errors::Error>>,
    tail: &mut Tail,
    stages: &mut Stages,
    output: &BuildOutput,
) -> std::result::Result<(), bollard::errors::Error> {
    let mut steps = Box::pin(steps);
    while let Some(step) = steps.next().await {
        let step = step?;
        stages.note(&step);
        // Of layers that are fetched each step would be a line.
        let status = step.status.filter(|_| step.progress_detail.is_none_or(|it| it.current.is_none()));
        let text = step.stream.or(status).unwrap_or_default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let line = shortened(line);
            output(&line);
            stages.read(&line);
            tail.add(line);
        }
    }
    Ok(())
}

/// The last lines of a build.
#[derive(Debug, Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn add(&mut self, line: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&lines.join("\n"))
    }
}

fn shortened(line: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    line.chars().take(LONGEST).map(plain).collect()
}

async fn push(shared: &Shared, unit: &UnitId, reference: &str, output: &BuildOutput) -> Result<()> {
    let what = format!("push image {reference}");
    let (name, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
    let proof = shared.fixed.registries.proof(reference, &unit.service).await?;
    let docker = proof.show(shared.engine.api().await?);
    let options = PushImageOptionsBuilder::new().tag(tag).build();
    output(&shortened(&format!("pushing {reference}")));
    let pushing = async {
        let mut steps = Box::pin(docker.push_image(name, Some(options), None));
        while let Some(step) = steps.next().await {
            let message = match step {
                Ok(step) => step.error_detail.and_then(|detail| detail.message),
                Err(
                    bollard::errors::Error::DockerResponseServerError { message, .. }
                    | bollard::errors::Error::DockerStreamError { error: message },
                ) => Some(message),
                Err(error) => return Err(error::of(&error, Call::Reads, &what)),
            };
            if let Some(message) = message {
                return Err(proof.explain(error::of_pull(&message, &what)));
            }
        }
        Ok(())
    };
    match tokio::time::timeout(times::PULL, pushing).await {
        Ok(pushed) => pushed,
        Err(_) => Err(error::timed_out(Call::Reads, &what)),
    }
}

/// Whether a build failed for good. Most that goes wrong is the Dockerfile's; only what it is made from comes from elsewhere.
fn of_build(failed: &bollard::errors::Error, what: &str) -> Error {
    use bollard::errors::Error as EngineError;
    let message = match failed {
        EngineError::DockerResponseServerError { message, .. } | EngineError::DockerStreamError { error: message } => {
            shortened(message.trim())
        }
        failed => return error::of(failed, Call::Reads, what),
    };
    let away = ["dial tcp", "i/o timeout", "no such host", "TLS handshake", "request canceled", "unexpected EOF"];
    let kind = match error::of_pull(&message, what).kind().clone() {
        _ if message.contains("returned a non-zero code") => ErrorKind::InvalidConfig,
        refused @ (ErrorKind::Denied | ErrorKind::Throttled { .. }) => refused,
        _ if away.iter().any(|words| message.contains(words)) => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("{what}: {message}"))
}

fn panicked() -> Error {
    Error::unexpected("reading the files of a build panicked")
}

fn dockerfile(build: &Build) -> Result<PathBuf> {
    let file = context::below(&build.file);
    file.ok_or_else(|| Error::invalid(format!("{} is not below the folder of the build", build.file.display())))
}

/// Everything but the files that makes one image another one. What stays on an engine is one store's alone: another one that
/// builds the same there could not know when it goes.
fn recipe(shared: &Shared, build: &Build) -> Result<String> {
    let store = build.registry.is_none().then(|| shared.store()).transpose()?;
    Ok(recipe_of(build, store.as_ref()))
}

fn recipe_of(build: &Build, store: Option<&StoreId>) -> String {
    let Build { file, args, target, platform, .. } = build;
    let store = store.map(StoreId::as_str);
    json!({ "version": 1, "file": file, "args": args, "target": target, "platform": platform, "store": store })
        .to_string()
}

fn hash(build: &Build, recipe: &str, most: Bytes) -> Result<String> {
    let mut sink = Hashed::new(recipe, io::sink());
    context::write(&build.context, &dockerfile(build)?, most, &mut sink)?;
    Ok(sink.hash())
}

/// Sends the files to whoever receives, the last of them only if they are those that `wanted` is the hash of.
fn send(build: &Build, recipe: &str, most: Bytes, wanted: &str, sender: mpsc::Sender<io::Result<Chunk>>) -> Result<()> {
    let mut to = Hashed::new(recipe, Sent { sender, held: Vec::with_capacity(CHUNK) });
    let packed = dockerfile(build).and_then(|file| context::write(&build.context, &file, most, &mut to));
    let Hashed { hash, to } = to;
    let sent = packed.and_then(|()| match HEXLOWER.encode(&hash.finalize()[..HASH]) == wanted {
        true => Ok(()),
        false => {
            let message = format!("the files of {} change while they are built: apply again", build.context.display());
            Err(Error::new(ErrorKind::Conflict, message))
        }
    });
    let last = match &sent {
        Ok(()) => Ok(Chunk::from(to.held)),
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    // An engine that wants no more says why itself.
    let _unwanted = to.sender.blocking_send(last);
    sent
}

/// Hashes what is written.
struct Hashed<W> {
    hash: Sha256,
    to: W,
}

impl<W> Hashed<W> {
    fn new(recipe: &str, to: W) -> Self {
        let mut hash = Sha256::new();
        hash.update((recipe.len() as u64).to_be_bytes());
        hash.update(recipe);
        Self { hash, to }
    }

    fn hash(self) -> String {
        HEXLOWER.encode(&self.hash.finalize()[..HASH])
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Hands chunks on, and holds the last one back.
struct Sent {
    sender: mpsc::Sender<io::Result<Chunk>>,
    held: Vec<u8>,
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.len() >= CHUNK {
            let full = std::mem::replace(&mut self.held, Vec::with_capacity(CHUNK));
            let sent = self.sender.blocking_send(Ok(full.into()));
            sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine wants no more"))?;
        }
        self.held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(folder: &std::path::Path) -> Build {
        Build {
            context: folder.to_owned(),
            file: "Dockerfile".into(),
            args: BTreeMap::new(),
            target: None,
            platform: None,
            registry: None,
            name: None,
        }
    }

    #[test]
    fn everything_that_goes_into_an_image_is_in_its_name_and_nothing_else() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&folder, &other] {
            std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").unwrap();
        }
        let most = Bytes(1 << 20);
        let plain = of(folder.path());
        let store = StoreId::new("a");
        let named = |build: &Build, store: Option<&StoreId>| hash(build, &recipe_of(build, store), most).unwrap();
        let name = named(&plain, None);
        assert_eq!(name.len(), 2 * HASH);
        assert_eq!(named(&Build { name: Some("x".into()), ..of(other.path()) }, None), name);
        let args = |value: &str| BTreeMap::from([("A".to_owned(), value.to_owned())]);
        let platform = Some("linux/arm64".to_owned());
        std::fs::write(other.path().join("more"), "").unwrap();
        let others = [
            Build { args: args("1"), ..plain.clone() },
            Build { args: args("2"), ..plain.clone() },
            Build { target: Some("a".into()), ..plain.clone() },
            Build { platform, ..plain.clone() },
            of(other.path()),
        ];
        let mut names: Vec<String> = others.iter().map(|build| named(build, None)).collect();
        names.extend([name, named(&plain, Some(&store)), named(&plain, Some(&StoreId::new("b")))]);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
        assert_eq!(named(&plain, Some(&store)), named(&plain, Some(&store)));
    }

    #[test]
    fn files_that_change_while_they_are_sent_are_not_sent_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").unwrap();
        let (build, most) = (of(folder.path()), Bytes(1 << 20));
        let recipe = recipe_of(&build, None);
        let wanted = hash(&build, &recipe, most).unwrap();
        let sent = || {
            let (sender, mut receiver) = mpsc::channel(WAITING);
            let sent = send(&build, &recipe, most, &wanted, sender);
            (sent, std::iter::from_fn(|| receiver.blocking_recv()).collect::<io::Result<Vec<_>>>())
        };
        let (well, chunks) = sent();
        assert!(well.is_ok() && chunks.is_ok_and(|chunks| chunks.len() == 1));
        std::fs::write(folder.path().join("more"), "x".repeat(3 * CHUNK)).unwrap();
        let (changed, chunks) = sent();
        assert_eq!(*changed.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(chunks.is_err(), "an archive that ends so is no archive");
    }
}
