//! `resurgam quarantine`, as the real binary, run by the real people, on a real API server. No operator runs but where a test
//! says so.

mod alone;
mod break_glass;
mod check;
mod further_incident;
mod preflight;
mod release;
mod status;
pub mod support;

use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use resurgam::api::{ISOLATION_LABEL, Quarantine};
use resurgam::isolation::list::{CONFIG_MAPS, levels};
use serde_json::{Value, json};
use support::{allowing, api, client, cluster, fenced, names, namespace, operator, quarantine, ready};

const WORKLOADS: &str = include_str!("workloads.yaml");

/// Everything in the namespace that isolating touches, with its versions.
async fn versions(cluster: &ControlPlane, name: &str) -> Vec<String> {
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let namespace = Api::<Namespace>::all(admin.clone()).get(name).await.unwrap();
    let mut all = vec![format!("{}@{}", name, namespace.resource_version().unwrap())];
    let mut add = |kind: &str, name: String, version: Option<String>| {
        all.push(format!("{kind} {name}@{}", version.unwrap_or_default()));
    };
    for policy in api::<NetworkPolicy>(&admin, name).list(&ListParams::default()).await.unwrap() {
        add("NetworkPolicy", policy.name_any(), policy.resource_version());
    }
    for map in api::<ConfigMap>(&admin, name).list(&ListParams::default()).await.unwrap() {
        add("ConfigMap", map.name_any(), map.resource_version());
    }
    for deployment in api::<Deployment>(&admin, name).list(&ListParams::default()).await.unwrap() {
        add("Deployment", deployment.name_any(), deployment.metadata.generation.map(|g| g.to_string()));
    }
    all
}

async fn labelled(cluster: &ControlPlane, name: &str) -> Option<String> {
    let responder = client(cluster, Identity::Responder).await;
    let namespace = Api::<Namespace>::all(responder).get(name).await.unwrap();
    namespace.labels().get(ISOLATION_LABEL).cloned()
}

/// What an attacker with these rights tries first.
async fn attack(cluster: &ControlPlane, who: Identity, name: &str) {
    let attacker = client(cluster, who).await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    fenced("scaling", api::<Deployment>(&attacker, name).patch("web", &PatchParams::default(), &scale).await);
    let secret =
        Secret { metadata: serde_json::from_value(json!({"name": "s"})).unwrap(), ..Secret::default() };
    fenced("a secret", api::<Secret>(&attacker, name).create(&PostParams::default(), &secret).await);
    let policies = api::<NetworkPolicy>(&attacker, name);
    fenced("the network", policies.delete("resurgam-default-deny", &DeleteParams::default()).await);
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
    let refusal =
        Api::<Namespace>::all(attacker).patch(name, &PatchParams::default(), &unlabel).await.unwrap_err();
    assert!(refusal.to_string().contains("resurgam-namespace-lock"), "{refusal}");
}

