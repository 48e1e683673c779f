//! Identities. Each is its own type, so that a server cannot be passed where a container is meant.
//!
//! A clone shares the text of what it was cloned from: ids are kept in many places at once.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Equality and order by the text; texts that are shared are equal without being read.
macro_rules! shared_text_order {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return std::cmp::Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        shared_text_order!($name);

        impl $name {
            /// Takes an id that this Manager made or that its store holds.
            pub fn new(text: impl Into<String>) -> Self {
                Self(Arc::from(text.into()))
            }
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
