//! Amounts as people read them in a table: short, in one unit. JSON carries the exact ones.

use cocktail_core::time::WallTime;

/// Time since `since` (RFC 3339): `45s`, `3m`, `5h`, `4d`. A `-` for what is no time, `0s` for the future, which a
/// clock that was set back makes.
pub(crate) fn age(since: &str, now: WallTime) -> String {
    let Ok(since) = WallTime::parse(since) else {
        return "-".into();
    };
    let seconds = now.0.saturating_sub(since.0).max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes: `0B`, `812KiB`, `12.5MiB`, `3.2GiB`.
pub(crate) fn memory(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        None => format!("{bytes}B"),
        Some((unit, factor)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*factor);
            if tenths < 1_000 && *unit != "KiB" {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            } else {
                format!("{}{unit}", tenths / 10)
            }
        }
    }
}

/// Thousandths of a core as cores: `0.25`, `2.00`.
pub(crate) fn cores(millis: u64) -> String {
    format!("{}.{:02}", millis / 1_000, millis % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_use_one_unit() {
        let now = WallTime::parse("2026-01-10T00:00:00Z").unwrap();
        for (since, expected) in [
            ("2026-01-10T00:00:00Z", "0s"),
            ("2026-01-09T23:58:01Z", "119s"),
            ("2026-01-09T23:57:00Z", "3m"),
            ("2026-01-09T20:00:00.5Z", "3h"),
            ("2026-01-01T00:00:00Z", "9d"),
            ("2027-01-01T00:00:00Z", "0s"),
            ("", "-"),
        ] {
            assert_eq!(age(since, now), expected, "{since}");
        }
    }

    #[test]
    fn memory_and_cores_are_short() {
        for (bytes, expected) in
            [(0, "0B"), (1023, "1023B"), (831_488, "812KiB"), (13_107_200, "12.5MiB"), (u64::MAX, "16777215TiB")]
        {
            assert_eq!(memory(bytes), expected);
        }
        assert_eq!((cores(0), cores(255), cores(2_000)), ("0.00".into(), "0.25".into(), "2.00".into()));
    }
}
