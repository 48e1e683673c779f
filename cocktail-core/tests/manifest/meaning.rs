//! Files whose form is right, and that still cannot be meant.

use super::{file_refused, unit_refused};

#[test]
fn counts_bounds_and_quotas_agree() {
    unit_refused(&[
        (
            r"replicas = 2
scale = { max = 3 }",
            &[
                "4:1: `replicas` and `scale` exclude each other (keep `scale` and write the count that it starts with as scale.min)",
            ],
        ),
        ("scale = { min = 5, max = 2 }", &["4:17: min (5) is above max (2) (write the smaller number as min)"]),
        ("scale = { min = 2 }", &["4:1: missing key `max` (write scale = { min = 2, max = 10 })"]),
        ("scale = { max = 2, cpus = 0.5 }", &["4:20: unknown key `cpus` (did you mean `cpu`?)"]),
        ("scale = { max = 2, cpu = 0 }", &["4:26: must be a number above zero"]),
        ("replicas = 10001", &["4:12: must be a whole number from 0 to 10000"]),
        (
            r"replicas = 2
ports.http = { fixed = 9000 }",
            &[
                "4:1: 2 containers cannot all have the fixed port 9000 (use a leased port (${PORT}), or set inherit = true for a shared socket)",
            ],
        ),
        (
            r"scale = { max = 2 }
ports.http = { fixed = 9000 }",
            &[
                "4:1: 2 containers cannot all have the fixed port 9000 (use a leased port (${PORT}), or set inherit = true for a shared socket)",
            ],
        ),
    ]);
    file_refused(&[(
        r#"service = "shop"
quota = { containers = 2, cpu = 1, memory = "1GiB" }
[maps.prod.units.web]
command = ["web"]
replicas = 3
resources = { cpu = 0.5, memory = "512MiB" }"#,
        &[
            "2:11: the units ask for more than the quota of containers: 3 in all (raise the quota, or ask for less)",
            "2:27: the units ask for more than the quota of cpu: 1.5 cores in all (raise the quota, or ask for less)",
            "2:36: the units ask for more than the quota of memory: 1536MiB in all (raise the quota, or ask for less)",
        ],
    )]);
}

