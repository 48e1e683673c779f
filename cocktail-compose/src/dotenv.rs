//! Files of variables: `.env` beside the Compose file, and those of `env_file`.

use std::collections::BTreeMap;

use crate::interpolate::{Lookup, fill};

/// Variables in the order of the file, without a value where the environment has it; and the lines that are none.
pub(crate) type Parsed = (Vec<(String, Option<String>)>, Vec<usize>);

/// Reads a text. Values without single quotes may name variables that stand above them or that `known` has.
///
/// # Errors
/// Its variables grow to more than `room`.
pub(crate) fn parse(
    text: &str,
    substituted: bool,
    room: usize,
    known: &dyn Fn(&str) -> Option<String>,
) -> Result<Parsed, String> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    let mut above: BTreeMap<String, String> = BTreeMap::new();
    let mut bad = Vec::new();
    let (mut line, mut rest, mut size) = (0, text.trim_start_matches('\u{feff}'), 0);
    while !rest.is_empty() {
        line += 1;
        let end = rest.find('\n').unwrap_or(rest.len());
        let (this, after) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let plain = this.trim();
        let plain = plain.strip_prefix("export ").map_or(plain, str::trim_start);
        if plain.is_empty() || plain.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((name, _)) = plain.split_once(['=', ':']) else {
            rest = after;
            if is_name(plain) {
                found.push((plain.to_owned(), None))
            } else {
                bad.push(line)
            }
            continue;
        };
        // The value may go on in the next lines, so it is read from the whole rest.
        let from = this.find(['=', ':']).map_or(end, |at| at + 1);
        let (value, quote, used) = value(&rest[from..]);
        let lines = rest[..from + used].matches('\n').count();
        rest = rest.get(from + used..).and_then(|rest| rest.split_once('\n')).map_or("", |(_, rest)| rest);
        let name = name.trim();
        if !is_name(name) {
            bad.push(line);
        } else {
            let filled = if substituted && quote != Some('\'') {
                let value_of = |name: &str| above.get(name).cloned().or_else(|| known(name));
                fill(&value, &Lookup { value: &value_of, unset: &|_, _| {} }, room).unwrap_or(value)
            } else {
                value
            };
            size += filled.len();
            if size > room {
                return Err("its variables grow without end".to_owned());
            }
            above.insert(name.to_owned(), filled.clone());
            found.push((name.to_owned(), Some(filled)));
        }
        line += lines;
    }
    Ok((found, bad))
}

/// The value that a text begins with, its quote, and how many bytes it takes.
fn value(text: &str) -> (String, Option<char>, usize) {
    let trimmed = text.trim_start_matches([' ', '\t']);
    let skipped = text.len() - trimmed.len();
    let quote = trimmed.chars().next().filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        let mut value = String::new();
        let mut characters = trimmed.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            if character == quote {
                return (value, Some(quote), skipped + at + 1);
            }
            if character != '\\' || quote == '\'' {
                value.push(character);
                continue;
            }
            match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                // A dollar sign that is to stay one.
                Some((_, '$')) => value.push_str("$$"),
                Some((_, other @ ('"' | '\\'))) => value.push(other),
                Some((_, other)) => value.extend(['\\', other]),
                None => value.push('\\'),
            }
        }
    }
    // No quote, or one that is never closed.
    let end = text.find('\n').unwrap_or(text.len());
    let line = &text[..end];
    let comment = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
    let value = if line.trim_start().starts_with('#') { "" } else { line[..comment].trim() };
    (value.to_owned(), None, end)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_as_compose_reads_it() {
        let text = "# one\nA=1\nexport B = two words # said\nC='$A #x'\nD=\"line\\n\\$A ${A}\nnext\"\nE\nF=${B}!\n\
            bad line\nG=\nH: yes\nI=\"open\n";
        let known = |name: &str| (name == "Z").then(|| "z".to_owned());
        let (found, bad) = parse(text, true, 1_000, &known).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let expected = [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("$A #x")),
            ("D", Some("line\n$A 1\nnext")),
            ("E", None),
            ("F", Some("two words!")),
            ("G", Some("")),
            ("H", Some("yes")),
            ("I", Some("\"open")),
        ];
        assert_eq!(found, expected);
        assert_eq!(bad, [9]);
    }

    #[test]
    fn raw_values_stay_as_they_are_and_growth_is_stopped() {
        let (found, _) = parse("A=$B\n", false, 1_000, &|_| None).unwrap();
        assert_eq!(found, [("A".to_owned(), Some("$B".to_owned()))]);
        let text =
            (0..40).fold("A0=xxxxxxxxxx\n".to_owned(), |text, n| format!("{text}A{}=${{A{n}}}${{A{n}}}\n", n + 1));
        assert!(parse(&text, true, 100_000, &|_| None).is_err());
    }
}
