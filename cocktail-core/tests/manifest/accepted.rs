//! Files that are right, and what they decode into.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cocktail_core::manifest::{MAX_DEPTH, parse_settings, substitute, template_hash};
use cocktail_core::ports::PortRange;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::settings::Settings;
use cocktail_core::spec::{
    Check, Labels, NoRoom, OnFailure, Probe, Replicas, Restart, RestartWhen, SecretSource, Stop, Update, VolumeKind,
};

use super::{name, parse, unit, web};

/// The example of the promised surface, without what is not there yet.
const PROMISED: &str = r#"
service = "shop"                                   # Service
quota = { cpu = 8, memory = "8GiB", containers = 100 }   # optional, checked at apply and when placing

[maps.prod.units.web]                              # ApplicationMap "prod", Unit "web"
command   = ["python3", "-m", "http.server", "${PORT}"]
replicas  = 3
provider  = "standalone"
cwd       = "site"
user      = "nobody"
env       = { GREETING = "hi" }
env_from  = ["DATABASE_URL"]
secrets.API_KEY = { file = "/run/key" }
ports.http = { service = 8080 }
resources = { cpu = 0.25, memory = "64MiB" }
ready     = { http = "/", every = "200ms", timeout = "1s" }
live      = { http = "/", every = "5s", failures = 3 }
stop      = { signal = "TERM", grace = "10s" }
restart   = { base = "100ms", max = "5m", reset = "10m" }
update    = { surge = 1, monitor = "2s", progress = "60s", on_failure = "rollback", no_room = "wait" }
warm      = 0
volumes.data = { mount = "data", kind = "exclusive", size = "1GiB" }
place     = { spread = "server" }
"#;

#[test]
fn the_promised_example_decodes_as_written() {
    let parsed = parse(PROMISED).expect("the example is promised");
    let warnings: Vec<_> = parsed.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(parsed.settings, None);
    let service = parsed.service.expect("the file names a Service");
    assert_eq!(service.name, name("shop"));
    assert_eq!(service.quota.cpu, Some(CpuMillis(8_000)));
    assert_eq!(service.quota.memory, Some(Bytes(8 << 30)));
    assert_eq!(service.quota.containers, Some(100));

    let unit = web(PROMISED);
    assert_eq!(unit.replicas, Replicas { min: 0, max: 10_000, initial: 3, scaling: None });
    let template = &unit.template;
    assert_eq!(template.command, ["python3", "-m", "http.server", "${PORT}"]);
    assert_eq!(template.providers, [name("standalone")]);
    assert_eq!(template.cwd, PathBuf::from("/srv/site"));
    assert_eq!(template.user.as_deref(), Some("nobody"));
    assert_eq!(template.env["GREETING"], "hi");
    assert_eq!(template.env_from, ["DATABASE_URL"]);
    assert_eq!(template.secrets["API_KEY"], SecretSource::File("/run/key".into()));
    assert_eq!(template.ports[0].name, name("http"));
    assert_eq!(template.ports[0].service, Some(8080));
    assert_eq!(template.ports[0].address, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(template.resources.cpu, CpuMillis(250));
    assert_eq!(template.resources.memory, Bytes(64 << 20));
    let http = Check::Http { path: "/".to_owned(), port: None };
    assert_eq!(template.live.as_ref().map(|probe| &probe.check), Some(&http));
    let volume = &template.volumes[&name("data")];
    assert_eq!((volume.mount.as_path(), volume.kind), (Path::new("data"), VolumeKind::Exclusive));
    assert_eq!(volume.size, Some(Bytes(1 << 30)));
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let spec = web(&unit("ports.http = {}"));
    assert_eq!(spec.replicas.initial, 1);
    assert_eq!(spec.template.cwd, PathBuf::from("/srv"));
    let tcp = Probe {
        check: Check::Tcp { port: None },
        every: Duration::from_millis(200),
        timeout: Duration::from_secs(1),
        failures: 3,
    };
    assert_eq!(spec.template.ready, Some(tcp));
    assert_eq!(spec.template.live, None);
    assert_eq!(spec.template.stop, Stop { signal: 15, grace: Duration::from_secs(10) });
    let (base, max, reset) = (Duration::from_millis(100), Duration::from_secs(300), Duration::from_secs(600));
    let (when, retries, deadline) = (RestartWhen::Always, 0, None);
    assert_eq!(spec.template.restart, Restart { base, max, reset, when, retries, deadline });
    let (monitor, progress) = (Duration::from_secs(2), Duration::from_secs(60));
    let (on_failure, no_room) = (OnFailure::Rollback, NoRoom::Wait);
    let (canary, promote) = (0, None);
    assert_eq!(spec.update, Update { surge: 1, monitor, progress, on_failure, no_room, canary, promote });
    assert_eq!(spec.labels, Labels::new());
    // Without a port there is nothing to connect to.
    assert_eq!(web(&unit("")).template.ready, None);
}

#[test]
fn ports_keep_the_order_of_the_text() {
    let spec =
        web(&unit("ports.zeta = {}\nports.alpha = { fixed = 9000 }\n[maps.prod.units.web.ports.beta]\ninherit = true"));
    let names: Vec<_> = spec.template.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["zeta", "alpha", "beta"]);
}

