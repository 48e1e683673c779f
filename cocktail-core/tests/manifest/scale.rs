//! What changes a count by itself: targets, damping, schedules, and where metrics come from.

use std::collections::BTreeMap;
use std::time::Duration;

use cocktail_core::spec::{Damping, Replicas, Scaling, Scheduled, Scrape};

use super::{name, parse, unit, unit_refused, web};

const MINUTE: Duration = Duration::from_secs(60);

fn scaling(body: &str) -> Scaling {
    web(&unit(body)).replicas.scaling.expect("something changes the count")
}

fn warnings(body: &str) -> Vec<String> {
    let parsed = parse(&unit(body)).expect("the file is well");
    parsed.warnings.iter().map(|warning| warning.to_string().replace("bad.toml:", "")).collect()
}

#[test]
fn bounds_alone_change_nothing_by_themselves() {
    let replicas = web(&unit("scale = { min = 2, max = 10 }")).replicas;
    assert_eq!(replicas, Replicas { min: 2, max: 10, initial: 2, scaling: None });
    assert_eq!(web(&unit("scale = { max = 10 }")).replicas.initial, 1);
    assert_eq!(web(&unit("replicas = 2")).replicas.scaling, None);
}

#[test]
fn targets_have_a_quick_way_up_and_a_slow_way_down() {
    let body = "ports.http = { service = 8080 }\nresources = { memory = \"64MiB\" }\nready = { http = \"/\" }\nscale = { min = 2, max = 10, cpu = 0.6, memory = 0.8, in_flight = 50, rps = 100, queue = 5, connections = 7, custom = { my_metric = 10, \"app:x\" = 0.5 } }";
    let targets = [
        ("cpu", 0.6),
        ("memory", 0.8),
        ("in_flight", 50.0),
        ("rps", 100.0),
        ("queue", 5.0),
        ("connections", 7.0),
        ("my_metric", 10.0),
        ("app:x", 0.5),
    ];
    let targets: BTreeMap<String, f64> = targets.map(|(metric, target)| (metric.to_owned(), target)).into();
    let (up, down) = (Damping::default(), Damping { stabilize: MINUTE, step: 0, cooldown: Duration::ZERO });
    assert_eq!(scaling(body), Scaling { targets, up, down, schedule: Vec::new(), scrape: None });
    assert_eq!(warnings(body), Vec::<String>::new());
}

#[test]
fn damping_keeps_the_defaults_of_what_it_leaves_out() {
    let both = scaling(
        "scale = { max = 9, cpu = 1, up = { stabilize = \"5s\", step = 4 }, down = { cooldown = \"30s\", step = 1 } }",
    );
    assert_eq!(both.up, Damping { stabilize: Duration::from_secs(5), step: 4, cooldown: Duration::ZERO });
    assert_eq!(both.down, Damping { stabilize: MINUTE, step: 1, cooldown: Duration::from_secs(30) });
    let longest = scaling("scale = { max = 9, cpu = 1, down = { stabilize = \"1h\" } }");
    assert_eq!(longest.down.stabilize, 60 * MINUTE);
}

#[test]
fn a_schedule_has_the_bounds_of_scale_where_it_gives_none() {
    let body = "scale = { min = 2, max = 10, schedule = [{ cron = \"0 8 * * MON-FRI Europe/Zurich\", min = 4, max = 8 }, { cron = \" 30  20 1,15 */2 Fri\", max = 3 }, { cron = \"0 0 29 2 *\", min = 10 }, { cron = \"0 0 * * *\" }] }";
    let entry = |cron: &str, min, max| Scheduled { cron: cron.to_owned(), min, max };
    let schedule = vec![
        entry("0 8 * * MON-FRI Europe/Zurich", 4, 8),
        entry("30 20 1,15 */2 Fri", 2, 3),
        entry("0 0 29 2 *", 10, 10),
        entry("0 0 * * *", 2, 10),
    ];
    assert_eq!(scaling(body).schedule, schedule);
    let table = "scale.max = 3\n[[maps.prod.units.web.scale.schedule]]\ncron = \"0 8 * * *\"\nmin = 2";
    assert_eq!(scaling(table).schedule, [entry("0 8 * * *", 2, 3)]);
    let many = format!("scale = {{ max = 2, schedule = [{}] }}", "{ cron = \"* * * * *\" },".repeat(64));
    assert_eq!(scaling(&many).schedule.len(), 64);
}

