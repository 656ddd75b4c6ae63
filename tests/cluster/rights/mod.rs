//! Each role of ours grants what its holder uses, and no more. What was used is what the API server's audit log shows of a
//! recovery and an isolation with everything in them; what is granted without being used there is listed below, with its reason.

mod plans;
mod roles;
mod scenario;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use control_plane::{ControlPlane, Identity};
use roles::{Used, granted};

/// Granted and not used in the scenario, and why: role, reason, rights.
const IDLE: &[(&str, &str, &[&str])] = &[
    (
        "resurgam-operator",
        "server-side apply asks for it where the object is missing",
        &[
            "create servicerecoveries.resurgam.dev",
            "create validatingadmissionpolicies.admissionregistration.k8s.io",
            "create validatingadmissionpolicybindings.admissionregistration.k8s.io",
        ],
    ),
    (
        "resurgam-operator",
        "asked for by the policies, not by a request",
        &["release quarantines.resurgam.dev", "repair quarantines.resurgam.dev"],
    ),
    (
        "resurgam-operator",
        "events are left out of this audit log",
        &["list events", "list *.events.k8s.io", "create events.events.k8s.io", "patch events.events.k8s.io"],
    ),
    (
        "resurgam-operator",
        "pods that try the network run where there is a real node: tests/network",
        &["list nodes", "watch nodes", "create pods", "deletecollection pods", "get pods"],
    ),
    (
        "resurgam-operator",
        "logs and snapshots are kept where that was configured: tests/cluster/isolation/evidence.rs and snapshots.rs",
        &[
            "get persistentvolumes",
            "get pods/log",
            "list volumesnapshotclasses.snapshot.storage.k8s.io",
            "create volumesnapshots.snapshot.storage.k8s.io",
            "get volumesnapshots.snapshot.storage.k8s.io",
            "list volumesnapshots.snapshot.storage.k8s.io",
            "watch volumesnapshots.snapshot.storage.k8s.io",
        ],
    ),
    (
        "resurgam-operator",
        "drift of our own NetworkPolicies: tests/cluster/isolation",
        &["update networkpolicies.networking.k8s.io"],
    ),
    (
        "resurgam-operator",
        "finalizers of pods that have ended, quotas without room: tests/cluster/isolation/{pods,quotas}.rs",
        &["patch pods", "patch resourcequotas"],
    ),
    (
        "resurgam-operator",
        "where a key for digests is configured: tests/cluster/isolation/evidence.rs",
        &["list secrets", "watch secrets"],
    ),
    (
        "resurgam-operator",
        "where a plan has a baseline: tests/cluster/ordinary/baseline.rs",
        &[
            "watch limitranges",
            "watch persistentvolumeclaims",
            "watch podtemplates",
            "watch resourcequotas",
            "watch *.autoscaling",
            "watch *.policy",
            "watch *.resource.k8s.io",
            "watch *.storage.k8s.io",
        ],
    ),
    (
        "resurgam-operator",
        "where a plan opts into DNS: tests/cluster/isolation/room.rs",
        &["get daemonsets.apps"],
    ),
    (
        "resurgam-operator",
        "nobody decides anything: tests/cluster/opt_in/verdicts.rs",
        &["patch decisions/status.resurgam.dev"],
    ),
    (
        "resurgam-operator",
        "a binding that was changed, not deleted",
        &["update validatingadmissionpolicybindings.admissionregistration.k8s.io"],
    ),
    (
        "resurgam-responder",
        "a policy of our name, or without room to be neutralised, is removed: tests/cluster/isolation/races.rs",
        &["delete networkpolicies.networking.k8s.io"],
    ),
    (
        "resurgam-responder",
        "Hold and Abort: tests/cluster/opt_in/decisions.rs",
        &[
            "create decisions.resurgam.dev",
            "hold recoveryplans.resurgam.dev",
            "abort recoveryplans.resurgam.dev",
        ],
    ),
    (
        "resurgam-responder",
        "what is there already is tightened: tests/cluster/quarantine_cli",
        &[
            "update networkpolicies.networking.k8s.io",
            "patch quarantines.resurgam.dev",
            "update quarantines.resurgam.dev",
        ],
    ),
];

/// Tried in vain on purpose: while the fence is not up yet, by a dry-run of what it refuses, which nobody needs a right to.
const TRIED: (&str, &str) =
    ("resurgam-responder", "create pods: /api/v1/namespaces/everything/pods?&dryRun=All");

/// Applies a text as a person does, server-side; fails with what kubectl says.
fn kubectl(cluster: &ControlPlane, who: Identity, text: &str) -> Result<(), String> {
    let mut kubectl = Command::new(cluster.binary("kubectl").unwrap())
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig(who))
        .args(["apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut kubectl.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let out = kubectl.wait_with_output().unwrap();
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_grants_what_its_holder_uses_and_no_more() {
    let cluster = scenario::play().await;
    plans::judge(&cluster);
    let deploy = rehearsal::rights().unwrap();
    let service_account = |name: &str| format!("system:serviceaccount:{name}");
    let holders = [
        (&deploy, "resurgam-operator", service_account("resurgam-system:resurgam")),
        (&deploy, "resurgam-prober", service_account("resurgam-system:resurgam-prober")),
        (&deploy, "resurgam-prober-within", service_account("everything:resurgam-probe")),
        (&deploy, "resurgam-responder", "on-call-responder".to_owned()),
    ];
    let mut wrong = Vec::new();
    let excuses: BTreeSet<(&str, &str)> =
        IDLE.iter().flat_map(|(role, _, rights)| rights.iter().map(move |right| (*role, *right))).collect();
    let mut excused = BTreeSet::new();
    for (manifests, role, account) in holders {
        let granted = granted(manifests, &[role]);
        let used = Used::by(cluster.audit_log(), &account);
        assert!(!used.rights.is_empty(), "{account} did nothing at all");
        let lacking = used.lacking.iter().filter(|what| !(role, what.as_str()).eq(&TRIED));
        wrong.extend(lacking.map(|what| format!("{role} lacks {what}")));
        for right in used.idle(&granted) {
            // People look around as they need to.
            if account == "on-call-responder" && ["get", "list", "watch"].contains(&right.verb.as_str()) {
                continue;
            }
            let text = right.to_string();
            match excuses.iter().find(|(of, what)| (*of, *what) == (role, text.as_str())) {
                Some(excuse) => _ = excused.insert(*excuse),
                None => wrong.push(format!("{role} grants what nobody used: {right}")),
            }
        }
    }
    for (role, right) in excuses.difference(&excused) {
        wrong.push(format!("no longer so: {role} grants without use {right}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
