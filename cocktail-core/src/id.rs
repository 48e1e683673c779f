//! Identities. Each is its own type, so that a server cannot be passed where a container is meant.
//!
//! A short one lies where it is used; a clone of a long one shares its text. Ids are kept in many places at once.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::short::Short;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Short);

        impl $name {
            /// Takes an id that this Manager made or that its store holds.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Short::from(text.as_ref()))
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

text_id!(
    /// One worker: `web-k3v9qx`. Kept over restarts in place, new for a replacement.
    ContainerId
);
text_id!(
    /// One machine that containers run on.
    ServerId
);
text_id!(
    /// One store: minted when the store is made, never changed.
    StoreId
);
impl ServerId {
    /// Whether its text lies elsewhere, where others may share it.
    pub(crate) fn is_long(&self) -> bool {
        !self.0.is_inline()
    }
}

number_id!(
    /// One attempt to fulfil claims by one outside call.
    OperationId
);
number_id!(
    /// Number of the Manager's lease; one more at each acquisition.
    Epoch
);
number_id!(
    /// One version of a Unit's template.
    Revision
);
number_id!(
    /// Counts the starts of one container.
    Generation
);
number_id!(
    /// Position in the journal.
    Seq
);

/// A Unit's full name, `service/map/unit`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitId {
    /// The Service.
    pub service: Name,
    /// The ApplicationMap.
    pub map: Name,
    /// The Unit in it.
    pub unit: Name,
}

impl UnitId {
    /// Joins the three names.
    pub fn new(service: Name, map: Name, unit: Name) -> Self {
        Self { service, map, unit }
    }

    /// Whether the text of one of its names lies elsewhere, where others may share it.
    pub(crate) fn is_long(&self) -> bool {
        [&self.service, &self.map, &self.unit].into_iter().any(Name::is_long)
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.map, self.unit)
    }
}

impl fmt::Debug for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<UnitId> for String {
    fn from(id: UnitId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for UnitId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [service, map, unit] = parts[..] else {
            return Err(format!("{text:?} is not service/map/unit"));
        };
        let name = |part: &str| Name::new(part).map_err(|error| error.to_string());
        Ok(Self::new(name(service)?, name(map)?, name(unit)?))
    }
}