#[tokio::test]
async fn isolation_without_operator_holds_and_is_adopted() {
    let (cluster, _alone) = cluster().await;
    let tenant = namespace(cluster, "adopted", WORKLOADS).await;
    let before = api::<NetworkPolicy>(&tenant, "adopted").get("allow-front").await.unwrap();

    let ran = quarantine(cluster, Identity::Responder, &["adopted"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("isolated", made_out(&ran.out));

    attack(cluster, Identity::TenantAdministrator, "adopted").await;
    attack(cluster, Identity::GitOps, "adopted").await;
    assert_eq!(allowing(&tenant, "adopted").await, ["resurgam-default-deny"]);
    let responder = client(cluster, Identity::Responder).await;
    let quarantines: Api<Quarantine> = Api::all(responder.clone());
    let laid = quarantines.get("adopted").await.unwrap();
    assert_eq!(laid.status.as_ref().and_then(|s| s.isolation), None, "nobody but an operator writes that");
    // What it tried on the lock, it only tried: who may release would have let it out.
    let log = std::fs::read_to_string(cluster.audit_log()).unwrap();
    // Others write to it: its last line may be a part of one.
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let unlabels = |event: &Value| {
        let labels = &event["requestObject"]["metadata"]["labels"];
        event["user"]["username"] == "on-call-responder" && labels.get(ISOLATION_LABEL) == Some(&Value::Null)
    };
    let tried: Vec<String> = events.filter(unlabels).map(|event| event["requestURI"].to_string()).collect();
    assert!(!tried.is_empty() && tried.iter().all(|uri| uri.contains("dryRun=All")), "{tried:?}");
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    for list in CONFIG_MAPS {
        let list = api::<ConfigMap>(&admin, "resurgam-system").get(list).await.unwrap();
        assert_eq!(levels(&list)["adopted"], "contained", "its accounts write nowhere else either");
    }
    let versions_laid = versions(cluster, "adopted").await;

    // Again: nothing is left to do, and nothing is done.
    let again = quarantine(cluster, Identity::Responder, &["adopted", "--output", "json"]).await;
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    let policies = again.json()["policies"].as_array().unwrap().clone();
    // Those that take a right to read all ConfigMaps are an operator's to make.
    let differs =
        policies.iter().filter(|policy| policy["state"] != "NotMade" && policy["state"] != "InPlace");
    assert_eq!(differs.collect::<Vec<_>>(), Vec::<&Value>::new());
    let fence =
        policies.iter().find(|policy| policy["object"] == "ValidatingAdmissionPolicy resurgam-write-fence");
    assert_eq!(fence.unwrap()["state"], "InPlace");
    assert_eq!(versions(cluster, "adopted").await, versions_laid);

    let _operator = operator(cluster);
    ready(cluster, "adopted", "Contained").await.unwrap();
    assert_eq!(
        versions(cluster, "adopted").await,
        versions_laid,
        "nothing is written again, nothing is recorded anew"
    );

    let lead = client(cluster, Identity::RecoveryLead).await;
    Api::<Quarantine>::all(lead).delete("adopted", &DeleteParams::default()).await.unwrap();
    let gone = rehearsal::await_condition(quarantines, "adopted", |q: Option<&Quarantine>| q.is_none());
    tokio::time::timeout(rehearsal::DEADLINE, gone).await.unwrap().unwrap();
    assert_eq!(labelled(cluster, "adopted").await, None);
    assert_eq!(allowing(&tenant, "adopted").await, ["allow-front"]);
    let after = api::<NetworkPolicy>(&tenant, "adopted").get("allow-front").await.unwrap();
    assert_eq!((after.spec.clone(), after.labels()), (before.spec.clone(), before.labels()));
    assert_eq!(names(&api::<ConfigMap>(&tenant, "adopted")).await, ["kube-root-ca.crt"]);
}

/// Without what is told of the policies: that depends on which test ran before.
fn made_out(text: &str) -> String {
    let of_policies = |line: &&str| line.starts_with("Admission policies");
    text.lines().filter(|line| !of_policies(line)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_dry_run_tells_what_stops_and_changes_nothing() {
    let (cluster, _alone) = cluster().await;
    let tenant = namespace(cluster, "looked-at", WORKLOADS).await;
    namespace(cluster, "neighbour", &WORKLOADS.replace("backend.example", "web.looked-at.svc.cluster.local"))
        .await;
    let deployments = rehearsal::kind(&tenant, "apps/v1", "Deployment", Some("looked-at"));
    rehearsal::eventually(&deployments, "web", "it to run", rehearsal::DEADLINE, |d| {
        d["status"]["readyReplicas"] == 2
    })
    .await
    .unwrap();
    let versions_before = versions(cluster, "looked-at").await;
    let log_before = std::fs::read_to_string(cluster.audit_log()).unwrap().len();

    let ran = quarantine(cluster, Identity::Responder, &["looked-at", "--dry-run"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("dry_run", made_out(&ran.out));

    assert_eq!(versions(cluster, "looked-at").await, versions_before);
    let log = std::fs::read_to_string(cluster.audit_log()).unwrap();
    let events = log[log_before..].lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mine: Vec<_> = events.filter(|e| e["user"]["username"] == "on-call-responder").collect();
    assert!(mine.len() > 20, "the log holds what was asked: {}", mine.len());
    for event in mine {
        let (verb, uri) = (event["verb"].as_str().unwrap(), event["requestURI"].as_str().unwrap());
        let reads = ["get", "list"].contains(&verb) || uri.contains("selfsubjectreviews");
        assert!(reads || uri.contains("dryRun=All"), "{verb} {uri}");
    }
    let json =
        quarantine(cluster, Identity::Responder, &["looked-at", "--dry-run", "--output", "json"]).await;
    assert_eq!(json.json()["outcome"], "Possible");
    assert_eq!(json.json()["impacts"][0]["policies"], json!(["allow-front"]));
}

#[tokio::test]
async fn command_tightens_never_eases_and_holds_recovered_namespaces() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "tighter", WORKLOADS).await;
    let responder = client(cluster, Identity::Responder).await;
    let quarantines: Api<Quarantine> = Api::all(responder);
    let spec = async || serde_json::to_value(quarantines.get("tighter").await.unwrap().spec).unwrap();
    let say = async |arguments: &[&str], expected: &str| {
        let ran =
            quarantine(cluster, Identity::Responder, &[&["tighter", "--output", "json"], arguments].concat())
                .await;
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert_eq!(ran.json()["namespaces"][0]["quarantine"], expected);
        assert_eq!(ran.json()["outcome"], "Isolated");
    };
    say(&[], "made").await;
    say(&["--isolation", "sealed"], "tightened to Sealed").await;
    say(&["--isolation", "contained"], "there already").await;
    assert_eq!(spec().await["isolation"], "Sealed");
    assert_eq!(labelled(cluster, "tighter").await.as_deref(), Some("contained"), "nothing was stopped yet");

    // As a recovery leaves it: open, and claimed.
    let operator = client(cluster, Identity::Operator).await;
    let open = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine",
        "status": {"isolation": "Open", "claimedBy": {
            "planUid": "u", "planNamespace": "recovery", "plan": "p", "service": "s", "attempt": 1, "display": ""}},
    });
    let params = PatchParams::apply("test").force();
    Api::<Quarantine>::all(operator.clone())
        .patch_status("tighter", &params, &Patch::Apply(open))
        .await
        .unwrap();
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
    Api::<Namespace>::all(operator).patch("tighter", &PatchParams::default(), &unlabel).await.unwrap();

    say(&[], "held at Contained whatever its recovery asks for").await;
    assert_eq!(
        (spec().await["hold"].clone(), spec().await["isolation"].clone()),
        (json!("Contained"), json!("Sealed"))
    );
    assert_eq!(labelled(cluster, "tighter").await.as_deref(), Some("contained"));
    attack(cluster, Identity::TenantAdministrator, "tighter").await;
    say(&["--isolation", "sealed"], "held at Sealed whatever its recovery asks for").await;
    say(&[], "there already").await;
    assert_eq!(spec().await["hold"], "Sealed");
}

#[tokio::test]
async fn an_allowance_that_is_left_behind_the_fence_is_cut_off() {
    let (cluster, _alone) = cluster().await;
    // Somebody labelled it by hand: the fence is up, and what allows is still there.
    let tenant = namespace(cluster, "half", WORKLOADS).await;
    quarantine(cluster, Identity::Responder, &["half", "--dry-run"]).await;
    let label = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: "contained"}}}));
    Api::<Namespace>::all(tenant.clone()).patch("half", &PatchParams::default(), &label).await.unwrap();

    let ran = quarantine(cluster, Identity::Responder, &["half"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("half", made_out(&ran.out));
    assert_eq!(allowing(&tenant, "half").await, ["resurgam-default-deny"]);

    // An operator adopts it.
    let _operator = operator(cluster);
    ready(cluster, "half", "Contained").await.unwrap();
    let ran = quarantine(cluster, Identity::Responder, &["half", "--output", "json"]).await;
    assert_eq!((ran.code, ran.json()["operator"].clone()), (0, json!(true)), "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn many_namespaces_are_isolated_beside_an_operator() {
    let (cluster, _alone) = cluster().await;
    let all: Vec<String> = (0..6).map(|n| format!("many-{n}")).collect();
    for name in &all {
        namespace(cluster, name, WORKLOADS).await;
    }
    let _operator = operator(cluster);
    let mut arguments: Vec<&str> = all.iter().map(String::as_str).collect();
    arguments.extend(["--isolation", "sealed", "--output", "json", "--yes"]);
    let ran = quarantine(cluster, Identity::Responder, &arguments).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let tenant = client(cluster, Identity::TenantAdministrator).await;
    for name in &all {
        ready(cluster, name, "Sealed").await.unwrap();
        let pods = api::<Pod>(&tenant, name).list(&ListParams::default()).await.unwrap();
        assert_eq!(pods.items.len(), 0, "{name}");
        assert_eq!(allowing(&tenant, name).await, ["resurgam-default-deny"], "{name}");
    }
}

#[tokio::test]
async fn a_command_line_that_is_wrong_does_nothing_and_says_so() {
    let (cluster, _alone) = cluster().await;
    for (arguments, says) in [
        (vec!["no-such-namespace"], "there is no namespace no-such-namespace"),
        (vec!["--selector", "no-such-label=1"], "no namespace is meant"),
        (
            vec!["--all-but", "kube-system,no-such-namespace", "--yes"],
            "there is no namespace no-such-namespace",
        ),
        (vec!["default", "--all-but", "kube-system"], "cannot be used with"),
        (vec![], "required"),
    ] {
        let ran = quarantine(cluster, Identity::Responder, &arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(says), "{arguments:?}: {}", ran.err);
    }
    // Nobody can be asked here, and nobody named these.
    namespace(cluster, "selected", WORKLOADS).await;
    let selector = ["--selector", "kubernetes.io/metadata.name=selected"];
    let ran = quarantine(cluster, Identity::Responder, &selector).await;
    assert!(ran.code == 2 && ran.err.contains("--yes"), "{}{}", ran.out, ran.err);
    assert_eq!(labelled(cluster, "selected").await, None);
    let ran = quarantine(cluster, Identity::Responder, &[&selector[..], &["--yes"]].concat()).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}
