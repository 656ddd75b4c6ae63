//! Applies faults to the events of one watch. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::fault::Fault;

/// Output of the shaper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// An event to forward.
    Line(Bytes),
    /// The watch ends as a server ends it.
    End,
    /// The connection breaks.
    Break,
}

/// A queued event.
#[derive(Debug)]
struct Waiting {
    due: Duration,
    out: Out,
    /// The changed object, if a later change of it may replace this event.
    replaceable: Option<String>,
}

/// Queue of the events of one watch, in order.
#[derive(Debug, Default)]
pub(crate) struct Shaper {
    lag: Duration,
    rest: BytesMut,
    waiting: VecDeque<Waiting>,
    /// Until when events are held back.
    held: Duration,
    ended: bool,
}

/// Metadata of an event.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

impl Shaper {
    /// Returns a shaper for a watch with this delay.
    pub(crate) fn new(lag: Duration) -> Self {
        Self { lag, ..Self::default() }
    }

    /// Queues an event from the server. `choose` returns the fault of an event and its delay. Returns the fault.
    pub(crate) fn take(
        &mut self,
        now: Duration,
        bytes: &[u8],
        mut choose: impl FnMut(&str) -> Option<(Fault, Duration)>,
    ) -> Vec<Fault> {
        self.rest.extend_from_slice(bytes);
        let mut struck = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1).freeze();
            if !self.ended {
                self.event(now, &line, &mut choose, &mut struck);
            }
        }
        struck
    }

    /// Records that the server has ended or broken the watch.
    pub(crate) fn end(&mut self, now: Duration, broken: bool) {
        if !self.ended {
            self.push(now, if broken { Out::Break } else { Out::End }, None);
            self.ended = true;
        }
    }

    /// Returns the next output that is due.
    pub(crate) fn hand_on(&mut self, now: Duration) -> Option<Out> {
        self.waiting.pop_front_if(|first| first.due <= now).map(|first| first.out)
    }

    /// Returns when the next output is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.waiting.front().map(|first| first.due)
    }

    fn event(
        &mut self,
        now: Duration,
        line: &Bytes,
        choose: &mut impl FnMut(&str) -> Option<(Fault, Duration)>,
        struck: &mut Vec<Fault>,
    ) {
        // Data that is not an event passes unchanged, for the client to reject.
        let Ok(event) = serde_json::from_slice::<Event>(line) else {
            return self.push(now, Out::Line(line.clone()), None);
        };
        let object = format!("{}/{}", event.object.metadata.namespace, event.object.metadata.name);
        let chosen = choose(&object);
        struck.extend(chosen.map(|(fault, _)| fault));
        match chosen {
            Some((Fault::WatchBroken, _)) => {
                let half = line.slice(..line.len() / 2);
                self.push(now, Out::Line(half), None);
                return self.end(now, true);
            }
            Some((Fault::WatchGone, _)) => {
                self.push(now, Out::Line(Bytes::from_static(GONE)), None);
                return self.end(now, false);
            }
            Some((Fault::EventHeld, by)) => self.held = self.held.max(now + by),
            Some((Fault::EventTwice, _)) => self.push(now, Out::Line(line.clone()), None),
            _ => {}
        }
        let changed = event.kind == "MODIFIED";
        if changed {
            // Only held-back events are merged: a lagging watch delivers all events.
            let before = self.waiting.len();
            self.waiting.retain(|waiting| waiting.replaceable.as_deref() != Some(object.as_str()));
            struck.extend(std::iter::repeat_n(Fault::Coalesced, before - self.waiting.len()));
        }
        let replaceable = (changed && self.held > now).then_some(object);
        self.push(now, Out::Line(line.clone()), replaceable);
    }

    /// Queues an event. Order is kept.
    fn push(&mut self, now: Duration, out: Out, replaceable: Option<String>) {
        let last = self.waiting.back().map_or(Duration::ZERO, |last| last.due);
        let due = (now + self.lag).max(self.held).max(last);
        self.waiting.push_back(Waiting { due, out, replaceable });
    }
}

const GONE: &[u8] = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
)
.as_bytes();

#[cfg(test)]
mod tests;
