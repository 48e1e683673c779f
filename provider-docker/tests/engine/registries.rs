//! Images that are not for everybody: who is shown what, and what becomes of a refusal.

use std::collections::BTreeMap;

use cocktail_core::contract::{Exit, Launch};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::name::Name;
use cocktail_core::settings::{RegistryAccess, RegistrySettings};
use cocktail_core::spec::SecretSource;
use tempfile::TempDir;
use xtask::registry::{PASSWORD, PrivateRegistry, USER};

use crate::machine::{self, IMAGE, Machine, PASSWORD_VARIABLE, kill};

machine::trials![
    a_private_image_comes_with_a_password_from_a_file_the_environment_or_a_helper,
    a_refusal_names_the_table_and_is_no_missing_image,
    a_registry_that_does_not_answer_may_come_back,
    what_a_tag_stands_for_is_the_registrys_word_else_the_engines,
    bytes_are_the_same_although_their_tag_has_moved,
];

/// A registry with one image.
pub(crate) struct Hub {
    pub(crate) registry: PrivateRegistry,
    pub(crate) image: String,
    folder: TempDir,
}

impl Hub {
    pub(crate) fn new(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = PrivateRegistry::start(&folder.path().join("r"), &machine.engine).unwrap();
        let image = registry.push(&machine.engine, IMAGE, "team/app:1").unwrap();
        Self { registry, image, folder }
    }

    pub(crate) fn password(&self, password: &str) -> RegistryAccess {
        let file = self.folder.path().join(format!("{}-password", password.len()));
        std::fs::write(&file, format!("{password}\n")).unwrap();
        RegistryAccess::Password { username: USER.into(), password: SecretSource::File(file) }
    }

    /// A Manager that has this table, and no other.
    pub(crate) async fn show(&self, machine: &mut Machine, access: RegistryAccess, services: &[&str]) {
        let services = services.iter().map(|service| Name::new(*service).unwrap()).collect();
        let table = RegistrySettings { host: self.registry.host(), access, services };
        machine.registries = BTreeMap::from([(Name::new("hub").unwrap(), table)]);
        machine.attach(&[]).await;
    }

    /// Puts an image there that the engine does not have, and shows the password to our Manager: the image by its tag, and by
    /// its digest.
    pub(crate) async fn only_here(&self, machine: &mut Machine) -> (String, String) {
        let image = other(machine, "fetched");
        let tag = self.registry.push(&machine.engine, &image, "team/fetched:1").unwrap();
        machine.engine.docker(&["rmi", &image]).unwrap();
        let access = self.password(PASSWORD);
        self.show(machine, access, &["shop"]).await;
        let resolved = machine.runtime().resolve(&tag, &Name::new("shop").unwrap()).await.unwrap();
        let exact = format!("{}@{}", tag.trim_end_matches(":1"), resolved.digest.unwrap());
        (tag, exact)
    }

    /// Somebody else fetches an image.
    pub(crate) fn pull(&self, machine: &Machine, reference: &str) {
        let config = self.folder.path().join("r/client").display().to_string();
        machine.engine.docker(&["--config", &config, "pull", "--quiet", reference]).unwrap();
    }

    fn launch(&self, machine: &Machine, name: &str) -> Launch {
        let mut launch = machine.launch("a", "true");
        launch.image.as_mut().unwrap().reference = self.image.replace("team/app:1", name);
        launch
    }

    async fn refused(&self, machine: &Machine, name: &str) -> Error {
        let error = machine.runtime().prepare(&self.launch(machine, name)).await.unwrap_err();
        let all = format!("{error:?} {}", error.chain());
        assert!(!all.contains(PASSWORD) && !all.contains("hunter2"), "{all}");
        error
    }
}

async fn a_private_image_comes_with_a_password_from_a_file_the_environment_or_a_helper(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let password = SecretSource::Env(PASSWORD_VARIABLE.into());
    let accesses = [
        hub.password(PASSWORD),
        RegistryAccess::Password { username: USER.into(), password },
        RegistryAccess::Helper("ckt-well".into()),
    ];
    for access in accesses {
        hub.show(machine, access, &["shop"]).await;
        let launch = hub.launch(machine, "team/app:1");
        machine.run(&launch).await;
        assert_eq!(machine.exited("a").await, Exit::Code(0));
        machine.runtime().stop(&kill("a")).await.unwrap();
        machine.runtime().remove(&launch.container).await.unwrap();
        machine.engine.docker(&["rmi", &hub.image]).unwrap();
    }
}

