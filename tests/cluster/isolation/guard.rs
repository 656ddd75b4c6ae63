//! What the guards refuse outside the isolated namespace itself, and all that has to go on.

use std::fmt::Debug;

use control_plane::Identity;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Secret, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Resource, ResourceExt};
use resurgam::api::quarantine::ControlName;
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, conditions};
use resurgam::isolation::list::{self, CONFIG_MAPS};
use resurgam::isolation::policies::{self, Policy, VERSION, VERSION_ANNOTATION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::isolation::support::{
    acting_as, alone, another, apply, client, controller, isolate, namespace, object, ready, refused,
    stopped, until, within,
};
use crate::isolation::{api, was_refused};

/// Of a dry-run the API server says all that it would say.
fn dry() -> PostParams {
    PostParams { dry_run: true, field_manager: None }
}

fn dry_patch() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// What came of creating something, for good or not.
async fn create<K>(api: Api<K>, value: Value) -> kube::Result<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    api.create(&dry(), &from(value)).await
}

fn rbac(kind: &str, name: &str, role: &str, subject: Value) -> Value {
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    json!({"kind": kind, "metadata": {"name": name}, "roleRef": role_ref, "subjects": [subject]})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

fn holder(name: &str, verb: &str, names: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [
        {"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": names, "verbs": [verb]}]})
}

/// Makes a namespace's default account an administrator of the cluster, as some charts do.
async fn crown(name: &str) {
    let administrator = client(Identity::PlatformAdministrator).await;
    let binding = rbac("ClusterRoleBinding", name, "cluster-admin", account(name, "default"));
    Api::<ClusterRoleBinding>::all(administrator)
        .create(&PostParams::default(), &from(binding))
        .await
        .unwrap();
}

async fn guarded() -> ConfigMap {
    api::<ConfigMap>(&client(Identity::Operator).await, "resurgam-system").get(CONFIG_MAPS[0]).await.unwrap()
}

