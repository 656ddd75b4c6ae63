//! The isolation lists are lost, one or both, or the label is: what is left fences, and nobody else is refused.

use std::time::{Duration, Instant};

use control_plane::Identity;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rehearsal::install_kinds;
use resurgam::api::{ISOLATION_LABEL, Isolation, OPERATOR_NAMESPACE};
use resurgam::isolation::ensure;
use resurgam::isolation::list::{self, CONFIG_MAPS, Listed, Lists};
use resurgam::isolation::policies::{FENCES, LIST_FENCE, WRITE_FENCE};
use serde_json::json;

use crate::isolation::support::{alone, apply, refused};
use crate::isolation::{api, meanwhile};

/// What a tenant's write is answered, dry: every refusal there is.
async fn write(tenant: &Client, namespace: &str) -> kube::Result<Secret> {
    let secret = serde_json::from_value(json!({"metadata": {"name": "implant"}})).unwrap();
    api::<Secret>(tenant, namespace).create(&PostParams { dry_run: true, field_manager: None }, &secret).await
}

/// Waits until the tenant's write is refused by one of these policies; by none: until it is let through.
async fn until_refused(tenant: &Client, namespace: &str, by: &[&str]) {
    let asked = Instant::now();
    loop {
        let answer = write(tenant, namespace).await;
        let is_there = match &answer {
            Ok(_) => by.is_empty(),
            Err(kube::Error::Api(status)) if status.code == 403 => by
                .iter()
                .any(|policy| status.message.contains(&format!("ValidatingAdmissionPolicy '{policy}'"))),
            Err(error) => panic!("{error}"),
        };
        if is_there {
            return;
        }
        let in_time = asked.elapsed() < Duration::from_secs(60);
        assert!(in_time, "{namespace} is not refused by {by:?}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn losing_lists_opens_nothing_and_refuses_nobody_else() {
    let _rig = alone().await;
    let plane = Box::pin(meanwhile::bare()).await;
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    install_kinds(&administrator).await.unwrap();
    ensure::ensure(&administrator, false).await.unwrap();
    let tenant = plane.client(Identity::TenantAdministrator).await.unwrap();
    let operator = plane.client(Identity::Operator).await.unwrap();
    // Our guard lets who may release delete lists; RBAC has to, too.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "delete-lists", "namespace": OPERATOR_NAMESPACE},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "delete-lists", "namespace": OPERATOR_NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "delete-lists"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "recovery-lead"}]});
    for object in [role, binding] {
        apply(&administrator, &object.to_string()).await;
    }
    // Label and lists; both lists; the first of them; nothing.
    for name in ["whole", "listed", "on-the-first", "free"] {
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&administrator, &made.to_string()).await;
    }
    let lists = Lists::new(operator.clone());
    for name in ["whole", "listed"] {
        lists.set(name, Isolation::Sealed).await.unwrap();
    }
    let maps = api::<ConfigMap>(&operator, OPERATOR_NAMESPACE);
    let sealed = maps.get(CONFIG_MAPS[0]).await.unwrap().data.unwrap()["_sealed"].clone();
    let first = Patch::Merge(json!({"data": {"_sealed": format!("{sealed}on-the-first\n")}}));
    maps.patch(CONFIG_MAPS[0], &PatchParams::default(), &first).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(operator.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: "sealed"}}}));
    namespaces.patch("whole", &PatchParams::default(), &label).await.unwrap();
    until_refused(&tenant, "whole", &FENCES).await;
    for name in ["listed", "on-the-first"] {
        until_refused(&tenant, name, &[LIST_FENCE]).await;
    }
    write(&tenant, "free").await.unwrap();

    // One lost, as shows by what it alone had: the other one fences as before.
    let lead = api::<ConfigMap>(&plane.client(Identity::RecoveryLead).await.unwrap(), OPERATOR_NAMESPACE);
    lead.delete(CONFIG_MAPS[0], &DeleteParams::default()).await.unwrap();
    until_refused(&tenant, "on-the-first", &[]).await;
    refused("write, by the other list", LIST_FENCE, write(&tenant, "listed").await);
    refused("write, by label or list", WRITE_FENCE, write(&tenant, "whole").await);
    write(&tenant, "free").await.unwrap();
    assert_eq!(Lists::new(operator.clone()).of("listed").await.unwrap(), Listed::new([Some("sealed")]));

    // Both lost: the label still fences, and everybody else goes on.
    lead.delete(CONFIG_MAPS[1], &DeleteParams::default()).await.unwrap();
    until_refused(&tenant, "listed", &[]).await;
    let by_label = refused("write, by the label", WRITE_FENCE, write(&tenant, "whole").await);
    assert!(by_label.message.contains(&format!("'{WRITE_FENCE}'")), "{by_label:?}");
    for namespace in ["free", "kube-system"] {
        write(&administrator, namespace).await.unwrap();
    }
    let annotated = Patch::Merge(json!({"metadata": {"annotations": {"note": "goes on"}}}));
    Api::<Namespace>::all(tenant.clone()).patch("free", &PatchParams::default(), &annotated).await.unwrap();

    // Whoever isolates next makes them again, for what is isolated then.
    let responder = plane.client(Identity::Responder).await.unwrap();
    list::add(&responder, &["listed".to_owned()], Isolation::Contained).await.unwrap();
    until_refused(&tenant, "listed", &[LIST_FENCE]).await;
    for name in CONFIG_MAPS {
        let map = maps.get(name).await.unwrap();
        assert_eq!(map.labels()[list::LABEL], "true");
    }
    // One that is lost is made of the other.
    lead.delete(CONFIG_MAPS[1], &DeleteParams::default()).await.unwrap();
    assert!(list::ensure(&operator).await.unwrap());
    let listed = Lists::new(operator.clone()).of("listed").await.unwrap();
    assert_eq!(listed, Listed::new([Some("contained"), Some("contained")]));
    plane.stop().await.unwrap();
}
