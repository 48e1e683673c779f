//! `${…}` in commands and environment values.
//!
//! `${PORT}` is the first port, `${PORT_<NAME>}` the port of that name, `${CONTAINER}`, `${SERVER}` and `${UNIT}` say
//! where the worker runs. `$$` stands for one dollar sign; a dollar sign before anything else stands for itself, so
//! that `$HOME` in the argument of a shell needs no care.

use std::collections::BTreeMap;

/// Why a template cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    /// `${` without `}`.
    #[error("`${{` has no closing brace")]
    Open,
    /// The variable has no value here.
    #[error("${{{0}}} is not known")]
    Unknown(String),
}

/// Fills in the variables of `template`.
///
/// Values are inserted as they are; what they contain is not looked at again.
///
/// ```
/// # use std::collections::BTreeMap;
/// use cocktail_core::manifest::substitute;
/// let vars = BTreeMap::from([("PORT".to_owned(), "20001".to_owned())]);
/// assert_eq!(substitute("--port=${PORT} costs $$5", &vars).as_deref(), Ok("--port=20001 costs $5"));
/// ```
///
/// # Errors
/// A variable has no value, or a brace is missing. A manifest that was checked has neither.
pub fn substitute(template: &str, vars: &BTreeMap<String, String>) -> Result<String, SubstituteError> {
    let mut filled = String::with_capacity(template.len());
    for piece in Pieces(template) {
        match piece? {
            Piece::Text(text) => filled.push_str(text),
            Piece::Variable(name) => match vars.get(name) {
                Some(value) => filled.push_str(value),
                None => return Err(SubstituteError::Unknown(name.to_owned())),
            },
        }
    }
    Ok(filled)
}

/// The variables that a template names, in order.
pub(super) fn references(template: &str) -> impl Iterator<Item = Result<&str, SubstituteError>> {
    Pieces(template).filter_map(|piece| match piece {
        Ok(Piece::Variable(name)) => Some(Ok(name)),
        Ok(Piece::Text(_)) => None,
        Err(why) => Some(Err(why)),
    })
}

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// What is left of a template.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, SubstituteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = std::mem::take(&mut self.0);
        if text.is_empty() {
            return None;
        }
        if let Some(rest) = text.strip_prefix("${") {
            let Some((name, rest)) = rest.split_once('}') else {
                return Some(Err(SubstituteError::Open));
            };
            self.0 = rest;
            return Some(Ok(Piece::Variable(name)));
        }
        // The text up to the next dollar sign; `$$` gives one, and a single one stands for itself.
        let end = match text.find('$') {
            Some(0) => {
                let skipped = if text.starts_with("$$") { 2 } else { 1 };
                self.0 = &text[skipped..];
                return Some(Ok(Piece::Text(&text[..1])));
            }
            Some(end) => end,
            None => text.len(),
        };
        self.0 = &text[end..];
        Some(Ok(Piece::Text(&text[..end])))
    }
}
