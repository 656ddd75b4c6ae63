//! What lets out: the namespace's label, the Quarantine, and what is said of it.

use serde_json::json;

use crate::attack::attempt::{Ask, Attack, FENCE, LOCK, QUARANTINE, WRITER, attack};
use crate::attack::rig::{KINDS, Level};

const LABEL: &str = "/metadata/labels/resurgam.dev~1isolation";

/// The attacks on one namespace and its Quarantine, if there is one.
pub fn attacks(level: Level) -> Vec<Attack> {
    let name = level.namespace;
    let namespace = |rest: &str| format!("/api/v1/namespaces/{name}{rest}");
    let labelled = |value| json!({"metadata": {"labels": {"resurgam.dev/isolation": value}}});
    let applied = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"resurgam.dev/isolation": "open"}}});
    let mut all = vec![
        attack("unlabel the namespace", namespace(""), Ask::Merge(labelled(json!(null))), LOCK),
        attack(
            "unlabel it by a JSON patch",
            namespace(""),
            Ask::Json(json!([{"op": "remove", "path": LABEL}])),
            LOCK,
        ),
        attack(
            "unlabel it by replacing it",
            namespace(""),
            Ask::Replace(json!({"metadata": {"labels": null}})),
            LOCK,
        ),
        attack("relabel it by applying", namespace(""), Ask::Apply(applied), LOCK),
        attack("relabel it by its status", namespace("/status"), Ask::Merge(labelled(json!("looser"))), LOCK),
        attack(
            "relabel it by finalizing",
            namespace("/finalize"),
            Ask::Replace(labelled(json!("looser"))),
            LOCK,
        ),
        attack(
            "take the namespace's finalizer away",
            namespace("/finalize"),
            Ask::Replace(json!({"spec": {"finalizers": null}})),
            LOCK,
        ),
        attack(
            "put another label on it",
            namespace(""),
            Ask::Merge(json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})),
            LOCK,
        ),
        attack(
            "give another reason",
            namespace(""),
            Ask::Merge(json!({"metadata": {"annotations": {"resurgam.dev/reason": "all is well"}}})),
            LOCK,
        ),
        attack("delete the namespace", namespace(""), Ask::Delete, LOCK),
    ];
    // The same value is no change.
    if level.label != "clean-room" {
        all.push(attack(
            "make it a clean room",
            namespace(""),
            Ask::Merge(labelled(json!("clean-room"))),
            LOCK,
        ));
    }
    if !level.has_quarantine() {
        return all;
    }
    let quarantines = "/apis/resurgam.dev/v1alpha1/quarantines".to_owned();
    let one = format!("{quarantines}/{name}");
    let open = json!({"status": {"isolation": "Open"}});
    let service = json!({"apiVersion": KINDS, "kind": "ServiceRecovery", "metadata": {"name": "plan.nothing"},
        "spec": {"planRef": {"name": "plan", "uid": "u"}, "service": "nothing", "namespaces": [name], "attempt": 1, "isolation": "Open", "reachable": []}});
    all.extend([
        attack("delete the Quarantine", one.clone(), Ask::Delete, QUARANTINE),
        attack("delete all Quarantines", quarantines, Ask::DeleteAll, QUARANTINE),
        attack(
            "strip the Quarantine of its finalizer",
            one.clone(),
            Ask::Merge(json!({"metadata": {"finalizers": null}})),
            QUARANTINE,
        ),
        attack("say that it is open", format!("{one}/status"), Ask::Merge(open), WRITER),
        attack(
            "say that somebody has claimed it",
            format!("{one}/status"),
            Ask::Merge(json!({"status": {"claimedBy": null}})),
            WRITER,
        ),
        attack(
            "ask for its opening by a new ServiceRecovery",
            format!("/apis/{KINDS}/namespaces/flux-system/servicerecoveries"),
            Ask::Create(service),
            WRITER,
        ),
        attack(
            "delete the network isolation",
            format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/resurgam-default-deny"),
            Ask::Delete,
            FENCE,
        ),
        attack(
            "widen the network isolation",
            format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/resurgam-default-deny"),
            Ask::Merge(json!({"spec": {"ingress": [{}]}})),
            FENCE,
        ),
        attack(
            "let what allowed select pods again",
            format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/allow-front"),
            Ask::Merge(json!({"spec": {"podSelector": {"matchExpressions": null}}})),
            FENCE,
        ),
    ]);
    if level.label == "sealed" {
        let ease = || Ask::Merge(json!({"spec": {"isolation": "Contained"}}));
        all.push(attack("ease the Quarantine", one.clone(), ease(), QUARANTINE));
        all.push(attack(
            "ease the Quarantine by leaving it out",
            one,
            Ask::Json(json!([{"op": "remove", "path": "/spec/isolation"}])),
            QUARANTINE,
        ));
    }
    all
}
