//! What the tags of images stand for: asked once, kept with the revision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{Actor, ApplyOptions, Manager, ManifestSource, Resolved};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::manifest::Severity;
use cocktail_core::settings::Settings;
use cocktail_manager::Orchestrator;
use futures_util::StreamExt;

use crate::behaviour::{manifest, ready, start, store, until};
use crate::pretend::{Machine, Pretend};

const PULL: ApplyOptions = ApplyOptions { pull: true };

fn digest(letter: &str) -> String {
    format!("sha256:{}", letter.repeat(64))
}

fn by_registry(letter: &str) -> Result<Resolved> {
    Ok(Resolved { digest: Some(digest(letter)), doubt: None })
}

/// A machine that runs images, and knows these.
fn machine(images: &[(&str, Result<Resolved>)]) -> Arc<Machine> {
    let machine = Machine::new();
    say(&machine, images);
    machine
}

fn say(machine: &Machine, images: &[(&str, Result<Resolved>)]) {
    let images = images.iter().map(|(reference, answer)| ((*reference).to_owned(), answer.clone())).collect();
    *machine.images.lock().expect("unpoisoned") = Some(images);
}

fn web(image: &str, count: u32) -> ManifestSource {
    manifest(&format!(
        "service = \"shop\"\n[maps.prod.units.web]\nimage = \"{image}\"\nreplicas = {count}\n\
         update = {{ monitor = \"100ms\" }}\nrestart = {{ base = \"0ms\" }}\n"
    ))
}

/// What the containers that run now were started from.
fn from(machine: &Machine) -> BTreeSet<String> {
    let started_from = machine.started_from.lock().expect("unpoisoned");
    machine.running().keys().map(|id| started_from[id].clone()).collect()
}

