//! A control plane that was given the fence as files: nobody takes it away through the API, whatever rights they hold.

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rehearsal::await_condition;
use resurgam::api::{Quarantine, conditions};
use resurgam::isolation::evidence::{Evidence, Store};
use resurgam::isolation::policies::{self, Policy};
use serde_json::json;

use crate::isolation::api;
use crate::isolation::support::{apply, refused, start, within};

/// As `resurgam fence --static` prints it.
fn manifests() -> String {
    let one = |Policy { policy, binding }: Policy| {
        [serde_yaml::to_string(&policy).unwrap(), serde_yaml::to_string(&binding).unwrap()].join("---\n")
    };
    policies::all_static().unwrap().into_iter().map(one).collect::<Vec<_>>().join("---\n")
}

#[tokio::test]
async fn static_manifests_hold_against_administrators_alone() {
    let options = Options { static_policies: Some(manifests()), ..Options::default() };
    let cluster = ControlPlane::start(options).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let evidence = tempfile::tempdir().unwrap();
    let operator = start(
        cluster.kubeconfig(Identity::Operator).to_owned(),
        Evidence::new(Store::folder(evidence.path())),
    );
    let administrator = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    apply(
        &administrator,
        r#"
apiVersion: v1
kind: Namespace
metadata: {name: kept}
---
# A lead who may also delete policies, as whoever uninstalls.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: uninstall}
rules:
- {apiGroups: [admissionregistration.k8s.io], resources: [validatingadmissionpolicies, validatingadmissionpolicybindings], verbs: [delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: uninstall}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: uninstall}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: recovery-lead}]
---
apiVersion: resurgam.dev/v1alpha1
kind: Quarantine
metadata: {name: kept}
spec: {isolation: Contained, reason: breach}
"#,
    )
    .await;
    let quarantines: Api<Quarantine> = Api::all(administrator.clone());
    // The prober takes a refusal by the static name for what it is.
    within(
        "isolation",
        await_condition(quarantines, "kept", |quarantine: Option<&Quarantine>| {
            quarantine
                .and_then(|q| q.status.as_ref())
                .is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY))
        }),
    )
    .await
    .unwrap();
    tokio::task::spawn_blocking(move || drop(operator)).await.unwrap();

    let guard = policies::static_name(policies::POLICY_GUARD);
    let gitops = cluster.client(Identity::GitOps).await.unwrap();
    for client in [&administrator, &gitops] {
        let all: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        for Policy { policy, .. } in policies::all().unwrap() {
            let name = policy.name_any();
            refused(&name, &guard, all.delete(&name, &DeleteParams::default()).await);
            refused(&name, &guard, bindings.delete(&name, &DeleteParams::default()).await);
            let weaker = Patch::Merge(json!({"spec": {"failurePolicy": "Ignore"}}));
            refused(&name, &guard, all.patch(&name, &PatchParams::default(), &weaker).await);
        }
        let every = all.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        refused("all policies", &guard, every);
        let every = bindings.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        refused("all bindings", &guard, every);
    }
    let scope = resurgam::check::Scope { pre: true, plan: None };
    let facts = resurgam::check::gather(&administrator, &scope).await.unwrap();
    assert_eq!(facts.kubernetes.static_guard, resurgam::check::kubernetes::StaticGuard::Refuses);
    // Even with all of them gone, by somebody who may release, what needs no parameter holds.
    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    for Policy { policy, .. } in policies::all().unwrap() {
        let name = policy.name_any();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(lead.clone());
        bindings.delete(&name, &DeleteParams::default()).await.unwrap();
        Api::<ValidatingAdmissionPolicy>::all(lead.clone())
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
    }
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "implant"},
        "spec": {"containers": [{"name": "main", "image": "registry.example/implant"}]}}))
    .unwrap();
    let fence = policies::static_name(policies::WRITE_FENCE);
    let lock = policies::static_name(policies::NAMESPACE_LOCK);
    let quarantine_lock = policies::static_name(policies::QUARANTINE_LOCK);
    let own = policies::static_name(policies::OWN_GUARD);
    within("the API's policies to be gone", async {
        loop {
            let outcome = api::<Pod>(&gitops, "kept").create(&PostParams::default(), &pod).await;
            let Err(kube::Error::Api(status)) = &outcome else { panic!("let through: {outcome:?}") };
            if status.message.contains(&fence) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for client in [&administrator, &gitops] {
        let pods = api::<Pod>(client, "kept");
        let status = refused("create a pod", &fence, pods.create(&PostParams::default(), &pod).await);
        assert!(status.message.contains("kept is quarantined (contained)"), "{status:?}");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let unlabel = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}}));
        refused("unlabel", &lock, namespaces.patch("kept", &PatchParams::default(), &unlabel).await);
        refused("delete", &lock, namespaces.delete("kept", &DeleteParams::default()).await);
        refused("delete ours", &own, namespaces.delete("resurgam-system", &DeleteParams::default()).await);
        let quarantines: Api<Quarantine> = Api::all(client.clone());
        refused("release", &quarantine_lock, quarantines.delete("kept", &DeleteParams::default()).await);
    }
    cluster.stop().await.unwrap();
}
