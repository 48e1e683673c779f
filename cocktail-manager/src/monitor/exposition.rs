//! The text format of Prometheus, as far as a sum by name needs it.
//!
//! Start at [`sums`]. Lines that make no sense are left out, as are histograms' and summaries' parts, whose sums say
//! nothing. The grammar is written with winnow, which the manifests' TOML brings along: the crates that read this format
//! take a library for time that this workspace does not have, or licences that an embedder may not want.

use std::collections::BTreeMap;

use winnow::ascii::space0;
use winnow::combinator::{alt, delimited, opt, peek, preceded, repeat, separated, terminated};
use winnow::error::ContextError;
use winnow::prelude::*;
use winnow::token::{any, none_of, one_of, take_till, take_while};

/// Labels that split one metric into parts of a distribution.
const PARTS: [&str; 2] = ["le", "quantile"];

/// Sums of all samples of the same name, over their labels.
pub(super) fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Ok(sample) = sample.parse_peek(line).map(|(_, sample)| sample) else { continue };
        if sample.is_part || !sample.value.is_finite() {
            continue;
        }
        match sums.get_mut(sample.name) {
            Some(sum) => *sum += sample.value,
            None => {
                sums.insert(sample.name.to_owned(), sample.value);
            }
        }
    }
    sums
}

struct Sample<'a> {
    name: &'a str,
    is_part: bool,
    value: f64,
}

/// What stands between braces: a label by its name, or the metric's own name in quotes.
enum Inside<'a> {
    Label(&'a str),
    Name(&'a str),
}

type Parsed<T> = Result<T, ContextError>;

/// `name{labels} value`; a time stamp and an exemplar may follow.
fn sample<'a>(input: &mut &'a str) -> Parsed<Sample<'a>> {
    let before = preceded(space0, opt(word)).parse_next(input)?;
    let inside: Option<Vec<Inside<'a>>> = preceded(space0, opt(braces)).parse_next(input)?;
    let value = preceded(space0, take_till(1.., [' ', '\t'])).parse_to().parse_next(input)?;
    let inside = inside.unwrap_or_default();
    let named = inside.iter().find_map(|item| match item {
        Inside::Name(name) => Some(*name),
        Inside::Label(_) => None,
    });
    let name = before.or(named).ok_or_else(ContextError::new)?;
    let is_part = inside.iter().any(|item| matches!(item, Inside::Label(label) if PARTS.contains(label)));
    Ok(Sample { name, is_part, value })
}

fn word<'a>(input: &mut &'a str) -> Parsed<&'a str> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    let rest = take_while(0.., move |c: char| first(c) || c.is_ascii_digit());
    let end = peek(one_of([' ', '\t', '{']));
    terminated((one_of(first), rest).take(), end).parse_next(input)
}

fn braces<'a>(input: &mut &'a str) -> Parsed<Vec<Inside<'a>>> {
    let comma = (space0, ',', space0);
    let items = separated(0.., inside, comma);
    delimited(('{', space0), items, (space0, opt(','), space0, '}')).parse_next(input)
}

fn inside<'a>(input: &mut &'a str) -> Parsed<Inside<'a>> {
    let name = take_while(1.., |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    alt((
        terminated(name, value).map(Inside::Label),
        terminated(quoted, value).map(Inside::Label),
        quoted.map(Inside::Name),
    ))
    .parse_next(input)
}

fn value<'a>(input: &mut &'a str) -> Parsed<&'a str> {
    preceded((space0, '=', space0), quoted).parse_next(input)
}

/// Text in quotes, as it stands there: escapes are skipped over and left.
fn quoted<'a>(input: &mut &'a str) -> Parsed<&'a str> {
    let one = alt((none_of(['"', '\\']).void(), ('\\', any).void()));
    delimited('"', repeat::<_, _, (), _, _>(0.., one).take(), '"').parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, f64)> {
        sums(text).into_iter().collect()
    }

    #[test]
    fn samples_of_one_name_are_summed_over_their_labels() {
        let text = "# HELP jobs Jobs that wait.\n# TYPE jobs gauge\njobs{queue=\"a\"} 3\njobs{queue=\"b\",} 4.5 1700000000000\n\
                    \n  up 1\r\nns:rate 2e3\n";
        assert_eq!(of(text), [("jobs".into(), 7.5), ("ns:rate".into(), 2000.0), ("up".into(), 1.0)]);
    }

    #[test]
    fn labels_may_hold_anything_in_quotes() {
        let text = r#"a{x="}",y="say \"no\", {1}", z = "\\"} 1
{"b.c", x="1"} 2
a{} +5"#;
        assert_eq!(of(text), [("a".into(), 6.0), ("b.c".into(), 2.0)]);
    }

    #[test]
    fn parts_of_distributions_and_what_is_no_number_are_left_out() {
        let text = "t_bucket{le=\"0.1\"} 3\nt_bucket{le=\"+Inf\"} 9\nt{quantile=\"0.5\"} 0.2\nt_sum 4\nt_count 9\nx NaN\ny +Inf\n\
                    z 1 # {trace=\"1\"} 0.5\n";
        assert_eq!(of(text), [("t_count".into(), 9.0), ("t_sum".into(), 4.0), ("z".into(), 1.0)]);
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        for text in [
            "",
            "{",
            "a",
            "a{",
            "a{b} ",
            "a{b} 1",
            "{b} 1",
            "a{b=} 1",
            "a{b=\"} 1",
            "1a 2",
            "a one",
            "é 1",
            "a=1",
            "{} 1",
            "\"a\" 1",
            "\\",
            "\u{0}",
        ] {
            assert_eq!(of(text), [], "{text:?}");
        }
        assert_eq!(of("a{b=\"} 1\ngood 2"), [("good".into(), 2.0)]);
    }
}
