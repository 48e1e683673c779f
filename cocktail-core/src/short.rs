//! Short texts without a place of their own: what ids are made of.
//!
//! Ids are keys of nearly every map. A comparison that has to follow a pointer first costs more than the comparison, and
//! among a million containers most of them are far away: so a text of up to [`INLINE`] bytes lies where it is used.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// The longest text that lies where it is used: as much as fits beside a length into three words.
pub(crate) const INLINE: usize = 22;

/// A text that does not change. A clone of a long one shares it.
#[derive(Clone)]
pub(crate) struct Short(Repr);

#[derive(Clone)]
enum Repr {
    /// The bytes after the text are zero, so that bytes are compared without a look at lengths.
    Inline(u8, [u8; INLINE]),
    Shared(Arc<str>),
}

impl Short {
    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Inline(length, bytes) => {
                str::from_utf8(&bytes[..usize::from(*length)]).expect("it was made from a text")
            }
            Repr::Shared(text) => text,
        }
    }

    /// Whether it has no text of its own elsewhere.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self.0, Repr::Inline(..))
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Repr::Shared(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Short {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        Self(match (u8::try_from(text.len()), bytes.get_mut(..text.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(text.as_bytes());
                Repr::Inline(length, bytes)
            }
            _ => Repr::Shared(Arc::from(text)),
        })
    }
}

/// Bytes as numbers in the same order; the last word overlaps the second.
#[inline]
fn words(bytes: &[u8; INLINE]) -> [u64; 3] {
    const WORD: usize = size_of::<u64>();
    [0, WORD, INLINE - WORD].map(|start| bytes[start..].first_chunk().map_or(0, |word| u64::from_be_bytes(*word)))
}

impl PartialEq for Short {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Inline(length, own), Repr::Inline(other_length, other)) => length == other_length && own == other,
            (Repr::Shared(own), Repr::Shared(other)) => own == other,
            _ => false,
        }
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    /// The order of the texts.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            // A text that ends is before one that goes on with zeros.
            (Repr::Inline(length, own), Repr::Inline(other_length, other)) => {
                words(own).cmp(&words(other)).then(length.cmp(other_length))
            }
            (Repr::Shared(own), Repr::Shared(other)) if Arc::ptr_eq(own, other) => Ordering::Equal,
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Repr::Inline(length, bytes) => {
                let [first, second, third] = words(bytes);
                state.write_u64(first);
                // Most texts end here.
                if *length > 8 {
                    state.write_u64(second);
                    state.write_u64(third);
                }
            }
            Repr::Shared(text) => state.write(text.as_bytes()),
        }
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Short {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl Visitor<'_> for Texts {
            type Value = Short;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Short, E> {
                Ok(text.into())
            }
        }

        deserializer.deserialize_str(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::{INLINE, Short};

    #[test]
    fn an_id_takes_three_words() {
        assert_eq!(size_of::<Short>(), 24);
    }

    #[test]
    fn texts_of_every_length_stay_what_they_are_and_in_their_order() {
        let long = "k".repeat(INLINE);
        let texts = [
            "",
            "\0",
            "\0\0",
            "a",
            "a\0",
            "a\0b",
            "ab",
            "b",
            &long,
            &format!("{long}\0"),
            &format!("{long}k"),
            "z",
            "ä",
        ];
        for (index, text) in texts.iter().enumerate() {
            let short = Short::from(*text);
            assert_eq!(short.as_str(), *text);
            let json = serde_json::to_string(&short).expect("a text");
            assert_eq!(json, serde_json::to_string(text).expect("a text"));
            assert_eq!(serde_json::from_str::<Short>(&json).expect("a text"), short);
            for (other_index, other) in texts.iter().enumerate() {
                assert_eq!(short.cmp(&Short::from(*other)), index.cmp(&other_index), "{text:?} and {other:?}");
            }
        }
    }
}
