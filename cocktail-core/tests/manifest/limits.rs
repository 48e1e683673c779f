//! What this version does not do, settings, syntax, and input that is hostile.

use std::path::Path;

use cocktail_core::manifest::{MAX_TEXT, Severity, render};

use super::{file_refused, parse, unit, unit_refused};

#[test]
fn what_is_promised_but_not_there_yet_is_refused_by_name() {
    unit_refused(&[(
        r#"provider = ["ec2", "standalone"]"#,
        &[r#"4:1: providers of kind `ec2` are not supported yet (this version has "standalone" and "docker")"#],
    )]);
    file_refused(&[
        (
            r#"[providers.big]
kind = "ec2""#,
            &[
                r#"2:8: providers of kind `ec2` are not supported yet (this version has kind = "standalone" and "docker")"#,
            ],
        ),
        (
            r#"[manager]
startup_grace = "1s"
registration_deadline = "1s""#,
            &[
                "2:1: `startup_grace` is not supported yet (leave it out: after a start each server has the whole of `server_lost_after`)",
                "3:1: `registration_deadline` is not supported yet (write it below the provider: [providers.NAME])",
            ],
        ),
    ]);
}

#[test]
fn spans_of_sessions_are_safe_together_and_addresses_are_addresses() {
    let help = "each of heartbeat, silent_after, lease and server_lost_after is longer than the one before: \"3s\", \"10s\", \
                \"30s\", \"40s\"";
    let hasty = format!("2:16: silent_after of 4s is not two beats of 3s ({help})");
    let early = format!(
        "3:21: replace_after of 35s is not longer than 36.035017509s, when an agent surely has ended all ({help})"
    );
    file_refused(&[
        ("[manager]\nsilent_after = \"4s\"", &[hasty.as_str()]),
        ("[manager]\nlease = \"30s\"\nserver_lost_after = \"35s\"", &[early.as_str()]),
        (
            "[manager]\nlisten = \"manager:7443\"\nadvertise = [\"manager\", \"manager:7443\"]",
            &[
                "2:10: is no IP address with a port (write listen = \"0.0.0.0:7443\")",
                "3:14: is no host with a port (write advertise = [\"manager.example.com:7443\"])",
            ],
        ),
    ]);
}

#[test]
fn settings_of_the_manager_are_checked_like_the_rest() {
    file_refused(&[
        (
            r#"[manager]
port_rnge = "1-2""#,
            &["2:1: unknown key `port_rnge` (did you mean `port_range`?)"],
        ),
        (
            r#"[manager]
port_range = "30000-20000""#,
            &[r#"2:14: the range ends (20000) before it starts (30000) (write port_range = "20000-29999")"#],
        ),
        (
            r#"[manager]
port_range = "20000""#,
            &[r#"2:14: a range of ports is two numbers with a hyphen between (write port_range = "20000-29999")"#],
        ),
        (
            r#"[manager]
port_range = "80-90""#,
            &[r#"2:14: a range of ports starts at 1024 or above (write port_range = "20000-29999")"#],
        ),
        (
            r#"[manager]
drain = "50ms""#,
            &["2:9: must be from 100ms to 8760h"],
        ),
        (
            r#"[manager]
log_bytes = "1KiB"
log_files = 0"#,
            &["2:13: must be at least 64KiB", "3:13: must be a whole number from 1 to 1000"],
        ),
        (
            r#"[manager]
image_revisions = 11
image_prune = "1ms""#,
            &["2:19: must be a whole number from 1 to 10", "3:15: must be from 100ms to 8760h"],
        ),
        (
            r#"[manager]
watch = "shop.toml""#,
            &[r#"2:9: expected an array, found a string (write watch = ["shop.toml"])"#],
        ),
        (
            r#"[manager]
binds = ["data", ""]
metrics = "9464""#,
            &[
                r#"2:10: must be an absolute path: it holds for manifests in any folder (write binds = ["/srv/data"])"#,
                r#"2:18: must not be empty (write binds = ["/srv/data"])"#,
                r#"3:11: is no IP address with a port (write metrics = "127.0.0.1:9464")"#,
            ],
        ),
        (
            r#"[manager]
binds = "/srv"
metrics = 9464"#,
            &[
                r#"2:9: expected an array, found a string (write binds = ["/srv/data"])"#,
                r#"3:11: expected a string, found a whole number (write metrics = "127.0.0.1:9464")"#,
            ],
        ),
        (&format!("[manager]\nbinds = [{}]", "\n\"/a\",".repeat(65)), &["67:1: at most 64 entries can stand here"]),
        (
            r#"[providers.local]
socket = "x""#,
            &[r#"1:12: missing key `kind` (write kind = "standalone")"#],
        ),
        (
            r#"[providers.local]
kind = "standalone"
limit = inf"#,
            &["3:9: must be a finite number that fits in 64 bits"],
        ),
    ]);
}

#[test]
fn metrics_that_strangers_can_read_are_pointed_out() {
    let warnings = |address: &str| -> Vec<String> {
        let parsed = parse(&format!("[manager]\nmetrics = \"{address}\"")).expect("the address is well");
        parsed.warnings.iter().map(ToString::to_string).collect()
    };
    assert_eq!(warnings("127.0.0.1:9464"), Vec::<String>::new());
    assert_eq!(
        warnings("0.0.0.0:9464"),
        [
            "bad.toml:2:1: other machines can read the metrics, without a password (use 127.0.0.1, or let nobody but your Prometheus reach it)"
        ]
    );
}

#[test]
fn what_is_no_toml_is_reported_where_it_stops_being_so() {
    file_refused(&[
        (r#"service = "shop"#, &[r#"1:16: this is no TOML: invalid basic string, expected `"`"#]),
        ("service = shop", &["1:11: this is no TOML: string values must be quoted, expected literal string"]),
        (
            r"[maps.prod
",
            &["1:11: this is no TOML: unclosed table, expected `]`"],
        ),
    ]);
}

#[test]
fn a_text_above_the_limit_is_refused_unread() {
    let problems = parse(&"x".repeat(10 * MAX_TEXT)).expect_err("it is too long");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "the file is longer than 1MiB, which no manifest needs");
    assert_eq!((problems[0].line, problems[0].span.clone()), (0, 0..0));
}

#[test]
fn deep_nesting_is_refused_without_overflowing_the_stack() {
    let depth = 100_000;
    let texts = [
        format!("a = {}", "[".repeat(depth)),
        format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)),
        format!("a = {}1{}", "{a=".repeat(depth), "}".repeat(depth)),
        format!("{} = 1", vec!["a"; depth].join(".")),
        format!("[{}]", vec!["a"; depth].join(".")),
        format!("a = {}{}", "[".repeat(33), "]".repeat(33)),
    ];
    for text in texts {
        let problems = parse(&text).expect_err("it is too deep");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "tables and arrays are nested more than 32 levels deep");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_stored_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let base = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff"));
    let problems =
        cocktail_core::manifest::parse(&unit(""), Path::new("bad.toml"), base).expect_err("no JSON holds it");
    assert_eq!(problems[0].message, "the path of this folder is not UTF-8, so it cannot be stored");
}

#[test]
fn many_problems_are_counted_after_the_first_twenty() {
    let keys: String = (0..5_000).map(|at| format!("wrong{at} = 1\n")).collect();
    let text = format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\n{keys}");
    let problems = parse(&text).expect_err("five thousand keys are unknown");
    assert_eq!(problems.len(), 21);
    assert_eq!(problems[0].key, "maps.prod.units.web.wrong0");
    assert_eq!(problems[19].key, "maps.prod.units.web.wrong19");
    assert_eq!((problems[20].severity, problems[20].message.as_str()), (Severity::Error, "and 4980 more"));
}

#[test]
fn long_keys_and_lines_stay_short_in_messages_and_drawings() {
    let long = "k".repeat(100_000);
    let children: String = (0..10_000).map(|at| format!("a{at} = 1, ")).collect();
    let text = format!("service = \"shop\"\nmaps.prod.units.{long} = {{ {children} }}\nmaps.prod.x = 1\n{long} = 2");
    let problems = parse(&text).expect_err("the name is too long");
    let drawn = render(&problems, &text);
    assert!(drawn.len() < 8_192, "{} bytes", drawn.len());
    assert!(problems.iter().all(|problem| problem.message.len() < 200));

    // The name of a variable may be long, but it is not repeated in the path of each key below it.
    let text = format!("service = \"shop\"\nmaps.prod.units.web.secrets.{long} = {{ {children} }}");
    let problems = parse(&text).expect_err("a secret has a source");
    assert!(problems.iter().all(|problem| problem.key.len() < 200 && problem.message.len() < 200));
}
