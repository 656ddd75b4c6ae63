//! What no admission policy can stop, shown as such. The reasons are in docs/isolation.md. Each goes through: where it does not
//! any more, it belongs into the other tables.

use control_plane::Identity;
use kube::api::DeleteParams;
use rehearsal::{DEADLINE, eventually, kind};
use resurgam::isolation::policies::FENCES;
use serde_json::json;

use crate::attack::attempt::{Ask, FENCE, LOCK, Outcome, QUARANTINE, attack, make};
use crate::attack::rig::{LEVELS, shared_stage, stage};
use crate::attack::served::get;
use crate::attack::who::{Who, acting, outsiders};

fn assert_through(what: &str, outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Through), "{what} is stopped by now: {outcome:?}");
}

/// The API server tells admission whom somebody acts as, and not who acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_impersonate_a_lead_or_the_operator_lets_out() {
    let stage = shared_stage(0).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let name = LEVELS[1].namespace;
    let lead = acting(&admin, "recovery-lead", &[], false);
    let delete = attack(
        "delete the Quarantine",
        format!("/apis/resurgam.dev/v1alpha1/quarantines/{name}"),
        Ask::Delete,
        QUARANTINE,
    );
    assert_through("acting as a lead", &make(&lead, &delete, true).await);
    let operator = acting(&admin, "system:serviceaccount:resurgam-system:resurgam", &[], false);
    let unlabel = json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}});
    let unlabel = attack("unlabel", format!("/api/v1/namespaces/{name}"), Ask::Merge(unlabel), LOCK);
    assert_through("acting as the operator", &make(&operator, &unlabel, true).await);
}

/// Admission is asked about writes and connections only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_reads() {
    let stage = shared_stage(0).await;
    let tenant = stage.client(Identity::TenantAdministrator).await;
    for level in LEVELS {
        let path = format!("/api/v1/namespaces/{}/secrets/password", level.namespace);
        assert!(get(&tenant, &path).await.unwrap()["data"]["password"].is_string(), "{}", level.label);
        let watch = format!("/api/v1/namespaces/{}/secrets?watch=true&timeoutSeconds=1", level.namespace);
        let events = tenant.request_text(http::Request::get(watch).body(Vec::new()).unwrap()).await.unwrap();
        assert!(events.contains("ADDED"), "{}", level.label);
        // There is no kubelet that has logs: asking it is what fails, not the right to ask.
        let pods = get(&tenant, &format!("/api/v1/namespaces/{}/pods", level.namespace)).await.unwrap();
        let pod = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        let error = get(&tenant, &format!("/api/v1/namespaces/{}/pods/{pod}/log", level.namespace))
            .await
            .unwrap_err();
        assert!(!error.to_string().contains("ValidatingAdmissionPolicy"), "{error}");
    }
}

/// The kubelet's own API runs commands in any pod of its node; it belongs to the node, not to a namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_reach_a_nodes_kubelet_is_asked_by_no_policy() {
    let stage = shared_stage(0).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let path = format!("/api/v1/nodes/node-1/proxy/run/{}/bare/main?cmd=id", LEVELS[0].namespace);
    let request = http::Request::post(path).body(Vec::new()).unwrap();
    // Nobody listens there; it was on its way.
    let error = admin.request_text(request).await.unwrap_err().to_string();
    assert!(!error.contains("ValidatingAdmissionPolicy") && !error.contains("cannot"), "{error}");
}

/// Deleting a kind deletes its objects everywhere, by the API server itself, which asks no policy about that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_kind_deletes_its_isolated_objects() {
    let stage = shared_stage(0).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let mut crd = rehearsal::documents(include_str!("kinds.yaml")).unwrap().pop().unwrap();
    crd["metadata"]["name"] = json!("passings.passing.example");
    crd["spec"]["group"] = json!("passing.example");
    crd["spec"]["names"] = json!({"kind": "Passing", "plural": "passings", "singular": "passing"});
    rehearsal::apply(&admin, "platform", &[crd]).await.unwrap();
    let crds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let served = |o: &serde_json::Value| rehearsal::condition(o, "Established") == "True";
    eventually(&crds, "passings.passing.example", "it to be served", DEADLINE, served).await.unwrap();
    let name = "unstoppable-kind";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let object = json!({"apiVersion": "passing.example/v1", "kind": "Passing", "metadata": {"name": "one", "namespace": name}});
    rehearsal::apply(&admin, "platform", &[namespace, object]).await.unwrap();
    crate::attack::rig::label(&stage.rig.cluster, name, "sealed").await.unwrap();
    crds.delete("passings.passing.example", &DeleteParams::default()).await.unwrap();
    let gone = async {
        while get(&admin, &format!("/apis/passing.example/v1/namespaces/{name}/passings/one")).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

/// Policies guard no policies. The operator puts them back; without one, and without static manifests, they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_the_policies_opens_until_an_operator_runs() {
    let mut stage = stage(0).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let level = LEVELS[0];
    let up = json!({"spec": {"replicas": 3}});
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/web/scale", level.namespace);
    let scale = attack("scale", path, Ask::Merge(up), FENCE);
    let flux: Who = outsiders(stage.rig).await.remove(1);
    assert!(matches!(make(&flux, &scale, true).await, Outcome::Refused(_)));
    let bindings = kind(&admin, "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", None);
    for fence in FENCES {
        bindings.delete(fence, &DeleteParams::default()).await.unwrap();
    }
    let changes = async |wanted: fn(&Outcome) -> bool| {
        while !wanted(&make(&flux, &scale, true).await) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let through = changes(|outcome| matches!(outcome, Outcome::Through));
    tokio::time::timeout(DEADLINE, through).await.expect("deleting the policies is stopped by now");
    stage.operators(1);
    let refused = changes(|outcome| matches!(outcome, Outcome::Refused(_)));
    tokio::time::timeout(DEADLINE, refused).await.expect("the operator puts the policies back");
}
