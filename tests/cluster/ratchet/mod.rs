//! Whoever may write a plan cannot open its services. One control plane and one operator for all.

mod host_access;
mod plan_editor;
mod records;

use std::time::Duration;

use control_plane::Identity;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::bad_input::bench::{self, Bench, cluster, role};

/// Somebody with no rights but those that a test binds to them.
async fn user(name: &str) -> Client {
    let path = cluster().await.kubeconfig(Identity::PlatformAdministrator);
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(name.to_owned());
    Client::try_from(config).unwrap()
}

/// Waits until a user may do this in a namespace: the API server learns of a new binding by its own watch.
async fn may(client: &Client, namespace: &str, verb: &str, group: &str, resource: &str, name: &str) {
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        name: Some(name.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviews: kube::Api<SelfSubjectAccessReview> = kube::Api::all(client.clone());
    let allowed = async {
        while !reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let what = format!("{verb} {resource}/{name} in {namespace} was not granted");
    tokio::time::timeout(rehearsal::DEADLINE, allowed).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A Role in the namespace of a case, and its binding to a user.
fn granted(case: &str, name: &str, user: &str, rules: &Value) -> [Value; 2] {
    [
        role("Role", name, case, rules),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name, "namespace": case},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
        }),
    ]
}

/// `eve` may write plans, and nothing else. `author` may use the plan's account as well. `deputy` may decide, but accept no
/// loosening.
fn people(case: &str) -> Vec<Value> {
    let plans = json!({"apiGroups": ["resurgam.dev"], "resources": ["recoveryplans"],
        "verbs": ["get", "list", "create", "update", "patch", "delete"]});
    let account = json!({"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["recovery"], "verbs": ["use"]});
    let decides = json!([
        {"apiGroups": ["resurgam.dev"], "resources": ["servicerecoveries"], "verbs": ["get", "list"]},
        {"apiGroups": ["resurgam.dev"], "resources": ["decisions"], "verbs": ["create"]},
        {"apiGroups": ["resurgam.dev"], "resources": ["recoveryplans"], "verbs": ["retry", "override"]},
    ]);
    [
        granted(case, "plan-writer", "eve", &json!([plans])),
        granted(case, "plan-author", "author", &json!([plans, account])),
        granted(case, "deputy", "deputy", &decides),
    ]
    .concat()
}

/// A plan whose services all go without gates and dependencies.
fn ungated(bench: &Bench, plan: &str, services: &[(&str, &[&str])]) -> Value {
    let of = |(name, namespaces): &(&str, &[&str])| {
        let namespaces: Vec<String> = namespaces.iter().map(|n| bench.namespace(n)).collect();
        json!({"name": name, "namespaces": namespaces, "ungated": {"reason": "x"}})
    };
    let mut plan = bench.plan(plan, services.iter().map(of).collect());
    plan["spec"].as_object_mut().unwrap().remove("defaults");
    plan
}

/// Waits until a person is asked about a service for this reason, in these words.
async fn asked(bench: &Bench, plan: &str, service: &str, reason: &str, words: &[&str]) -> Value {
    let records = rehearsal::kind(&bench.admin, bench::KINDS, "ServiceRecovery", Some(bench.case));
    let what = format!("{plan}.{service} to ask for {reason}: {}", words.join(", "));
    let asks = |o: &Value| {
        let conditions = rehearsal::field(o, "/status/conditions").as_array();
        conditions.into_iter().flatten().any(|c| {
            let message = c["message"].as_str().unwrap_or_default();
            c["type"] == "NeedsDecision"
                && c["status"] == "True"
                && c["reason"] == reason
                && words.iter().all(|word| message.contains(word))
        })
    };
    rehearsal::eventually(&records, &format!("{plan}.{service}"), &what, rehearsal::DEADLINE, asks)
        .await
        .unwrap()
}

/// Does this again for as long as somebody else, such as the operator with its status, has written in between.
async fn settled<T>(mut ask: impl AsyncFnMut() -> Result<T, kube::Error>) -> Result<T, kube::Error> {
    loop {
        let answer = ask().await;
        if !matches!(&answer, Err(kube::Error::Api(status)) if status.is_conflict()) {
            return answer;
        }
    }
}

fn refused<T>(outcome: Result<T, kube::Error>, words: &[&str]) {
    let Err(kube::Error::Api(status)) = outcome else { panic!("it was not refused: {words:?}") };
    assert_eq!(status.code, 403, "{}", status.message);
    for word in words {
        assert!(status.message.contains(word), "{word}: {}", status.message);
    }
}
