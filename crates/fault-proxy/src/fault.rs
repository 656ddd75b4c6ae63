//! Kinds of faults.

use crate::request::RequestInfo;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Fault {
    /// 429 with Retry-After; the request is not carried out.
    TooManyRequests,
    /// 500; the request is not carried out.
    InternalError,
    /// 503; the request is not carried out.
    Unavailable,
    /// 409 to a write; the request is not carried out.
    Conflict,
    /// 410 at the start of a watch.
    Gone,
    /// The connection breaks; the request is not carried out.
    Refused,
    /// The answer is delayed.
    Slow,
    /// The answer to a read is truncated.
    CutShort,
    /// A write is carried out, and the connection breaks instead of an answer.
    LostAnswer,
    /// A write is carried out, and answered by 504.
    LateAnswer,
    /// A watch breaks in the middle of an event.
    WatchBroken,
    /// A watch returns 410 in the middle, and ends.
    WatchGone,
    /// An event and those after it are delayed. Of several changes of one object only the last is delivered.
    EventHeld,
    /// An event that such a delay dropped.
    Coalesced,
    /// An event is delivered twice.
    EventTwice,
    /// All events of a watch are late, so that one kind lags behind others.
    WatchLags,
    /// 401, while the token has expired.
    Unauthorized,
    /// Network partition.
    Partition,
}

/// Point at which a fault is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultScope {
    /// Once per request.
    Request,
    /// Once per watch, in addition to the fault of its request.
    Watch,
    /// Once per event.
    Event,
    /// Never: it follows from another fault, or the test switches it.
    Nowhere,
}

impl Fault {
    pub(crate) const fn at(self) -> FaultScope {
        match self {
            Self::TooManyRequests
            | Self::InternalError
            | Self::Unavailable
            | Self::Conflict
            | Self::Gone
            | Self::Refused
            | Self::Slow
            | Self::CutShort
            | Self::LostAnswer
            | Self::LateAnswer => FaultScope::Request,
            Self::WatchLags => FaultScope::Watch,
            Self::WatchBroken | Self::WatchGone | Self::EventHeld | Self::EventTwice => FaultScope::Event,
            Self::Coalesced | Self::Unauthorized | Self::Partition => FaultScope::Nowhere,
        }
    }

    /// Returns whether the fault applies to this request.
    pub(crate) fn applies_to(self, request: &RequestInfo) -> bool {
        match self {
            Self::Conflict | Self::LostAnswer | Self::LateAnswer => request.mutates(),
            Self::Gone => request.watch,
            Self::CutShort => !request.mutates() && !request.watch,
            _ => true,
        }
    }

    /// Returns status, reason and message of the answer, if the fault answers the request.
    pub(crate) const fn answer(self) -> Option<(u16, &'static str, &'static str)> {
        Some(match self {
            Self::TooManyRequests => (429, "TooManyRequests", "too many requests, please try again later"),
            Self::InternalError => (500, "InternalError", "the server met with an internal error"),
            Self::Unavailable => (503, "ServiceUnavailable", "the server cannot handle the request just now"),
            Self::Conflict => {
                (409, "Conflict", "the object has been modified; apply your changes to the latest")
            }
            Self::Gone | Self::WatchGone => (410, "Expired", "too old resource version"),
            Self::LateAnswer => (504, "Timeout", "the request did not complete within the time allotted"),
            Self::Unauthorized => (401, "Unauthorized", "Unauthorized"),
            _ => return None,
        })
    }
}
