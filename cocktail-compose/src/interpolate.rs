//! Variables in the values of a Compose file: `$NAME`, `${NAME}`, `${NAME:-default}` and its kin, and `$$`.

/// Deepest nesting of a default in a default.
const MAX_DEPTH: usize = 16;

/// Where values come from, and who is told that there is none.
pub(crate) struct Lookup<'a> {
    pub(crate) value: &'a dyn Fn(&str) -> Option<String>,
    /// Called with the name, and with the message of `${NAME:?message}`.
    pub(crate) unset: &'a dyn Fn(&str, Option<&str>),
}

/// Fills in the variables of a text. A dollar sign before what is no name stands for itself.
///
/// # Errors
/// A brace is not closed, or the result is longer than `room`.
pub(crate) fn fill(text: &str, lookup: &Lookup<'_>, room: usize) -> Result<String, String> {
    filled(text, lookup, room, MAX_DEPTH)
}

fn filled(text: &str, lookup: &Lookup<'_>, room: usize, depth: usize) -> Result<String, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("defaults of variables are nested too deeply".to_owned());
    };
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or("`${` has no closing brace")?;
            result.push_str(&braced(&after[..end], lookup, room, depth)?);
            rest = &after[end + 1..];
        } else {
            let name = &rest[..name_len(rest)];
            if name.is_empty() {
                result.push('$');
            } else {
                result.push_str(&value_of(name, lookup));
            }
            rest = &rest[name.len()..];
        }
        if result.len() > room {
            return Err("the value grows without end by its variables".to_owned());
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// Where the brace that is open is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn name_len(text: &str) -> usize {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return 0;
    }
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

fn braced(inside: &str, lookup: &Lookup<'_>, room: usize, depth: usize) -> Result<String, String> {
    let (name, rest) = inside.split_at(name_len(inside));
    if name.is_empty() {
        return Err("`${` is not followed by the name of a variable".to_owned());
    }
    let value = (lookup.value)(name);
    let (empty_counts, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let has = value.as_ref().is_some_and(|value| !empty_counts || !value.is_empty());
    let mut characters = rest.chars();
    match characters.next() {
        None if !empty_counts => Ok(value_of(name, lookup)),
        Some('-') if has => Ok(value.unwrap_or_default()),
        Some('-') => filled(characters.as_str(), lookup, room, depth),
        Some('+') if has => filled(characters.as_str(), lookup, room, depth),
        Some('+') => Ok(String::new()),
        Some('?') if has => Ok(value.unwrap_or_default()),
        Some('?') => {
            (lookup.unset)(name, Some(characters.as_str()));
            Ok(String::new())
        }
        _ => Err("`${…}` is NAME, NAME:-default, NAME:?message or NAME:+other".to_owned()),
    }
}

fn value_of(name: &str, lookup: &Lookup<'_>) -> String {
    (lookup.value)(name).unwrap_or_else(|| {
        (lookup.unset)(name, None);
        String::new()
    })
}

/// A text of a Compose file as it stands in a manifest, where `${…}` and `$$` have a meaning of their own.
pub(crate) fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        result.push(character);
        if character == '$' && matches!(characters.peek(), Some('$' | '{')) {
            result.push('$');
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    fn filled_with(text: &str) -> (Result<String, String>, Vec<String>) {
        let known = |name: &str| match name {
            "TAG" => Some("1.2".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let told = RefCell::new(Vec::new());
        let unset = |name: &str, message: Option<&str>| {
            told.borrow_mut().push(format!("{name}{}", message.unwrap_or_default()));
        };
        let result = fill(text, &Lookup { value: &known, unset: &unset }, 1_000);
        (result, told.into_inner())
    }

    #[test]
    fn every_form_of_a_variable_is_filled_in() {
        for (text, expected, told) in [
            ("web:$TAG", "web:1.2", ""),
            ("${TAG}-x", "1.2-x", ""),
            ("${NONE:-3}", "3", ""),
            ("${NONE-3}", "3", ""),
            ("${EMPTY:-3}", "3", ""),
            ("${EMPTY-3}", "", ""),
            ("${NONE:-a${TAG}b${EMPTY:-}}c", "a1.2bc", ""),
            ("${TAG:+yes}${NONE+no}${EMPTY:+no}", "yes", ""),
            ("${TAG:?needed}", "1.2", ""),
            ("a${NONE:?needed}b", "ab", "NONEneeded"),
            ("a${NONE}b$NONE2", "ab", "NONE,NONE2"),
            ("$$TAG $${TAG} costs 5$ $( $1", "$TAG ${TAG} costs 5$ $( $1", ""),
        ] {
            let (result, names) = filled_with(text);
            assert_eq!((result.as_deref(), names.join(",").as_str()), (Ok(expected), told), "{text}");
        }
        for bad in ["${TAG", "${}", "${TAG:}", "${TAG:=x}", "${a b}", &"${A:-".repeat(40)] {
            assert!(filled_with(bad).0.is_err(), "{bad}");
        }
    }

    #[test]
    fn values_that_double_each_other_are_stopped() {
        let known = |_: &str| Some("x".repeat(100));
        let result = fill(&"$A".repeat(1_000), &Lookup { value: &known, unset: &|_, _| {} }, 1_000);
        assert!(result.is_err());
    }

    #[test]
    fn what_is_escaped_comes_back_from_the_manifest() {
        for text in ["$", "$$", "${A}", "$${A}", "a$b$$c${", "$HOME", "$$$", "$$${"] {
            let back = cocktail_core::manifest::substitute(&escaped(text), &BTreeMap::new());
            assert_eq!(back.as_deref(), Ok(text));
        }
    }
}
