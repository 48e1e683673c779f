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
];

/// A registry with one image.
struct Hub {
    registry: PrivateRegistry,
    image: String,
    folder: TempDir,
}

impl Hub {
    fn new(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = PrivateRegistry::start(&folder.path().join("r"), &machine.engine).unwrap();
        let image = registry.push(&machine.engine, IMAGE, "team/app:1").unwrap();
        Self { registry, image, folder }
    }

    fn password(&self, password: &str) -> RegistryAccess {
        let file = self.folder.path().join(format!("{}-password", password.len()));
        std::fs::write(&file, format!("{password}\n")).unwrap();
        RegistryAccess::Password { username: USER.into(), password: SecretSource::File(file) }
    }

    /// A Manager that has this table, and no other.
    async fn show(&self, machine: &mut Machine, access: RegistryAccess, services: &[&str]) {
        let services = services.iter().map(|service| Name::new(*service).unwrap()).collect();
        let table = RegistrySettings { host: self.registry.host(), access, services };
        machine.registries = BTreeMap::from([(Name::new("hub").unwrap(), table)]);
        machine.attach(&[]).await;
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
