//! GitOps tools whose objects deliver into what is isolated. The kinds are theirs, with nothing of their schemas.

use control_plane::Identity;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::Discovery;
use kube::runtime::wait::conditions;
use kube::{Api, Client, ResourceExt};
use rehearsal::await_condition;
use resurgam::api::quarantine::DelivererState::{Denied, Suspended};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel};
use resurgam::isolation::gitops::{KINDS, WAS_ANNOTATION};
use serde_json::{Value, json};

use crate::isolation::support::{
    alone, another, apply, client, controller, isolate, namespace, quarantine, ready, stopped, until, within,
};

const VERSIONS: [&str; 3] = ["v1", "v2", "v1alpha1"];

async fn install(administrator: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(administrator.clone());
    for ((group, kind), version) in KINDS.into_iter().zip(VERSIONS) {
        let plural = format!("{}s", kind.to_lowercase());
        let name = format!("{plural}.{group}");
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}},
                }],
            },
        });
        crds.patch(&name, &PatchParams::apply("test"), &Patch::Apply(crd)).await.unwrap();
        within(&name, await_condition(crds.clone(), &name, conditions::is_crd_established())).await.unwrap();
    }
    let all = async || {
        let groups = KINDS.map(|(group, _)| group);
        let found = Discovery::new(administrator.clone()).filter(&groups).run_aggregated().await.unwrap();
        KINDS.iter().all(|(group, kind)| found.get(group).is_some_and(|g| g.recommended_kind(kind).is_some()))
    };
    within("the kinds to be discovered", async {
        while !all().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

fn objects(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let at = KINDS.iter().position(|(_, known)| *known == kind).unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(KINDS[at].0, VERSIONS[at], kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn flux(kind: &str, namespace: &str, name: &str, ids: &[&str]) -> String {
    let at = KINDS.iter().position(|(_, known)| *known == kind).unwrap();
    let entries: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
    let object = json!({
        "apiVersion": format!("{}/{}", KINDS[at].0, VERSIONS[at]), "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"interval": "10m"}, "status": {"inventory": {"entries": entries}},
    });
    object.to_string()
}

fn deliverer(
    quarantine: &Quarantine,
    name: &str,
) -> Option<(resurgam::api::quarantine::DelivererState, String)> {
    let all = &quarantine.status.as_ref()?.deliverers;
    all.iter().find(|of| of.name == name).map(|of| (of.state, of.message.clone()))
}

async fn spec(client: &Client, kind: &str, namespace: &str, name: &str) -> Value {
    objects(client, kind, namespace).get(name).await.unwrap().data["spec"].clone()
}

#[tokio::test]
async fn only_gitops_sources_of_isolated_namespaces_are_suspended() {
    let _rig = alone().await;
    let running = controller().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    install(&administrator).await;
    for name in ["delivered", "delivered-too", "bystander", "gitops"] {
        namespace(name).await;
    }
    let (web, too) = ("delivered_web_apps_Deployment", "delivered-too_db_apps_StatefulSet");
    for object in [
        flux("Kustomization", "gitops", "whole", &[web, too, "_delivered__Namespace"]),
        flux("Kustomization", "gitops", "shared", &[web, "bystander_web_apps_Deployment"]),
        flux("Kustomization", "gitops", "recovery", &[web, "_delivered_resurgam.dev_Quarantine"]),
        flux("Kustomization", "gitops", "elsewhere", &["bystander_web_apps_Deployment"]),
        flux("HelmRelease", "delivered", "chart", &[web]),
    ] {
        apply(&administrator, &object).await;
    }
    let automated = json!({"prune": true, "selfHeal": true});
    let application = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": "app", "namespace": "gitops"},
        "spec": {
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "delivered"},
            "syncPolicy": {"automated": automated},
        },
        "status": {"resources": [{"kind": "ConfigMap", "namespace": "delivered", "name": "settings"}]},
    });
    apply(&administrator, &application.to_string()).await;

    isolate("delivered-too", QuarantineLevel::Contained).await;
    ready("delivered-too", Isolation::Contained).await;
    isolate("delivered", QuarantineLevel::Contained).await;
    ready("delivered", Isolation::Contained).await;
    let told = |q: &Quarantine| deliverer(q, "app").is_some();
    let isolated = until("delivered", "told of what delivers", told).await;
    for name in ["whole", "chart", "app"] {
        let (state, message) = deliverer(&isolated, name).unwrap();
        assert_eq!((state, message.as_str()), (Suspended, "by us; people resume it"), "{name}");
    }
    for (name, why) in
        [("shared", "it also carries namespace bystander"), ("recovery", "it delivers the recovery itself")]
    {
        assert_eq!(deliverer(&isolated, name), Some((Denied, why.to_owned())), "{name}");
        assert_eq!(
            spec(&administrator, "Kustomization", "gitops", name).await["suspend"],
            Value::Null,
            "{name}"
        );
    }
    assert_eq!(deliverer(&isolated, "elsewhere"), None);
    assert_eq!(spec(&administrator, "Kustomization", "gitops", "elsewhere").await["suspend"], Value::Null);
    assert_eq!(spec(&administrator, "Kustomization", "gitops", "whole").await["suspend"], true);
    assert_eq!(spec(&administrator, "HelmRelease", "delivered", "chart").await["suspend"], true);
    let app = objects(&administrator, "Application", "gitops").get("app").await.unwrap();
    assert_eq!(app.data["spec"]["syncPolicy"]["automated"], Value::Null);
    let was: Value = serde_json::from_str(&app.annotations()[WAS_ANNOTATION]).unwrap();
    assert_eq!(was, json!({"automated": automated}));

    // Somebody resumes one, and the operator is started anew: it says so, and fights nobody.
    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    let gitops = client(Identity::GitOps).await;
    objects(&gitops, "Kustomization", "gitops")
        .patch("whole", &PatchParams::default(), &resume)
        .await
        .unwrap();
    let _alone = stopped(running).await;
    let one = another().await;
    until("delivered", "told of what was resumed", |q| {
        deliverer(q, "whole")
            == Some((Denied, "suspended by the operator, and resumed by a person".to_owned()))
    })
    .await;
    assert_eq!(spec(&administrator, "Kustomization", "gitops", "whole").await["suspend"], false);

    // Let out: what was suspended stays so, until people say otherwise.
    let lead: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
    let uid = quarantine("delivered").await.uid().unwrap();
    lead.delete("delivered", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    within("release", await_condition(lead, "delivered", gone)).await.unwrap();
    assert_eq!(spec(&administrator, "HelmRelease", "delivered", "chart").await["suspend"], true);
    tokio::task::spawn_blocking(move || drop(one)).await.unwrap();
}
