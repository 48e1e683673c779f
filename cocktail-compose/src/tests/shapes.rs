//! What real files have, in words of our own.

use std::time::Duration;

use cocktail_core::name::Name;
use cocktail_core::spec::{Check, RestartWhen, VolumeKind};

use super::{Machine, lines_of, map_of, notes_of, unit_of, web, well};
use crate::{Note, Options};

/// A file of the kind that most projects have.
const SHOP: &str = r#"
name: Flower_Shop
x-common: &common
  restart: unless-stopped
  environment: &env
    STORE: postgres://db/flowers
    GREETING: ${GREETING:-hello $$NAME}
services:
  shop_web:
    <<: *common
    image: "flowers/web:${TAG}"
    command: serve --title "All flowers" --port 3000
    environment:
      <<: *env
      STORE: postgres://db/other
    ports:
      - "127.0.0.1:8080:3000"
      - "9090:9090/udp"
    healthcheck:
      test: ["CMD-SHELL", "curl -fsS http://localhost:3000/healthz || exit 1"]
      interval: 10s
      timeout: 2s
      retries: 5
      start_period: 20s
    depends_on:
      db: { condition: service_healthy }
      setup: { condition: service_completed_successfully }
    deploy:
      replicas: 3
      resources:
        limits: { cpus: "0.5", memory: 256M }
      update_config: { parallelism: 2, order: start-first, failure_action: pause, monitor: 15s }
  setup:
    <<: *common
    image: flowers/web:2
    entrypoint: ["/bin/sh", "-c"]
    command: ["migrate $$STORE"]
    restart: on-failure:2
  db:
    image: postgres:16
    restart: always
    stop_grace_period: 1m
    stop_signal: SIGINT
    volumes:
      - db-data:/var/lib/postgresql/data
    expose: ["5432"]
    environment:
      - POSTGRES_PASSWORD_FILE=/run/secrets/db_password
    secrets: [db_password]
    ulimits:
      nofile: { soft: 65536, hard: 65536 }
volumes:
  db-data: {}
secrets:
  db_password:
    file: ./secrets/db.txt
"#;

#[test]
fn a_file_of_the_usual_kind_becomes_a_manifest_that_says_the_same() {
    let imported = Machine::default().with("TAG", "2.1").import(SHOP).unwrap();
    let expected = r#"# From compose.yaml. Images need a provider of the kind docker.
service = "flower-shop"

[maps.prod.units.shop-web]
image = "flowers/web:2.1"
command = ["serve", "--title", "All flowers", "--port", "3000"]
read_only = false
replicas = 3
ports.http = { service = 8080, container = 3000 }
resources = { cpu = 0.5, memory = "256MiB" }
ready = { http = "/healthz", every = "10s", timeout = "2s", failures = 5 }
update = { surge = 2, progress = "1m10s", monitor = "15s", on_failure = "pause" }
env.STORE = "postgres://db/other"
env.GREETING = "hello $NAME"

[maps.prod.units.setup]
image = "flowers/web:2"
entrypoint = ["/bin/sh", "-c"]
command = ["migrate $STORE"]
read_only = false
restart = { when = "failure", retries = 2 }
env.STORE = "postgres://db/flowers"
env.GREETING = "hello $NAME"

[maps.prod.units.db]
image = "postgres:16"
read_only = false
ports.p5432 = { container = 5432 }
stop = { signal = "INT", grace = "1m" }
volumes.db-data = { mount = "/var/lib/postgresql/data" } # exclusive: one container, which ends before its replacement starts
rlimits = { nofile = 65536 }
secrets.POSTGRES_PASSWORD = { file = "./secrets/db.txt" }
"#;
    assert_eq!(imported.manifest, expected);
    let notes = notes_of(&imported);
    let begins = [
        "name: the Service is called `flower-shop` here",
        "shop_web: services: is called `shop-web` here",
        "shop_web: ports: only TCP is forwarded",
        "shop_web: depends_on: does not wait for db (healthy), setup (done)",
        "db: secrets: POSTGRES_PASSWORD_FILE names a file that is not there",
        "volumes: volumes of the engine begin empty: db-data",
    ];
    assert_eq!(notes.len(), begins.len(), "{notes:#?}");
    for (note, begin) in notes.iter().zip(begins) {
        assert!(note.starts_with(begin), "{note}");
    }
    assert_eq!(imported.notes[2].line, Some(18));
    assert_eq!((imported.units, map_of(&imported).units.len()), (3, 3));
}

