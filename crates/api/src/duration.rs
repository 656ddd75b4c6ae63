//! Durations as they are written in a plan: `90s`, `1h30m`, `21d`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written as a sum of whole numbers with a unit each: `ms`, `s`, `m`, `h`, `d` (24 h) or `w` (7 d).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub StdDuration);

/// A text is no [`Duration`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a duration: write whole numbers with a unit, such as 90s, 1h30m or 21d")]
pub struct ParseDurationError(String);

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Duration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(StdDuration::from_secs(seconds))
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseDurationError(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?.1;
            rest = &rest[letters..];
            total = number.checked_mul(unit).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(StdDuration::from_millis(total))) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, ms) in UNITS.into_iter().skip(1) {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": "^(0|([0-9]{1,9}(ms|s|m|h|d|w))+)$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written_and_written_as_read() {
        for (text, ms) in
            [("0", 0), ("250ms", 250), ("90s", 90_000), ("1h30m", 5_400_000), ("21d", 1_814_400_000)]
        {
            let read: Duration = text.parse().unwrap();
            assert_eq!(read.0.as_millis(), ms, "{text}");
            assert_eq!(read.to_string().parse::<Duration>().unwrap(), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in ["", "s", "5", "5 m", "-5s", "1.5h", "5y", "99999999999999999999s"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(error.to_string().contains(&format!("'{text}'")));
        }
    }

    #[test]
    fn any_text_is_a_duration_that_is_written_as_it_is_read_or_none() {
        bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(u8, String)>().for_each(
            |(unit, text)| {
                let texts =
                    [text.clone(), format!("{}{}", text.len(), UNITS[usize::from(*unit) % UNITS.len()].0)];
                for read in texts.iter().filter_map(|text| text.parse::<Duration>().ok()) {
                    assert_eq!(read.to_string().parse(), Ok(read));
                }
            },
        );
    }
}