#[test]
fn metrics_of_the_worker_are_read_even_without_a_target() {
    let body = "ports.http = {}\nports.admin = {}\nscale = { max = 2, metrics = { http = \"/metrics?x=1\", port = \"admin\" } }";
    let scrape = scaling(body).scrape;
    assert_eq!(scrape, Some(Scrape { path: "/metrics?x=1".to_owned(), port: Some(name("admin")) }));
    let first = scaling("ports.http = {}\nscale = { max = 2, queue = 1, metrics = { http = \"/m\" } }").scrape;
    assert_eq!(first, Some(Scrape { path: "/m".to_owned(), port: None }));
}

#[test]
fn targets_are_amounts_of_metrics_that_exist() {
    unit_refused(&[
        ("scale = { max = 2, cpu = -1 }", &["4:26: must be a number above zero"]),
        ("scale = { max = 2, rps = inf }", &["4:26: must be a number above zero"]),
        (r#"scale = { max = 2, connections = "7" }"#, &["4:34: expected a number, found a string"]),
        (
            "scale = { max = 2, memory = 0.8 }",
            &[
                r#"4:20: the target is a share of resources.memory, which is missing (add resources = { memory = "64MiB" })"#,
            ],
        ),
        (
            "resources = { cpu = 1 }\nscale = { max = 2, memory = 0.8 }",
            &[
                r#"5:20: the target is a share of resources.memory, which is missing (add resources = { memory = "64MiB" })"#,
            ],
        ),
        // What is wrong with the resources is said once.
        (
            "resources = { memory = \"64M\" }\nscale = { max = 2, memory = 0.8 }",
            &[r#"4:24: a size needs one of the units B, KiB, MiB, GiB, TiB (did you mean "64MiB"?)"#],
        ),
        (
            "scale = { max = 2, custom = 10 }",
            &["4:29: expected a table, found a whole number (write custom = { my_metric = 10 })"],
        ),
        (
            r#"scale = { max = 2, custom = { rps = 1, "a-b" = 1, 1a = 1, c = 0 } }"#,
            &[
                "4:31: `rps` is not a metric of the worker's own (write rps = … beside `custom`)",
                "4:40: `a-b` is no name of a metric (use letters, digits, underscores and colons, and no digit first)",
                "4:51: `1a` is no name of a metric (use letters, digits, underscores and colons, and no digit first)",
                "4:63: must be a number above zero",
            ],
        ),
        (
            &(0..33).fold("scale.max = 2\n[maps.prod.units.web.scale.custom]".to_owned(), |text, at| {
                format!("{text}\nm{at} = 1")
            }),
            &[
                "38:1: at most 32 entries can stand here",
                "6:1: nothing asks the worker for `m0` (add metrics = { http = \"/metrics\" }, or a probe with http whose answer is JSON)",
            ],
        ),
    ]);
}

#[test]
fn damping_stays_within_bounds() {
    unit_refused(&[
        (
            "scale = { max = 2, cpu = 1, up = 3 }",
            &[
                r#"4:34: expected a table, found a whole number (write down = { stabilize = "1m", step = 2, cooldown = "30s" })"#,
            ],
        ),
        (
            r#"scale = { max = 2, cpu = 1, up = { stabilise = "1s" } }"#,
            &["4:36: unknown key `stabilise` (did you mean `stabilize`?)"],
        ),
        (
            r#"scale = { max = 2, cpu = 1, down = { stabilize = "2h", step = -1, cooldown = 5 } }"#,
            &[
                "4:50: must be at most 1h",
                "4:63: must be a whole number from 0 to 10000",
                r#"4:78: expected a string, found a whole number (write it with a unit: "10s")"#,
            ],
        ),
    ]);
}

#[test]
fn a_schedule_stays_within_the_bounds_that_hold_at_any_time() {
    unit_refused(&[
        (
            r#"scale = { max = 2, schedule = { cron = "* * * * *" } }"#,
            &[
                r#"4:31: expected an array, found a table (write schedule = [{ cron = "0 8 * * MON-FRI", min = 4, max = 10 }])"#,
            ],
        ),
        (
            r#"scale = { max = 2, schedule = ["* * * * *"] }"#,
            &[
                r#"4:32: expected a table, found a string (write schedule = [{ cron = "0 8 * * MON-FRI", min = 4, max = 10 }])"#,
            ],
        ),
        (
            "scale = { max = 2, schedule = [{ min = 1 }] }",
            &[r#"4:32: missing key `cron` (write schedule = [{ cron = "0 8 * * MON-FRI", min = 4, max = 10 }])"#],
        ),
        (
            r#"scale = { min = 2, max = 5, schedule = [{ cron = "* * * * *", min = 1, max = 6 }] }"#,
            &[
                "4:69: must be from 2 to 5, the bounds of `scale` (widen scale.min and scale.max: they hold at any time)",
                "4:78: must be from 2 to 5, the bounds of `scale` (widen scale.min and scale.max: they hold at any time)",
            ],
        ),
        (
            r#"scale = { min = 2, max = 5, schedule = [{ cron = "* * * * *", min = 4, max = 3 }] }"#,
            &["4:69: min (4) is above max (3) (write the smaller number as min)"],
        ),
        // Bounds that are wrong themselves are no measure.
        (
            r#"scale = { min = 5, max = 2, schedule = [{ cron = "* * * * *", min = 4 }] }"#,
            &["4:17: min (5) is above max (2) (write the smaller number as min)"],
        ),
        (
            &format!("scale = {{ max = 2, schedule = [\n{}] }}", "{ cron = \"* * * * *\" },\n".repeat(65)),
            &["69:1: at most 64 entries can stand here"],
        ),
    ]);
}

#[test]
fn a_time_of_a_schedule_has_five_fields_and_comes() {
    const HELP: &str = r#"(write cron = "0 8 * * MON-FRI", or with a time zone: "0 8 * * MON-FRI Europe/Zurich")"#;
    let refused = |cron: &str, expected: &[&str]| {
        let body = format!("scale = {{ max = 2, schedule = [{{ cron = {cron} }}] }}");
        let expected: Vec<String> = expected.iter().map(|line| format!("4:41: {line}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        unit_refused(&[(&body, &expected)]);
    };
    refused("8", &[&format!("expected a string, found a whole number {HELP}")]);
    for (text, words) in [("", 0), ("@daily", 1), ("0 8 * *", 4), ("0 0 8 * * MON UTC", 7)] {
        let expected = format!("five fields and perhaps a time zone are wanted, not {words} words {HELP}");
        refused(&format!("{text:?}"), &[&expected]);
    }
    let lists = "lists 1,3, ranges 1-5 and steps */2 of them)";
    let minute = format!("is no minute (write *, 0 to 59; {lists}");
    for text in ["60", "-1", "1-", "5-1", "*/0", "a", "H", "?", "1,", "é", "1;2"] {
        refused(&format!("\"{text} * * * *\""), &[&format!("`{text}` {minute}")]);
    }
    refused(
        r#""1 24 32 13 8 Z?""#,
        &[
            &format!("`13` is no month (write *, 1 to 12, or JAN to DEC; {lists}"),
            &format!("`24` is no hour (write *, 0 to 23; {lists}"),
            &format!("`32` is no day of the month (write *, 1 to 31; {lists}"),
            &format!("`8` is no day of the week (write *, 0 to 7 from Sunday to Sunday, or SUN to SAT; {lists}"),
            "`Z?` is no name of a time zone (write a name like Europe/Zurich, or leave it out for UTC)",
        ],
    );
    // Of other crons' extensions none is taken, since no two mean the same by them.
    let day = format!("is no day of the month (write *, 1 to 31; {lists}");
    for text in ["L", "15W", "LW"] {
        refused(&format!("\"0 0 {text} * *\""), &[&format!("`{text}` {day}")]);
    }
    let weekday = format!("is no day of the week (write *, 0 to 7 from Sunday to Sunday, or SUN to SAT; {lists}");
    for text in ["5L", "FRIL", "MON#1"] {
        refused(&format!("\"0 0 * * {text}\""), &[&format!("`{text}` {weekday}")]);
    }
    let long = format!("\"* * * * * {}\"", "Z".repeat(65));
    refused(
        &long,
        &[
            "`ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ…` is no name of a time zone (write a name like Europe/Zurich, or leave it out for UTC)",
        ],
    );
    refused(&format!("\"{}* * * * *\"", " ".repeat(512)), &[&format!("must have at most 512 characters {HELP}")]);
    for never in ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 9 * UTC"] {
        refused(
            &format!("{never:?}"),
            &["this does not happen within four years (check that one of its months has one of its days)"],
        );
    }
}

#[test]
fn metrics_are_at_a_path_of_a_port() {
    unit_refused(&[
        (
            "ports.http = {}\nscale = { max = 2, metrics = \"/metrics\" }",
            &[r#"5:30: expected a table, found a string (write metrics = { http = "/metrics" })"#],
        ),
        (
            "ports.http = {}\nscale = { max = 2, metrics = {} }",
            &[r#"5:20: missing key `http` (write metrics = { http = "/metrics" })"#],
        ),
        (
            "ports.http = {}\nscale = { max = 2, metrics = { http = \"metrics\", port = \"htp\" } }",
            &[
                r#"5:39: a path starts with a slash (write http = "/")"#,
                r#"5:57: the Unit has no port of this name (did you mean "http"?)"#,
            ],
        ),
        (
            "scale = { max = 2, metrics = { http = \"/metrics\" } }",
            &["4:20: the metrics need a port, and the Unit has none (add ports.http = {})"],
        ),
    ]);
}

#[test]
fn what_will_do_nothing_is_pointed_out() {
    let asleep =
        "nothing wakes it from zero (add a service port, whose connections do, or a schedule; or write min = 1)";
    assert_eq!(warnings("scale = { min = 0, max = 2, cpu = 0.5 }"), [format!("4:11: {asleep}")]);
    assert_eq!(warnings("ports.a = {}\nscale = { min = 0, max = 2, rps = 5 }"), [format!("5:11: {asleep}")]);
    for awake in [
        "scale = { min = 0, max = 2 }",
        "scale = { min = 1, max = 2, cpu = 0.5 }",
        "scale = { min = 0, max = 2, cpu = 0.5, schedule = [{ cron = \"0 8 * * *\", min = 1 }] }",
        "ports.a = { service = 8080 }\nscale = { min = 0, max = 2, rps = 5 }",
    ] {
        assert_eq!(warnings(awake), Vec::<String>::new(), "{awake}");
    }
    let unused =
        "is not used without a target (add a target, for instance cpu = 0.6; a schedule and commands act at once)";
    assert_eq!(
        warnings("scale = { max = 2, up = { step = 1 }, down = {} }"),
        [format!("4:20: `up` {unused}"), format!("4:39: `down` {unused}")]
    );
    assert_eq!(
        warnings("scale = { max = 2, cpu = 60 }"),
        [
            "4:20: `cpu` is a share, and this is many times what is reserved (write 0.6 for 60 percent of what is reserved)"
        ]
    );
    let unasked = "(add metrics = { http = \"/metrics\" }, or a probe with http whose answer is JSON)";
    assert_eq!(
        warnings("scale = { max = 2, queue = 6 }"),
        [format!("4:20: nothing asks the worker for `queue` {unasked}")]
    );
    assert_eq!(
        warnings("scale = { max = 2, custom = { \"a:b\" = 6 } }"),
        [format!("4:31: nothing asks the worker for `a:b` {unasked}")]
    );
    for asked in [
        "ports.a = {}\nlive = { http = \"/\" }\nscale = { max = 2, queue = 6 }",
        "ports.a = {}\nscale = { max = 2, queue = 6, metrics = { http = \"/metrics\" } }",
    ] {
        assert_eq!(warnings(asked), Vec::<String>::new(), "{asked}");
    }
}
