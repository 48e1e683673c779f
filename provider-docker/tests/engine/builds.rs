//! Images that are built from files of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use cocktail_core::contract::{Built, Exit};
use cocktail_core::error::{ErrorKind, Result};
use cocktail_core::id::UnitId;
use cocktail_core::name::Name;
use cocktail_core::spec::Build;
use tempfile::TempDir;
use xtask::registry::PASSWORD;

use crate::machine::{self, IMAGE, Machine};
use crate::registries::Hub;

machine::trials![
    an_image_is_built_once_from_its_files_and_has_their_name,
    a_build_that_fails_shows_its_last_lines_and_leaves_nothing,
    a_built_image_is_pushed_to_its_registry_and_comes_from_there,
];

/// Files to build, and what was said about them.
pub(crate) struct Site {
    folder: TempDir,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub(crate) fn new(dockerfile: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), lines: Arc::default() };
        site.write("Dockerfile", dockerfile);
        site
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) fn build(&self) -> Build {
        Build {
            context: self.folder.path().to_owned(),
            file: "Dockerfile".into(),
            args: BTreeMap::from([("WORD".to_owned(), "hello".to_owned())]),
            target: None,
            platform: None,
            registry: None,
            name: None,
        }
    }

    /// Builds; the name, and what came of it.
    pub(crate) async fn run(&self, machine: &Machine, build: &Build) -> (String, Result<Built>) {
        self.lines.lock().unwrap().clear();
        let runtime = machine.runtime();
        let name = runtime.name_build(build, &unit()).await.unwrap();
        let lines = Arc::clone(&self.lines);
        let told = move |line: &str| lines.lock().unwrap().push(line.to_owned());
        let built = runtime.build(build, &unit(), &name, &told).await;
        (name, built)
    }

    pub(crate) fn said(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}

fn unit() -> UnitId {
    let name = |text: &str| Name::new(text).unwrap();
    UnitId::new(name("shop"), name("test"), name("web"))
}

async fn an_image_is_built_once_from_its_files_and_has_their_name(machine: &mut Machine) {
    let site = Site::new(&format!("FROM {IMAGE}\nARG WORD\nRUN echo $WORD > /word\nCOPY file /file\n"));
    site.write("file", "one\n");
    let (one, built) = site.run(machine, &site.build()).await;
    assert_eq!(built.unwrap().digest, None);
    assert!(one.starts_with("localhost/cocktail/shop/test/web:") && site.said().contains("Step 1/"), "{}", site.said());
    let mut launch = machine.launch("a", "test \"$(cat /word /file | tr '\\n' ' ')\" = 'hello one '");
    launch.image.as_mut().unwrap().reference.clone_from(&one);
    machine.run(&launch).await;
    assert_eq!(machine.exited("a").await, Exit::Code(0));
    // What the image is labelled with is no container of ours.
    let labels = machine.engine.docker(&["inspect", "--format", "{{.Config.Labels}}", &one]).unwrap();
    assert!(labels.contains(&format!("cocktail.built-for:{}", machine.store)) && !labels.contains("cocktail.store"));

    let (again, built) = site.run(machine, &site.build()).await;
    assert!(built.is_ok() && again == one && site.said().is_empty(), "{}", site.said());
    site.write("file", "two\n");
    let (two, built) = site.run(machine, &site.build()).await;
    assert!(built.is_ok() && two != one && !site.said().is_empty());

    // Files that are not those of the name are not built under it.
    machine.engine.docker(&["rmi", &two]).unwrap();
    site.write("file", "three\n");
    let changed = machine.runtime().build(&site.build(), &unit(), &two, &|_| {}).await.unwrap_err();
    assert_eq!(*changed.kind(), ErrorKind::Conflict, "{changed}");
    assert!(machine.engine.docker(&["inspect", &two]).is_err());
    // Nobody else is asked for it.
    let mut launch = machine.launch("b", "true");
    launch.image.as_mut().unwrap().reference.clone_from(&two);
    let missing = machine.runtime().prepare(&launch).await.unwrap_err();
    assert!(*missing.kind() == ErrorKind::InvalidConfig && missing.to_string().contains("apply its manifest again"));
}

async fn a_build_that_fails_shows_its_last_lines_and_leaves_nothing(machine: &mut Machine) {
    let containers = |machine: &Machine| machine.engine.docker(&["ps", "-aq"]).unwrap();
    let before = containers(machine);
    let site = Site::new(&format!("FROM {IMAGE}\nRUN echo before; seq 100; echo cannot go on; exit 3\n"));
    let (name, built) = site.run(machine, &site.build()).await;
    let error = built.unwrap_err();
    assert!(*error.kind() == ErrorKind::InvalidConfig && error.message().contains("non-zero code: 3"), "{error:?}");
    let output = error.context("output").unwrap();
    assert!(output.contains("cannot go on") && !output.contains("before"), "{output}");
    assert!(site.said().contains("before") && machine.engine.docker(&["inspect", &name]).is_err());
    for (dockerfile, kind) in [
        ("FROM 127.0.0.1:1/no/such:1\n", ErrorKind::Unavailable),
        ("FROM\n", ErrorKind::InvalidConfig),
        ("WHAT is this\n", ErrorKind::InvalidConfig),
    ] {
        site.write("Dockerfile", dockerfile);
        let (_, built) = site.run(machine, &site.build()).await;
        let error = built.unwrap_err();
        assert_eq!(*error.kind(), kind, "{dockerfile}: {error:?}");
    }
    fs::remove_file(site.folder.path().join("Dockerfile")).unwrap();
    let missing = machine.runtime().name_build(&site.build(), &unit()).await.unwrap_err();
    assert!(missing.to_string().contains("has no file Dockerfile"), "{missing}");
    assert_eq!(containers(machine), before, "containers of builds are gone");
}

async fn a_built_image_is_pushed_to_its_registry_and_comes_from_there(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let access = hub.password(PASSWORD);
    hub.show(machine, access, &["shop"]).await;
    // What it is made from is not for everybody either.
    let site = Site::new(&format!("FROM {}\nRUN echo built > /word\n", hub.image));
    let registry = |table: &str| Some(Name::new(table).unwrap());
    let build = Build { registry: registry("hub"), name: Some("team/built".into()), ..site.build() };
    let (name, built) = site.run(machine, &build).await;
    let digest = built.unwrap().digest.unwrap();
    assert!(name.starts_with(&format!("{}/team/built:", hub.registry.host())), "{name}");
    machine.engine.docker(&["rmi", &name]).unwrap();
    let mut launch = machine.launch("a", "grep -x built /word");
    let exact = format!("{}@{digest}", name.rsplit_once(':').unwrap().0);
    launch.image.as_mut().unwrap().reference = exact;
    machine.run(&launch).await;
    assert_eq!(machine.exited("a").await, Exit::Code(0));
    let (_, again) = site.run(machine, &build).await;
    assert!(again.unwrap().digest == Some(digest) && site.said().is_empty(), "{}", site.said());

    let other = Build { registry: registry("other"), ..build.clone() };
    let unknown = machine.runtime().name_build(&other, &unit()).await.unwrap_err();
    assert!(unknown.to_string().contains("no [registries.other]"), "{unknown}");
    let wrong = hub.password("wrong");
    hub.show(machine, wrong, &[]).await;
    site.write("more", "");
    let (_, denied) = site.run(machine, &Build { registry: registry("hub"), ..site.build() }).await;
    let denied = denied.unwrap_err();
    assert!(*denied.kind() == ErrorKind::Denied, "{denied:?}");
}
