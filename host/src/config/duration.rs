//! Durations as EMQ X wrote them (spec A1): `1m30s`, `.5h`, `2w`; a bare whole number means seconds.

use std::time::Duration;

/// A sum of amounts with units, fortnight to millisecond; `None` where the text is something else.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let text = text.to_ascii_lowercase();
    let mut rest = text.as_str();
    let mut millis = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        millis += amount * factor;
        rest = &rest[unit.len()..];
    }
    let fits = !text.is_empty() && millis <= MILLIS_MAX;
    fits.then(|| Duration::from_millis(millis.round() as u64))
}

/// `ms` before `m`: the first that fits is taken.
const UNITS: [(&str, f64); 7] = [
    ("ms", 1.0),
    ("s", 1e3),
    ("m", 60e3),
    ("h", 3_600e3),
    ("d", 86_400e3),
    ("w", 604_800e3),
    ("f", 1_209_600e3),
];

/// As much as a u32 of seconds: time arithmetic stays far from its own limits.
const MILLIS_MAX: f64 = u32::MAX as f64 * 1e3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_amounts_with_units() {
        for (text, millis) in [
            ("30", Some(30_000)),
            ("0", Some(0)),
            ("1m30s", Some(90_000)),
            (".5h", Some(1_800_000)),
            ("1.5s", Some(1_500)),
            ("2h", Some(7_200_000)),
            ("1D", Some(86_400_000)),
            ("1w", Some(604_800_000)),
            ("1f", Some(1_209_600_000)),
            ("250ms", Some(250)),
            ("1s500ms", Some(1_500)),
            ("", None),
            ("s", None),
            ("1", Some(1_000)),
            ("1.5", None),
            ("-1s", None),
            ("1y", None),
            ("1m 30s", None),
            ("1..5s", None),
            ("infinity", None),
            ("99999999f", None),
        ] {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }
}
