//! Durations as people write them: `1s`, `500ms`, `1m30s`, `250us`.
//!
//! This is [GEP-2257](https://gateway-api.sigs.k8s.io/geps/gep-2257/) (a subset of Go's format: up to four parts of a
//! whole number and a unit) with `us` added, since round trips inside a cluster are microseconds.

use std::time::Duration;

/// What the schema demands of a duration. CEL's `duration()` reads all that matches.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms|us)){1,4}$";

/// A text that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a duration: write a whole number and a unit, like 500ms, 1s or 1m30s")]
pub struct InvalidDuration(pub String);

/// Reads a duration.
///
/// # Errors
/// [`InvalidDuration`] if the text does not match [`PATTERN`].
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        if number.is_empty() || number.len() > 5 {
            return Err(invalid());
        }
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            "us" => Duration::from_micros(number),
            _ => return Err(invalid()),
        };
        rest = after;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(invalid())
}

/// Writes a round-trip time for people, with three significant digits: `212us`, `1.43ms`, `2.01s`.
#[must_use]
pub fn display_micros(micros: u64) -> String {
    let (value, unit) = match micros {
        0..1_000 => return format!("{micros}us"),
        1_000..1_000_000 => (micros, "ms"),
        _ => (micros / 1_000, "s"),
    };
    // `value` counts thousandths of the unit.
    let digits = match value {
        0..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    let step = 10_u64.pow(3 - digits);
    let rounded = (value + step / 2) / step * step;
    let (whole, part) = (rounded / 1_000, rounded % 1_000 / step);
    if part == 0 {
        format!("{whole}{unit}")
    } else {
        let part = format!("{part:0width$}", width = digits as usize);
        format!("{whole}.{}{unit}", part.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        for (text, millis) in [
            ("1s", 1_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1s500ms", 1_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("250us"), Ok(Duration::from_micros(250)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1d",
            "123456s",
            "1s1s1s1s1s",
            "1sx",
            "½s",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn round_trips_are_shown_with_three_digits() {
        for (micros, shown) in [
            (0, "0us"),
            (212, "212us"),
            (999, "999us"),
            (1_000, "1ms"),
            (1_430, "1.43ms"),
            (1_400, "1.4ms"),
            (9_999, "10ms"),
            (45_210, "45.2ms"),
            (157_400, "157ms"),
            (999_999, "1000ms"),
            (2_010_000, "2.01s"),
            (60_000_000, "60s"),
        ] {
            assert_eq!(display_micros(micros), shown);
        }
    }
}
