//! Bytes as they stand in files: base 64 in JSON.

use data_encoding::BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The form of the files. A file of a later one is refused, since it may say what this program does not know.
pub(super) const VERSION: u32 = 1;

/// Bytes that are written as text. It has no `Debug`, because some of them are keys.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(|_| D::Error::custom("no base 64"))
    }
}

/// Many of them.
pub(super) fn bytes<T: AsRef<[u8]>>(all: &[T]) -> Vec<Bytes> {
    all.iter().map(|one| Bytes(one.as_ref().to_vec())).collect()
}
