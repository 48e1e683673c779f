//! Sizes, spans of time and numbers as Compose writes them, and as a manifest does.

use std::time::Duration;

use cocktail_core::quantity::{Bytes, CpuMillis, format_duration};

/// A span of time: `1m30s`, `1.5s`, `500ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Duration::try_from_secs_f64(nanos / 1e9).ok()
}

/// A span of time as a manifest writes it, in whole milliseconds.
pub(crate) fn shown_duration(duration: Duration) -> String {
    format_duration(duration)
}

/// A size: `512m`, `1.5gb`, `1048576`; powers of 1024.
pub(crate) fn size(text: &str) -> Option<Bytes> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let factor = 1_u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).map(Bytes);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Below this a conversion loses at most a fraction of a byte; what is above is no size.
    (0.0..9e15).contains(&bytes).then_some(Bytes(bytes as u64))
}

/// Cores in thousandths, rounded up: `0.5`, `2`.
pub(crate) fn cpu(text: &str) -> Option<CpuMillis> {
    let millis = (text.trim().parse::<f64>().ok()? * 1_000.0).ceil();
    (1.0..1e9).contains(&millis).then_some(CpuMillis(millis as u64))
}

/// `true` or `false`, in the words of YAML 1.1.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_those_of_go() {
        let millis = |text: &str| duration(text).map(|it| it.as_millis());
        for (text, expected) in
            [("10s", 10_000), ("1m30s", 90_000), ("1.5s", 1_500), ("500ms", 500), ("2h", 7_200_000), ("0", 0)]
        {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for bad in ["", "10", "s", "1x", "-1s", "1e9h", "1.2.3s", "99999999999999999999h", "1s 2s"] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_count_in_powers_of_1024() {
        for (text, expected) in [("512m", 512 << 20), ("1.5gb", 3 << 29), ("64", 64), ("1KiB", 1024), ("2 g", 2 << 30)]
        {
            assert_eq!(size(text).map(|it| it.0), Some(expected), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "99999999999999999999", "9999999999t", "nan"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(cpu("0.0001").map(|it| it.0), Some(1));
        assert_eq!((cpu("1.5").map(|it| it.0), cpu("0"), cpu("x")), (Some(1_500), None, None));
    }
}
