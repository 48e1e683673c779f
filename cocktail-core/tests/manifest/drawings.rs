//! What a person sees: place, source line, caret, help.

use cocktail_core::manifest::{Colour, Diagnostic, render, render_files};

use super::{parse, unit};

fn drawn(text: &str) -> String {
    render(&parse(text).expect_err("the file is bad"), text)
}

#[test]
fn a_problem_is_drawn_with_place_line_caret_and_help() {
    assert_eq!(
        drawn(&unit("comand = [\"x\"]")),
        "\
error: unknown key `comand`
 --> bad.toml:4:1
  |
4 | comand = [\"x\"]
  | ^^^^^^
  |
  = help: did you mean `command`?
"
    );
}

#[test]
fn errors_come_before_warnings_and_are_separated() {
    let drawing = drawn(&unit("scale = { max = 2, up = {} }\nrlimits = { nofile = -1 }"));
    let (error, warning) = drawing.split_once("\n\nwarning").expect("both are drawn");
    assert_eq!(
        error,
        "\
error: must be a whole number from 0 to 9223372036854775807
 --> bad.toml:5:22
  |
5 | rlimits = { nofile = -1 }
  |                      ^^"
    );
    assert_eq!(
        warning,
        "\
: `up` is not used without a target
 --> bad.toml:4:20
  |
4 | scale = { max = 2, up = {} }
  |                    ^^
  |
  = help: add a target, for instance cpu = 0.6; a schedule and commands act at once
"
    );
}

#[test]
fn columns_count_characters() {
    let text = unit("env = { A = \"größer\", B = 1 }");
    let problems = parse(&text).expect_err("a number is no text");
    assert_eq!((problems[0].line, problems[0].column), (4, 27));
    assert!(text[problems[0].span.clone()].starts_with('1'));
    assert!(render(&problems, &text).contains(" --> bad.toml:4:27\n"));
}

#[test]
fn a_place_over_several_lines_is_drawn_at_its_first() {
    assert_eq!(
        drawn(&unit("env = [\n  \"A=b\",\n]")),
        "\
error: expected a table, found an array
 --> bad.toml:4:7
  |
4 | env = [
  |       ^
  |
  = help: write env = { GREETING = \"hi\" }
"
    );
}

#[test]
fn a_line_that_declares_a_secret_is_not_shown() {
    let text = unit("secrets.KEY = \"hunter2\"\nsecrets.OTHER = { env = \"hunter-2\" }");
    let problems = parse(&text).expect_err("a secret has a source");
    let drawn = render(&problems, &text);
    assert!(drawn.contains("bad.toml:4:15") && drawn.contains("bad.toml:5:25"), "{drawn}");
    assert!(!drawn.contains("hunter") && !format!("{problems:?}").contains("hunter"), "{drawn}");
}

#[test]
fn without_the_text_the_place_is_still_named() {
    let problems = parse(&unit("replicas = -1")).expect_err("a count is not negative");
    let drawn = render_files(&problems, |_| None, Colour::Never);
    assert_eq!(drawn, "error: must be a whole number from 0 to 10000\n--> bad.toml:4:12\n");
}

#[test]
fn another_text_than_the_decoded_one_is_drawn_without_panic() {
    let problems = parse(&unit("env = { A = \"größer\", B = 1 }")).expect_err("a number is no text");
    for text in ["", "x", "äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü"]
    {
        render(&problems, text);
    }
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let text = unit("replicas = -1");
    let problems = parse(&text).expect_err("a count is not negative");
    assert!(!render(&problems, &text).contains('\u{1b}'));
    assert!(render_files(&problems, |_| Some(&text), Colour::Always).contains('\u{1b}'));
}

#[test]
fn a_diagnostic_survives_the_api() {
    let problems = parse(&unit("comand = 1")).expect_err("the key is unknown");
    let text = serde_json::to_string(&problems).expect("a diagnostic is plain data");
    assert!(text.contains(r#""severity":"error","file":"bad.toml","span":{"start":"#), "{text}");
    let back: Vec<Diagnostic> = serde_json::from_str(&text).expect("it was just written");
    assert_eq!(back, problems);
}
