//! The sealing of a namespace, as recoveries use it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::Phase;
use crate::api::quarantine::Contents;

/// Sealing of a namespace: whose records count, and what the namespace contained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// UID of the Quarantine. Records of other sealings are ignored.
    pub uid: String,
    /// When the Quarantine was created, by the API server's clock. `None`: not known.
    pub created_at: Option<Timestamp>,
    /// What the namespace contained when it was isolated. `None`: not known.
    pub contents: Option<Contents>,
}

/// Returns why it proves nothing that a namespace contains nothing now. `None`: nothing was there that could be missing. Before restore,
/// pods that no workload recreates are missing in any case: sealing deletes them, and whoever created them creates them in the clean
/// room.
#[must_use]
pub fn missing(seals: &BTreeMap<String, Seal>, namespace: &str, phase: Phase) -> Option<String> {
    let Some(contents) = seals.get(namespace).and_then(|seal| seal.contents) else {
        return Some(format!("no workload in namespace {namespace}"));
    };
    let Contents { workloads, unmanaged_pods } = contents;
    if workloads > 0 {
        return Some(format!(
            "no workload in namespace {namespace}, which had {workloads} of them when it was isolated"
        ));
    }
    (unmanaged_pods > 0 && phase != Phase::BeforeRestore).then(|| {
        format!(
            "no pod in namespace {namespace}, which had {unmanaged_pods} of them when it was isolated: no workload brings them back, so \
             their own operator has to (it takes the verb operate on quarantines/{namespace})"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_explained_only_by_what_was_never_there() {
        let of = |contents: Option<(i32, i32)>| -> BTreeMap<String, Seal> {
            let contents = contents.map(|(workloads, unmanaged_pods)| Contents { workloads, unmanaged_pods });
            [("a".to_owned(), Seal { uid: "seal".into(), contents, ..Seal::default() })].into()
        };
        let missing = |seals: &BTreeMap<String, Seal>, phase| missing(seals, "a", phase).is_some();
        for (contents, before_restore, later) in [
            (None, true, true),
            (Some((0, 0)), false, false),
            (Some((1, 0)), true, true),
            (Some((0, 1)), false, true),
            (Some((1, 1)), true, true),
        ] {
            let seals = of(contents);
            assert_eq!(missing(&seals, Phase::BeforeRestore), before_restore, "{contents:?}");
            for phase in [Phase::BeforeRelease, Phase::Continuous] {
                assert_eq!(missing(&seals, phase), later, "{contents:?} {phase:?}");
            }
        }
        assert!(missing(&BTreeMap::new(), Phase::BeforeRestore), "nothing is known of its sealing");
    }
}