async fn a_refusal_names_the_table_and_is_no_missing_image(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let helper = |name: &str| RegistryAccess::Helper(name.into());
    let nowhere = SecretSource::File(hub.folder.path().join("nowhere"));
    let app = "team/app:1";
    let all: &[&str] = &[];
    let cases = [
        (hub.password("wrong"), all, app, ErrorKind::Denied, "refuses what [registries.hub] shows it"),
        (RegistryAccess::Open, all, app, ErrorKind::Denied, "[registries.hub] does not say"),
        (hub.password(PASSWORD), &["bank"], app, ErrorKind::Denied, "is for the service shop"),
        (hub.password(PASSWORD), all, "team/app:2", ErrorKind::InvalidConfig, "manifest unknown"),
        (hub.password(PASSWORD), all, "team/denied:2", ErrorKind::InvalidConfig, "manifest unknown"),
        (
            RegistryAccess::Password { username: USER.into(), password: nowhere },
            all,
            app,
            ErrorKind::InvalidConfig,
            "registries.hub.password: the file",
        ),
        (helper("ckt-nothing"), all, app, ErrorKind::Denied, "docker-credential-ckt-nothing knows nothing about 127"),
        (helper("ckt-nonsense"), all, app, ErrorKind::InvalidConfig, "did not answer as credential helpers do"),
        (helper("ckt-missing"), all, app, ErrorKind::InvalidConfig, "is not in the PATH of the manager"),
    ];
    for (access, services, name, kind, says) in cases {
        hub.show(machine, access, services).await;
        let error = hub.refused(machine, name).await;
        assert_eq!(*error.kind(), kind, "{says}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    machine.registries.clear();
    machine.attach(&[]).await;
    let error = hub.refused(machine, app).await;
    assert!(
        *error.kind() == ErrorKind::Denied && error.to_string().contains("no [registries.NAME] with host"),
        "{error}"
    );
    assert!(machine.left()[0].is_empty());
}

async fn a_registry_that_does_not_answer_may_come_back(machine: &mut Machine) {
    let mut hub = Hub::new(machine);
    let access = hub.password(PASSWORD);
    hub.show(machine, access, &[]).await;
    hub.registry.stop().unwrap();
    let error = hub.refused(machine, "team/app:1").await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    hub.registry.start_again().unwrap();
    let launch = hub.launch(machine, "team/app:1");
    machine.run(&launch).await;
    assert_eq!(machine.exited("a").await, Exit::Code(0));
    machine.runtime().remove(&launch.container).await.unwrap();
    machine.engine.docker(&["rmi", &hub.image]).unwrap();
}

/// Another image: as the first, with a file.
fn other(machine: &Machine, word: &str) -> String {
    let (name, script) = (format!("make-{word}"), format!("echo {word} > /version"));
    let image = format!("cocktail-{word}:1");
    machine.engine.docker(&["run", "--name", &name, IMAGE, "sh", "-c", &script]).unwrap();
    machine.engine.docker(&["commit", &name, &image]).unwrap();
    machine.engine.docker(&["rm", &name]).unwrap();
    image
}

async fn what_a_tag_stands_for_is_the_registrys_word_else_the_engines(machine: &mut Machine) {
    let mut hub = Hub::new(machine);
    let access = hub.password(PASSWORD);
    hub.show(machine, access, &["shop"]).await;
    let runtime = machine.runtime();
    let shop = Name::new("shop").unwrap();
    let first = runtime.resolve(&hub.image, &shop).await.unwrap();
    let digest = first.digest.unwrap();
    assert!(digest.starts_with("sha256:") && first.doubt.is_none());
    // The engine has the first one, and the registry another under the same name.
    machine.run(&hub.launch(machine, "team/app:1")).await;
    let other = other(machine, "second");
    let held = format!("{}@{digest}", hub.image.trim_end_matches(":1"));
    hub.registry.push(&machine.engine, &other, "team/app:1").unwrap();
    // Pushing has moved the name in the engine, too.
    machine.engine.docker(&["tag", &held, &hub.image]).unwrap();
    let second = runtime.resolve(&hub.image, &shop).await.unwrap();
    assert!(second.digest.as_ref().is_some_and(|second| *second != digest) && second.doubt.is_none());

    let denied = runtime.resolve(&hub.image.replace("app", "else"), &Name::new("bank").unwrap()).await.unwrap_err();
    assert_eq!(*denied.kind(), ErrorKind::Denied, "{denied}");
    let missing = runtime.resolve(&hub.image.replace(":1", ":none"), &shop).await.unwrap_err();
    assert_eq!(*missing.kind(), ErrorKind::InvalidConfig, "{missing}");
    hub.registry.stop().unwrap();
    let here = runtime.resolve(&hub.image, &shop).await.unwrap();
    assert!(here.digest == Some(digest) && here.doubt.is_some_and(|doubt| doubt.contains("refused")));
    let nowhere = runtime.resolve(&hub.image.replace(":1", ":none"), &shop).await.unwrap_err();
    assert_eq!(*nowhere.kind(), ErrorKind::Unavailable, "{nowhere}");
    // Nobody answers who could be asked.
    machine.url = Some("unix:///tmp/no-such-engine".into());
    machine.attach(&[]).await;
    let away = machine.runtime().resolve(&hub.image, &shop).await.unwrap_err();
    assert!(*away.kind() == ErrorKind::Unavailable && away.context("engine").is_some(), "{away:?}");
    machine.url = None;
    machine.attach(&[]).await;
    // No registry ever had this one.
    let own = runtime.resolve(IMAGE, &shop).await.unwrap();
    assert!(own.digest.is_none() && own.doubt.is_some());
}

async fn bytes_are_the_same_although_their_tag_has_moved(machine: &mut Machine) {
    let hub = Hub::new(machine);
    let access = hub.password(PASSWORD);
    hub.show(machine, access, &[]).await;
    let (one, two) = (other(machine, "one"), other(machine, "two"));
    let tag = hub.registry.push(&machine.engine, &one, "team/moves:1").unwrap();
    let resolved = machine.runtime().resolve(&tag, &Name::new("shop").unwrap()).await.unwrap();
    hub.registry.push(&machine.engine, &two, "team/moves:1").unwrap();
    machine.engine.docker(&["rmi", &one, &two]).unwrap();
    let exact = format!("{}@{}", tag.trim_end_matches(":1"), resolved.digest.unwrap());
    for (name, reference, word) in [("a", &exact, "one"), ("b", &tag, "two")] {
        let mut launch = machine.launch(name, &format!("grep -x {word} /version"));
        launch.image.as_mut().unwrap().reference.clone_from(reference);
        machine.run(&launch).await;
        assert_eq!(machine.exited(name).await, Exit::Code(0), "{reference}");
        machine.runtime().remove(&launch.container).await.unwrap();
    }
}
