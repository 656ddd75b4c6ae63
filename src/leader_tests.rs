use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::*;

const DURATION: Duration = Duration::from_secs(2);

fn lease(version: u32, holder: &str, seconds: i32) -> Lease {
    serde_json::from_value(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "lease", "resourceVersion": version.to_string()},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": "2020-01-01T00:00:00.000000Z"},
    }))
    .unwrap()
}

#[test]
fn lease_is_acquired_once_unrenewed_for_its_whole_duration() {
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let mut seen = None;
    let mut may = |version, holder, seconds, now| {
        ObservedLease::can_acquire(&mut seen, &lease(version, holder, seconds), DURATION, at(now))
    };
    assert!(!may(1, "them", 2, 0), "however old it says that it is, it may have been renewed just now");
    assert!(!may(1, "them", 2, 1));
    assert!(may(1, "them", 2, 2));
    assert!(!may(2, "them", 2, 3), "renewed");
    assert!(!may(3, "other", 2, 4), "taken by another");
    assert!(may(3, "other", 2, 6));
    assert!(!may(3, "other", 10, 12), "whoever holds it for longer is given longer");
    assert!(may(3, "other", 10, 14));
    assert!(!may(4, "other", -7, 15), "nonsense is no reason to hurry");
    assert!(may(5, "", 2, 15), "given back");
}

/// A server of one Lease, which does what it is told to.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u32,
    /// Nobody answers.
    silent: bool,
    /// Writes are done, and not answered.
    loses_answers: u32,
}

type Shared = Arc<Mutex<Server>>;

