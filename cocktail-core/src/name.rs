//! Names that become paths, labels and addresses: checked once, here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::short::Short;

/// A name that matches `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, so that it can stand in a path, a DNS label, a Docker
/// name or a tag without quoting. Anything else is refused, never rewritten.
///
/// ```
/// use cocktail_core::name::Name;
/// assert!(Name::new("web-1").is_ok());
/// assert!(Name::new("../etc").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Short);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl Name {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// Says which character, position or length is wrong.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.is_empty() {
            return Err(InvalidName("a name must not be empty".into()));
        }
        if text.len() > 63 {
            return Err(InvalidName(format!("a name has at most 63 characters, this one has {}", text.len())));
        }
        if let Some(bad) = text.chars().find(|&c| !allowed(c) && c != '-') {
            return Err(InvalidName(format!(
                "{bad:?} cannot stand in a name: use lower-case letters, digits and hyphens"
            )));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName("a name starts and ends with a letter or a digit".into()));
        }
        Ok(Self(Short::from(text.as_str())))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether its text lies elsewhere, where others may share it.
    pub(crate) fn is_long(&self) -> bool {
        !self.0.is_inline()
    }

    /// The name as it stands in environment variables: upper case, hyphens as underscores.
    pub fn to_env(&self) -> String {
        self.as_str().to_ascii_uppercase().replace('-', "_")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}
