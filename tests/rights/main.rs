//! Each role of ours grants what its holder uses, and no more. What was used is what the API server's audit log shows of a
//! recovery and an isolation with everything in them; what is granted without being used there is listed below, with its reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod roles;
mod scenario;

use std::collections::BTreeSet;

use roles::{Used, granted};

/// Granted and not used in the scenario, and why: role, right, reason.
const IDLE: &[(&str, &str, &str)] = &[];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_grants_what_its_holder_uses_and_no_more() {
    let cluster = scenario::play().await;
    let deploy = rehearsal::read("deploy/rbac.yaml").unwrap();
    let smallest = rehearsal::read("examples/smallest.yaml").unwrap();
    let service_account = |name: &str| format!("system:serviceaccount:{name}");
    let holders = [
        (&deploy, "resurgam-operator", service_account("resurgam-system:resurgam")),
        (&deploy, "resurgam-prober", service_account("resurgam-system:resurgam-prober")),
        (&deploy, "resurgam-responder", "on-call-responder".to_owned()),
        (&deploy, "resurgam-recovery-lead", "recovery-lead".to_owned()),
        (&smallest, "library-restore", service_account("recovery:recovery")),
    ];
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for (manifests, role, account) in holders {
        let granted = granted(manifests, &[role]);
        let used = Used::by(cluster.audit_log(), &account);
        assert!(!used.rights.is_empty(), "{account} did nothing at all");
        wrong.extend(used.lacking.iter().map(|what| format!("{role} lacks {what}")));
        for right in used.idle(&granted) {
            let text = right.to_string();
            match IDLE.iter().find(|(of, what, _)| (*of, *what) == (role, text.as_str())) {
                Some(entry) => _ = excused.insert(entry),
                None => wrong.push(format!("{role} grants what nobody used: {right}")),
            }
        }
    }
    for entry in IDLE.iter().filter(|entry| !excused.contains(entry)) {
        wrong.push(format!("no longer so: {} grants without use {}", entry.0, entry.1));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