async fn serve(State(server): State<Shared>, request: Request) -> Response {
    let refuse = |code: StatusCode, reason: &str| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
            "reason": reason, "code": code.as_u16(),
        });
        (code, status.to_string()).into_response()
    };
    if server.lock().unwrap().silent {
        std::future::pending::<()>().await;
    }
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let lost = {
        let mut server = server.lock().unwrap();
        if method == Method::GET {
            return match &server.lease {
                Some(lease) => lease.to_string().into_response(),
                None => refuse(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let mut written: Value = serde_json::from_slice(&body).unwrap();
        let there = server.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if method == Method::POST && there.is_some() {
            return refuse(StatusCode::CONFLICT, "AlreadyExists");
        }
        if method == Method::PATCH && there.as_ref() != Some(&written["metadata"]["resourceVersion"]) {
            return refuse(StatusCode::CONFLICT, "Conflict");
        }
        server.version += 1;
        (written["apiVersion"], written["kind"]) = (json!("coordination.k8s.io/v1"), json!("Lease"));
        written["metadata"]["resourceVersion"] = json!(server.version.to_string());
        server.lease = Some(written.clone());
        if server.loses_answers == 0 {
            return written.to_string().into_response();
        }
        server.loses_answers -= 1;
        true
    };
    assert!(lost);
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
}

/// Candidates for a lease that nobody holds.
async fn stage() -> (Shared, impl Fn(&str) -> LeaderElector) {
    let shared = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: axum::http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let app = Router::new().fallback(serve).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let elector = move |identity: &str| LeaderElector {
        leases: Api::namespaced(Client::try_from(Config::new(url.clone())).unwrap(), "system"),
        name: "lease".to_owned(),
        identity: identity.to_owned(),
        duration: DURATION,
        is_read: Arc::default(),
        heartbeats: Heartbeats::default(),
        published: Published::default(),
        leadership: Leadership::default(),
    };
    (shared, elector)
}

/// Stands by until it leads.
async fn lead(elector: LeaderElector) -> LeaderLease {
    elector.lead(std::future::pending::<()>()).await.ok().unwrap()
}

fn holder(server: &Shared) -> String {
    server.lock().unwrap().lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn leader_keeps_the_lease_while_it_renews() {
    let (server, elector) = stage().await;
    let mut first = lead(elector("first")).await;
    let second = tokio::time::timeout(3 * DURATION, lead(elector("second")));
    let (kept, stood_by) = tokio::join!(tokio::time::timeout(3 * DURATION, first.renew_until_lost()), second);
    assert_eq!(kept.ok(), None, "it leads");
    assert!(stood_by.is_err(), "it stands by");
    assert_eq!(holder(&server), "first");
    let began = Instant::now();
    let (given, second) = tokio::join!(first.elector.release_lease(), lead(elector("second")));
    given.unwrap();
    assert!(began.elapsed() < DURATION, "what is given back is not waited for");
    assert_eq!(second.lease.spec.unwrap().lease_transitions, Some(2));
}

#[tokio::test]
async fn a_leader_that_hears_nothing_ends_before_another_leads() {
    let (server, elector) = stage().await;
    let mut first = lead(elector("first")).await;
    let began = Instant::now();
    server.lock().unwrap().silent = true;
    let why = first.renew_until_lost().await;
    assert!(why.contains("last renewed"), "{why}");
    assert!(began.elapsed() < DURATION, "after {:?}", began.elapsed());
    server.lock().unwrap().silent = false;
    lead(elector("second")).await;
    assert!(began.elapsed() >= DURATION, "after {:?}", began.elapsed());
}

#[tokio::test]
async fn renewal_is_repeated_unless_another_replica_made_it() {
    let (server, elector) = stage().await;
    let mut first = lead(elector("first")).await;
    server.lock().unwrap().loses_answers = 2;
    assert_eq!(tokio::time::timeout(2 * DURATION, first.renew_until_lost()).await.ok(), None, "it leads");
    assert_eq!(server.lock().unwrap().loses_answers, 0);

    for (left, why) in [
        (Some("them"), "the lease is held by them"),
        (Some(""), "the lease has no holder"),
        (None, "the lease is gone"),
    ] {
        let (server, elector) = stage().await;
        let mut held = lead(elector("first")).await;
        let left = left.map(|holder| serde_json::to_value(lease(7, holder, 2)).unwrap());
        server.lock().unwrap().lease = left;
        assert_eq!(held.renew_until_lost().await, why);
    }
}

#[tokio::test]
async fn dropped_lease_is_no_longer_led() {
    let (server, elector) = stage().await;
    let mut kept = lead(elector("first")).await.keep_renewed();
    assert!(tokio::time::timeout(DURATION, kept.lost()).await.is_err(), "it leads");
    kept.task.abort();
    let why = kept.lost().await;
    assert!(why.starts_with("the lease task died"), "{why}");

    server.lock().unwrap().lease = None;
    let kept = lead(elector("second")).await.keep_renewed();
    kept.release_lease().await;
    assert_eq!(holder(&server), "");
}

#[tokio::test]
async fn stop_during_acquisition_releases_the_lease() {
    let (server, elector) = stage().await;
    // Taken, and the answer was lost: it takes itself for one that stands by.
    server.lock().unwrap().loses_answers = 1;
    let first = elector("first");
    let is_read = first.is_read.clone();
    assert!(!is_read.load(Ordering::Relaxed));
    let taken = async {
        while server.lock().unwrap().lease.is_none() {
            tokio::task::yield_now().await;
        }
    };
    assert!(first.lead(taken).await.is_err(), "stopped");
    assert!(is_read.load(Ordering::Relaxed));
    assert_eq!(holder(&server), "");
}

#[tokio::test]
async fn an_api_server_that_is_down_alone_fails_no_liveness() {
    let (_, elector) = stage().await;
    let mut waits = elector("first");
    // Nobody listens there.
    let nowhere = Config::new("http://127.0.0.1:1".parse().unwrap());
    waits.leases = Api::namespaced(Client::try_from(nowhere).unwrap(), "system");
    let (heartbeats, is_read) = (waits.heartbeats.clone(), waits.is_read.clone());
    let rounds = async {
        for _ in 0..3 {
            let before = heartbeats.last_beats();
            while heartbeats.last_beats() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    assert!(waits.lead(rounds).await.is_err(), "it goes round, and stands by");
    assert!(!is_read.load(Ordering::Relaxed), "and is not ready");
    // Nor if it is silent: so long is a round at most, beside a part of the Lease's duration.
    assert!(2 * crate::calls::DEADLINE < heartbeats::LIMIT);
}

#[tokio::test]
async fn leader_publishes_on_its_lease_and_successor_replaces() {
    let (server, elector) = stage().await;
    let annotation = |server: &Shared| {
        server.lock().unwrap().lease.as_ref().unwrap()["metadata"]["annotations"]["resurgam.dev/fact"].clone()
    };
    let first = elector("first");
    let published = first.published.clone();
    published.set("resurgam.dev/fact", "one".to_owned());
    let mut first = lead(first).await;
    assert_eq!(annotation(&server), "one");
    published.set("resurgam.dev/fact", "two".to_owned());
    first.renew().await.map_err(drop).unwrap();
    assert_eq!(annotation(&server), "two");
    first.elector.release_lease().await.unwrap();
    let second = elector("second");
    second.published.set("resurgam.dev/fact", "three".to_owned());
    lead(second).await;
    assert_eq!(annotation(&server), "three");
}

#[tokio::test]
async fn leadership_and_writes_end_before_the_lease() {
    let (server, elector) = stage().await;
    let elector = elector("one");
    let leadership = elector.leadership.clone();
    assert!(!leadership.is_held(), "nobody leads yet");
    let mut kept = lead(elector).await.keep_renewed();
    assert!(leadership.is_held());
    server.lock().unwrap().silent = true;
    let began = Instant::now();
    let why = kept.lost().await;
    assert!(!leadership.is_held() && began.elapsed() < DURATION, "{why}");

    // Nobody listens at this address: what is refused here is not even sent.
    let config = Config::new("http://127.0.0.1:1".parse().unwrap());
    let leases: Api<Lease> =
        Api::namespaced(crate::client::while_leading(config, leadership).unwrap(), "system");
    let refused = leases.create(&PostParams::default(), &lease(1, "one", 2)).await.unwrap_err().to_string();
    assert!(refused.contains("this process does not lead"), "{refused}");
    let read = leases.get("lease").await.unwrap_err().to_string();
    assert!(!read.contains("does not lead"), "{read}");
}