#[test]
fn a_fixed_port_limits_the_unit_to_one_unless_it_is_inherited() {
    assert_eq!(web(&unit("ports.a = { fixed = 9000 }")).replicas.max, 1);
    let spec = web(&unit("replicas = 4\nports.a = { fixed = 9000, inherit = true, service = 80, address = \"::1\" }"));
    assert_eq!((spec.replicas.initial, spec.replicas.max), (4, 10_000));
    assert_eq!(spec.template.ports[0].address, IpAddr::V6(Ipv6Addr::LOCALHOST));
}

#[test]
fn labels_stand_on_the_service_its_maps_and_its_units() {
    let long = "ü".repeat(256);
    let text = format!(
        "labels = {{ team = \"shop\" }}\n{}\n[maps.prod.labels]\n\"a.b/c_d-9\" = \"\"\n",
        unit(&format!("labels.note = \"{long}\""))
    );
    let service = parse(&text).expect("labels are well").service.expect("it is a Service");
    let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    assert_eq!(service.labels, label("team", "shop"));
    let map = &service.maps[&name("prod")];
    assert_eq!(map.labels, label("a.b/c_d-9", ""));
    assert_eq!(map.units[&name("web")].labels, label("note", &long));
}

#[test]
fn a_job_has_retries_and_a_deadline() {
    let restart = |body: &str| web(&unit(body)).template.restart;
    let failure = restart("restart = { when = \"failure\" }");
    assert_eq!((failure.when, failure.retries, failure.deadline), (RestartWhen::Failure, 3, None));
    assert!(failure.is_job());
    let often = restart("restart = { when = \"failure\", retries = 0, deadline = \"10m\" }");
    assert_eq!((often.retries, often.deadline), (0, Some(Duration::from_secs(600))));
    let never = restart("restart = { when = \"never\", deadline = \"100ms\", retries = 0 }");
    assert_eq!((never.when, never.retries), (RestartWhen::Never, 0));
    assert_eq!(never.deadline, Some(Duration::from_millis(100)));
    assert!(!restart("restart = { when = \"always\" }").is_job());
    // What a job may have as well as the rest.
    let job = web(&unit(
        "replicas = 4\nports.own = {}\nlive = { tcp = true }\nready = { exec = [\"test\"] }\nrestart.when = \"never\"",
    ));
    assert!(job.template.live.is_some() && job.template.ready.is_some());
    assert_eq!(job.replicas, Replicas { min: 0, max: 10_000, initial: 4, scaling: None });
}

#[test]
fn a_canary_goes_first_and_is_promoted_by_hand_or_after_a_time() {
    let by_hand = web(&unit("update = { canary = 1 }")).update;
    assert_eq!((by_hand.canary, by_hand.promote), (1, None));
    let text = unit("update = { canary = 1000, promote = \"10m\", monitor = \"0ms\", on_failure = \"pause\" }");
    let update = web(&text).update;
    assert_eq!((update.canary, update.promote), (1000, Some(Duration::from_secs(600))));
    assert_eq!((update.monitor, update.on_failure), (Duration::ZERO, OnFailure::Pause));
    assert_eq!(parse(&text).expect("it is well").warnings, []);
}

#[test]
fn variants_of_probes_signals_and_back_off_decode() {
    let spec = web(&unit(
        "ports.http = {}\nports.admin = {}\nready = { http = \"/up?x=1\", port = \"admin\" }\nlive = { exec = [\"test\", \"${PORT_ADMIN}\"], every = \"1m30s\" }\nstop = { signal = \"SIGINT\", grace = \"0ms\" }\nrestart = { base = \"0ms\", max = \"0ms\", when = \"always\" }",
    ));
    let http = Check::Http { path: "/up?x=1".to_owned(), port: Some(name("admin")) };
    assert_eq!(spec.template.ready.map(|probe| probe.check), Some(http));
    assert_eq!(spec.template.live.map(|probe| probe.every), Some(Duration::from_secs(90)));
    assert_eq!(spec.template.stop, Stop { signal: 2, grace: Duration::ZERO });
    assert_eq!((spec.template.restart.base, spec.template.restart.max), (Duration::ZERO, Duration::ZERO));
    assert_eq!(web(&unit("stop.signal = 10")).template.stop.signal, 10);
}

#[test]
fn paths_count_from_the_folder_of_the_file() {
    let spec = web(&unit(
        "cwd = \"../site\"\nsecrets.A = { file = \"key\" }\nsecrets.B = { env = \"C\" }\nvolumes.v = { mount = \"./a/b\", kind = \"bind\", source = \"data\" }",
    ));
    assert_eq!(spec.template.cwd, PathBuf::from("/srv/../site"));
    assert_eq!(spec.template.secrets["A"], SecretSource::File("/srv/key".into()));
    assert_eq!(spec.template.secrets["B"], SecretSource::Env("C".into()));
    let volume = &spec.template.volumes[&name("v")];
    assert_eq!(volume.mount, PathBuf::from("a/b"));
    assert_eq!(volume.source, Some("/srv/data".into()));
}

