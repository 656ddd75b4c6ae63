//! A window of time without any work.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// A window of time in which the operator had nothing to do, as known by who ran it: `FROM/UNTIL` in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from: Timestamp,
    until: Timestamp,
}

impl Window {
    /// Returns the window between two times.
    ///
    /// # Errors
    /// The end is not after the start.
    pub fn new(from: SystemTime, until: SystemTime) -> Result<Self, String> {
        let time = |at: SystemTime| Timestamp::try_from(at).map_err(|error| error.to_string());
        Self::of(time(from)?, time(until)?)
    }

    fn of(from: Timestamp, until: Timestamp) -> Result<Self, String> {
        let window = Self { from, until };
        if from < until { Ok(window) } else { Err(format!("{window} does not end after it begins")) }
    }

    /// Returns the length of the window.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.duration_since(self.from).unsigned_abs()
    }

    pub(crate) fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && !self.ended(at)
    }

    pub(crate) fn ended(&self, at: Timestamp) -> bool {
        at >= self.until
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, until) = text.split_once('/').ok_or_else(|| format!("'{text}' is not FROM/UNTIL"))?;
        Self::of(crate::event::time(from)?, crate::event::time(until)?)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.from, self.until)
    }
}
