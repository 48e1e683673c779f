//! Amounts with their unit in the type: cpu in thousandths of a core, memory in bytes, and durations as people write
//! them.
//!
//! Start at [`CpuMillis`], [`Bytes`] and [`parse_duration`]. Reading is strict (a number without a unit is refused,
//! nothing is rounded), writing gives the shortest text that reads back as the same amount.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Thousandths of a core.
///
/// Written in cores: `0.25` is 250 of them, `2` is 2000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuMillis(pub u64);

/// Bytes of memory or disk.
///
/// Written with a unit: `100B`, `512KiB`, `64MiB`, `1GiB`, `2TiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Why a text is no amount. Its text says what is wrong and what a right one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Nothing was written.
    #[error("an amount must not be empty")]
    Empty,
    /// A size does not start with a whole number.
    #[error("a size is a whole number and a unit, like 64MiB or 1GiB")]
    Size,
    /// A size has no unit, or one that is not known.
    #[error("a size needs one of the units B, KiB, MiB, GiB, TiB")]
    SizeUnit,
    /// A duration is not a sequence of whole numbers with units.
    #[error("a duration is a whole number and a unit, like 250ms, 10s, 5m or 1h30m")]
    Duration,
    /// A duration has no unit, or one that is not known.
    #[error("a duration needs one of the units ms, s, m, h")]
    DurationUnit,
    /// A unit comes twice, or after a smaller one.
    #[error("the units of a duration go from large to small, each at most once, like 1h30m")]
    DurationOrder,
    /// An amount of cpu is no decimal number.
    #[error("an amount of cpu is a number of cores, like 0.25 or 2")]
    Cpu,
    /// An amount of cpu has more than three decimals.
    #[error("an amount of cpu has at most three decimals")]
    CpuPrecision,
    /// The amount does not fit.
    #[error("the amount is too large")]
    TooLarge,
}

/// Units of sizes, from large to small.
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of durations in milliseconds, from large to small.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Bytes {
    type Err = InvalidQuantity;

    /// Reads `64MiB`, `1GiB`, `512KiB`, `100B`.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let (number, unit) = split_number(text, InvalidQuantity::Size)?;
        if unit.starts_with(['.', ',']) {
            return Err(InvalidQuantity::Size);
        }
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or(InvalidQuantity::SizeUnit)?;
        number.checked_mul(*factor).map(Self).ok_or(InvalidQuantity::TooLarge)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((unit, factor)) => f.pad(&format!("{}{unit}", self.0 / factor)),
            None => f.pad("0B"),
        }
    }
}

impl FromStr for CpuMillis {
    type Err = InvalidQuantity;

    /// Reads a number of cores with at most three decimals: `0.25`, `2`, `1.500`.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        if text.is_empty() {
            return Err(InvalidQuantity::Empty);
        }
        let (whole, decimals) = match text.split_once('.') {
            Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals.trim_end_matches('0')),
            Some(_) => return Err(InvalidQuantity::Cpu),
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) {
            return Err(InvalidQuantity::Cpu);
        }
        if decimals.len() > 3 {
            return Err(InvalidQuantity::CpuPrecision);
        }
        let cores: u64 = whole.parse().map_err(|_| InvalidQuantity::TooLarge)?;
        let millis: u64 = format!("{decimals:0<3}").parse().map_err(|_| InvalidQuantity::Cpu)?;
        cores.checked_mul(1_000).and_then(|cores| cores.checked_add(millis)).map(Self).ok_or(InvalidQuantity::TooLarge)
    }
}

impl fmt::Display for CpuMillis {
    /// Cores, with as few decimals as needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cores, millis) = (self.0 / 1_000, self.0 % 1_000);
        if millis == 0 {
            return f.pad(&cores.to_string());
        }
        f.pad(format!("{cores}.{millis:03}").trim_end_matches('0'))
    }
}

/// Reads a duration: `250ms`, `10s`, `5m`, `1h`, or a sum like `1m30s`.
///
/// # Errors
/// Says whether the number, the unit, the order or the amount is wrong. `0` needs a unit, too.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidQuantity> {
    if text.is_empty() {
        return Err(InvalidQuantity::Empty);
    }
    let mut rest = text;
    let mut allowed = DURATIONS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let end = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(end);
        if number.is_empty() || (unit.is_empty() && !tail.is_empty()) {
            return Err(InvalidQuantity::Duration);
        }
        let Some((_, factor)) = DURATIONS.iter().find(|(name, _)| *name == unit) else {
            return Err(InvalidQuantity::DurationUnit);
        };
        let place = allowed.iter().position(|(name, _)| *name == unit).ok_or(InvalidQuantity::DurationOrder)?;
        allowed = &allowed[place + 1..];
        let number: u64 = number.parse().map_err(|_| InvalidQuantity::TooLarge)?;
        let millis = number.checked_mul(*factor).ok_or(InvalidQuantity::TooLarge)?;
        total = total.checked_add(millis).ok_or(InvalidQuantity::TooLarge)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that [`parse_duration`] reads it back: `1m30s`, `250ms`, `0ms`.
///
/// What is shorter than a millisecond is dropped, because nothing that is read has it.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0ms".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATIONS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    text
}

/// Splits `64MiB` into 64 and `MiB`.
fn split_number(text: &str, wrong: InvalidQuantity) -> Result<(u64, &str), InvalidQuantity> {
    if text.is_empty() {
        return Err(InvalidQuantity::Empty);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(wrong);
    }
    Ok((number.parse().map_err(|_| InvalidQuantity::TooLarge)?, unit))
}
