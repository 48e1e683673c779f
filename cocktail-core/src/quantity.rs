//! Amounts with their unit in the type: cpu in thousandths of a core, memory in bytes.

use serde::{Deserialize, Serialize};

/// Thousandths of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuMillis(pub u64);

/// Bytes of memory or disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);
