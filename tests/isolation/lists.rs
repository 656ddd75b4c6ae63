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
use resurgam::isolation::policies::{LIST_FENCE, WRITE_FENCE};
use serde_json::json;

use crate::support::{apply, refused};
use crate::{api, meanwhile};

/// What a tenant's write is answered, dry: every refusal there is.
async fn write(tenant: &Client, namespace: &str) -> kube::Result<Secret> {
    let secret = serde_json::from_value(json!({"metadata": {"name": "implant"}})).unwrap();
    api::<Secret>(tenant, namespace).create(&PostParams { dry_run: true, field_manager: None }, &secret).await
}

/// The names of the fences that refuse a write, with the level that each says.
async fn refusals(tenant: &Client, namespace: &str) -> Vec<(&'static str, &'static str)> {
    let status = match write(tenant, namespace).await {
        Ok(_) => return Vec::new(),
        Err(kube::Error::Api(status)) => status,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status.code, 403, "{status:?}");
    let causes =
        status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let texts: Vec<_> = std::iter::once(status.message.as_str()).chain(causes).collect();
    let mut found = Vec::new();
    for fence in [LIST_FENCE, WRITE_FENCE] {
        for level in ["contained", "sealed"] {
            let is =
                |text: &&&str| text.contains(&format!("'{fence}'")) && text.contains(&format!("({level})"));
            if texts.iter().any(|text| is(&text)) {
                found.push((fence, level));
            }
        }
    }
    found
}

async fn until_refused(tenant: &Client, namespace: &str, wanted: &[(&str, &str)]) {
    let asked = Instant::now();
    loop {
        let now = refusals(tenant, namespace).await;
        if now == wanted {
            return;
        }
        let in_time = asked.elapsed() < Duration::from_secs(60);
        assert!(
            in_time,
            "{namespace} is refused by {now:?}, not {wanted:?}: {:?}",
            write(tenant, namespace).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn losing_lists_opens_nothing_and_refuses_nobody_else() {
    let plane = Box::pin(meanwhile::bare()).await;
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    install_kinds(&administrator).await.unwrap();
    ensure::ensure(&administrator, false).await.unwrap();
    let tenant = plane.client(Identity::TenantAdministrator).await.unwrap();
    let operator = plane.client(Identity::Operator).await.unwrap();
    // Both label and lists; the lists alone; neither.
    for name in ["whole", "listed", "free"] {
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&administrator, &made.to_string()).await;
    }
    let lists = Lists::new(operator.clone());
    for name in ["whole", "listed"] {
        lists.set(name, Isolation::Sealed).await.unwrap();
    }
    let namespaces: Api<Namespace> = Api::all(operator.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: "sealed"}}}));
    namespaces.patch("whole", &PatchParams::default(), &label).await.unwrap();
    let both = [(LIST_FENCE, "sealed"), (WRITE_FENCE, "sealed")];
    until_refused(&tenant, "whole", &both).await;
    until_refused(&tenant, "listed", &both[..1]).await;
    write(&tenant, "free").await.unwrap();

    // One says less, so that its loss is noticed: the stricter one counts while both are there.
    let maps = api::<ConfigMap>(&operator, OPERATOR_NAMESPACE);
    let eased = Patch::Merge(json!({"data": {"whole": "contained", "listed": "contained"}}));
    maps.patch(CONFIG_MAPS[0], &PatchParams::default(), &eased).await.unwrap();
    until_refused(&tenant, "listed", &[(LIST_FENCE, "contained"), (LIST_FENCE, "sealed")]).await;
    maps_of_lead(&plane).await.delete(CONFIG_MAPS[0], &DeleteParams::default()).await.unwrap();
    until_refused(&tenant, "listed", &both[..1]).await;
    assert_eq!(refusals(&tenant, "whole").await, both);
    write(&tenant, "free").await.unwrap();
    assert_eq!(list::of(&operator, "listed").await.unwrap(), Listed::new([Some("sealed")]));

    // Both lost: the label still fences, and everybody else goes on.
    maps_of_lead(&plane).await.delete(CONFIG_MAPS[1], &DeleteParams::default()).await.unwrap();
    until_refused(&tenant, "listed", &[]).await;
    assert_eq!(refusals(&tenant, "whole").await, both[1..]);
    refused("write", WRITE_FENCE, write(&tenant, "whole").await);
    for namespace in ["free", "kube-system"] {
        write(&administrator, namespace).await.unwrap();
    }
    let annotated = Patch::Merge(json!({"metadata": {"annotations": {"note": "goes on"}}}));
    Api::<Namespace>::all(tenant.clone()).patch("free", &PatchParams::default(), &annotated).await.unwrap();

    // Whoever isolates next makes them again, for what is isolated then.
    let responder = plane.client(Identity::Responder).await.unwrap();
    list::add(&responder, &["listed".to_owned()], Isolation::Contained).await.unwrap();
    until_refused(&tenant, "listed", &[(LIST_FENCE, "contained")]).await;
    for name in CONFIG_MAPS {
        let map = maps.get(name).await.unwrap();
        assert_eq!(map.labels()[list::LABEL], "true");
    }
    // One that is lost is made of the other.
    maps_of_lead(&plane).await.delete(CONFIG_MAPS[1], &DeleteParams::default()).await.unwrap();
    assert!(list::ensure(&operator).await.unwrap());
    let listed = list::of(&operator, "listed").await.unwrap();
    assert_eq!(listed, Listed::new([Some("contained"), Some("contained")]));
    plane.stop().await.unwrap();
}

/// The lists, as somebody who may release everything: nobody else may delete them.
async fn maps_of_lead(plane: &control_plane::ControlPlane) -> Api<ConfigMap> {
    api(&plane.client(Identity::RecoveryLead).await.unwrap(), OPERATOR_NAMESPACE)
}