#[tokio::test]
async fn accounts_of_an_isolated_namespace_write_nowhere() {
    let _running = controller().await;
    for name in ["taken", "untaken"] {
        namespace(name).await;
        crown(name).await;
    }
    let account = acting_as("taken", "default").await;
    // The right is there before anything is isolated.
    let elsewhere = || api::<ConfigMap>(&account, "untaken");
    let implant = json!({"metadata": {"name": "implant"}});
    within("its rights", async {
        while create(elsewhere(), implant.clone()).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    isolate("taken", QuarantineLevel::Contained).await;
    let contained = ready("taken", Isolation::Contained).await;
    was_refused(&contained, ControlName::Guard);
    assert_eq!(list::levels(&guarded().await)["taken"], "contained");

    let by = policies::ACCOUNT_GUARD;
    let message = refused("create elsewhere", by, create(elsewhere(), implant.clone()).await).message;
    for word in ["namespace taken is quarantined (contained)", "kubectl delete quarantine taken"] {
        assert!(message.contains(word) && !message.contains('\n'), "{word} in: {message}");
    }
    let kube_system = api::<ConfigMap>(&account, "kube-system");
    refused("create in kube-system", by, create(kube_system, implant.clone()).await);
    let rule = json!({"metadata": {"name": "implant"}, "rules": []});
    refused("create a ClusterRole", by, create(Api::<ClusterRole>::all(account.clone()), rule).await);
    let namespaces: Api<Namespace> = Api::all(account.clone());
    refused("delete another namespace", by, namespaces.delete("untaken", &DeleteParams::default()).await);
    let mark = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
    refused("change its own", by, namespaces.patch("taken", &dry_patch(), &mark).await);
    let token = api::<ServiceAccount>(&account, "untaken")
        .create_token_request("default", &dry(), &from(json!({"spec": {"audiences": []}})))
        .await;
    refused("a token from elsewhere", by, token);
    let deletes = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let all = elsewhere().delete_collection(&deletes, &ListParams::default()).await;
    refused("delete all there is", by, all);
    let own = create(api::<ConfigMap>(&account, "taken"), implant.clone()).await;
    refused("create in its own", policies::WRITE_FENCE, own);

    // Whoever is not isolated goes on, in the same way.
    let other = acting_as("untaken", "default").await;
    create(api::<ConfigMap>(&other, "untaken"), implant.clone()).await.unwrap();
    // It goes on once it is let out.
    let lead: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
    lead.delete("taken", &DeleteParams::default()).await.unwrap();
    within("its release", async {
        while let Err(error) = create(elsewhere(), implant.clone()).await {
            refused("not yet", by, Err::<(), _>(error));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(!list::levels(&guarded().await).contains_key("taken"));
}

#[tokio::test]
async fn nobody_gives_rights_to_accounts_of_an_isolated_namespace() {
    let _running = controller().await;
    namespace("bound").await;
    namespace("unbound").await;
    let gitops = client(Identity::GitOps).await;
    let bindings = || api::<RoleBinding>(&gitops, "unbound");
    // From Git, since before the day.
    let before = rbac("RoleBinding", "before", "view", account("bound", "web"));
    bindings().create(&PostParams::default(), &from(before.clone())).await.unwrap();
    isolate("bound", QuarantineLevel::Contained).await;
    ready("bound", Isolation::Contained).await;

    let by = policies::RIGHTS_GUARD;
    let named = [
        account("bound", "web"),
        user("system:serviceaccount:bound:web"),
        group("system:serviceaccounts:bound"),
        group("system:serviceaccounts"),
        group("system:authenticated"),
    ];
    for subject in named {
        let what = subject.to_string();
        let binding = rbac("RoleBinding", "new", "view", subject.clone());
        let message = refused(&what, by, create(bindings(), binding).await).message;
        assert!(
            message.contains("is quarantined (") && message.contains("kubectl delete quarantine"),
            "{message}"
        );
        let binding = rbac("ClusterRoleBinding", "new", "view", subject.clone());
        refused(&what, by, create(Api::<ClusterRoleBinding>::all(gitops.clone()), binding).await);
        let added = Patch::Json::<()>(from(json!([{"op": "add", "path": "/subjects/-", "value": subject}])));
        // The same again is no news.
        if subject["kind"] != "ServiceAccount" {
            refused(&what, by, bindings().patch("before", &dry_patch(), &added).await);
        }
    }
    // Who may bind in one namespace only is refused as well.
    let tenant = client(Identity::TenantAdministrator).await;
    let role = json!({"metadata": {"name": "read"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    api::<k8s_openapi::api::rbac::v1::Role>(&tenant, "unbound")
        .create(&PostParams::default(), &from(role))
        .await
        .unwrap();
    let mut binding = rbac("RoleBinding", "tenant", "read", account("bound", "web"));
    binding["roleRef"]["kind"] = json!("Role");
    refused("by the tenant", by, create(api::<RoleBinding>(&tenant, "unbound"), binding).await);

    // GitOps applies again what was there; others bind others; what is there may be taken away.
    let applied = PatchParams { dry_run: true, ..PatchParams::apply("gitops").force() };
    let mut again = before.clone();
    again["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
    bindings().patch("before", &applied, &Patch::Apply(again)).await.unwrap();
    create(bindings(), rbac("RoleBinding", "new", "view", account("unbound", "web"))).await.unwrap();
    create(bindings(), rbac("RoleBinding", "new", "view", group("people"))).await.unwrap();
    let none = Patch::Merge(json!({"subjects": []}));
    bindings().patch("before", &dry_patch(), &none).await.unwrap();
    bindings().delete("before", &DeleteParams { dry_run: true, ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn only_releasers_grant_rights_over_an_isolated_namespace() {
    let _running = controller().await;
    namespace("coveted").await;
    namespace("uncoveted").await;
    let gitops = client(Identity::GitOps).await;
    let roles = || Api::<ClusterRole>::all(gitops.clone());
    let bindings = || Api::<ClusterRoleBinding>::all(gitops.clone());
    // Prepared before the day: a role that is bound to nobody yet.
    let before = holder("coveted-recover", "recover", &["coveted"]);
    roles().create(&PostParams::default(), &from(before)).await.unwrap();
    object(api::<ConfigMap>(&gitops, "resurgam-system"), CONFIG_MAPS[0], "told of the role", |map| {
        map.data.as_ref().is_some_and(|data| {
            data.get(list::ROLES_KEY).is_some_and(|roles| roles.contains("coveted-recover coveted"))
        })
    })
    .await;
    isolate("coveted", QuarantineLevel::Sealed).await;
    ready("coveted", Isolation::Sealed).await;

    let by = policies::RIGHTS_GUARD;
    for verb in ["release", "repair", "recover", "operate"] {
        refused(verb, by, create(roles(), holder("new", verb, &["coveted"])).await);
        refused(verb, by, create(roles(), holder("new", verb, &[])).await);
        create(roles(), holder("new", verb, &["uncoveted"])).await.unwrap();
    }
    let wider = json!([{"op": "replace", "path": "/rules/0/verbs", "value": ["recover", "release"]}]);
    refused(
        "widen",
        by,
        roles().patch("coveted-recover", &dry_patch(), &Patch::Json::<()>(from(wider))).await,
    );
    let same = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    roles().patch("coveted-recover", &dry_patch(), &same).await.unwrap();
    let prepared = rbac("ClusterRoleBinding", "new", "coveted-recover", user("eve"));
    refused("bind what was prepared", by, create(bindings(), prepared.clone()).await);
    let lead_for_eve = rbac("ClusterRoleBinding", "new", "resurgam-recovery-lead", user("eve"));
    refused("bind the lead's role", by, create(bindings(), lead_for_eve.clone()).await);
    // What fills aggregated roles is no way round.
    let aggregator = acting_as("kube-system", "clusterrole-aggregation-controller").await;
    let union = Patch::Merge(holder("view", "release", &["coveted"]));
    refused("aggregate", by, Api::<ClusterRole>::all(aggregator).patch("view", &dry_patch(), &union).await);

    // All else goes on; and a lead gives what the lead holds.
    create(roles(), json!({"metadata": {"name": "new"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}))
        .await
        .unwrap();
    create(roles(), json!({"metadata": {"name": "new"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}))
        .await
        .unwrap();
    create(bindings(), rbac("ClusterRoleBinding", "new", "view", user("eve"))).await.unwrap();
    let lead = client(Identity::RecoveryLead).await;
    create(Api::<ClusterRole>::all(lead.clone()), holder("new", "recover", &["coveted"])).await.unwrap();
    create(Api::<ClusterRoleBinding>::all(lead), prepared).await.unwrap();
    let responder = client(Identity::Responder).await;
    let refusal = create(Api::<ClusterRoleBinding>::all(responder), lead_for_eve).await.unwrap_err();
    assert!(refusal.to_string().contains("forbidden"), "{refusal}");
}

fn volume(name: &str, namespace: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": name, "persistentVolumeReclaimPolicy": policy,
            "claimRef": {"namespace": namespace, "name": "data"},
            "hostPath": {"path": "/nowhere"},
        },
    })
}

/// A claim in a namespace, bound to a volume.
async fn store(name: &str) -> PersistentVolume {
    let tenant = namespace(name).await;
    let administrator = client(Identity::PlatformAdministrator).await;
    apply(&administrator, &volume(name, name, "Retain").to_string()).await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}}});
    api::<PersistentVolumeClaim>(&tenant, name).create(&PostParams::default(), &from(claim)).await.unwrap();
    object(Api::<PersistentVolume>::all(administrator), name, "bound", |volume| {
        volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    })
    .await
}

#[tokio::test]
async fn volumes_and_snapshots_of_isolated_namespaces_stay_there() {
    let _running = controller().await;
    store("stored").await;
    let administrator = client(Identity::PlatformAdministrator).await;
    apply(&administrator, include_str!("snapshots.yaml")).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "snapshot.storage.k8s.io",
        "v1",
        "VolumeSnapshotContent",
    ));
    let gitops = client(Identity::GitOps).await;
    let contents: Api<DynamicObject> = Api::all_with(gitops.clone(), &kind);
    let content = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": "stored"}, "spec": {"deletionPolicy": "Retain", "volumeSnapshotRef": {"namespace": "stored", "name": "nightly"}}});
    within("snapshots to be served", async {
        while contents.create(&PostParams::default(), &from(content.clone())).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    isolate("stored", QuarantineLevel::Sealed).await;
    ready("stored", Isolation::Sealed).await;

    let by = policies::VOLUME_GUARD;
    let volumes: Api<PersistentVolume> = Api::all(gitops);
    let deletes = DeleteParams { dry_run: true, ..Default::default() };
    for patch in [
        json!({"spec": {"claimRef": null}}),
        json!({"spec": {"claimRef": {"namespace": "thief"}}}),
        json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
    ] {
        let message = refused(
            &patch.to_string(),
            by,
            volumes.patch("stored", &dry_patch(), &Patch::Merge(&patch)).await,
        )
        .message;
        assert!(message.contains("namespace stored is quarantined (sealed)"), "{message}");
    }
    refused("delete", by, volumes.delete("stored", &deletes).await);
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    refused("say it is released", by, volumes.patch_status("stored", &dry_patch(), &released).await);
    let given = Patch::Merge(json!({"spec": {"volumeSnapshotRef": {"namespace": "thief"}}}));
    refused("give the snapshot", by, contents.patch("stored", &dry_patch(), &given).await);
    refused("delete the snapshot", by, contents.delete("stored", &deletes).await);

    // What storage does by itself goes on.
    let attached = Patch::Merge(
        json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection", "external-attacher/csi"]}}),
    );
    volumes.patch("stored", &dry_patch(), &attached).await.unwrap();
    let resized = Patch::Merge(json!({"spec": {"capacity": {"storage": "2Gi"}}}));
    volumes.patch("stored", &dry_patch(), &resized).await.unwrap();
    let bound = Patch::Merge(json!({"spec": {"volumeSnapshotRef": {"uid": "1"}}}));
    contents.patch("stored", &dry_patch(), &bound).await.unwrap();
    let binder = acting_as("kube-system", "persistent-volume-binder").await;
    let mut unbound = volumes.get("stored").await.unwrap();
    unbound.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = None;
    Api::<PersistentVolume>::all(binder).replace("stored", &dry(), &unbound).await.unwrap();

    // Elsewhere claims are bound, and a namespace goes with all that is in it.
    store("unstored").await;
    let tenant: Api<Namespace> = Api::all(client(Identity::TenantAdministrator).await);
    let gone = tenant.get("unstored").await.unwrap().uid().unwrap();
    tenant.delete("unstored", &DeleteParams::default()).await.unwrap();
    let deleted = kube::runtime::conditions::is_deleted(&gone);
    within("its end", rehearsal::await_condition(tenant, "unstored", deleted)).await.unwrap();
    object(volumes.clone(), "unstored", "released", |volume| {
        volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released")
    })
    .await;
    volumes.delete("unstored", &DeleteParams::default()).await.unwrap();
}

/// The refusal of what two guards refuse: the API server asks all policies, and names whichever answers first.
fn refused_by_either<T: Debug>(what: &str, outcome: kube::Result<T>) {
    let text = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let by =
        if text.contains(policies::INSTALL_GUARD) { policies::INSTALL_GUARD } else { policies::OWN_GUARD };
    refused(what, by, outcome);
}

#[tokio::test]
async fn what_isolation_rests_on_is_not_taken_away() {
    let _running = controller().await;
    namespace("resting").await;
    isolate("resting", QuarantineLevel::Contained).await;
    ready("resting", Isolation::Contained).await;
    let (own, install) = (policies::OWN_GUARD, policies::INSTALL_GUARD);
    let deletes = DeleteParams { dry_run: true, ..Default::default() };
    let gitops = client(Identity::GitOps).await;

    let namespaces: Api<Namespace> = Api::all(gitops.clone());
    refused_by_either("delete our namespace", namespaces.delete("resurgam-system", &deletes).await);
    let maps = api::<ConfigMap>(&gitops, "resurgam-system");
    let records = api::<ConfigMap>(&gitops, "resurgam-records");
    refused_by_either("delete the records", namespaces.delete("resurgam-records", &deletes).await);
    let record = create(records.clone(), json!({"metadata": {"name": "resting"}})).await;
    record.unwrap();
    let patch = |value| Patch::Merge(value);
    // What is written over a list's text for `contained`.
    type Change = fn(&str) -> Value;
    let changes: [(&str, Change, bool); 10] = [
        ("take one out", |now| json!({"_contained": now.replace("resting\n", "")}), false),
        ("add before the others", |now| json!({"_contained": format!("another\n{now}")}), false),
        ("take all out", |_| json!({"_contained": null}), false),
        ("forget the roles", |_| json!({"_roles": ""}), false),
        ("add a key", |_| json!({"another": "sealed"}), false),
        ("add the cluster's", |now| json!({"_contained": format!("{now}kube-system\n")}), false),
        ("add what is never isolated", |now| json!({"_contained": format!("{now}default\n")}), false),
        ("add half a line", |now| json!({"_contained": format!("{now}another")}), false),
        ("add one", |now| json!({"_contained": format!("{now}another\n")}), true),
        ("add many", |now| json!({"_contained": format!("{now}another\nand-another\n")}), true),
    ];
    for (what, change, passes) in changes {
        for list in CONFIG_MAPS {
            // Others isolate meanwhile.
            let outcome = loop {
                let live = maps.get(list).await.unwrap();
                let data = change(&live.data.clone().unwrap_or_default()["_contained"]);
                let change = json!({"metadata": {"resourceVersion": live.resource_version()}, "data": data});
                match maps.patch(list, &dry_patch(), &patch(change)).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    outcome => break outcome,
                }
            };
            if passes {
                outcome.unwrap();
            } else {
                refused(&format!("{what} on {list}"), own, outcome);
            }
        }
    }
    for list in CONFIG_MAPS {
        refused(list, own, maps.delete(list, &deletes).await);
        for (what, change) in [
            ("freeze", json!({"immutable": true})),
            ("unlabel", json!({"metadata": {"labels": {list::LABEL: null}}})),
            ("relabel", json!({"metadata": {"labels": {list::LABEL: "false"}}})),
        ] {
            let outcome = maps.patch(list, &dry_patch(), &patch(change)).await;
            refused(&format!("{what} {list}"), own, outcome);
        }
    }
    let third = json!({"metadata": {"name": "a-third", "labels": {list::LABEL: "true"}}, "data": {"another": "open"}});
    refused_by_either("a list of one's own", create(maps.clone(), third).await);
    let label = patch(json!({"metadata": {"labels": {"resurgam.dev/isolation": "sealed"}}}));
    for name in ["kube-system", "default", "resurgam-system", "resurgam-records"] {
        refused_by_either(name, namespaces.patch(name, &dry_patch(), &label).await);
    }
    refused(
        "an implant beside us",
        install,
        create(maps.clone(), json!({"metadata": {"name": "implant"}})).await,
    );

    let kinds: Api<CustomResourceDefinition> = Api::all(gitops.clone());
    refused("delete a kind", install, kinds.delete("quarantines.resurgam.dev", &deletes).await);
    let unserved = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    let unserved = Patch::Json::<()>(from(unserved));
    refused(
        "no longer serve it",
        install,
        kinds.patch("quarantines.resurgam.dev", &dry_patch(), &unserved).await,
    );
    let orphan = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "1"}]}});
    refused("garbage", install, kinds.patch("quarantines.resurgam.dev", &dry_patch(), &patch(orphan)).await);
    // GitOps applies the same again; the operator, and a lead, put in another version; other kinds are not ours.
    let applied = PatchParams { dry_run: true, ..PatchParams::apply("gitops").force() };
    for kind in resurgam::api::crds() {
        kinds.patch(&kind.name_any(), &applied, &Patch::Apply(&kind)).await.unwrap();
    }
    let wider = patch(json!({"spec": {"names": {"shortNames": ["quar", "quars"]}}}));
    let lead: Api<CustomResourceDefinition> = Api::all(client(Identity::RecoveryLead).await);
    lead.patch("quarantines.resurgam.dev", &dry_patch(), &wider).await.unwrap();
}

#[tokio::test]
async fn what_is_on_record_stays() {
    let _running = controller().await;
    let gitops = client(Identity::GitOps).await;
    let name = "on-record";
    apply(
        &gitops,
        "{apiVersion: resurgam.dev/v1alpha1, kind: Incident, metadata: {name: on-record}, spec: {title: t, compromisedSince: '2025-11-20T00:00:00Z'}}",
    )
    .await;
    let incidents: Api<resurgam::api::Incident> = Api::all(gitops.clone());
    let lead: Api<resurgam::api::Incident> = Api::all(client(Identity::RecoveryLead).await);
    let since = |time: &str| Patch::Merge(json!({"spec": {"compromisedSince": time}}));
    let deletes = DeleteParams { dry_run: true, ..Default::default() };
    let own = policies::OWN_GUARD;
    let later = async || incidents.patch(name, &dry_patch(), &since("2025-11-21T00:00:00Z")).await;
    // The operator that writes the policy may have begun just now.
    within("the policy to be enforced", async {
        while later().await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let message = refused("later", own, later().await).message;
    assert!(message.contains("incidents/on-record") && message.contains("recovery lead"), "{message}");
    refused("delete", own, incidents.delete(name, &deletes).await);
    incidents.patch(name, &dry_patch(), &since("2025-11-19T00:00:00Z")).await.unwrap();
    lead.patch(name, &dry_patch(), &since("2025-11-21T00:00:00Z")).await.unwrap();
    lead.delete(name, &deletes).await.unwrap();

    // A Decision goes only with its namespace.
    namespace("deciding").await;
    let made = json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "Decision", "metadata": {"name": "retry"}, "spec": {
        "by": "recovery-lead", "action": "Retry", "plan": "p", "service": "s", "reason": "r", "decidedOn": format!("sha256:{}", "0".repeat(64))}});
    let decisions = api::<resurgam::api::Decision>(&client(Identity::RecoveryLead).await, "deciding");
    decisions.create(&PostParams::default(), &from(made)).await.unwrap();
    let decisions = api::<resurgam::api::Decision>(&gitops, "deciding");
    refused("delete a Decision", own, decisions.delete("retry", &deletes).await);
    refused(
        "delete all",
        own,
        decisions.delete_collection(&DeleteParams::default(), &ListParams::default()).await,
    );
    let namespaces: Api<Namespace> = Api::all(client(Identity::TenantAdministrator).await);
    let gone = namespaces.get("deciding").await.unwrap().uid().unwrap();
    namespaces.delete("deciding", &DeleteParams::default()).await.unwrap();
    let deleted = kube::runtime::conditions::is_deleted(&gone);
    within("its end", rehearsal::await_condition(namespaces, "deciding", deleted)).await.unwrap();
}

/// While anything is isolated, as other tests see to, the operator's namespace is left as it is altogether.
fn not_lent<T: std::fmt::Debug>(what: &str, outcome: kube::Result<T>) {
    let Err(kube::Error::Api(status)) = &outcome else { panic!("{what} was not refused: {outcome:?}") };
    let by = |policy: &str| status.message.contains(&format!("ValidatingAdmissionPolicy '{policy}'"));
    assert_eq!(status.code, 403, "{what}: {status:?}");
    assert!(by(policies::CREDENTIAL_GUARD) || by(policies::INSTALL_GUARD), "{what}: {status:?}");
}

#[tokio::test]
async fn the_accounts_that_isolation_trusts_are_not_lent() {
    let _running = controller().await;
    for who in [Identity::TenantAdministrator, Identity::GitOps] {
        let thief = client(who).await;
        for (namespace, name) in [
            ("resurgam-system", "resurgam"),
            ("kube-system", "replicaset-controller"),
            ("kube-system", "namespace-controller"),
        ] {
            let request = from(json!({"spec": {"audiences": []}}));
            let token =
                api::<ServiceAccount>(&thief, namespace).create_token_request(name, &dry(), &request).await;
            not_lent("a token", token);
            let secret = json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": name}},
                "type": "kubernetes.io/service-account-token"});
            not_lent("a Secret", create(api::<Secret>(&thief, namespace), secret).await);
            let pod = json!({"metadata": {"name": "implant"},
                "spec": {"serviceAccountName": name, "containers": [{"name": "main", "image": "registry.example/implant"}]}});
            not_lent("a pod", create(api::<k8s_openapi::api::core::v1::Pod>(&thief, namespace), pod).await);
        }
        // What is not trusted is none of ours.
        let request = from(json!({"spec": {"audiences": []}}));
        api::<ServiceAccount>(&thief, "kube-system")
            .create_token_request("default", &dry(), &request)
            .await
            .unwrap();
        create(api::<Secret>(&thief, "kube-system"), json!({"metadata": {"name": "t"}})).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_is_put_back() {
    let _rig = alone().await;
    let _running = controller().await;
    namespace("forgotten").await;
    isolate("forgotten", QuarantineLevel::Contained).await;
    ready("forgotten", Isolation::Contained).await;
    let maps = api::<ConfigMap>(&client(Identity::Operator).await, "resurgam-system");
    let known = |map: &ConfigMap| list::levels(map).contains_key("forgotten");
    let out = Patch::Merge(json!({"data": {"_contained": null}}));
    for list in CONFIG_MAPS {
        assert!(!known(&maps.patch(list, &PatchParams::default(), &out).await.unwrap()));
        object(maps.clone(), list, "whole", known).await;
    }
    ready("forgotten", Isolation::Contained).await;
}

/// Takes one away and waits until it is back as it was.
async fn comes_back<K>(all: &Api<K>, name: &str, spec: impl Fn(&K) -> Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let before = object(all.clone(), name, "there", |_| true).await;
    all.delete(name, &DeleteParams::default()).await.unwrap();
    let back = object(all.clone(), name, "back", |one| one.uid() != before.uid()).await;
    assert_eq!(spec(&back), spec(&before), "{name}");
}

#[tokio::test]
async fn deleted_policies_come_back_and_newer_ones_are_left_alone() {
    let _rig = alone().await;
    let running = controller().await;
    // Nobody else is at work while the fence is away.
    let _nobody = stopped(running).await;
    let operator = another().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    let all: Api<ValidatingAdmissionPolicy> = Api::all(administrator.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(administrator.clone());
    for Policy { policy, .. } in policies::all().unwrap() {
        let name = policy.name_any();
        comes_back(&all, &name, |policy| json!(policy.spec)).await;
        comes_back(&bindings, &name, |binding| json!(binding.spec)).await;
    }
    // With the policy that keeps them gone, so may the lists go: with the policies they come back, and what belongs in them.
    namespace("remembered").await;
    isolate("remembered", QuarantineLevel::Contained).await;
    ready("remembered", Isolation::Contained).await;
    drop(operator);
    let maps = api::<ConfigMap>(&administrator, "resurgam-system");
    bindings.delete(policies::OWN_GUARD, &DeleteParams::default()).await.unwrap();
    let mut before = Vec::new();
    for list in CONFIG_MAPS {
        before.push(maps.get(list).await.unwrap().uid());
        within("the guard to be gone", async {
            while maps.delete(list, &DeleteParams::default()).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    // A newer operator wrote one of them; an older one wrote another.
    let newer = json!({"metadata": {"annotations": {VERSION_ANNOTATION: (VERSION + 1).to_string()}},
        "spec": {"validations": [{"expression": "true", "reason": "Forbidden"}]}});
    all.patch(policies::DECISION, &PatchParams::default(), &Patch::Merge(&newer)).await.unwrap();
    let older = json!({"metadata": {"annotations": {VERSION_ANNOTATION: "0"}}});
    all.patch(policies::SINGLE_WRITER, &PatchParams::default(), &Patch::Merge(older)).await.unwrap();
    let _operator = another().await;
    for list in CONFIG_MAPS {
        object(maps.clone(), list, "whole", |map| {
            let tells =
                |data: &std::collections::BTreeMap<String, String>| data.contains_key(list::ROLES_KEY);
            let holds = list::levels(map).contains_key("remembered") && map.data.as_ref().is_some_and(tells);
            !before.contains(&map.uid()) && holds
        })
        .await;
    }
    object(bindings, policies::OWN_GUARD, "back", |_| true).await;
    let own = VERSION.to_string();
    let version = |policy: &ValidatingAdmissionPolicy| policy.annotations().get(VERSION_ANNOTATION).cloned();
    object(all.clone(), policies::SINGLE_WRITER, "of this version", |policy| {
        version(policy) == Some(own.clone())
    })
    .await;
    until("remembered", "told of a newer version", |quarantine| {
        let status = quarantine.status.clone().unwrap_or_default();
        conditions::find(&status.conditions, conditions::FENCE_INTACT)
            .is_some_and(|intact| (intact.status.as_str(), intact.reason.as_str()) == ("True", "Newer"))
    })
    .await;
    let left = all.get(policies::DECISION).await.unwrap();
    assert_eq!(left.spec.unwrap().validations.unwrap()[0].expression, "true");
    // Put right for everybody else.
    let params = PatchParams { dry_run: false, ..PatchParams::default() };
    let mine = json!({"metadata": {"annotations": {VERSION_ANNOTATION: "0"}}});
    all.patch(policies::DECISION, &params, &Patch::Merge(mine)).await.unwrap();
    object(all, policies::DECISION, "of this version", |policy| version(policy) == Some(own.clone())).await;
}
