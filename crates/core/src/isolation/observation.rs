//! State of a namespace as read after the last write, and the controls that it shows in place. A control is in place if a read shows it,
//! not because a write succeeded.

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};

use super::controls::identity::SealMark;
use super::controls::list::Listed;
use super::controls::workloads::Inventory;
use super::controls::{label, network, pods};
use super::target::ControlsInPlace;
use crate::api::{Isolation, QuarantineSpec};

/// Observed state of a namespace. `None`: not read, or the read failed.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Its entries on the isolation lists.
    pub listed: Option<Listed>,
    /// The namespace itself.
    pub namespace: Option<Namespace>,
    /// Its network policies.
    pub network: Option<network::PolicyObservation>,
    /// Its workloads.
    pub inventory: Option<Inventory>,
    /// Its pods.
    pub pods: Option<Vec<Pod>>,
    /// Its ServiceAccounts.
    pub accounts: Option<Vec<ServiceAccount>>,
}

impl Observation {
    /// Returns the controls in place of a level that tightens. What was not read is not in place. `fenced`: the fence was verified;
    /// `captured`: evidence of this sealing is stored; `mark`: the current sealing.
    #[must_use]
    pub fn in_place(
        &self,
        spec: &QuarantineSpec,
        level: Isolation,
        mark: &SealMark,
        fenced: bool,
        captured: bool,
    ) -> ControlsInPlace {
        let inventory = self.inventory.as_ref();
        let marked =
            |accounts: &Vec<ServiceAccount>| accounts.iter().all(|account| mark.is_on(&account.metadata));
        ControlsInPlace {
            listed: self.listed.as_ref().is_some_and(|listed| listed.is_at(level)),
            labelled: self
                .namespace
                .as_ref()
                .is_some_and(|namespace| label::is_labelled(namespace, spec, level)),
            fenced,
            network: self.network.as_ref().is_some_and(network::PolicyObservation::holds),
            captured,
            stopped: inventory.is_some_and(|found| {
                found.workloads.iter().chain(&found.rollouts).all(|workload| workload.is_stopped())
            }),
            empty: self.pods.as_ref().is_some_and(|pods| !pods.iter().any(pods::is_live)),
            renewed: captured && self.accounts.as_ref().is_some_and(marked),
        }
    }

