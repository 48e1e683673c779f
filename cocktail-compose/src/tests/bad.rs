//! What is no Compose file, or too much of one.

use std::fmt::Write as _;

use super::{Machine, well};

/// The place and the message of the error.
fn error(text: &str) -> (u32, u32, String) {
    match Machine::default().import(text) {
        Ok(imported) => panic!("{:.500}\n{:.500}", text, imported.manifest),
        Err(problem) => (problem.line, problem.column, problem.message.clone()),
    }
}

#[test]
fn errors_say_where() {
    for (text, line, column, part) in [
        ("", 1, 1, "the file is empty"),
        ("# nothing\n", 1, 1, "the file is empty"),
        ("services:\n  web:\n   image: a\n  - b\n", 4, 5, "this is no YAML"),
        ("services: [", 1, 11, "this is no YAML"),
        ("a: \"\\q\"", 1, 4, "this is no YAML"),
        ("- a\n", 1, 1, "expected a map, found a list"),
        ("hello", 1, 1, "expected a map, found a text"),
        ("version: '3'\n", 1, 1, "there are no `services`"),
        ("services:\n", 1, 1, "there are no `services`"),
        ("services: {}", 1, 11, "`services`: there are no services"),
        ("services: { x-a: {} }", 1, 1, "there are no `services`"),
        ("services: [a]", 1, 11, "expected a map, found a list"),
        ("services:\n  web: nginx\n", 2, 8, "`services.web`: expected a map, found a text"),
        ("services:\n  web:\n    image: [a]\n", 3, 12, "`services.web.image`: expected a text, found a list"),
        ("services:\n  web:\n    image: a\n    ports: { a: b }\n", 4, 12, "`services.web.ports`: expected a list"),
        ("services:\n  web:\n    image: a\n    ports:\n      - 99999:80\n", 5, 9, "is no port and no range"),
        ("services:\n  web:\n    image: a\n    ports: ['1-3:1-2']\n", 4, 13, "the two ranges differ"),
        ("services:\n  web:\n    image: a\n    command: \"a 'b\"\n", 4, 14, "a quote is not closed"),
        ("services:\n  web:\n    image: ${A\n", 3, 12, "`${` has no closing brace"),
        ("services:\n  web:\n    image: a\n    deploy: { replicas: many }\n", 4, 25, "expected a whole number"),
        ("services:\n  web:\n    image: a\n    restart: sometimes\n", 4, 14, "unknown word `sometimes`"),
        ("services:\n  web:\n    image: a\n    image: b\n", 4, 5, "the key `image` stands here twice"),
        ("services:\n  ? [a]\n  : b\n", 2, 5, "cannot be a key"),
        ("services:\n  web:\n    <<: 3\n", 3, 9, "`<<` needs a map"),
        ("services:\n  web: &a\n    image: *a\n", 3, 12, "inside what it names"),
        ("services:\n  web: *b\n", 2, 8, "this is no YAML"),
        ("services:\n  a: { extends: b }\n  b: { extends: a }\n", 2, 17, "extends itself"),
        ("services:\n  a: { extends: c }\n", 2, 17, "there is no service `c`"),
        ("services: { a: { image: a } }\n---\na: b\n", 2, 1, "a second document"),
        ("services:\n  é: { image: a, mem_limit: lots }\n", 2, 29, "expected a size, found `lots`"),
    ] {
        let (at_line, at_column, message) = error(text);
        assert!(message.contains(part), "{text:?}: {message}");
        assert_eq!((at_line, at_column), (line, column), "{text:?}: {message}");
    }
}

#[test]
fn a_problem_points_at_the_bytes_of_its_text() {
    let text = "services:\n  é: { image: a, mem_limit: lots }\n";
    let problem = Machine::default().import(text).unwrap_err();
    assert!(text[problem.span.start..].starts_with("lots"), "{problem:?}");
}

#[test]
fn aliases_that_double_each_other_are_stopped() {
    let mut laughs = "a0: &a0 [lol, lol]\n".to_owned();
    for n in 1..60 {
        let _ = writeln!(laughs, "a{n}: &a{n} [*a{0}, *a{0}, *a{0}]", n - 1);
    }
    assert!(error(&laughs).2.contains("larger than 8MiB"));
    let mut merged = "x0: &a0 { k: v }\n".to_owned();
    for n in 1..60 {
        let _ = writeln!(merged, "x{n}: &a{n}\n  <<: [*a{0}, *a{0}, *a{0}]\n  k{n}: v", n - 1);
    }
    assert!(error(&merged).2.contains("larger than 8MiB"));
    let long = format!(
        "x: &x {}\nservices:\n{}",
        "y".repeat(100_000),
        (0..200).fold(String::new(), |mut all, n| {
            let _ = writeln!(all, "  s{n}: {{ image: *x }}");
            all
        })
    );
    assert!(error(&long).2.contains("larger than 8MiB"));
}

#[test]
fn services_and_variables_that_grow_are_stopped() {
    let mut text = "services:\n  s0:\n    environment:\n".to_owned();
    for n in 0..5_000 {
        let _ = writeln!(text, "      V{n}: '{}'", "x".repeat(50));
    }
    for n in 1..500 {
        let _ = writeln!(text, "  s{n}: {{ extends: s0 }}");
    }
    assert!(error(&text).2.contains("larger than 8MiB"));
    let machine = Machine::default().with("BIG", &"x".repeat(100_000));
    let text = format!("services: {{ a: {{ image: a, environment: {{ A: '{}' }} }} }}", "$BIG".repeat(200_000));
    let problem = machine.import(&text).unwrap_err();
    assert!(problem.message.contains("grows without end"), "{problem:?}");
}

#[test]
fn what_is_long_or_deep_is_stopped() {
    assert!(error(&"a".repeat((1 << 20) + 1)).2.contains("longer than 1MiB"));
    assert!(error(&"[".repeat(100_000)).2.contains("nested"));
    assert!(error(&"- ".repeat(100_000)).2.contains("nested"));
    let many: String = (0..1_001).fold("services:\n".to_owned(), |all, n| format!("{all}  s{n}: {{ image: a }}\n"));
    assert!(error(&many).2.contains("more than 1000 services"));
    let shared = format!("x-long: &long {}\nservices:\n", "y".repeat(200_000));
    let large = (0..10).fold(shared, |all, n| format!("{all}  s{n}: {{ image: a, command: [*long] }}\n"));
    assert!(error(&large).2.contains("the manifest would be longer than 1MiB"));
}

#[test]
fn many_notes_are_counted() {
    let mut text = "services:\n  a:\n    image: a\n".to_owned();
    for n in 0..5_000 {
        let _ = writeln!(text, "    k{n}: 1");
    }
    let notes = well(&text).notes;
    assert_eq!(notes.len(), 2_001);
    assert!(notes[2_000].what.contains("more are left out"), "{:?}", notes[2_000]);
}

#[test]
fn a_list_that_closes_at_the_column_of_its_key_is_read() {
    // Not in the letter of YAML, but in files of large projects.
    let imported =
        well("services:\n  web:\n    image: a\n    command: [\n      one,\n      two\n    ]\n    user: me\n");
    assert!(imported.manifest.contains("command = [\"one\", \"two\"]"), "{}", imported.manifest);
}
