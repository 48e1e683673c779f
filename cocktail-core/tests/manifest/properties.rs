//! What holds for every input: nothing panics, places lie in the text, amounts read back.

use std::time::Duration;

use cocktail_core::manifest::{Colour, Diagnostic, Severity, check, parse_settings, render_files, schema, substitute};
use cocktail_core::quantity::{Bytes, CpuMillis, format_duration, parse_duration};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::parse;

/// A valid file with most keys, to be spoilt.
const VALID: &str = r#"
service = "shop"
quota = { cpu = 8, memory = "8GiB", containers = 100 }
labels = { team = "shop" }
[maps.prod.units.web]
labels = { "a.b/c" = "größer" }
command = ["python3", "${PORT}", "größer"]
env = { GREETING = "hi $$ ${CONTAINER}" }
env_from = ["DATABASE_URL"]
secrets.API_KEY = { file = "/run/key" }
artifact = { url = "https://example.com/a.tar", sha256 = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef" }
ports.http = { service = 8080, address = "0.0.0.0" }
resources = { cpu = 0.25, memory = "64MiB" }
ready = { http = "/", every = "200ms", timeout = "1s" }
live = { exec = ["true"], every = "5s", failures = 3 }
stop = { signal = "TERM", grace = "10s" }
restart = { base = "100ms", max = "5m", reset = "10m" }
update = { surge = 1, monitor = "2s", on_failure = "rollback", no_room = "wait", canary = 1, promote = "1m" }
volumes.data = { mount = "data", kind = "exclusive", size = "1GiB" }
rlimits = { nofile = 100, core = "unlimited" }
[maps.prod.units.web.scale]
min = 0
max = 10
cpu = 0.5
memory = 0.8
queue = 3
custom = { "app:jobs" = 10 }
up = { stabilize = "0s", step = 4 }
down = { stabilize = "1m", cooldown = "10s" }
schedule = [{ cron = "0 8 * * MON-FRI Europe/Zurich", min = 4, max = 10 }, { cron = "0 20 * * *" }]
metrics = { http = "/metrics", port = "http" }
[maps.dev.units.job]
labels.kind = "job"
command = ["job"]
replicas = 2
restart = { when = "failure", retries = 2, deadline = "10m" }
[maps.dev.labels]
stage = "dev"
[manager]
binds = ["/srv/data"]
metrics = "127.0.0.1:9464"
port_range = "20000-29999"
drain = "1s"
[providers.local]
kind = "standalone"
x = [1, 2.5, { y = true }]
"#;

/// Pieces that mean something to the decoder, to be put where they do not belong.
fn piece() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "[maps.prod.units.web]",
        "[[maps]]",
        "maps",
        "ports.x = { service = 8080 }",
        "${PORT_X}",
        "${",
        "$$",
        "\"",
        "'''",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "-1",
        "1e400",
        "nan",
        "0xff",
        "99999999999999999999",
        "\"10s\"",
        "\"\"",
        "true",
        "2024-01-01",
        "\"\\u0000\"",
        "é",
        "\u{202e}",
        "\t",
        "\r\n",
        "service",
        "secrets",
        "scale",
        "fixed = 1",
        "* * * * *",
        "0 0 30 2 *",
        "1-99999/0,L#W H ? @",
        "when = \"never\"",
        "labels",
    ];
    prop_oneof![3 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
}

/// The valid file with some pieces cut out and some put in.
fn spoilt() -> impl Strategy<Value = String> {
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..20, piece()), 1..6).prop_map(|edits| {
        let mut text = VALID.to_owned();
        for (at, cut, piece) in edits {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((start + cut).min(text.len()));
            text.replace_range(start..end, &piece);
        }
        text
    })
}

/// Lines of the valid file in another order, some missing, some twice.
fn shuffled() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = VALID.lines().collect();
    prop::collection::vec(prop::sample::select(lines), 0..40).prop_map(|lines| lines.join("\n"))
}

