//! What the clocks of those who led told, by their Leases: a time that a leader writes elsewhere is told by the same clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::event::{Event, text_at};

/// Those who led, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Vec<Reign>);

#[derive(Debug)]
struct Reign {
    holder: String,
    since: Timestamp,
    ahead: SignedDuration,
}

impl Clocks {
    /// The operator wrote its Lease, which is now so.
    pub(crate) fn renewed(&mut self, event: &Event, lease: &Value) {
        let holder = text_at(lease, "/spec/holderIdentity").filter(|holder| !holder.is_empty());
        let told = text_at(lease, "/spec/renewTime").and_then(|time| time.parse::<Timestamp>().ok());
        let (Some(holder), Some(told)) = (holder, told) else { return };
        let ahead = told.duration_since(event.received);
        match self.0.last_mut().filter(|reign| reign.holder == holder) {
            // One process, one clock: that a request took its time makes the clock seem behind, and nothing makes it seem ahead.
            Some(reign) => reign.ahead = reign.ahead.max(ahead),
            None => self.0.push(Reign { holder: holder.to_owned(), since: event.received, ahead }),
        }
    }

    /// By how much the clock of whoever led then was ahead of the API server's; negative: behind. Zero where no Lease tells.
    pub(crate) fn ahead(&self, at: Timestamp) -> SignedDuration {
        let reign = self.0.iter().rev().find(|reign| reign.since <= at);
        reign.map_or(SignedDuration::ZERO, |reign| reign.ahead)
    }
}
