//! Gate `approval`: people agree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// People agree, party by party, by Decisions `Approve`. Anybody who may approve can also `Reject`, which voids what was approved so far.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalSpec {
    /// The parties that have to agree.
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub parties: Vec<ApprovalParty>,
    /// Whether a person counts once only, for whichever party, even if they are in the groups of several. Default: true.
    #[serde(default = "yes")]
    pub distinct: bool,
}

/// A party that has to agree.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalParty {
    /// Name of the party, for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Group of its people, as the API server authenticates them. A Decision counts for it if `spec.group` is this group.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
    /// Number of different people that have to approve. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 8))]
    pub count: i32,
}

fn yes() -> bool {
    true
}

fn one() -> i32 {
    1
}
