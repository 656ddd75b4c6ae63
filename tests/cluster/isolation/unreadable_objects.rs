//! What somebody may not read is told, and is not taken for nothing.

use control_plane::Identity;
use futures::FutureExt;
use kube::Api;
use kube::Client;
use kube::api::PostParams;
use resurgam::isolation::evidence::{CaptureError, Evidence, Snapshots, Store, Subject, capture};
use resurgam::isolation::{impact, preflight};
use serde_json::json;

use crate::isolation::meanwhile::{STORES, meanwhile, namespace, of, somebody};

#[tokio::test]
async fn unreadable_objects_are_listed_by_the_preflight() {
    namespace("unread").await;
    let spec =
        serde_json::from_value(json!({"isolation": "Contained", "reason": "unusual activity"})).unwrap();
    let look = async |client: &Client| {
        let elsewhere = impact::elsewhere(client).await;
        impact::impact(client, "unread", &spec, &elsewhere).await
    };
    let blind = look(&somebody("stranger").await).await;
    for what in ["list services", "list networkpolicies", "get namespace unread", "pods", "ingresses"] {
        assert!(blind.unread.iter().any(|unread| unread.contains(what)), "{what} in {:#?}", blind.unread);
    }
    let seen = look(&of(Identity::Responder).await).await;
    assert_eq!((seen.namespace.as_str(), seen.unread), ("unread", Vec::<String>::new()));
}

#[tokio::test]
async fn preflight_tells_unserved_kinds_from_forbidden_ones() {
    let administrator = of(Identity::PlatformAdministrator).await;
    namespace("looked-at").await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(administrator.clone(), "looked-at");
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "image": "registry.example/web"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let targets = ["looked-at".to_owned()];

    let seen = preflight::gather(&administrator, &targets, None, None).await;
    assert_eq!(seen.routes.as_ref().map(Vec::len), Ok(0), "nobody serves HTTPRoutes");
    assert_eq!(seen.pods.keys().collect::<Vec<_>>(), ["looked-at"]);
    assert_eq!(seen.pods["looked-at"].as_deref(), Ok(&["web".to_owned()][..]));
    assert_eq!(seen.evidence.unwrap(), STORES);

    let blind = preflight::gather(&somebody("stranger").await, &targets, None, None).await;
    assert!(blind.routes.is_err() && blind.plans.is_err() && blind.services.is_err(), "{blind:#?}");
    assert!(blind.pods["looked-at"].is_err() && blind.evidence.is_err());
}

#[tokio::test]
async fn unreadable_pods_are_listed_as_missing_evidence() {
    namespace("half-read").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = Evidence::new(Store::folder(folder.path()));
    use resurgam::api::quarantine::CaptureMode::{BestEffort, Required};
    for (plural, code, mode, missing) in [
        ("pods", 403, BestEffort, None),
        ("configmaps", 403, Required, Some("configmaps: ")),
        ("configmaps", 500, Required, None),
        ("configmaps", 500, BestEffort, Some("configmaps: ")),
    ] {
        let before = format!("GET /api/v1/namespaces/half-read/{plural}");
        let (client, _) =
            meanwhile(of(Identity::Operator).await, &before, move |_| async move { Some(code) }.boxed());
        let subject = Subject { namespace: "half-read", quarantine: "uid", before: None, mode };
        let kept = capture(&client, &evidence, subject, Snapshots::default()).await;
        match (kept, missing) {
            (Ok(kept), Some(what)) => {
                assert!(kept.missing.iter().any(|missing| missing.starts_with(what)), "{kept:?}");
            }
            (Err(CaptureError::Pods(..)), None) if plural == "pods" => {}
            (Err(CaptureError::Incomplete { what, .. }), None) => assert!(what.starts_with(plural), "{what}"),
            (other, _) => panic!("{plural} {code} {mode:?}: {other:?}"),
        }
    }
}
