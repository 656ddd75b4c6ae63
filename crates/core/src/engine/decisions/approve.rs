//! `Approve` and `Reject`. Several people may have to approve: the gate or the step that asks counts them (`approvals.rs`).

use crate::api::{Action, Reason};

use super::{Row, Takes};

pub(super) const APPROVE: Row = Row {
    action: Action::Approve,
    answers: |reason| reason == Reason::ApprovalNeeded,
    outcome: "counts as an approval",
    takes: Takes::ByCounting,
};

pub(super) const REJECT: Row = Row {
    action: Action::Reject,
    answers: |reason| reason == Reason::ApprovalNeeded,
    outcome: "approvals from before it are void",
    takes: Takes::ByCounting,
};