/// Expressions of single values, lists, ranges and steps, of days that every month has.
fn cron() -> impl Strategy<Value = String> {
    let field = |least: u32, most: u32| {
        prop_oneof![
            Just("*".to_owned()),
            (least..=most).prop_map(|at| at.to_string()),
            (least..=most, least..=most).prop_map(|(a, b)| format!("{a},{b}")),
            (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            (1..=most).prop_map(|step| format!("*/{step}")),
            (least..=most, 1..=most).prop_map(move |(a, step)| format!("{a}-{most}/{step}")),
        ]
    };
    let days = prop_oneof![(1_u32..=28).prop_map(|day| day.to_string()), Just("*".to_owned())];
    let weekdays =
        prop_oneof![field(0, 7), prop::sample::select(&["MON-FRI", "sun", "Sat,Sun", "TUE-7"]).prop_map(str::to_owned)];
    let months = prop_oneof![field(1, 12), prop::sample::select(&["JAN", "feb-Apr", "DEC,6"]).prop_map(str::to_owned)];
    let zone = prop::sample::select(&["", " UTC", " Europe/Zurich", " Etc/GMT+5", " America/Port-au-Prince"]);
    // A day of the month and a weekday together may need many years, so one of them is free.
    let day = prop_oneof![days.prop_map(|day| (day, "*".to_owned())), weekdays.prop_map(|day| ("*".to_owned(), day))];
    (field(0, 59), field(0, 23), day, months, zone).prop_map(|(minute, hour, (day, weekday), month, zone)| {
        format!("{minute} {hour} {day} {month} {weekday}{zone}")
    })
}

/// A file with one entry in a schedule.
fn scheduled(cron: &str) -> String {
    let text = serde_json::to_string(cron).expect("a text is JSON, and almost always TOML");
    super::unit(&format!("scale = {{ max = 2, schedule = [{{ cron = {text} }}] }}"))
}

fn well_formed(problems: &[Diagnostic], text: &str) {
    assert!(problems.len() <= 21);
    for problem in problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?} lies outside the text");
        assert!(!problem.message.contains('\n') && !problem.message.ends_with('.'), "{problem:?}");
        assert!((problem.line == 0) == (problem.column == 0));
        let line_start = text[..problem.span.start].rfind('\n').map_or(0, |at| at + 1);
        if problem.line > 0 {
            let column = text[line_start..problem.span.start].chars().count() + 1;
            let line = text[..problem.span.start].matches('\n').count() + 1;
            assert_eq!((problem.line as usize, problem.column as usize), (line, column), "{problem:?}");
        }
    }
    render_files(problems, |_| Some(text), Colour::Always);
}

fn decodes_without_panic(text: &str) {
    match parse(text) {
        Ok(parsed) => {
            well_formed(&parsed.warnings, text);
            assert!(parsed.warnings.iter().all(|problem| problem.severity == Severity::Warning));
            check(&[parsed.clone(), parsed]);
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            well_formed(&problems, text);
        }
    }
    let _ = parse_settings(text, std::path::Path::new("c.toml"), std::path::Path::new("/srv"));
}

#[test]
fn the_file_that_is_spoilt_below_is_valid() {
    parse(VALID).expect("otherwise the mutations test little");
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        decodes_without_panic(&text);
    }

    #[test]
    fn no_mutation_of_a_valid_file_panics(text in spoilt()) {
        decodes_without_panic(&text);
    }

    #[test]
    fn no_order_of_lines_panics(text in shuffled()) {
        decodes_without_panic(&text);
    }

    #[test]
    fn decoding_twice_gives_the_same(text in spoilt()) {
        prop_assert_eq!(parse(&text), parse(&text));
    }

    #[test]
    fn no_cron_expression_panics(text in prop_oneof![any::<String>(), "[0-9*,/#LWHFRIé -]{0,24}", cron()]) {
        decodes_without_panic(&scheduled(&text));
    }

    #[test]
    fn every_cron_expression_of_the_plain_form_is_accepted(text in cron()) {
        prop_assert_eq!(parse(&scheduled(&text)).map(|parsed| parsed.warnings), Ok(Vec::new()), "{}", text);
    }

    #[test]
    fn labels_read_back(labels in prop::collection::btree_map("[A-Za-z0-9._/-]{1,63}", "[ !#-\\[\\]-~äöü]{0,32}", 0..8)) {
        let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key:?} = \"{value}\"")).collect();
        let text = super::unit(&format!("labels = {{ {} }}", all.join(", ")));
        prop_assert_eq!(super::web(&text).labels, labels);
    }

    #[test]
    fn sizes_read_back(bytes in prop_oneof![any::<u64>(), (0_u64..4096, 0_u32..5).prop_map(|(n, unit)| n << (10 * unit))]) {
        prop_assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
    }

    #[test]
    fn cpu_reads_back(millis in any::<u64>()) {
        prop_assert_eq!(CpuMillis(millis).to_string().parse(), Ok(CpuMillis(millis)));
    }

    #[test]
    fn durations_read_back(millis in prop_oneof![any::<u64>(), 0_u64..10_000_000]) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn no_amount_panics(text in "[0-9]{0,22}[.]?[0-9]{0,4}[a-zA-Z]{0,3}[0-9]{0,3}[a-z]{0,2}") {
        let _ = (text.parse::<Bytes>(), text.parse::<CpuMillis>(), parse_duration(&text));
    }

    #[test]
    fn text_without_dollar_signs_is_substituted_by_itself(text in "[^$]*") {
        prop_assert_eq!(substitute(&text, &Default::default()), Ok(text));
    }

    #[test]
    fn doubled_dollar_signs_escape_any_text(text in any::<String>()) {
        let escaped = text.replace('$', "$$");
        prop_assert_eq!(substitute(&escaped, &Default::default()), Ok(text));
    }
}

#[test]
fn the_schema_names_its_draft_and_resolves_its_references() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let text = schema.to_string();
    for part in text.split(r##""$ref":"#/$defs/"##).skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        assert!(schema["$defs"].get(name).is_some(), "{name} is not defined");
    }
}
