//! **Pods**, which is I4 for what runs: no pod is created in a contained or sealed namespace, and in a clean room only by the
//! built-in workload controllers and by who may `operate` it.
//!
//! The log proves it, except for the moment before an API server observes a label that it has stored itself: pods created within
//! `fence_lag` of the label are reported separately. A static pod, which a kubelet runs by itself, is in the log as its mirror pod at
//! most.

use super::{Rule, WriteContext};
use crate::change::{Change, Level};
use crate::report::{Findings, RacedPod, Rule as Name};

/// Controllers whose pods a clean room may contain, all in `kube-system`.
const POD_MAKERS: [&str; 5] = [
    "replicaset-controller",
    "statefulset-controller",
    "daemon-set-controller",
    "job-controller",
    "replication-controller",
];

pub(super) struct Pods;

impl Rule for Pods {
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings) {
        let Change::Pod { namespace } = &now.write.change else { return };
        let Some(found) = now.world.namespaces.get(namespace).filter(|found| found.level != Level::Open)
        else {
            return;
        };
        findings.pods += 1;
        let (write, by) = (now.write, &now.write.user);
        if !found.level.is_closed() {
            let built_in = by.strip_prefix("system:serviceaccount:kube-system:");
            if !built_in.is_some_and(|name| POD_MAKERS.contains(&name)) && !now.options.operate.contains(by) {
                let message = format!(
                    "a pod in the clean room {namespace} by {by}, no built-in workload controller and nobody who may operate it"
                );
                findings.violations.push(now.broken(Name::Pods, message));
            }
            return;
        }
        let after_ms = found.closed.map(|closed| write.received.as_millisecond() - closed.as_millisecond());
        let lag_ms = i64::try_from(now.options.fence_lag.as_millis()).unwrap_or(i64::MAX);
        if let Some(after_ms) = after_ms.filter(|after| *after <= lag_ms) {
            let (time, user, object) = (write.received.to_string(), by.clone(), write.object.clone());
            findings.slipped.push(RacedPod { time, user, object, after_ms });
        } else {
            let message = format!("a pod in {namespace}, which was {}, by {by}", found.level.as_str());
            findings.violations.push(now.broken(Name::Pods, message));
        }
    }
}