#[test]
fn no_two_owners_get_one_port() {
    unit_refused(&[
        ("ports.http = { service = 0 }", &["4:26: must be a whole number from 1 to 65535"]),
        ("ports.http = { service = 65536 }", &["4:26: must be a whole number from 1 to 65535"]),
        (
            r#"ports.a = { service = 8080 }
ports.b = { service = 8080, address = "0.0.0.0" }"#,
            &[
                "5:13: port 8080 is already the service port of shop/prod/web (bad.toml:4:13) (give one of them another port)",
            ],
        ),
        (
            r#"ports.a = { service = 8080, address = "::" }
ports.b = { service = 8080 }"#,
            &[
                "5:13: port 8080 is already the service port of shop/prod/web (bad.toml:4:13) (give one of them another port)",
            ],
        ),
        (
            r"ports.a = { fixed = 9000 }
ports.b = { fixed = 9000 }",
            &["5:7: port 9000 is already the fixed port of `a`"],
        ),
        (
            "ports.a = { service = 9000, fixed = 9000 }",
            &[
                "4:23: the worker and the service port cannot both have the same port (give the container another fixed port, or leave `fixed` out)",
            ],
        ),
        (
            r#"ports.a = { address = "0.0.0.0" }"#,
            &[
                "4:13: `address` needs `service`: it is where the service port listens (add service = 8080, the port that it listens on)",
            ],
        ),
        (
            r#"ports.a = { service = 8080, address = "localhost" }"#,
            &[r#"4:39: is no IP address (write an IP address: "127.0.0.1", "0.0.0.0", "::1")"#],
        ),
        (
            r#"ports.a = { service = 8080 }
[maps.prod.units.api]
command = ["api"]
ports.b = { service = 8080 }"#,
            &[
                "7:13: port 8080 is already the service port of shop/prod/web (bad.toml:4:13) (give one of them another port)",
            ],
        ),
        (
            r#"ports.a = { service = 8080 }
[maps.dev.units.web]
command = ["web"]
ports.a = { service = 8080 }"#,
            &[
                "7:13: port 8080 is already the service port of shop/prod/web (bad.toml:4:13) (give one of them another port)",
            ],
        ),
        (
            r#"ports.a = { fixed = 9000 }
[maps.dev.units.web]
command = ["web"]
ports.a = { service = 9000 }"#,
            &[
                "7:13: port 9000 is already the fixed port of shop/prod/web (bad.toml:4:13) (give one of them another port)",
            ],
        ),
    ]);
}

#[test]
fn probes_name_something_that_can_be_checked() {
    unit_refused(&[
        (
            r#"ready = { http = "/" }"#,
            &[
                r#"4:11: the probe needs a port, and the Unit has none (add ports.http = {}, or check with exec = ["…"])"#,
            ],
        ),
        (
            "ready = {}",
            &[
                r#"4:1: the probe needs a port, and the Unit has none (add ports.http = {}, or check with exec = ["…"])"#,
            ],
        ),
        (
            "live = { tcp = true }",
            &[
                r#"4:10: the probe needs a port, and the Unit has none (add ports.http = {}, or check with exec = ["…"])"#,
            ],
        ),
        (
            r#"ports.a = {}
ready = { http = "health" }"#,
            &[r#"5:18: a path starts with a slash (write http = "/")"#],
        ),
        (
            r#"ports.a = {}
ready = { http = "/a b" }"#,
            &[
                "5:18: a path holds visible ASCII characters without `#` (write spaces and other characters as %20 and the like)",
            ],
        ),
        (
            r#"ports.a = {}
ready = { http = "/", tcp = true }"#,
            &["5:23: a probe is one of `http`, `tcp` and `exec` (keep one of them)"],
        ),
        (
            r"ports.a = {}
ready = { tcp = false }",
            &[r#"5:17: can only be true (write http = "/" or exec = ["…"] for another check)"#],
        ),
        (
            r#"ports.http = {}
ready = { tcp = true, port = "htp" }"#,
            &[r#"5:30: the Unit has no port of this name (did you mean "http"?)"#],
        ),
        (
            r#"ports.http = {}
ready = { exec = ["true"], port = "http" }"#,
            &["5:28: `port` has no meaning for `exec` (remove it, or `exec`)"],
        ),
        (
            r#"ready = { exec = "true" }"#,
            &[r#"4:18: expected an array, found a string: no shell splits it (write it as an array: ["true"])"#],
        ),
        (
            r#"ready = { exec = ["test", "${PORT}"] }"#,
            &["4:27: ${PORT} needs a port, and the Unit has none (add ports.http = {}, or write $$ for a dollar sign)"],
        ),
        (
            r#"ports.a = {}
ready = { every = "10ms", timeout = "99ms", failures = 0 }"#,
            &[
                "5:19: must be from 100ms to 8760h",
                "5:37: must be from 100ms to 8760h",
                "5:56: must be a whole number from 1 to 1000",
            ],
        ),
    ]);
}

#[test]
fn policies_name_signals_reactions_and_limits_that_exist() {
    unit_refused(&[
        (r#"stop = { signal = "TREM" }"#, &[r#"4:19: unknown signal "TREM" (did you mean "TERM"?)"#]),
        (
            r#"stop = { signal = "STOP" }"#,
            &[r#"4:19: unknown signal "STOP" (one of: TERM, INT, QUIT, HUP, USR1, USR2, KILL, or a number)"#],
        ),
        ("stop = { signal = 65 }", &["4:19: must be a whole number from 1 to 64"]),
        (
            r#"restart = { base = "10m" , max = "1m" }"#,
            &["4:34: the longest back-off (max) is below the first one (base)"],
        ),
        (r#"restart = { reset = "10ms" }"#, &["4:21: must be from 100ms to 8760h"]),
        (
            r#"restart = { when = "failur", retries = 1 }"#,
            &[r#"4:20: unknown value "failur" (did you mean "failure"?)"#],
        ),
        (
            r#"restart = { when = "sometimes" }"#,
            &[r#"4:20: unknown value "sometimes" (one of: "always", "failure", "never")"#],
        ),
        ("update = { surge = 0 }", &["4:20: must be a whole number from 1 to 1000"]),
        ("update = { canary = 0 }", &["4:21: must be a whole number from 1 to 1000"]),
        ("update = { canary = 1001 }", &["4:21: must be a whole number from 1 to 1000"]),
        (r#"update = { canary = 1, promote = "10ms" }"#, &["4:34: must be from 100ms to 8760h"]),
        (
            r#"update = { promote = "1m" }"#,
            &[
                "4:12: `promote` needs `canary`: it is when the others follow (add canary = 1, the containers that go first)",
            ],
        ),
        (
            r#"update = { on_failure = "rolback", no_room = "panic" }"#,
            &[
                r#"4:25: unknown value "rolback" (did you mean "rollback"?)"#,
                r#"4:46: unknown value "panic" (one of: "wait", "replace")"#,
            ],
        ),
        ("rlimits = { nofiles = 1 }", &["4:13: unknown key `nofiles` (did you mean `nofile`?)"]),
        (r#"rlimits = { nofile = "4KiB" }"#, &["4:22: expected a whole number, found a string"]),
        (
            r#"place = { spread = "server", pack = "server" }"#,
            &["4:30: `spread` and `pack` exclude each other (keep one of them)"],
        ),
    ]);
}

#[test]
fn a_job_ends_and_takes_no_traffic() {
    let always = "has no meaning for what is always restarted (add when = \"failure\" if it is a job, or leave it out)";
    unit_refused(&[
        (
            r#"restart = { retries = 2, deadline = "1m" }"#,
            &[&format!("4:13: `retries` {always}"), &format!("4:26: `deadline` {always}")],
        ),
        (r#"restart = { when = "always", deadline = "1m" }"#, &[&format!("4:30: `deadline` {always}")]),
        (
            r#"restart = { when = "never", retries = 1 }"#,
            &[
                r#"4:29: `when = "never"` and retries exclude each other (write when = "failure", or leave `retries` out)"#,
            ],
        ),
        (
            r#"restart = { when = "failure", retries = -1, deadline = "10ms" }"#,
            &["4:41: must be a whole number from 0 to 1000000", "4:56: must be from 100ms to 8760h"],
        ),
        (
            r#"restart = { when = "failure" }
scale = { max = 2 }"#,
            &[
                "5:1: a job has a fixed count and no `scale` (write replicas = 2 for two at a time, or leave `restart.when` out)",
            ],
        ),
        (
            r#"ports.http = { service = 8080 }
restart = { when = "never" }"#,
            &[
                "4:16: a job takes no traffic and has no service port (leave `service` out, or `restart.when`, so that it is no job)",
            ],
        ),
    ]);
}

#[test]
fn variables_are_well_named_free_and_set_once() {
    unit_refused(&[
        (
            r#"env = { COCKTAIL_UNIT = "a", PORT = "1", PORT_X = "1", LD_PRELOAD = "x", LISTEN_FDS = "1" }"#,
            &[
                "4:9: `COCKTAIL_UNIT` is reserved: COCKTAIL_* is what a worker is told about itself (choose another name)",
                "4:30: `PORT` is reserved: PORT is the worker's first port (choose another name)",
                "4:42: `PORT_X` is reserved: PORT_* are the worker's ports (choose another name)",
                "4:56: `LD_PRELOAD` is reserved: LD_* changes which code the loader runs (choose another name)",
                "4:74: `LISTEN_FDS` is reserved: LISTEN_* describes the sockets that are handed over (choose another name)",
            ],
        ),
        (
            r#"env = { "A B" = "1", 1A = "1" }"#,
            &[
                "4:9: `A B` is no name of a variable (use letters, digits and underscores, and no digit first)",
                "4:22: `1A` is no name of a variable (use letters, digits and underscores, and no digit first)",
            ],
        ),
        (
            r#"env = { A = "1" }
env_from = ["A"]"#,
            &["5:13: `A` is set twice (keep one of `env`, `env_from` and `secrets`)"],
        ),
        (
            r#"env_from = ["B", "B", "COCKTAIL_TOKEN"]"#,
            &[
                "4:18: `B` is set twice (keep one of `env`, `env_from` and `secrets`)",
                "4:23: `COCKTAIL_TOKEN` is reserved: COCKTAIL_* is what a worker is told about itself (choose another name)",
            ],
        ),
        (
            r#"env = { A = "${HOSTNAME}" }"#,
            &[
                "4:13: ${HOSTNAME} is not known (known here: CONTAINER, SERVER, UNIT; write $$ for a dollar sign: $${…})",
            ],
        ),
    ]);
}

#[test]
fn a_secret_names_one_source_and_never_its_value() {
    unit_refused(&[
        (
            r#"secrets.KEY = "hunter2""#,
            &[
                r#"4:15: expected a table, found a string (name its source: { file = "/run/key" } or { env = "API_KEY" }; the value itself is never written here)"#,
            ],
        ),
        (
            "secrets.KEY = {}",
            &[
                r#"4:9: a secret has exactly one source (name its source: { file = "/run/key" } or { env = "API_KEY" }; the value itself is never written here)"#,
            ],
        ),
        (
            r#"secrets.KEY = { file = "/a", env = "B" }"#,
            &[
                r#"4:9: a secret has exactly one source (name its source: { file = "/run/key" } or { env = "API_KEY" }; the value itself is never written here)"#,
            ],
        ),
        (
            r#"secrets.KEY = { env = "a-b" }"#,
            &[
                r#"4:23: is no name of a variable (name its source: { file = "/run/key" } or { env = "API_KEY" }; the value itself is never written here)"#,
            ],
        ),
        (
            r#"secrets.KEY = { value = "hunter2" }"#,
            &[
                r#"4:9: a secret has exactly one source (name its source: { file = "/run/key" } or { env = "API_KEY" }; the value itself is never written here)"#,
                "4:17: unknown key `value` (known here: env, file)",
            ],
        ),
        (
            r#"secrets.LD_LIBRARY_PATH = { env = "X" }"#,
            &["4:9: `LD_LIBRARY_PATH` is reserved: LD_* changes which code the loader runs (choose another name)"],
        ),
    ]);
}

#[test]
fn volumes_stay_below_the_working_directory_and_away_from_the_host() {
    unit_refused(&[
        (
            "volumes.data = {}",
            &[r#"4:9: missing key `mount` (write volumes.data = { mount = "data", kind = "exclusive" })"#],
        ),
        (
            r#"volumes.data = { mount = "../data" }"#,
            &[
                r#"4:26: a mount is a relative path without `..` (write a path below the working directory: mount = "data")"#,
            ],
        ),
        (
            r#"volumes.data = { mount = "/data" }"#,
            &[
                r#"4:26: a mount is a relative path without `..` (write a path below the working directory: mount = "data")"#,
            ],
        ),
        (
            r#"volumes.data = { mount = "." }"#,
            &[
                r#"4:26: a mount is a relative path without `..` (write a path below the working directory: mount = "data")"#,
            ],
        ),
        (
            r#"volumes.data = { mount = "data", kind = "exlusive" }"#,
            &[r#"4:41: unknown value "exlusive" (did you mean "exclusive"?)"#],
        ),
        (
            r#"volumes.data = { mount = "data", kind = "bind" }"#,
            &[r#"4:9: a volume of kind `bind` needs a source (add source = "/srv/data", the folder of the host)"#],
        ),
        (
            r#"volumes.data = { mount = "data", source = "/srv" }"#,
            &[r#"4:34: only a volume of kind `bind` has a source (write kind = "bind", or leave `source` out)"#],
        ),
        (
            r#"volumes.data = { mount = "data", kind = "bind", source = "/srv/../proc/1" }"#,
            &["4:58: this folder gives the worker control of the host (bind the one folder that the worker needs)"],
        ),
        (
            r#"volumes.data = { mount = "data", kind = "bind", source = "/" }"#,
            &["4:58: this folder gives the worker control of the host (bind the one folder that the worker needs)"],
        ),
        (
            r#"volumes.a = { mount = "data" }
volumes.b = { mount = "data/b" }"#,
            &["5:9: the mount lies in that of volume `a`, or around it"],
        ),
    ]);
}
