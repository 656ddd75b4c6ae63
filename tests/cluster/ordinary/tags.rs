//! Images by tag, and runtimes that report another digest of the image than the spec pins.

use std::process::Command;

use control_plane::Identity;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::{condition, eventually, field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, cluster, operator_is_up, role};

const TAG: &str = "registry.example/web:1";
const ANOTHER: &str = "sha256:0e4e04c631b67d0a8600dd265bfa04ea3d51c586058bb26e5a00d62518a69198";

/// Service `web` of this image, whose node reports that image ID, and this list of approved images.
async fn estate(case: &'static str, image: &str, image_id: &str, list: &str) -> Bench {
    Bench::with(case, &["web"], |manifests| {
        for manifest in manifests {
            if manifest["kind"] == "ConfigMap" {
                manifest["data"] = json!({"images": list});
            }
            if manifest["kind"] == "Deployment" {
                let template = &mut manifest["spec"]["template"];
                template["metadata"]["annotations"] = json!({"kwok.resurgam.dev/image-id": image_id});
                template["spec"]["containers"][0]["image"] = json!(image);
            }
        }
    })
    .await
}

fn images(tags: &str) -> Value {
    json!({
        "name": "images", "imageDigests": {"approvedFrom": {"configMap": {"name": "approved-images"}}, "tags": tags},
        "interval": "500ms", "failureLimit": 1, "unknownDeadline": "1s",
    })
}

/// A plan whose images are judged before restore and before release.
fn plan(bench: &Bench, name: &str, tags: &str) -> Value {
    let mut plan = bench.plan(name, json!([bench.service("web", &[])]));
    let gates = &mut plan["spec"]["defaults"]["gates"];
    gates["beforeRestore"] = json!([images(tags)]);
    gates["beforeRelease"] = json!([gates["beforeRelease"][0], images(tags)]);
    plan
}

/// Waits until a person is asked.
async fn asks(bench: &Bench, reason: &str) -> Value {
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some(bench.case));
    let is_asked = |o: &Value| field(o, "/status/decision/reason") == reason;
    eventually(&records, "plan.web", &format!("{reason} to ask a person"), rehearsal::DEADLINE, is_asked)
        .await
        .unwrap()
}

