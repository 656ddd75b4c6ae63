//! The cache of one kind, fed by an API server that answers as the tests say.

use std::collections::VecDeque;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use k8s_openapi::api::core::v1::Pod;
use kube::Config;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;

type Script = Arc<Mutex<(VecDeque<String>, Vec<String>)>>;

/// An API server that answers with these bodies, one after another, and then hangs. Returns what it was asked as well.
async fn server(answers: Vec<String>) -> (Client, Script) {
    async fn answer(State(script): State<Script>, request: Request) -> impl IntoResponse {
        let next = {
            let mut script = script.lock().unwrap();
            script.1.push(request.uri().to_string());
            script.0.pop_front()
        };
        match next {
            Some(body) if body.starts_with("500") => {
                (axum::http::StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
            }
            Some(body) => body.into_response(),
            None => std::future::pending().await,
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let script: Script = Arc::new(Mutex::new((answers.into(), Vec::new())));
    let app = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (Client::try_from(Config::new(url)).unwrap(), script)
}

fn pod(name: &str, version: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": version},
        "spec": {"containers": []}, "status": {"phase": phase},
    })
}

fn list(pods: &[Value], next: &str) -> String {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "10", "continue": next}, "items": pods})
        .to_string()
}

fn events(events: &[(&str, Value)]) -> String {
    events.iter().map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object}))).collect()
}

/// Follows pods until the server has no more to say.
async fn followed(answers: Vec<String>) -> (Arc<KindCache<Pod>>, Vec<Change>, Vec<String>) {
    let count = answers.len();
    let (client, script) = server(answers).await;
    let (cache, subscribers) = (Arc::new(KindCache::new("pods")), Subscribers::default());
    let mut changes = subscribers.add();
    let follower = Follower::<Pod>::new(&client, cache.clone(), subscribers.clone());
    let task = tokio::spawn(follower.run());
    let all_said = async {
        while script.lock().unwrap().1.len() <= count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), all_said).await.unwrap();
    task.abort();
    let asked = script.lock().unwrap().1.clone();
    let mut told = Vec::new();
    while let Some(Notice::Changed(change)) = changes.now() {
        told.push(change);
    }
    (cache, told, asked)
}

fn names(cache: &KindCache<Pod>) -> Vec<String> {
    cache.within("a").iter().filter_map(|entry| entry.as_ref().as_ref().ok()?.metadata.name.clone()).collect()
}

#[tokio::test]
async fn lists_by_pages_and_watches_from_where_the_list_ended() {
    let (cache, told, asked) = followed(vec![
        list(&[pod("x", "1", "Running")], "more"),
        list(&[pod("y", "2", "Pending")], ""),
        events(&[
            ("MODIFIED", pod("y", "11", "Running")),
            ("MODIFIED", pod("y", "12", "Running")),
            ("DELETED", pod("x", "13", "Running")),
            ("BOOKMARK", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "20"}})),
        ]),
    ])
    .await;
    assert_eq!(names(&cache), ["y"]);
    assert!(cache.is_fresh(STALE_AFTER).is_ok());
    let judged: Vec<(&str, bool)> = told.iter().map(|c| (c.name.as_str(), c.is_judged)).collect();
    // What only has a new version wakes no gate.
    assert_eq!(judged, [("x", true), ("y", true), ("y", true), ("y", false), ("x", true)]);
    assert!(asked[0].contains("limit=500") && asked[1].contains("continue=more"), "{asked:?}");
    assert!(asked[2].contains("resourceVersion=10") && asked[2].contains("timeoutSeconds=10"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=20"), "{asked:?}");
}

#[tokio::test]
async fn expired_version_is_relisted_and_deletions_published() {
    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "too old",
        "reason": "Expired", "code": 410});
    let (cache, told, asked) = followed(vec![
        list(&[pod("x", "1", "Running"), pod("y", "2", "Running")], ""),
        events(&[("ERROR", expired)]),
        list(&[pod("y", "2", "Running")], ""),
    ])
    .await;
    assert_eq!(names(&cache), ["y"]);
    let judged: Vec<&str> = told.iter().filter(|c| c.is_judged).map(|c| c.name.as_str()).collect();
    assert_eq!(judged, ["x", "y", "x"]);
    assert!(asked[2].contains("limit=500"), "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_fails_goes_on_where_it_was() {
    let (cache, _, asked) = followed(vec![
        list(&[], ""),
        "500 broken".to_owned(),
        events(&[("ADDED", pod("x", "11", "Running"))]),
    ])
    .await;
    assert_eq!(names(&cache), ["x"]);
    assert!(asked[2].contains("resourceVersion=10"), "{asked:?}");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hides_no_other() {
    let mut broken = pod("x", "1", "Running");
    broken["spec"]["containers"] = json!("none");
    broken["spec"]["hostNetwork"] = json!(true);
    let (cache, told, _) = followed(vec![list(&[broken, pod("y", "2", "Running")], "")]).await;
    assert_eq!(names(&cache), ["y"]);
    let entry = cache.get("a", "x").unwrap();
    let error = entry.as_ref().as_ref().unwrap_err();
    assert!(error.starts_with("Pod a/x cannot be read: "), "{error}");
    assert!(told[0].on_node_network, "nobody knows that it does not");
}

#[test]
fn unconfirmed_cache_is_stale_since_a_time() {
    let cache = KindCache::<Pod>::new("pods");
    let stale = cache.is_fresh(STALE_AFTER).unwrap_err();
    assert_eq!((stale.resource, stale.since, stale.error), ("pods", None, None));
    let asked = kind::moment();
    cache.confirmation().confirm(asked);
    assert!(cache.is_fresh(STALE_AFTER).is_ok());
    // A watch that fails makes nothing stale at once.
    cache.confirmation().failed("connection refused".to_owned());
    assert!(cache.is_fresh(STALE_AFTER).is_ok());
    let stale = cache.is_fresh(Duration::ZERO).unwrap_err();
    assert_eq!((stale.since, stale.error.as_deref()), (Some(asked.1), Some("connection refused")));
}
