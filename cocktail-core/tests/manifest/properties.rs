//! What holds for every input: nothing panics, places lie in the text, amounts read back.

use std::time::Duration;

use cocktail_core::manifest::{Colour, Diagnostic, Severity, check, parse_settings, render_files, schema, substitute};
use cocktail_core::quantity::{Bytes, CpuMillis, format_duration, parse_duration};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::parse;

/// A valid file with most keys, to be spoilt.
const VALID: &str = r#"
service = "shop"
quota = { cpu = 8, memory = "8GiB", containers = 100 }
[maps.prod.units.web]
command = ["python3", "${PORT}", "größer"]
replicas = 3
env = { GREETING = "hi $$ ${CONTAINER}" }
env_from = ["DATABASE_URL"]
secrets.API_KEY = { file = "/run/key" }
ports.http = { service = 8080, address = "0.0.0.0" }
resources = { cpu = 0.25, memory = "64MiB" }
ready = { http = "/", every = "200ms", timeout = "1s" }
live = { exec = ["true"], every = "5s", failures = 3 }
stop = { signal = "TERM", grace = "10s" }
restart = { base = "100ms", max = "5m", reset = "10m" }
update = { surge = 1, monitor = "2s", on_failure = "rollback", no_room = "wait" }
volumes.data = { mount = "data", kind = "exclusive", size = "1GiB" }
rlimits = { nofile = 100, core = "unlimited" }
[maps.dev.units.job]
command = ["job"]
scale = { min = 1, max = 2 }
[manager]
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
