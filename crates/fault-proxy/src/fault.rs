//! What can go wrong.

use crate::asked::Asked;

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Fault {
    /// 429 with Retry-After; nothing was done.
    TooManyRequests,
    /// 500; nothing was done.
    InternalError,
    /// 503; nothing was done.
    Unavailable,
    /// 409 to a write; nothing was done.
    Conflict,
    /// 410 to the start of a watch.
    Gone,
    /// The connection breaks before anything was done.
    Refused,
    /// The answer takes its time.
    Slow,
    /// The answer to a read breaks off in its midst.
    CutShort,
    /// A write is done, and the connection breaks instead of an answer.
    LostAnswer,
    /// A write is done, and answered by 504.
    LateAnswer,
    /// A watch breaks in the midst of an event.
    WatchBroken,
    /// A watch says 410 in its midst, and ends.
    WatchGone,
    /// An event is held back, and whatever follows it with it; of several changes of one object the last is told.
    EventHeld,
    /// One of these that was not told.
    Coalesced,
    /// An event is told twice.
    EventTwice,
    /// All events of a watch come late: one kind is seen as it was, others as they are.
    WatchLags,
    /// 401 while the token has run out.
    Unauthorized,
    /// Cut off for a while.
    Partition,
}

/// Where a fault is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Once for each request.
    Request,
    /// Once for each watch, beside what befalls its request.
    Watch,
    /// Once for each event.
    Event,
    /// Never: it follows from another, or the test switches it.
    Nowhere,
}

impl Fault {
    pub(crate) const fn at(self) -> At {
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
            | Self::LateAnswer => At::Request,
            Self::WatchLags => At::Watch,
            Self::WatchBroken | Self::WatchGone | Self::EventHeld | Self::EventTwice => At::Event,
            Self::Coalesced | Self::Unauthorized | Self::Partition => At::Nowhere,
        }
    }

    /// Can it befall this request?
    pub(crate) fn befalls(self, asked: &Asked) -> bool {
        match self {
            Self::Conflict | Self::LostAnswer | Self::LateAnswer => asked.mutates(),
            Self::Gone => asked.watch,
            Self::CutShort => !asked.mutates() && !asked.watch,
            _ => true,
        }
    }

    /// The status, and the reason and words beside it, with which it is answered, if it is.
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