#[test]
fn names_of_the_service_and_the_map_are_chosen_or_found() {
    let text = "services: { web: { image: a, restart: always } }";
    let name = |text: &str| Some(Name::new(text).unwrap());
    let options = Options { service: name("mine"), map: name("blue"), elsewhere: false };
    let imported = Machine::default().import_with(text, &options).unwrap();
    assert!(imported.manifest.contains("service = \"mine\"") && imported.manifest.contains("[maps.blue.units.web]"));
    // The folder is /srv/shop.
    assert!(well(text).manifest.contains("service = \"shop\""));
}

#[test]
fn names_that_collide_stay_apart_and_the_valid_one_keeps_its_name() {
    let imported =
        well("services: { my_web: { image: a }, my.web: { image: b }, my-web: { image: c }, Übung: { image: d } }");
    assert_eq!(unit_of(&imported, "my-web").template.image.unwrap().reference, "c");
    assert_eq!(unit_of(&imported, "my-web-2").template.image.unwrap().reference, "a");
    assert_eq!(unit_of(&imported, "my-web-3").template.image.unwrap().reference, "b");
    assert_eq!(unit_of(&imported, "bung").template.image.unwrap().reference, "d");
    assert_eq!(notes_of(&imported).iter().filter(|note| note.contains("is called")).count(), 3);
}

#[test]
fn ports_of_every_form_are_forwarded_where_they_can_be() {
    for (written, expected) in [
        ("80:8000", "ports.http = { service = 80, address = \"0.0.0.0\", container = 8000 }"),
        ("127.0.0.1:80:80/tcp", "ports.http = { service = 80, container = 80 }"),
        ("[::1]:443:8443", "ports.https = { service = 443, address = \"::1\", container = 8443 }"),
        ("5432", "ports.p5432 = { container = 5432 }"),
        ("127.0.0.1::6379", "ports.p6379 = { container = 6379 }"),
        ("9000-9100:22", "ports.p22 = { service = 9000, address = \"0.0.0.0\", container = 22 }"),
    ] {
        assert_eq!(lines_of(&well(&web(&format!("ports: [\"{written}\"]")))), [expected], "{written}");
    }
    let several = well(&web("ports: [\"7000-7001:8000-8001\"]\nexpose: [8001, \"9-10\"]"));
    let expected = [
        "ports.http = { service = 7000, address = \"0.0.0.0\", container = 8000 }",
        "ports.p8001 = { service = 7001, address = \"0.0.0.0\", container = 8001 }",
        "ports.p9 = { container = 9 }",
        "ports.p10 = { container = 10 }",
    ];
    assert_eq!(lines_of(&several), expected);
    let long = well(&web(
        "ports:\n- { target: 80, published: \"8080\", protocol: tcp, name: front, host_ip: 10.0.0.1, mode: host }",
    ));
    assert_eq!(lines_of(&long), ["ports.front = { service = 8080, address = \"10.0.0.1\", container = 80 }"]);
    assert!(notes_of(&long)[0].contains("ports.mode"), "{:?}", long.notes);
}

#[test]
fn a_port_that_two_services_publish_stays_with_the_first() {
    let imported = well(
        "services:\n  a: { image: a, ports: ['80:80'], restart: always }\n  b: { image: b, ports: ['127.0.0.1:80:81'], restart: always }\n  c: { image: c, ports: ['127.0.0.1:81:80'], restart: always }",
    );
    assert_eq!(unit_of(&imported, "a").template.ports[0].service, Some(80));
    assert_eq!(unit_of(&imported, "b").template.ports[0].service, None);
    assert_eq!(unit_of(&imported, "c").template.ports[0].service, Some(81));
    let notes = notes_of(&imported);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("b: ports.p81: port 80 is already published by a"), "{notes:?}");
}

#[test]
fn the_variable_port_becomes_the_first_port() {
    let imported = well(&web("environment: [PORT=4000, A=1]\nports: ['80:80', '81:4000']"));
    let ports = unit_of(&imported, "web").template.ports;
    assert_eq!(ports.iter().map(|port| port.container).collect::<Vec<_>>(), [Some(4000), Some(80)]);
    let alone = unit_of(&well(&web("environment: { PORT: 4000 }")), "web");
    assert_eq!((alone.template.ports[0].container, alone.template.env.len()), (Some(4000), 0));
}

