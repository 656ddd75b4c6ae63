use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn pod(namespace: &str, name: &str, images: &[(&str, &str)]) -> Value {
    let container = |index: usize, image: &str| json!({"name": format!("c{index}"), "image": image});
    let status = |index: usize, id: &str| json!({"name": format!("c{index}"), "image": "x", "imageID": id, "ready": true, "restartCount": 0});
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d8f"), "uid": "u", "controller": true}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{name}-5d8f-x"), "namespace": namespace, "labels": {"pod-template-hash": "5d8f"},
            "ownerReferences": owner,
        },
        "spec": {"nodeName": "n1", "containers": images.iter().enumerate().map(|(i, (image, _))| container(i, image)).collect::<Vec<_>>()},
        "status": {"containerStatuses": images.iter().enumerate().map(|(i, (_, id))| status(i, id)).collect::<Vec<_>>()},
    })
}

fn estate() -> Vec<Value> {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    vec![
        pod(
            "shop-web",
            "web",
            &[("registry.example/shop/web:1.4", &format!("registry.example/shop/web@{a}"))],
        ),
        pod("shop-web", "admin", &[("registry.example/shop/web:1.4", &a), ("nginx", &b)]),
        pod("shop-web", "batch", &[("registry.example/shop/web:1.4", &a)]),
        pod("shop-db", "db", &[(&format!("registry.example/db:16@{c}"), &b)]),
        pod("shop-db", "exporter", &[("exporter:2", "")]),
    ]
}

#[test]
fn list_is_readable_and_says_what_is_not_resolved() {
    let pods: Vec<Pod> = estate().into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
    let mut found = in_use(&pods, &NodeImages::default());
    let named = ["shop-db", "shop-web", "shop-void"].map(str::to_owned).into();
    found.unresolved.extend(report::without_pods(&named, &pods, true));
    let doubts = found.unresolved.iter().map(|doubt| format!("not resolved: {doubt}\n")).collect::<String>();
    insta::assert_snapshot!("text", format!("{}\n{doubts}", report::text(&found)));
    insta::assert_snapshot!("config_map", report::config_map(&found, Some("recovery"), LIST_NAME));
}

#[test]
fn printed_config_map_is_a_list_that_gates_read() {
    let pods: Vec<Pod> = estate().into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
    let text = report::config_map(&in_use(&pods, &NodeImages::default()), None, LIST_NAME);
    let list = serde_yaml::from_str(&text).unwrap();
    let approved = resurgam_core::gates::images::from_config_map(&list).unwrap();
    assert!(['a', 'b', 'c'].into_iter().all(|letter| approved.contains(&digest(letter))), "{approved:?}");
    assert!(approved.of_tag("docker.io/library/nginx:latest").is_some(), "{approved:?}");
}

#[test]
fn where_to_look_must_be_said() {
    let parse = |words: &[&str]| Line::try_parse_from([&["images"], words].concat());
    for words in [&["-o", "json"][..], &["--plan", "council"], &["--from-evidence", "gs://x"], &["-n"]] {
        assert!(parse(words).is_err(), "{words:?}");
    }
    for words in [
        &["-n", "a", "-n", "b"][..],
        &["--plan", "recovery/council", "-o", "configmap"],
        &["--from-evidence", "s3://evidence/council", "-n", "a"],
    ] {
        assert!(parse(words).is_ok(), "{words:?}");
    }
}

/// Keeps one sealing.
async fn seal(store: &Store, namespace: &str, at: &str, objects: &[Value]) -> String {
    let manifests = json!({"namespace": namespace, "objects": objects});
    let manifests = store.keep(namespace, "json", manifests.to_string().into_bytes()).await.unwrap();
    let index = json!({
        "evidence": "resurgam.dev/v2", "namespace": namespace, "quarantine": "uid", "at": at, "manifests": manifests,
        "objects": objects.len(), "snapshots": [], "missing": [], "containers": [],
    });
    store.keep(namespace, "json", index.to_string().into_bytes()).await.unwrap();
    manifests.object
}

#[tokio::test]
async fn evidence_tells_what_ran_last_and_only_if_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path());
    let (mut web, other) = (estate(), estate());
    web.truncate(1);
    seal(&store, "shop-web", "2025-11-23T03:00:00Z", &other[1..2]).await;
    seal(&store, "shop-web", "2025-11-24T03:00:00Z", &web).await;
    // Sealed once more, when nothing ran there.
    seal(&store, "shop-web", "2025-11-25T03:00:00Z", &[json!({"apiVersion": "v1", "kind": "Namespace"})])
        .await;
    let changed = seal(&store, "shop-db", "2025-11-24T03:00:00Z", &other[3..4]).await;
    std::fs::write(folder.path().join(changed), b"{}").unwrap();
    let all = captured::pods(&store, &BTreeSet::new()).await.unwrap();
    let names: Vec<_> = all.pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    assert_eq!(names, ["web-5d8f-x"]);
    assert_eq!(all.unresolved.len(), 1, "{:?}", all.unresolved);
    assert!(all.unresolved[0].contains("namespace shop-db") && all.unresolved[0].contains("was changed"));
    let one = captured::pods(&store, &BTreeSet::from(["shop-web".to_owned()])).await.unwrap();
    assert_eq!((one.pods.len(), one.unresolved.len()), (1, 0));
}