#[test]
fn limits_of_the_process_are_numbers_sizes_or_unlimited() {
    let spec = web(&unit("rlimits = { nofile = 4096, core = \"0B\", stack = \"8MiB\", nproc = \"unlimited\" }"));
    let expected = [("core", 0), ("nofile", 4_096), ("nproc", u64::MAX), ("stack", 8 << 20)];
    assert_eq!(spec.template.rlimits, expected.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn settings_decode_beside_a_service_or_alone() {
    let text = "[manager]\nport_range = \"30000-30100\"\ndrain = \"100ms\"\nlog_bytes = \"1MiB\"\nwatch = [\"shop.toml\"]\nbinds = [\"/data/../data/a/.\"]\nmetrics = \"[::1]:9464\"\n[providers.local]\nkind = \"standalone\"\nnested = { a = [1, 2.5, true, 2024-01-01] }\n";
    let both = format!("{text}\n{}", "[maps.prod.units.web]\ncommand = [\"web\"]");
    let both = parse(&format!("service = \"shop\"\n{both}")).expect("both parts are well");
    let (settings, warnings) = parse_settings(text, Path::new("c.toml"), Path::new("/srv")).expect("they are well");
    assert_eq!(both.settings.as_ref(), Some(&settings));
    assert!(both.service.is_some() && warnings.is_empty());
    assert_eq!(settings.port_range, PortRange { first: 30_000, last: 30_100 });
    assert_eq!(settings.drain, Duration::from_millis(100));
    assert_eq!(settings.log_bytes, 1 << 20);
    assert_eq!(settings.watch, [PathBuf::from("/srv/shop.toml")]);
    assert_eq!(settings.binds, [PathBuf::from("/data/a")]);
    assert_eq!(settings.metrics, Some((Ipv6Addr::LOCALHOST, 9464).into()));
    assert_eq!(settings.relist, Settings::default().relist);
    let options = &settings.providers[&name("local")].options;
    assert_eq!(options["nested"], serde_json::json!({ "a": [1, 2.5, true, "2024-01-01"] }));

    let (defaults, _) = parse_settings(&unit(""), Path::new("c.toml"), Path::new("/srv")).expect("it has no settings");
    assert_eq!(defaults, Settings::default());
}

#[test]
fn nesting_is_allowed_up_to_the_limit() {
    // `providers`, `local` and the document take three levels, each bracket one.
    let depth = MAX_DEPTH - 3;
    let file = |depth| {
        format!("providers.local = {{ kind = \"standalone\", x = {}{} }}", "[".repeat(depth), "]".repeat(depth))
    };
    assert!(parse(&file(depth)).is_ok());
    assert!(parse(&file(depth + 1)).is_err());
}

#[test]
fn substitution_fills_in_once_and_keeps_other_dollar_signs() {
    let vars = BTreeMap::from([("A".to_owned(), "${B}$$".to_owned()), ("B".to_owned(), "b".to_owned())]);
    let fill = |template| substitute(template, &vars).map_err(|why| why.to_string());
    assert_eq!(fill("x${A}y").as_deref(), Ok("x${B}$$y"));
    assert_eq!(fill("$${A} $$$$ $HOME $ 5$").as_deref(), Ok("${A} $$ $HOME $ 5$"));
    assert_eq!(fill("$$${B}").as_deref(), Ok("$b"));
    assert_eq!(fill(""), Ok(String::new()));
    assert_eq!(fill("${C}"), Err("${C} is not known".to_owned()));
    assert_eq!(fill("${A"), Err("`${` has no closing brace".to_owned()));
}

#[test]
fn a_revision_changes_with_the_template_and_with_nothing_else() {
    let hash = |body: &str| template_hash(&web(&unit(body)).template);
    let plain = hash("ports.http = {}");
    assert_eq!(plain.len(), 12);
    assert!(plain.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)), "{plain}");
    assert_eq!(
        plain,
        hash("\n# a comment\nports = { http = { inherit = false } }\nreplicas = 5\nupdate = { surge = 2 }")
    );
    assert_eq!(plain, hash("ports.http = {}\nrestart = { when = \"always\" }\nlabels = { team = \"x\" }"));
    assert_ne!(plain, hash("ports.http = {}\nrestart = { when = \"never\" }"));
    assert_ne!(plain, hash("ports.http = {}\nenv = { A = \"b\" }"));
    assert_ne!(plain, hash("ports.http = {}\ncwd = \"x\""));
    assert_ne!(hash("ports.a = {}\nports.b = {}"), hash("ports.b = {}\nports.a = {}"));
    // Pinned: another value here would replace every container of every user at an upgrade.
    assert_eq!(plain, "gttszkvfxfdg");
}
