//! Files whose form is wrong: keys, types, names, amounts.

use super::{file_refused, unit_refused};

#[test]
fn unknown_and_missing_keys_are_reported_with_what_to_write() {
    unit_refused(&[
        (r#"comand = ["x"]"#, &["4:1: unknown key `comand` (did you mean `command`?)"]),
        (
            r"replica = 2
zzz = 1",
            &[
                "4:1: unknown key `replica` (did you mean `replicas`?)",
                "5:1: unknown key `zzz` (known here: artifact, bootstrap, build, command, config, cwd, entrypoint, env, env_from, image, labels, live, microservices, place, ports, provider, read_only, ready, replicas, resources, restart, rlimits, scale, secrets, stop, update, user, volumes, warm, worker)",
            ],
        ),
        (r#"stop = { sigal = "TERM" }"#, &["4:10: unknown key `sigal` (did you mean `signal`?)"]),
    ]);
    file_refused(&[
        (r#"servce = "shop""#, &["1:1: unknown key `servce` (did you mean `service`?)"]),
        (
            r#"service = "shop"
[maps.prod.unit.web]
command = ["web"]"#,
            &[
                "2:7: the map has no units (add one, for instance [maps.prod.units.web]; `cocktail rm` removes a map)",
                "2:12: unknown key `unit` (did you mean `units`?)",
            ],
        ),
        (
            r#"service = "shop"
service = "shop""#,
            &["2:1: this is no TOML: duplicate key"],
        ),
        (
            "",
            &[
                r#"bad.toml: the file has neither a Service nor Manager settings (start with service = "…" and [maps.prod.units.web], or with [manager])"#,
            ],
        ),
        (r#"service = "shop""#, &["1:1: the Service has no maps (add a Unit: [maps.prod.units.web])"]),
        (
            r#"service = "shop"
maps = {}"#,
            &["2:1: the Service has no maps (add a Unit: [maps.prod.units.web])"],
        ),
        (
            r#"service = "shop"
[maps.prod]"#,
            &["2:7: the map has no units (add one, for instance [maps.prod.units.web]; `cocktail rm` removes a map)"],
        ),
        (
            r#"service = "shop"
[maps.prod.units]"#,
            &["2:12: the map has no units (add one, for instance [maps.prod.units.web]; `cocktail rm` removes a map)"],
        ),
        (
            r#"[maps.prod.units.web]
command = ["web"]"#,
            &[
                r#"1:2: missing key `service`: the name of the Service that this belongs to (write service = "…" as the first line of the file)"#,
            ],
        ),
        (
            "quota = { cpu = 1 }",
            &[
                r#"1:1: missing key `service`: the name of the Service that this belongs to (write service = "…" as the first line of the file)"#,
            ],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]"#,
            &[r#"2:18: missing key `command` (write it as an array: ["python3", "-m", "http.server"])"#],
        ),
    ]);
}

#[test]
fn wrong_types_say_what_was_expected_and_what_was_found() {
    unit_refused(&[
        (r#"replicas = "3""#, &["4:12: expected a whole number, found a string (write it without quotes: 3)"]),
        ("replicas = 1.5", &["4:12: expected a whole number, found a decimal number"]),
        ("replicas = -1", &["4:12: must be a whole number from 0 to 10000"]),
        ("replicas = 99999999999999999999", &["4:12: must be a whole number from 0 to 10000"]),
        (
            "cwd = 1",
            &[
                r#"4:7: expected a string, found a whole number (write cwd = "site", relative to this file, or leave it out)"#,
            ],
        ),
        (r#"cwd = """#, &[r#"4:7: must not be empty (write cwd = "site", relative to this file, or leave it out)"#]),
        (
            "ports.http = 8080",
            &[
                "4:14: expected a table, found a whole number (write ports.http = { service = 8080 }, or ports.http = {})",
            ],
        ),
        ("ports.http = { inherit = 1 }", &["4:26: expected true or false, found a whole number"]),
        (r#"env = ["A=b"]"#, &[r#"4:7: expected a table, found an array (write env = { GREETING = "hi" })"#]),
        ("env = { A = 1 }", &["4:13: expected a string, found a whole number (write the value in quotes)"]),
        (r#"env = { A = "a\u0000b" }"#, &["4:13: a text must not contain a NUL character"]),
        (
            r#"resources = { cpu = "1" }"#,
            &["4:21: expected a number of cores, found a string (write it like 0.25 or 2)"],
        ),
        (
            "resources = { memory = 64 }",
            &[r#"4:24: expected a string, found a whole number (write it with a unit: "64MiB")"#],
        ),
        (
            r#"stop = "TERM""#,
            &[r#"4:8: expected a table, found a string (write stop = { signal = "TERM", grace = "10s" })"#],
        ),
        ("stop = { grace = 2024-01-01 }", &[r#"4:18: expected a string, found a date (write it with a unit: "10s")"#]),
    ]);
    file_refused(&[
        ("service = 7", &[r#"1:11: expected a string, found a whole number (write service = "shop")"#]),
        (
            r#"service = "shop"
maps = "prod""#,
            &["2:8: expected a table, found a string (write [maps.prod.units.web])"],
        ),
        (
            r#"service = "shop"
[[maps]]"#,
            &["2:1: expected a table, found an array (write [maps.prod.units.web])"],
        ),
    ]);
}

#[test]
fn labels_are_short_texts_with_plain_names() {
    unit_refused(&[
        (r#"labels = "x""#, &[r#"4:10: expected a table, found a string (write labels = { team = "x" })"#]),
        (
            "labels = { a = 1 }",
            &[
                r#"4:16: expected a string, found a whole number (write the value in quotes, and so a name with dots: labels."a.b" = "x")"#,
            ],
        ),
        (
            r#"labels.a.b = "x""#,
            &[
                r#"4:8: expected a string, found a table (write the value in quotes, and so a name with dots: labels."a.b" = "x")"#,
            ],
        ),
        (
            r#"labels = { "a b" = "x", "" = "y", "ä" = "z" }"#,
            &[
                "4:12: `a b` is no name of a label (use 1 to 63 letters, digits, dots, underscores, slashes and hyphens)",
                "4:25: `` is no name of a label (use 1 to 63 letters, digits, dots, underscores, slashes and hyphens)",
                "4:35: `ä` is no name of a label (use 1 to 63 letters, digits, dots, underscores, slashes and hyphens)",
            ],
        ),
        (
            &format!("labels = {{ a = \"{}\" }}", "ü".repeat(257)),
            &["4:16: a value of a label has at most 256 characters"],
        ),
        (
            &format!("labels.{} = \"x\"", "k".repeat(64)),
            &[
                "4:8: `kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk…` is no name of a label (use 1 to 63 letters, digits, dots, underscores, slashes and hyphens)",
            ],
        ),
        (
            &(0..65).fold("[maps.prod.units.web.labels]".to_owned(), |text, at| format!("{text}\nk{at} = \"x\"")),
            &["69:1: at most 64 entries can stand here"],
        ),
    ]);
    file_refused(&[(
        r#"labels = { team = "x" }"#,
        &[
            r#"1:1: missing key `service`: the name of the Service that this belongs to (write service = "…" as the first line of the file)"#,
        ],
    )]);
}

#[test]
fn names_that_could_become_paths_or_labels_are_refused() {
    unit_refused(&[
        ("ports.my_port = {}", &["4:7: '_' cannot stand in a name: use lower-case letters, digits and hyphens"]),
        (
            r#"volumes."a/b" = { mount = "data" }"#,
            &["4:9: '/' cannot stand in a name: use lower-case letters, digits and hyphens"],
        ),
        (
            r#"provider = "my provider""#,
            &["4:12: ' ' cannot stand in a name: use lower-case letters, digits and hyphens"],
        ),
        (r#"provider = ["a", "a"]"#, &["4:18: `a` stands here twice"]),
        (r#"user = "root; rm""#, &["4:8: is no user name (write the name of a user, or its number)"]),
        (
            "user = 0",
            &[
                r#"4:8: expected a string, found a whole number (write the name of a user, or its number, as a string: "nobody")"#,
            ],
        ),
    ]);
    file_refused(&[
        (
            r#"service = "../etc"
[maps.prod.units.web]
command = ["web"]"#,
            &["1:11: '.' cannot stand in a name: use lower-case letters, digits and hyphens"],
        ),
        (
            r#"service = "Shop"
[maps.prod.units.web]
command = ["web"]"#,
            &["1:11: 'S' cannot stand in a name: use lower-case letters, digits and hyphens"],
        ),
        (
            r#"service = "shop"
[maps."..".units.web]
command = ["web"]"#,
            &["2:7: '.' cannot stand in a name: use lower-case letters, digits and hyphens"],
        ),
        (
            r#"service = "shop"
[maps.prod.units.-web]
command = ["web"]"#,
            &["2:18: a name starts and ends with a letter or a digit"],
        ),
        (
            r#"service = "shop"
[maps.prod.units.""]
command = ["web"]"#,
            &["2:18: a name must not be empty"],
        ),
    ]);
}

#[test]
fn a_command_is_an_array_whose_variables_exist() {
    file_refused(&[
        (
            r#"service = "shop"
[maps.prod.units.web]
command = "python3 -m http.server""#,
            &[
                r#"3:11: expected an array, found a string: no shell splits it (write it as an array: ["python3", "-m", "http.server"])"#,
            ],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = "cat x | wc""#,
            &[
                r#"3:11: expected an array, found a string: no shell splits it (write it as an array: ["python3", "-m", "http.server"])"#,
            ],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = []"#,
            &[r#"3:11: must name a program (write it as an array: ["python3", "-m", "http.server"])"#],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = [""]"#,
            &[r#"3:12: the program must not be empty (write it as an array: ["python3", "-m", "http.server"])"#],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = ["web", 8080]"#,
            &[
                r#"3:19: expected a string, found a whole number (write it as an array: ["python3", "-m", "http.server"])"#,
            ],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = ["web", "${PORT}"]"#,
            &["3:19: ${PORT} needs a port, and the Unit has none (add ports.http = {}, or write $$ for a dollar sign)"],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = ["web", "${PROT}"]
ports.http = {}"#,
            &["3:19: ${PROT} is not known (did you mean ${PORT}?)"],
        ),
        (
            r#"service = "shop"
[maps.prod.units.web]
command = ["web", "${PORT_ADMIN}", "${HOME}", "${x"]
ports.http = {}"#,
            &[
                "3:19: ${PORT_ADMIN} is not known (known here: CONTAINER, SERVER, UNIT, PORT, PORT_HTTP; write $$ for a dollar sign: $${…})",
                "3:36: ${HOME} is not known (known here: CONTAINER, SERVER, UNIT, PORT, PORT_HTTP; write $$ for a dollar sign: $${…})",
                "3:47: `${` has no closing brace (write $$ for a dollar sign: $${…})",
            ],
        ),
    ]);
}

#[test]
fn amounts_need_units_and_stay_within_bounds() {
    unit_refused(&[
        (
            r#"stop = { grace = "10" }"#,
            &[r#"4:18: a duration needs one of the units ms, s, m, h (did you mean "10s"?)"#],
        ),
        (
            r#"stop = { grace = "10 s" }"#,
            &["4:18: a duration is a whole number and a unit, like 250ms, 10s, 5m or 1h30m"],
        ),
        (
            r#"stop = { grace = "30s1m" }"#,
            &[
                r#"4:18: the units of a duration go from large to small, each at most once, like 1h30m (did you mean "30s1ms"?)"#,
            ],
        ),
        (r#"stop = { grace = "2h" }"#, &["4:18: must be at most 1h"]),
        (r#"stop = { grace = "99999999999999999999s" }"#, &["4:18: the amount is too large"]),
        (r#"stop = { grace = "" }"#, &["4:18: an amount must not be empty"]),
        ("stop = { grace = 10 }", &[r#"4:18: expected a string, found a whole number (write it with a unit: "10s")"#]),
        (r#"update = { progress = "9000h" }"#, &["4:23: must be from 100ms to 8760h"]),
        (
            r#"resources = { memory = "64MB" }"#,
            &[r#"4:24: a size needs one of the units B, KiB, MiB, GiB, TiB (did you mean "64MiB"?)"#],
        ),
        (r#"resources = { memory = "1.5GiB" }"#, &["4:24: a size is a whole number and a unit, like 64MiB or 1GiB"]),
        (r#"resources = { memory = "0B" }"#, &["4:24: must be above zero (leave the key out for no limit)"]),
        (r#"resources = { memory = "99999999TiB" }"#, &["4:24: the amount is too large"]),
        ("resources = { cpu = 0.0001 }", &["4:21: an amount of cpu has at most three decimals"]),
        ("resources = { cpu = -1 }", &["4:21: an amount of cpu is a number of cores, like 0.25 or 2"]),
        ("resources = { cpu = nan }", &["4:21: an amount of cpu is a number of cores, like 0.25 or 2"]),
        ("resources = { cpu = 0 }", &["4:21: must be above zero (leave the key out for no limit)"]),
    ]);
}
