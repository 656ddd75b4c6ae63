//! Isolation is the API server's, not the operator's: it outlives the process.

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rehearsal::{kind, object, text, three_boroughs};
use resurgam::isolation::policies::FENCES;
use serde_json::{Value, json};

use crate::recovery::{KINDS, stage, start_operator};

const IMAGE: &str =
    "registry.example/web:1@sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";

/// A namespace with a Deployment, isolated by on-call staff. Returns its Quarantine once it stands.
async fn isolated(cluster: &ControlPlane, name: &str) -> Value {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let pod = json!({"containers": [{"name": "web", "image": IMAGE}]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
        },
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    rehearsal::apply(&admin, "platform", &[namespace, deployment]).await.unwrap();
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": name},
        "spec": {"isolation": "Sealed", "reason": "Shared network compromised"},
    });
    let responder = cluster.client(Identity::Responder).await.unwrap();
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    three_boroughs::isolated(cluster, name).await.unwrap_or_else(|error| {
        let log = std::fs::read_to_string(cluster.dir().join("operator.log")).unwrap_or_default();
        panic!("{error:#}; the operators said:\n{log}")
    })
}

/// Everything that somebody might try to open an isolated namespace, and what the API server said.
async fn attacks(client: &Client, name: &str) -> Vec<(&'static str, &'static str, kube::Result<()>)> {
    let deployments = kind(client, "apps/v1", "Deployment", Some(name));
    let pods = kind(client, "v1", "Pod", Some(name));
    let namespaces = kind(client, "v1", "Namespace", None);
    let policies = kind(client, "networking.k8s.io/v1", "NetworkPolicy", Some(name));
    let quarantines = kind(client, KINDS, "Quarantine", None);
    let (params, delete) = (PatchParams::default(), DeleteParams::default());
    let up = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}}));
    let loosen = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": "clean-room"}}}));
    let ease = Patch::Merge(json!({"spec": {"isolation": "Contained"}}));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "back-door"},
        "spec": {"containers": [{"name": "back-door", "image": IMAGE}]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    let (fence, lock, quarantine) =
        ("resurgam-write-fence", "resurgam-namespace-lock", "resurgam-quarantine-lock");
    vec![
        ("scale up by patch", fence, deployments.patch("web", &params, &up).await.map(drop)),
        (
            "scale up by /scale",
            fence,
            deployments.patch_subresource("scale", "web", &params, &up).await.map(drop),
        ),
        ("create a pod", fence, pods.create(&PostParams::default(), &pod).await.map(drop)),
        (
            "delete the network policy",
            fence,
            policies.delete("resurgam-default-deny", &delete).await.map(drop),
        ),
        ("unlabel the namespace", lock, namespaces.patch(name, &params, &unlabel).await.map(drop)),
        ("label it a clean room", lock, namespaces.patch(name, &params, &loosen).await.map(drop)),
        ("delete the namespace", lock, namespaces.delete(name, &delete).await.map(drop)),
        ("ease the Quarantine", quarantine, quarantines.patch(name, &params, &ease).await.map(drop)),
        ("delete the Quarantine", quarantine, quarantines.delete(name, &delete).await.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_operator_stopped_nobody_opens_an_isolated_namespace() {
    let cluster = &*stage().await;
    let operator = start_operator(cluster);
    let names = ["left-alone-db", "left-alone-web"];
    for name in names {
        isolated(cluster, name).await;
    }
    operator.kill().unwrap();

    for who in [Identity::TenantAdministrator, Identity::GitOps] {
        let client = cluster.client(who).await.unwrap();
        for name in names {
            for (attack, policy, outcome) in attacks(&client, name).await {
                let Err(kube::Error::Api(refused)) = outcome else {
                    panic!("{who:?} could {attack} {name}: {outcome:?}");
                };
                assert_eq!(refused.code, 403, "{who:?}, {attack}: {}", refused.message);
                // The tenant administrator has no business with Quarantines: RBAC says so first.
                if who == Identity::TenantAdministrator && policy == "resurgam-quarantine-lock" {
                    assert!(refused.message.contains("quarantines.resurgam.dev"), "{}", refused.message);
                    continue;
                }
                // Of the two fences either refuses, and the API server names one.
                let policies = if FENCES.contains(&policy) { FENCES.to_vec() } else { vec![policy] };
                let by = |policy: &&str| {
                    refused.message.contains(&format!("ValidatingAdmissionPolicy '{policy}'"))
                };
                assert!(policies.iter().any(by), "{who:?}, {attack}: {}", refused.message);
                let names_it = refused.message.contains(&format!("quarantines/{name}"));
                assert!(names_it, "{who:?}, {attack}: {}", refused.message);
            }
        }
    }

    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    for name in names {
        let namespace = object(&kind(&admin, "v1", "Namespace", None), name).await.unwrap();
        assert_eq!(namespace["metadata"]["labels"]["resurgam.dev/isolation"], "sealed");
        let deployment = object(&kind(&admin, "apps/v1", "Deployment", Some(name)), "web").await.unwrap();
        assert_eq!(deployment["spec"]["replicas"], 0);
        let pods = kind(&admin, "v1", "Pod", Some(name)).list(&ListParams::default()).await.unwrap();
        assert!(pods.items.is_empty(), "{name} has pods");
        // The fence tells people apart: who may repair still can.
        let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
        let mend = Patch::Merge(json!({"metadata": {"annotations": {"mended-by": "the lead"}}}));
        let deployments = kind(&lead, "apps/v1", "Deployment", Some(name));
        deployments.patch("web", &PatchParams::default(), &mend).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn network_is_reported_unverified_on_fake_nodes() {
    let cluster = &*stage().await;
    let operator = start_operator(cluster);
    let quarantine = isolated(cluster, "unverifiable").await;
    drop(operator);
    let controls = quarantine["status"]["controls"].as_array().unwrap();
    let state = |name: &str| {
        let control = controls.iter().find(|control| control["name"] == name);
        let control = control.unwrap_or_else(|| panic!("no control {name}"));
        (text(control, "/state").to_owned(), text(control, "/message").to_owned())
    };
    let (network, words) = state("Network");
    assert_eq!(network, "Unverifiable");
    assert_eq!(
        words,
        "policies are written; whether this cluster's network enforces them could not be tried: no image to try it with is \
         configured (--probe-image)"
    );
    for tested in ["Lock", "Fence", "Workloads"] {
        assert_eq!(state(tested).0, "Tested", "{tested}");
    }
    assert_eq!(quarantine["status"]["tested"], "4/6", "what cannot be verified shows, and does not block");

    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let policies = kind(&admin, "networking.k8s.io/v1", "NetworkPolicy", Some("unverifiable"));
    let deny = object(&policies, "resurgam-default-deny").await.unwrap();
    assert_eq!(deny["spec"], json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
}