    /// Returns whether the label or a list denies writes, as far as they were read.
    #[must_use]
    pub fn is_fenced_off(&self) -> bool {
        let labelled = |namespace: &Namespace| {
            let labels = namespace.metadata.labels.as_ref();
            let level = labels.and_then(|labels| labels.get(crate::api::ISOLATION_LABEL)).map(String::as_str);
            matches!(level, Some("contained" | "sealed"))
        };
        self.listed.as_ref().is_some_and(Listed::isolates) || self.namespace.as_ref().is_some_and(labelled)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::isolation::controls::list;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn mark() -> SealMark {
        SealMark { seal: "seal".into(), evidence: "digest".into() }
    }

    fn spec() -> QuarantineSpec {
        read(json!({"isolation": "Sealed", "reason": "breach"}))
    }

    fn namespace(level: &str) -> Option<Namespace> {
        read(json!({"metadata": {
            "name": "library", "labels": {"resurgam.dev/isolation": level}, "annotations": {"resurgam.dev/reason": "breach"},
        }}))
    }

    fn inventory(replicas: i32) -> Option<Inventory> {
        let deployment: k8s_openapi::api::apps::v1::Deployment = read(
            json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {}, "template": {}}}),
        );
        Some(Inventory { workloads: vec![deployment.into()], ..Inventory::default() })
    }

    fn account(label: Option<String>) -> Option<Vec<ServiceAccount>> {
        let labels: std::collections::BTreeMap<_, _> =
            label.map(|label| (crate::api::SEALED_LABEL, label)).into_iter().collect();
        Some(vec![read(json!({"metadata": {"name": "default", "labels": labels}}))])
    }

    /// Returns an observation with all controls in place. Each row removes one.
    fn whole() -> Observation {
        Observation {
            listed: Some(list::Listed::new([Some("sealed"), Some("sealed")])),
            namespace: namespace("sealed"),
            network: Some(network::PolicyObservation::default()),
            inventory: inventory(0),
            pods: Some(Vec::new()),
            accounts: account(Some(mark().label())),
        }
    }

    const ALL: ControlsInPlace = ControlsInPlace::ALL;

    /// What is taken away, how, and what is in place then.
    type Row<'a> = (&'a str, &'a dyn Fn(&mut Observation), ControlsInPlace);

    #[test]
    fn control_that_was_not_read_back_is_not_in_place() {
        let running = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n", "containers": [{"name": "c"}]}, "status": {"phase": "Running"}});
        let with = |change: &dyn Fn(&mut Observation)| {
            let mut observation = whole();
            change(&mut observation);
            observation.in_place(&spec(), Isolation::Sealed, &mark(), true, true)
        };
        assert_eq!(with(&|_| {}), ALL);
        let rows: [Row; 15] = [
            ("list not read", &|o| o.listed = None, ControlsInPlace { listed: false, ..ALL }),
            (
                "one list lost its entry",
                &|o| o.listed = Some(list::Listed::new([Some("sealed"), None])),
                ControlsInPlace { listed: false, ..ALL },
            ),
            (
                "a list says less",
                &|o| o.listed = Some(list::Listed::new([Some("contained")])),
                ControlsInPlace { listed: false, ..ALL },
            ),
            ("namespace not read", &|o| o.namespace = None, ControlsInPlace { labelled: false, ..ALL }),
            (
                "label says less",
                &|o| o.namespace = namespace("contained"),
                ControlsInPlace { labelled: false, ..ALL },
            ),
            ("policies not read", &|o| o.network = None, ControlsInPlace { network: false, ..ALL }),
            (
                "a policy allows",
                &|o| {
                    o.network =
                        Some(network::PolicyObservation { allowing: vec!["allow".into()], missing: vec![] })
                },
                ControlsInPlace { network: false, ..ALL },
            ),
            (
                "ours is missing",
                &|o| {
                    o.network =
                        Some(network::PolicyObservation { missing: vec!["deny".into()], allowing: vec![] })
                },
                ControlsInPlace { network: false, ..ALL },
            ),
            ("workloads not read", &|o| o.inventory = None, ControlsInPlace { stopped: false, ..ALL }),
            ("a workload runs", &|o| o.inventory = inventory(2), ControlsInPlace { stopped: false, ..ALL }),
            (
                "a ReplicaSet that its Deployment does not know",
                &|o| {
                    o.inventory =
                        Some(Inventory { rollouts: inventory(1).unwrap().workloads, ..Inventory::default() })
                },
                ControlsInPlace { stopped: false, ..ALL },
            ),
            ("pods not read", &|o| o.pods = None, ControlsInPlace { empty: false, ..ALL }),
            (
                "a pod lives",
                &|o| o.pods = Some(vec![read(running.clone())]),
                ControlsInPlace { empty: false, ..ALL },
            ),
            ("accounts not read", &|o| o.accounts = None, ControlsInPlace { renewed: false, ..ALL }),
            (
                "an account of before",
                &|o| o.accounts = account(Some("another".into())),
                ControlsInPlace { renewed: false, ..ALL },
            ),
        ];
        for (what, change, expected) in rows {
            assert_eq!(with(change), expected, "{what}");
        }
        let without_evidence = whole().in_place(&spec(), Isolation::Sealed, &mark(), true, false);
        assert_eq!(without_evidence, ControlsInPlace { captured: false, renewed: false, ..ALL });
    }

    #[test]
    fn label_or_list_fences_off() {
        let bare = || Observation {
            namespace: read(json!({"metadata": {"name": "library"}})),
            ..Observation::default()
        };
        let listed = |level: &str| Some(list::Listed::new([None, Some(level)]));
        assert!(!bare().is_fenced_off());
        assert!(Observation { listed: listed("contained"), ..bare() }.is_fenced_off());
        assert!(Observation { namespace: namespace("sealed"), ..bare() }.is_fenced_off());
        for level in ["clean-room", "other"] {
            assert!(
                !Observation { listed: listed(level), namespace: namespace(level), ..bare() }.is_fenced_off()
            );
        }
    }
}
