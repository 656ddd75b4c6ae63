//! Step `manual`: people do something that Kubernetes cannot. The engine counts their approvals; nothing is written to the cluster.

use std::collections::BTreeSet;

use crate::api::step::ManualSpec;

/// Returns why the step can never succeed.
pub(super) fn problem(spec: &ManualSpec) -> Option<String> {
    let names: BTreeSet<&str> = spec.parties.iter().map(|party| party.name.as_str()).collect();
    (names.len() < spec.parties.len()).then(|| "names a party twice".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gate::ApprovalParty;

    #[test]
    fn a_party_is_named_once() {
        let party = |name: &str| ApprovalParty { name: name.into(), group: "leads".into(), count: 1 };
        let spec = |parties| ManualSpec { instructions: "plug it in".into(), parties };
        assert_eq!(problem(&spec(vec![party("a"), party("b")])), None);
        assert_eq!(problem(&spec(vec![party("a"), party("a")])).as_deref(), Some("names a party twice"));
    }
}