#[test]
fn variables_come_from_files_the_environment_and_the_file_itself() {
    let machine = Machine::default()
        .with("TOKEN_URL", "https://x")
        .file(".env", "FROM_DOTENV=d\n")
        .file("a.env", "A=1\nB=${FROM_DOTENV}\n")
        .file("b.env", "A=2\nC='$raw ${x}'\n");
    let imported = machine
        .import(&web(
            "env_file: [a.env, { path: b.env }, { path: none.env, required: false }, gone.env]\nenvironment:\n  TOKEN_URL:\n  FROM_DOTENV:\n  NOWHERE:\n  B: 3\n  a.b: 4\n  LD_PRELOAD: x\n  API_KEY: k",
        ))
        .unwrap();
    let expected = [
        "env.A = \"2\"",
        "env.B = \"3\"",
        "env.C = \"$raw $${x}\"",
        "env.FROM_DOTENV = \"d\"",
        "env.API_KEY = \"k\"",
        "env_from = [\"TOKEN_URL\"]",
    ];
    assert_eq!(lines_of(&imported), expected);
    assert_eq!(unit_of(&imported, "web").template.env["C"], "$raw $${x}");
    let notes = notes_of(&imported).join("\n");
    for part in [
        "the variables of a.env stand in the manifest",
        "gone.env is not there",
        "environment.a.b: is no name of a variable here",
        "environment.LD_PRELOAD: is reserved",
        "looks like a secret stands in the manifest: API_KEY",
        "taken from the environment: TOKEN_URL",
        "not set here: NOWHERE",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert!(!notes.contains("none.env"), "{notes}");
}

#[test]
fn what_a_variable_leaves_empty_is_as_if_it_were_not_written() {
    let imported = well(&web("read_only: ${RO}\nports: ['${A}:${B}/tcp']\nmem_limit: ${MEM}\nuser: ${ME:?who}"));
    assert!(lines_of(&imported).is_empty(), "{}", imported.manifest);
    let notes = notes_of(&imported);
    assert!(notes.iter().any(|note| note.contains("the variable MEM is not set")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("the variable ME is required: who")), "{notes:?}");
}

#[test]
fn volumes_have_the_kind_that_keeps_their_content() {
    let machine = Machine::default().file("site/", "").file("nginx.conf", "x").file("/opt/data/", "");
    let imported = machine
        .import(
            &(web(
                "volumes:\n- cache:/var/cache\n- ./site:/site:ro\n- ./nginx.conf:/etc/nginx.conf\n- /anonymous\n- /var/run/docker.sock:/var/run/docker.sock\n- ./missing:/missing\n- /opt/data:/opt\n- /site/node_modules\n- { type: tmpfs, target: /run, tmpfs: { size: 1048576 } }\n- { type: bind, source: ./site, target: /again }\n- { type: volume, source: cache, target: /var/cache }\ntmpfs: /tmp:size=64m\nscale: 2",
            ) + "volumes:\n  cache: { driver: nfs }\n"),
        )
        .unwrap();
    let expected = [
        "replicas = 2",
        "volumes.cache = { mount = \"/var/cache\", kind = \"shared\" } # all containers of the Unit write to it, as in Compose",
        "volumes.site = { mount = \"/site\", kind = \"bind\", source = \"./site\" }",
        "volumes.anonymous = { mount = \"/anonymous\", kind = \"ephemeral\" } # it goes with its container",
        "volumes.missing = { mount = \"/missing\", kind = \"bind\", source = \"./missing\" }",
        "volumes.opt = { mount = \"/opt\", kind = \"bind\", source = \"/opt/data\" }",
        "volumes.run = { mount = \"/run\", kind = \"ephemeral\", size = \"1MiB\" } # it goes with its container",
        "volumes.again = { mount = \"/again\", kind = \"bind\", source = \"./site\" }",
        "volumes.tmp = { mount = \"/tmp\", kind = \"ephemeral\", size = \"64MiB\" } # it goes with its container",
    ];
    assert_eq!(lines_of(&imported), expected);
    let notes = notes_of(&imported).join("\n");
    for part in [
        "./nginx.conf is a file, and only folders are bound",
        "control of the host",
        "./missing is not there",
        "/opt/data is not below the folder of the manifest",
        "/site/node_modules lies in the volume /site",
        "/site can be written, too",
        "volumes.cache.driver: volumes are those of the engine",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn a_folder_that_two_containers_would_write_during_an_update_is_told() {
    let machine = Machine::default().file("pg/", "");
    let told = |lines: &str| {
        let imported = machine.import(&web(lines)).unwrap();
        notes_of(&imported).iter().any(|note| note.contains("the old and the new container both write to /pg"))
    };
    assert!(told("volumes: ['./pg:/pg']"));
    assert!(told("volumes: [{ type: bind, source: ./pg, target: /pg }]"));
    assert!(!told("volumes: ['./pg:/pg:ro']"));
    assert!(!told("volumes: ['./pg:/pg', 'data:/data']"));
    assert!(!told("volumes: ['./pg:/pg']\nscale: 2"));
}

#[test]
fn a_manifest_elsewhere_has_whole_paths() {
    let machine = Machine::default().file("site/", "").with("HOME", "/srv/me").file("/srv/me/x/", "");
    let options = Options { elsewhere: true, ..Options::default() };
    let imported = machine.import_with(&web("volumes: ['./site:/site', '~/x:/x']"), &options).unwrap();
    assert!(lines_of(&imported)[0].contains("source = \"/srv/shop/site\""), "{}", imported.manifest);
    assert!(lines_of(&imported)[1].contains("source = \"/srv/me/x\""), "{}", imported.manifest);
}

#[test]
fn a_volume_of_two_services_is_told_because_it_is_not_one() {
    let imported = well(
        "services:\n  a: { image: a, volumes: ['d:/d'], restart: always }\n  b: { image: b, volumes: ['d:/d'], restart: always }\nvolumes: { d: }\n",
    );
    assert!(unit_of(&imported, "a").template.volumes.values().all(|it| it.kind == VolumeKind::Exclusive));
    assert!(notes_of(&imported).iter().any(|note| note.starts_with("volumes: d is not one for a, b")));
}

#[test]
fn health_checks_become_readiness() {
    let ready = |lines: &str| unit_of(&well(&web(lines)), "web").template.ready;
    let shell = ready("healthcheck: { test: 'pg_isready -U $$USER', interval: 5s, retries: 2 }").unwrap();
    let words = ["/bin/sh", "-c", "pg_isready -U $USER"].map(str::to_owned).to_vec();
    assert_eq!(shell.check, Check::Exec { command: words });
    assert_eq!((shell.every, shell.timeout, shell.failures), (Duration::from_secs(5), Duration::from_secs(30), 2));
    let http = ready("healthcheck: { test: [CMD, wget, -q, --spider, 'http://web:81/up'] }\nports: ['80:80', '81:81']");
    assert!(
        matches!(http.unwrap().check, Check::Http { path, port: Some(port) } if path == "/up" && port.as_str() == "p81")
    );
    for none in ["{ disable: true, test: x }", "{ test: [NONE] }", "{ test: [] }", "{ test: '' }"] {
        assert_eq!(ready(&format!("healthcheck: {none}")), None, "{none}");
    }
}

#[test]
fn what_compose_restarts_decides_what_is_a_job() {
    let when = |lines: &str| {
        let text = format!("services:\n  web:\n    image: a\n{lines}");
        let restart = unit_of(&well(&text), "web").template.restart;
        (restart.when, restart.retries)
    };
    assert_eq!(when("    restart: \"no\"\n"), (RestartWhen::Never, 0));
    assert_eq!(when("    restart: no\n"), (RestartWhen::Never, 0));
    assert_eq!(when("    restart: on-failure:5\n"), (RestartWhen::Failure, 5));
    assert_eq!(when("    restart: on-failure\n"), (RestartWhen::Failure, 1_000_000));
    assert_eq!(when("    restart: unless-stopped\n").0, RestartWhen::Always);
    assert_eq!(when("").0, RestartWhen::Always);
    assert_eq!(when("    deploy: { restart_policy: { condition: none } }\n").0, RestartWhen::Never);
    let policy = "    deploy: { restart_policy: { condition: on-failure, max_attempts: 4, delay: 5s, window: 2m } }\n";
    assert_eq!(when(policy), (RestartWhen::Failure, 4));
    // A job has no service port.
    assert_eq!(when("    restart: on-failure\n    ports: ['80:80']\n").0, RestartWhen::Always);
    let awaited = "  b:\n    image: b\n    depends_on: { web: { condition: service_completed_successfully } }\n";
    assert_eq!(when(awaited).0, RestartWhen::Never);
}

#[test]
fn an_emptied_entrypoint_makes_the_command_the_program() {
    for (lines, expected) in [
        ("entrypoint: []\ncommand: [a, b]", vec!["entrypoint = [\"a\"]", "command = [\"b\"]"]),
        ("entrypoint: ''\ncommand: a", vec!["entrypoint = [\"a\"]"]),
        ("entrypoint: a 'b c'\ncommand: []", vec!["entrypoint = [\"a\", \"b c\"]"]),
        ("command: echo ${NAME:-you} $${HOME}", vec!["command = [\"echo\", \"you\", \"$${HOME}\"]"]),
        ("command: []", vec![]),
    ] {
        assert_eq!(lines_of(&well(&web(lines))), expected, "{lines}");
    }
}

#[test]
fn services_extend_each_other_by_the_rules_of_compose() {
    let imported = well(
        "services:\n  base:\n    image: a\n    restart: always\n    command: [one, two]\n    environment: [A=1, B=2]\n    ports: ['80:80']\n  web:\n    extends: { service: base, file: ./compose.yaml }\n    command: [three]\n    environment: { B: 3, C: 4 }\n    ports: !override ['81:81']\n  far:\n    extends: { file: other.yaml, service: x }\n    image: b\n    restart: always\n",
    );
    let web = unit_of(&imported, "web").template;
    assert_eq!(web.command, ["three"]);
    let env: Vec<_> = web.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1", "B=3", "C=4"]);
    assert_eq!(web.ports.len(), 2);
    let notes = notes_of(&imported).join("\n");
    assert!(notes.contains("far: extends: `x` of other.yaml is not read"), "{notes}");
    assert!(notes.contains("!override: tags are not looked at"), "{notes}");
}

/// The first lines of a service with this `build`, and the notes about it.
fn built(machine: Machine, build: &str) -> (String, Vec<String>) {
    let imported = machine.import(&format!("services:\n  web:\n    restart: always\n    build: {build}\n")).unwrap();
    let line = imported.manifest.lines().find(|line| line.starts_with("build") || line.starts_with("image"));
    map_of(&imported);
    (line.unwrap_or_default().to_owned(), notes_of(&imported))
}

fn machine() -> Machine {
    Machine::default().file("web/", "").file("web/docker/run.Dockerfile", "")
}

#[test]
fn what_is_built_from_files_is_built_from_the_same_files() {
    let cases = [
        (".", r#"build = { context = "." }"#),
        ("./web", r#"build = { context = "./web" }"#),
        ("{}", r#"build = { context = "." }"#),
        ("{ context: web, dockerfile: Dockerfile }", r#"build = { context = "web" }"#),
        (
            "{ context: web, dockerfile: docker/run.Dockerfile }",
            r#"build = { context = "web", file = "docker/run.Dockerfile" }"#,
        ),
        ("{ context: web, dockerfile: /srv/shop/web/x/../D }", r#"build = { context = "web", file = "D" }"#),
        (
            "{ context: ., args: { VERSION: 1.4, EMPTY: '', HERE: null, MISSING: null } }",
            r#"build = { context = ".", args = { VERSION = "1.4", EMPTY = "", HERE = "yes" } }"#,
        ),
        (
            "{ args: ['VERSION=1', 'PATH=a=${HERE}', HERE, MISSING, 'VERSION=2'] }",
            r#"build = { context = ".", args = { PATH = "a=yes", HERE = "yes", VERSION = "2" } }"#,
        ),
        (
            "{ target: run, platforms: [linux/arm64] }",
            r#"build = { context = ".", target = "run", platform = "linux/arm64" }"#,
        ),
        (".\n    platform: linux/amd64", r#"build = { context = ".", platform = "linux/amd64" }"#),
        ("{ no_cache: false, pull: false, privileged: false }", r#"build = { context = "." }"#),
        (".\n    pull_policy: build", r#"build = { context = "." }"#),
    ];
    for (build, line) in cases {
        let (written, mut notes) = built(machine().with("HERE", "yes"), build);
        // Whoever imports may not know that what is in the environment is in the file now.
        let given = notes.extract_if(.., |note| note.contains("the value of the variable HERE")).count();
        assert_eq!(given == 1, line.contains("HERE = \"yes\""), "{build}: {given}");
        assert_eq!((written.as_str(), notes), (line, vec![]), "{build}");
    }
}

#[test]
fn a_manifest_elsewhere_builds_from_the_same_folder() {
    let options = Options { elsewhere: true, ..Options::default() };
    let text = "services: { a: { build: ./web }, b: { build: { context: web, dockerfile: docker/run.Dockerfile } } }";
    let imported = machine().import_with(text, &options).unwrap();
    map_of(&imported);
    let lines: Vec<&str> = imported.manifest.lines().filter(|line| line.starts_with("build")).collect();
    let file = r#"build = { context = "/srv/shop/web", file = "docker/run.Dockerfile" }"#;
    assert_eq!(lines, [r#"build = { context = "/srv/shop/web" }"#, file]);
}

#[test]
fn what_a_build_cannot_say_in_a_manifest_is_told() {
    let cases = [
        ("./none", r#"build = { context = "./none" }"#, "build: there is no folder ./none"),
        ("https://github.com/a/b.git#main", r#"image = "web:latest""#, "is no folder of this machine"),
        ("git@github.com:a/b", r#"image = "web:latest""#, "`web:latest` stands there instead"),
        ("'~/x'", r#"image = "web:latest""#, "is no path here"),
        ("{ context: web, dockerfile: ../D }", r#"build = { context = "web" }"#, "../D is not below the context"),
        ("{ context: web, dockerfile: /D }", r#"build = { context = "web" }"#, "build.dockerfile: /D is not below"),
        ("{ dockerfile_inline: FROM a }", r#"build = { context = "." }"#, "a Dockerfile is a file of the context"),
        ("{ platforms: [a/b, c/d] }", r#"build = { context = ".", platform = "a/b" }"#, "for one platform: a/b"),
        ("{ args: { 'A-B': 1, C: 2 } }", r#"build = { context = ".", args = { C = "2" } }"#, "no name of a build"),
        ("{ target: 'a b' }", r#"build = { context = "." }"#, "build.target: has letters"),
        (".\n    image: me/web:1", r#"build = { context = "." }"#, "image: what is built is not called `me/web:1`"),
    ];
    for (build, line, says) in cases {
        let (written, notes) = built(machine(), build);
        assert_eq!(written, line, "{build}");
        assert!(notes.len() == 1 && notes[0].contains(says), "{build}: {notes:?}");
    }
    let fetched = built(machine(), "github.com/a/b\n    image: me/web:1");
    assert!(fetched.0 == r#"image = "me/web:1""# && fetched.1.len() == 1, "{fetched:?}");
}

/// Every further key of a build that Compose knows, with a value that says something.
const BUILD_KEYS: &str = "additional_contexts: {a: ./b}|cache_from: [a]|cache_to: [a]|dockerfile_inline: FROM a|\
entitlements: [a]|extra_hosts: [a]|isolation: a|labels: {a: b}|network: host|no_cache: true|privileged: true|provenance: true|pull: true|\
sbom: true|secrets: [a]|shm_size: 1g|ssh: [default]|tags: [a]|ulimits: {nofile: 1}|what_is_this: 1";

#[test]
fn no_key_of_a_build_is_dropped_without_a_word() {
    for key in BUILD_KEYS.split('|') {
        let (written, notes) = built(machine(), &format!("{{ context: ., {key} }}"));
        assert_eq!(written, r#"build = { context = "." }"#, "{key}");
        let name = key.split(':').next().unwrap();
        assert!(notes.len() == 1 && notes[0].contains(&format!("build.{name}: ")), "{key}: {notes:?}");
    }
    assert_eq!(built(machine(), "{ x-mine: 1 }").1, Vec::<String>::new());
}

#[test]
fn images_that_nobody_names_are_told() {
    let imported = well("services:\n  c: {}\n  d: { image: 'Not An Image' }\n");
    let image = |name: &str| unit_of(&imported, name).template.image.unwrap().reference;
    assert_eq!([image("c"), image("d")], ["c:latest", "d:latest"]);
    let notes = notes_of(&imported).join("\n");
    for part in ["c: image: there is no `image` and no `build`", "d: image: "] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn a_service_of_a_profile_does_not_run_and_networks_are_told() {
    let imported = well(
        "services:\n  a: { image: a, profiles: [debug], networks: [x] }\n  b: { image: b, networks: { y: { aliases: [bee], ipv4_address: 10.0.0.2 } } }\nnetworks: { x: { internal: true }, y: { external: true, driver: macvlan, ipam: {} } }\n",
    );
    assert_eq!(unit_of(&imported, "a").replicas.initial, 0);
    let notes = notes_of(&imported).join("\n");
    for part in [
        "a: profiles: runs only with the profile debug",
        "networks keep services apart, such as a and b",
        "there are no other names: bee",
        "networks.y.ipv4_address",
        "networks.x.internal",
        "networks.y.external",
        "networks.y.driver",
        "networks.y.ipam",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn secrets_without_a_counterpart_are_told() {
    let imported = well(
        &(web("secrets: [a, b, none, { source: c, target: /etc/c, mode: 0400 }]\nconfigs: [conf]")
            + "secrets: { a: { file: ./a }, b: { external: true }, c: { environment: SEE } }\nconfigs: { conf: { file: ./x } }\n"),
    );
    assert_eq!(lines_of(&imported), ["secrets.A = { file = \"./a\" }", "secrets.C = { env = \"SEE\" }"]);
    let notes = notes_of(&imported).join("\n");
    for part in [
        "secrets.b.external",
        "`b` is no file",
        "`none` is not defined",
        "no file /etc/c",
        "config `conf`",
        "secrets.mode",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

/// Every key of a service that Compose knows, with a value that says something.
const KEYS: &str = "annotations: {a: b}|attach: false|blkio_config: {weight: 1}|build: .|cap_add: [A]|cap_drop: [A]|\
cgroup: host|cgroup_parent: a|command: a|configs: [a]|container_name: a|cpu_count: 1|cpu_percent: 1|cpu_period: 1|cpu_quota: 1|\
cpu_rt_period: 1|cpu_rt_runtime: 1|cpu_shares: 1|cpus: 1|cpuset: 0|credential_spec: {file: a}|depends_on: [b]|\
deploy: {replicas: 2}|develop: {watch: []}|device_cgroup_rules: [a]|devices: [a]|dns: [a]|dns_opt: [a]|dns_search: [a]|domainname: a|\
entrypoint: a|env_file: a|environment: {A: b}|expose: [1]|external_links: [a]|extra_hosts: [a]|gpus: all|group_add: [a]|\
healthcheck: {test: a}|hostname: a|init: false|ipc: host|isolation: a|label_file: a|labels: {a: b}|links: [a]|logging: {driver: a}|\
mac_address: a|mem_limit: 1g|mem_reservation: 1g|mem_swappiness: 1|memswap_limit: 1|models: [a]|network_mode: host|\
networks: {default: {aliases: [a]}}|oom_kill_disable: true|oom_score_adj: 1|pid: host|pids_limit: 1|platform: a|ports: [1]|\
post_start: [{command: a}]|pre_stop: [{command: a}]|privileged: true|profiles: [a]|provider: {type: a}|pull_policy: always|\
read_only: true|restart: 'no'|runtime: a|scale: 2|secrets: [a]|security_opt: [a]|shm_size: 1g|stdin_open: true|stop_grace_period: 1s|\
stop_signal: INT|storage_opt: {a: b}|sysctls: {a: b}|tmpfs: /a|tty: true|ulimits: {nofile: 1}|use_api_socket: true|user: a|\
userns_mode: host|uts: host|volumes: ['/a']|volumes_from: [a]|working_dir: /a|what_is_this: 1";

#[test]
fn no_key_is_dropped_without_a_word() {
    let plain = well("services: { web: { image: a } }");
    for key in KEYS.split('|') {
        let imported = well(&format!("services:\n  web:\n    image: a\n    {key}\n"));
        assert_ne!((&imported.manifest, &imported.notes), (&plain.manifest, &plain.notes), "{key}");
    }
    assert_eq!(well("x-a: 1\nservices: { x-b: {}, web: { image: a, x-c: 1 } }"), plain);
    let top = well("include: [a]\nmodels: {}\nwhat: 1\nservices: { web: { image: a } }");
    assert_eq!(top.notes.len(), plain.notes.len() + 3, "{:?}", top.notes);
}

#[test]
fn a_note_is_data_for_programs() {
    let imported = well(&web("cap_add: [NET_ADMIN]"));
    let value = serde_json::to_value(&imported.notes).unwrap();
    let expected = serde_json::json!([{
        "service": "web", "key": "cap_add", "line": 5,
        "what": "capabilities cannot be added", "instead": "the image must do without them",
    }]);
    assert_eq!(value, expected);
    let whole = Note { service: None, line: None, ..imported.notes[0].clone() };
    assert!(serde_json::to_value(&whole).unwrap().get("service").is_none());
}
