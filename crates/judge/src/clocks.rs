//! Clock skew of the leaders, from their Leases. A leader writes times elsewhere by the same clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::event::{Event, text_at};

/// Terms of the leaders, in order.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Vec<LeaderTerm>);

#[derive(Debug)]
struct LeaderTerm {
    holder: String,
    since: Timestamp,
    ahead: SignedDuration,
}

impl Clocks {
    /// Records a write of the operator's Lease.
    pub(crate) fn renewed(&mut self, event: &Event, lease: &Value) {
        let holder = text_at(lease, "/spec/holderIdentity").filter(|holder| !holder.is_empty());
        let renewed_at = text_at(lease, "/spec/renewTime").and_then(|time| time.parse::<Timestamp>().ok());
        let (Some(holder), Some(renewed_at)) = (holder, renewed_at) else { return };
        let ahead = renewed_at.duration_since(event.received);
        match self.0.last_mut().filter(|reign| reign.holder == holder) {
            // One process has one clock. A slow request makes that clock seem behind, and nothing makes it seem ahead.
            Some(reign) => reign.ahead = reign.ahead.max(ahead),
            None => self.0.push(LeaderTerm { holder: holder.to_owned(), since: event.received, ahead }),
        }
    }

    /// Returns by how much the clock of the leader at that time was ahead of the API server's. Negative: behind. Zero if no Lease shows
    /// it.
    pub(crate) fn ahead(&self, at: Timestamp) -> SignedDuration {
        let reign = self.0.iter().rev().find(|reign| reign.since <= at);
        reign.map_or(SignedDuration::ZERO, |reign| reign.ahead)
    }
}
