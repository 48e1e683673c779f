//! Images that nobody needs any more: what goes, and what somebody else has.

use std::collections::BTreeSet;

use cocktail_core::contract::{Connection, Exit, Launch, Lease, Provider};
use cocktail_core::id::{Epoch, StoreId};
use cocktail_provider_docker::EngineConfig;

use crate::builds::Site;
use crate::machine::{self, IMAGE, Machine, kill};
use crate::registries::Hub;

machine::trials![
    a_built_image_goes_with_all_that_its_build_has_made_and_another_one_stays,
    what_somebody_made_from_a_built_image_or_calls_by_another_name_stays,
    what_a_build_began_with_stays_although_it_has_no_name,
    images_of_another_store_and_of_nobody_stay,
    a_fetched_image_goes_when_it_is_not_needed_and_comes_again,
    a_fetched_image_that_somebody_else_has_stays,
    what_has_a_container_stays_until_that_is_gone,
];

/// Images of the engine, with those of single steps, each with its names.
fn images(machine: &Machine) -> BTreeSet<String> {
    let format = "{{.ID}} {{.Repository}}:{{.Tag}} {{.Digest}}";
    let listed = machine.engine.docker(&["images", "--all", "--digests", "--no-trunc", "--format", format]).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn has(machine: &Machine, image: &str) -> bool {
    machine.engine.docker(&["image", "inspect", image]).is_ok()
}

/// Removes what is not needed; the references that went.
async fn prune(machine: &Machine, needed: &[&str]) -> Vec<String> {
    let needed = needed.iter().map(|reference| (*reference).to_owned()).collect();
    machine.runtime().prune_images(&needed).await.unwrap()
}

fn launch(machine: &Machine, container: &str, image: &str, script: &str) -> Launch {
    let mut launch = machine.launch(container, script);
    image.clone_into(&mut launch.image.as_mut().unwrap().reference);
    launch
}

async fn run(machine: &mut Machine, container: &str, image: &str, script: &str) {
    machine.run(&launch(machine, container, image, script)).await;
    assert_eq!(machine.exited(container).await, Exit::Code(0));
}

async fn remove(machine: &Machine, container: &str) {
    machine.runtime().stop(&kill(container)).await.unwrap();
    machine.runtime().remove(&kill(container).container).await.unwrap();
}

async fn a_built_image_goes_with_all_that_its_build_has_made_and_another_one_stays(machine: &mut Machine) {
    let before = images(machine);
    let site = Site::new(&format!(
        "FROM {IMAGE} AS stage\nRUN echo first > /first\nCOPY file /file\nRUN cat /first /file > /stage\n\
         FROM {IMAGE}\nRUN echo also > /also\nCOPY --from=stage /stage /stage\n"
    ));
    let mut names = Vec::new();
    for word in ["one", "two"] {
        site.write("file", &format!("{word}\n"));
        let (name, built) = site.run(machine, &site.build()).await;
        built.unwrap();
        names.push(name);
    }
    let (one, two) = (names[0].as_str(), names[1].as_str());
    assert!(prune(machine, &[one, two]).await.is_empty());
    // The next Manager knows as well what is ours.
    machine.attach(&[]).await;
    let both = images(machine);
    assert_eq!(prune(machine, &[two]).await, [one]);
    assert!(images(machine).is_subset(&both) && images(machine).len() + 4 <= both.len(), "its own steps are gone");
    run(machine, "a", two, "grep -x two /stage").await;
    remove(machine, "a").await;

    // What both began with is still known.
    site.write("file", "three\n");
    let (three, built) = site.run(machine, &site.build()).await;
    assert!(built.is_ok() && site.said().contains("Using cache"), "{}", site.said());
    // With so many steps, one in a call: somebody may wait to build.
    let (first, second) = (prune(machine, &[]).await, prune(machine, &[]).await);
    assert_eq!((first.len(), second.len()), (1, 1), "{first:?} {second:?}");
    assert_eq!(BTreeSet::from_iter(first.into_iter().chain(second)), BTreeSet::from([two.to_owned(), three]));
    assert_eq!(images(machine), before, "nothing is left");
    assert!(prune(machine, &[]).await.is_empty());
}

async fn what_somebody_made_from_a_built_image_or_calls_by_another_name_stays(machine: &mut Machine) {
    let before = images(machine);
    let site = Site::new(&format!("FROM {IMAGE}\nRUN echo built > /word\n"));
    let (name, built) = site.run(machine, &site.build()).await;
    built.unwrap();
    // It inherits the labels, and is none of ours.
    machine.engine.docker(&["run", "--name", "theirs", &name, "touch", "/more"]).unwrap();
    machine.engine.docker(&["commit", "theirs", "theirs:1"]).unwrap();
    machine.engine.docker(&["rm", "theirs"]).unwrap();
    assert!(prune(machine, &[]).await.is_empty());
    assert!(has(machine, &name) && has(machine, "theirs:1"));
    machine.engine.docker(&["rmi", "theirs:1"]).unwrap();

    machine.engine.docker(&["tag", &name, "mine:1"]).unwrap();
    assert_eq!(prune(machine, &[]).await, [name.as_str()]);
    assert!(!has(machine, &name) && prune(machine, &[]).await.is_empty());
    machine.engine.docker(&["run", "--rm", "mine:1", "grep", "-x", "built", "/word"]).unwrap();
    machine.engine.docker(&["rmi", "mine:1"]).unwrap();
    assert_eq!(images(machine), before);
}

async fn what_a_build_began_with_stays_although_it_has_no_name(machine: &mut Machine) {
    machine.engine.docker(&["run", "--name", "base", IMAGE, "touch", "/base"]).unwrap();
    let base = machine.engine.docker(&["commit", "base"]).unwrap();
    machine.engine.docker(&["rm", "base"]).unwrap();
    let before = images(machine);
    let site = Site::new(&format!("FROM {base}\nRUN echo built > /word\n"));
    let (name, built) = site.run(machine, &site.build()).await;
    built.unwrap();
    assert_eq!(prune(machine, &[]).await, [name]);
    assert_eq!(images(machine), before);
    machine.engine.docker(&["rmi", &base]).unwrap();
}

async fn images_of_another_store_and_of_nobody_stay(machine: &mut Machine) {
    let site = Site::new(&format!("FROM {IMAGE}\nRUN echo shared > /word\n"));
    let (ours, built) = site.run(machine, &site.build()).await;
    built.unwrap();
    let lease = Lease { store: StoreId::new("other"), epoch: Epoch(1), key: "1".into(), earlier: Vec::new() };
    let other = machine::provider(
        EngineConfig { url: machine.engine.url(), ..EngineConfig::local() },
        &lease,
        &machine.registries,
    );
    let server = other.servers().next().unwrap().clone();
    let Connection::Local(other) = other.connect(&server).await.unwrap() else { panic!("not local") };
    let unit = machine.launch("a", "true").image.unwrap().unit;
    let theirs = other.name_build(&site.build(), &unit).await.unwrap();
    assert_ne!(theirs, ours, "what stays on an engine is one store's alone");
    other.build(&site.build(), &unit, &theirs, &|_| {}).await.unwrap();
    let none = BTreeSet::new();
    assert_eq!(other.prune_images(&none).await.unwrap(), [theirs.as_str()]);
    run(machine, "a", &ours, "grep -x shared /word").await;
    remove(machine, "a").await;
    assert_eq!(prune(machine, &[]).await, [ours]);
    assert!(has(machine, IMAGE) && prune(machine, &[]).await.is_empty());
}

async fn a_fetched_image_goes_when_it_is_not_needed_and_comes_again(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let (_, exact) = hub.only_here(machine).await;
    let before = images(machine);
    for round in 0..2 {
        run(machine, "a", &exact, "true").await;
        remove(machine, "a").await;
        // The next Manager knows as well what is ours.
        machine.attach(&[]).await;
        assert!(prune(machine, &[&exact]).await.is_empty());
        assert_eq!(prune(machine, &[]).await, [exact.as_str()], "{round}");
        assert!(!has(machine, &exact) && prune(machine, &[]).await.is_empty());
        assert_eq!(images(machine), before);
    }
}

async fn a_fetched_image_that_somebody_else_has_stays(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let (tag, exact) = hub.only_here(machine).await;
    let before = images(machine);
    // It was there before us.
    hub.pull(machine, &exact);
    run(machine, "a", &exact, "true").await;
    remove(machine, "a").await;
    assert!(prune(machine, &[]).await.is_empty() && has(machine, &exact));
    machine.engine.docker(&["rmi", &exact]).unwrap();

    // Somebody has named it since.
    run(machine, "a", &exact, "true").await;
    remove(machine, "a").await;
    hub.pull(machine, &tag);
    assert!(prune(machine, &[]).await.is_empty() && has(machine, &exact) && has(machine, &tag));
    // When that name goes, it is ours alone again.
    machine.engine.docker(&["rmi", &tag]).unwrap();
    assert_eq!(prune(machine, &[]).await.len(), 1);
    assert_eq!(images(machine), before);
}

async fn what_has_a_container_stays_until_that_is_gone(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let (_, exact) = hub.only_here(machine).await;
    let site = Site::new(&format!("FROM {IMAGE}\nRUN echo built > /word\n"));
    let (name, built) = site.run(machine, &site.build()).await;
    built.unwrap();
    run(machine, "a", &exact, "true").await;
    // Ours that has ended, and somebody's that was never started.
    machine.engine.docker(&["create", "--name", "theirs", &name, "true"]).unwrap();
    assert!(prune(machine, &[]).await.is_empty() && has(machine, &exact) && has(machine, &name));
    remove(machine, "a").await;
    machine.engine.docker(&["rm", "theirs"]).unwrap();
    assert_eq!(prune(machine, &[]).await, [name, exact]);
}