async fn serves(manager: &Orchestrator, machine: &Machine, count: u32, image: &str) {
    let wanted = BTreeSet::from([image.to_owned()]);
    until(manager, image, |units, containers| {
        units.iter().all(|unit| unit.ready == count) && containers.len() == count as usize && from(machine) == wanted
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_pinned_when_it_is_applied_and_moves_only_when_somebody_asks() {
    let (store, machine) = (store(), machine(&[("hub:5000/web:1", by_registry("a"))]));
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    let applied = manager.apply(&[web("hub:5000/web:1", 1)], &me).await.unwrap();
    assert_eq!(applied.warnings, []);
    let (one, two) = (format!("hub:5000/web@{}", digest("a")), format!("hub:5000/web@{}", digest("b")));
    serves(&manager, &machine, 1, &one).await;
    let why = manager.why("web").await.unwrap();
    assert!(why.iter().any(|why| why.because.contains(&format!("hub:5000/web:1 is {}", digest("a")))), "{why:?}");

    // The tag moves, and an apply about something else is none about the image.
    say(&machine, &[("hub:5000/web:1", by_registry("b"))]);
    manager.apply(&[web("hub:5000/web:1", 2)], &me).await.unwrap();
    serves(&manager, &machine, 2, &one).await;
    manager.extend("web", 1, &me).await.unwrap();
    serves(&manager, &machine, 3, &one).await;
    assert_eq!(machine.asked.lock().unwrap().len(), 1);
    assert_eq!(manager.plan(&[web("hub:5000/web:1", 2)]).await.unwrap().actions, []);

    let plan = manager.plan_with(&[web("hub:5000/web:1", 2)], PULL).await.unwrap();
    assert!(plan.actions[0].because.contains("since hub:5000/web:1 is another image now"), "{plan:?}");
    let applied = manager.apply_with(&[web("hub:5000/web:1", 2)], PULL, &me).await.unwrap();
    assert_eq!(applied.changed.len(), 1);
    serves(&manager, &machine, 3, &two).await;
    assert_eq!(manager.units().await.unwrap()[0].revision, 2);

    until(&manager, "the update is over", |units, _| units[0].rollout.state == "completed").await;
    manager.rollback("web", None, &me).await.unwrap();
    serves(&manager, &machine, 3, &one).await;
    // What was gone back to is what was applied last.
    manager.apply(&[web("hub:5000/web:1", 2)], &me).await.unwrap();
    serves(&manager, &machine, 3, &one).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_nobody_can_pin_is_told_and_one_that_says_itself_is_not_asked_about() {
    let doubt = Some("no such host".to_owned());
    let here = Ok(Resolved { digest: Some(digest("c")), doubt: doubt.clone() });
    let (store, machine) = (store(), machine(&[("own:1", Ok(Resolved { digest: None, doubt })), ("here:1", here)]));
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    let applied = manager.apply(&[web("own:1", 1)], &me).await.unwrap();
    let warned = |found: &[cocktail_core::manifest::Diagnostic]| found[0].to_string();
    assert!(warned(&applied.warnings).contains("shop.toml:3:1: own:1 is not pinned"), "{applied:?}");
    serves(&manager, &machine, 1, "own:1").await;
    // It is told once: what was applied before is no news.
    assert_eq!(manager.apply(&[web("own:1", 1)], &me).await.unwrap().warnings, []);

    let applied = manager.apply(&[web("here:1", 1)], &me).await.unwrap();
    assert!(warned(&applied.warnings).contains("is what an engine has under that name"), "{applied:?}");
    serves(&manager, &machine, 1, &format!("here@{}", digest("c"))).await;

    // While no server answers nobody can be asked, and nothing is started either.
    let away = Error::new(ErrorKind::Unavailable, "nobody answers").with("engine", "unix:///x");
    say(&machine, &[("away:1", Err(away))]);
    let applied = manager.apply(&[web("away:1", 1)], &me).await.unwrap();
    assert!(warned(&applied.warnings).contains("away:1 is not pinned"), "{applied:?}");
    serves(&manager, &machine, 1, "away:1").await;

    let exact = format!("web:1@{}", digest("d"));
    manager.apply_with(&[web(&exact, 1)], PULL, &me).await.unwrap();
    serves(&manager, &machine, 1, &exact).await;
    assert_eq!(*machine.asked.lock().unwrap(), ["own:1", "here:1", "away:1"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_leaves_everything_as_it_is() {
    let (store, machine) = (store(), machine(&[("web:1", by_registry("a"))]));
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    manager.apply(&[web("web:1", 1)], &me).await.unwrap();
    ready(&manager, 1).await;
    let other = manifest("service = \"shop\"\n[maps.other.units.cache]\nimage = \"cache:1\"\n");
    for (kind, told) in [
        (ErrorKind::Unavailable, ErrorKind::Refused),
        (ErrorKind::Throttled { retry_after: None }, ErrorKind::Refused),
        (ErrorKind::Denied, ErrorKind::Denied),
        (ErrorKind::InvalidConfig, ErrorKind::InvalidConfig),
    ] {
        say(&machine, &[("web:2", by_registry("b")), ("cache:1", Err(Error::new(kind, "registry: no")))]);
        let error = manager.apply(&[web("web:2", 1), other.clone()], &me).await.unwrap_err();
        assert_eq!(*error.kind(), told, "{error}");
        match told {
            ErrorKind::InvalidConfig => {
                let problem = error.diagnostics().iter().find(|found| found.severity == Severity::Error).unwrap();
                assert!(problem.key == "maps.other.units.cache.image" && problem.message.contains("registry: no"));
            }
            _ => assert!(error.chain().contains("cache:1") && error.chain().contains("registry: no"), "{error:?}"),
        }
        assert_eq!(manager.units().await.unwrap().len(), 1);
        serves(&manager, &machine, 1, &format!("web@{}", digest("a"))).await;
    }
}

/// A little more than the pause between two looks for old images.
const LOOK: Duration = Duration::from_secs(16 * 60);

fn built() -> ManifestSource {
    let text =
        "service = \"shop\"\n[maps.prod.units.web]\nbuild = { context = \".\" }\nupdate = { monitor = \"100ms\" }\n";
    manifest(text)
}

#[tokio::test(start_paused = true)]
async fn equal_files_are_built_once_and_are_the_same_revision() {
    let (store, machine) = (store(), machine(&[]));
    machine.files.lock().unwrap().0 = "one";
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    assert_eq!(manager.plan(&[built()]).await.unwrap().actions.len(), 1);
    assert!(machine.built.lock().unwrap().is_empty(), "a dry run builds nothing");
    let mut lines = manager.builds().await.unwrap();
    let applied = manager.apply(&[built()], &me).await.unwrap();
    assert_eq!((applied.changed.len(), applied.warnings), (1, vec![]));
    let line = lines.next().await.unwrap().unwrap();
    assert_eq!((line.unit.as_str(), line.line.as_str()), ("shop/prod/web", "Step 1/1 : FROM scratch"));
    serves(&manager, &machine, 1, "localhost/cocktail/shop/prod/web:one").await;
    assert!(manager.apply_with(&[built()], PULL, &me).await.unwrap().changed.is_empty());

    machine.files.lock().unwrap().0 = "two";
    assert_eq!(manager.plan(&[built()]).await.unwrap().actions[0].action, "replace");
    manager.apply(&[built()], &me).await.unwrap();
    serves(&manager, &machine, 1, "localhost/cocktail/shop/prod/web:two").await;
    let expected = ["one", "two"].map(|files| format!("localhost/cocktail/shop/prod/web:{files}"));
    assert_eq!(*machine.built.lock().unwrap(), expected);
    assert!(machine.asked.lock().unwrap().is_empty(), "no registry knows what is built here");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_built_changes_nothing_and_shows_its_last_lines() {
    let (store, machine) = (store(), machine(&[]));
    machine.files.lock().unwrap().0 = "one";
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    manager.apply(&[built()], &me).await.unwrap();
    ready(&manager, 1).await;
    let failed = Error::invalid("build image x: returned a non-zero code: 2").with("output", "Step 1/2\ncc: no input");
    *machine.files.lock().unwrap() = ("two", Some(failed));
    let error = manager.apply(&[built()], &me).await.unwrap_err();
    let problem = &error.diagnostics()[0];
    assert_eq!((problem.key.as_str(), problem.line), ("maps.prod.units.web.build", 3));
    assert!(problem.message.contains("non-zero code: 2"), "{problem}");
    assert!(problem.help.as_ref().is_some_and(|help| help.contains("cc: no input")), "{problem}");
    for (kind, told) in [(ErrorKind::Unavailable, ErrorKind::Refused), (ErrorKind::Conflict, ErrorKind::Conflict)] {
        machine.files.lock().unwrap().1 = Some(Error::new(kind, "no"));
        assert_eq!(*manager.apply(&[built()], &me).await.unwrap_err().kind(), told);
    }
    assert_eq!(manager.units().await.unwrap()[0].revision, 1);
    serves(&manager, &machine, 1, "localhost/cocktail/shop/prod/web:one").await;
}

fn named(files: &[&str]) -> Vec<String> {
    files.iter().map(|files| format!("localhost/cocktail/shop/prod/web:{files}")).collect()
}

#[tokio::test(start_paused = true)]
async fn images_of_old_revisions_go_and_a_kept_one_can_be_gone_back_to() {
    let (store, machine) = (store(), machine(&[]));
    let settings = Settings { image_revisions: 2, ..Settings::default() };
    let builder = Orchestrator::builder(store).with_settings(settings);
    let manager = builder.with_provider(Arc::new(Pretend(machine.clone()))).start().await.unwrap();
    let me = Actor::embedder();
    for files in ["one", "two", "three", "four"] {
        machine.files.lock().unwrap().0 = files;
        manager.apply(&[built()], &me).await.unwrap();
        serves(&manager, &machine, 1, &named(&[files])[0]).await;
        until(&manager, "it is over", |units, _| matches!(units[0].rollout.state.as_str(), "" | "none" | "completed"))
            .await;
    }
    assert_eq!(*machine.built.lock().unwrap(), named(&["one", "two", "three", "four"]));
    tokio::time::sleep(LOOK).await;
    assert_eq!(*machine.built.lock().unwrap(), named(&["three", "four"]), "all that are not needed, in one go");

    manager.rollback("web", None, &me).await.unwrap();
    serves(&manager, &machine, 1, &named(&["three"])[0]).await;
    manager.remove("web", &me).await.unwrap();
    until(&manager, "it is gone", |units, _| units.is_empty()).await;
    tokio::time::sleep(LOOK).await;
    assert!(machine.built.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_image_is_removed_while_something_is_applied() {
    let (store, machine) = (store(), machine(&[]));
    machine.files.lock().unwrap().0 = "one";
    *machine.build_takes.lock().unwrap() = Duration::from_secs(3600);
    let manager = start(&store, &machine).await;
    let me = Actor::embedder();
    let looked = || *machine.prunes.lock().unwrap();
    let files = [built()];
    let (applied, meanwhile) = tokio::join!(manager.apply(&files, &me), async {
        tokio::time::sleep(Duration::from_secs(3500)).await;
        looked()
    });
    applied.unwrap();
    assert_eq!(meanwhile, 0, "what is being built is in no revision yet");
    tokio::time::sleep(LOOK).await;
    assert!(looked() > 0);
    serves(&manager, &machine, 1, &named(&["one"])[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_manifest_whose_image_nobody_knows_yet_is_applied_later() {
    let (store, machine) = (store(), machine(&[("web:1", Err(Error::unavailable("the registry starts")))]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    std::fs::write(&file, web("web:1", 1).text).unwrap();
    let settings = Settings { watch: vec![file], ..Settings::default() };
    let builder = Orchestrator::builder(store).with_settings(settings);
    let manager = builder.with_provider(Arc::new(Pretend(machine.clone()))).start().await.unwrap();
    until(&manager, "it was asked about", |_, _| !machine.asked.lock().unwrap().is_empty()).await;
    assert!(manager.units().await.unwrap().is_empty());
    say(&machine, &[("web:1", by_registry("a"))]);
    for _ in 0..600 {
        if !manager.units().await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    serves(&manager, &machine, 1, &format!("web@{}", digest("a"))).await;
}