fn reason(record: &Value) -> &str {
    let conditions = field(record, "/status/conditions").as_array();
    let recovered = conditions.into_iter().flatten().find(|c| c["type"] == "Recovered");
    recovered.and_then(|c| c["reason"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn listed_tag_recovers_with_exceptions_by_what_runs() {
    let list = format!("{TAG} {DIGEST} # by hand");
    let bench = estate("tag-good", TAG, &format!("registry.example/web@{DIGEST}"), &list).await;
    let plan = plan(&bench, "plan", "ProveWhenRunning");
    bench.apply(&plan).await;
    let record = bench.recovers("plan", "web").await;
    assert_eq!(reason(&record), "WithExceptions");
    let exception =
        format!("Deployment tag-good-web/web, container web: '{TAG}' is by tag: proved only by what runs");
    assert_eq!(record["status"]["exceptions"], json!([exception]));
    bench.judged(&plan).await;

    // What runs is printed as the list that let it pass.
    let kubeconfig = cluster().await.kubeconfig(Identity::PlatformAdministrator).to_owned();
    let print = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_resurgam"));
        command.args(["images", "--plan", "tag-good/plan"]).env("KUBECONFIG", kubeconfig).output()
    };
    let output = tokio::task::spawn_blocking(print).await.unwrap().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(text, format!("{TAG} {DIGEST} # Deployment tag-good-web/web, container web\n"), "{errors}");
}

#[tokio::test]
async fn another_digest_under_the_tag_fails_before_release() {
    let list = format!("{TAG} {DIGEST}\nregistry.example/other:1 {ANOTHER}");
    let bench = estate("tag-moved", TAG, &format!("registry.example/web@{ANOTHER}"), &list).await;
    let plan = plan(&bench, "plan", "ProveWhenRunning");
    bench.apply(&plan).await;
    let record = bench.says("plan", "web", "GateFailed", &["images", ANOTHER, TAG]).await;
    assert_eq!(record["status"]["stage"], "PostChecks");
    assert_eq!(condition(&record, "Recovered"), "False");
    let namespace =
        rehearsal::object(&kind(&bench.admin, "v1", "Namespace", None), "tag-moved-web").await.unwrap();
    assert_eq!(rehearsal::text(&namespace, "/metadata/labels/resurgam.dev~1isolation"), "clean-room");
    bench.judged(&plan).await;
    operator_is_up().await;
}

#[tokio::test]
async fn tag_that_is_forbidden_unlisted_or_never_proved_starts_nothing() {
    let list = format!("registry.example/web:2 {DIGEST}");
    let bench = estate("tag-unlisted", TAG, &format!("registry.example/web@{DIGEST}"), &list).await;
    let mut unproved = plan(&bench, "unproved", "ProveWhenRunning");
    unproved["spec"]["defaults"]["gates"]["beforeRelease"].as_array_mut().unwrap().pop();
    bench.apply(&unproved).await;
    bench.says("unproved", "web", "TagsNotProved", &["images", "beforeRelease"]).await;
    bench.apply(&plan(&bench, "plan", "ProveWhenRunning")).await;
    bench.says("plan", "web", "GateFailed", &[TAG, "has no entry"]).await;
    bench.stays_sealed("web").await;

    let list = format!("{TAG} {DIGEST}");
    let bench = estate("tag-forbidden", TAG, &format!("registry.example/web@{DIGEST}"), &list).await;
    bench.apply(&plan(&bench, "plan", "Forbid")).await;
    bench.says("plan", "web", "GateFailed", &[TAG, "is not pinned by a sha256 digest"]).await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn index_and_platform_in_one_entry_recover() {
    let list = format!("{TAG} {DIGEST} {ANOTHER}");
    let image = format!("{TAG}@{DIGEST}");
    let bench = estate("tag-platform", &image, &format!("registry.example/web@{ANOTHER}"), &list).await;
    let plan = plan(&bench, "plan", "Forbid");
    bench.apply(&plan).await;
    let record = bench.recovers("plan", "web").await;
    assert_eq!(reason(&record), "Recovered");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn pair_that_nobody_resolves_waits_until_the_node_does() {
    const CONFIGURATION: &str = "5d1f0e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6";
    let image = format!("{TAG}@{DIGEST}");
    let bench = estate("tag-pair", &image, CONFIGURATION, DIGEST).await;
    let plan = plan(&bench, "plan", "Forbid");
    bench.apply(&plan).await;
    let words = ["index and platform", DIGEST, CONFIGURATION, "cannot read Node"];
    bench.says("plan", "web", "GateUnknown", &words).await;
    let record = asks(&bench, "GateUnknown").await;
    assert_eq!(record["status"]["stage"], "PostChecks");

    // Its node has both digests of one image, and the plan's account may read it: nobody has to decide anything.
    let names =
        [format!("registry.example/web@{DIGEST}"), format!("registry.example/web@sha256:{CONFIGURATION}")];
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(bench.admin.clone());
    let patch = Patch::Merge(json!({"status": {"images": [{"names": names, "sizeBytes": 1}]}}));
    for node in nodes.list(&ListParams::default()).await.unwrap() {
        nodes.patch_status(&node.metadata.name.unwrap(), &PatchParams::default(), &patch).await.unwrap();
    }
    let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "tag-pair"}]);
    let mut grant = binding("ClusterRole", "tag-pair-nodes", "", &account);
    grant["kind"] = json!("ClusterRoleBinding");
    grant["metadata"] = json!({"name": "tag-pair-nodes"});
    let rules = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
    let role = role("ClusterRole", "tag-pair-nodes", "", &rules);
    rehearsal::apply(&bench.admin, "platform", &[role, grant]).await.unwrap();
    let record = bench.recovers("plan", "web").await;
    assert_eq!(reason(&record), "Recovered");
    bench.judged(&plan).await;
}
