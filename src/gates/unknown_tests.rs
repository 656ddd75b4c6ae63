//! No type of gate passes on what is no answer: one table of everything that an API server, or an endpoint, can say instead. A type without
//! a row in [`SAMPLES`] fails the test.
//!
//! What holds for all types alike is tested once: verdicts of another attempt, of another `compromisedSince` or of a renewed claim are void
//! (`controllers/observe_tests.rs`), stale ones count as Unknown (`engine/gate_state.rs`), panics do (`gates/tests.rs`).

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use resurgam_core::baseline::envelope::{Envelope, Signature};
use resurgam_core::baseline::{Baseline, FORMAT, Marks, Source, observe};
use resurgam_core::gates::credentials_rotated::record::{self, DigestRecord};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::api::{GATE_TYPES, Phase, Verdict};
use crate::baseline::SigningKey;
use crate::isolation::Seal;
use crate::isolation::evidence::DigestKey;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Says 404 for an object, and has empty lists.
    Missing,
    /// Sends an empty object.
    Empty,
    /// Sends `null`.
    Null,
    /// Sends text that is no JSON.
    Garbage,
    /// Sends the first half of a list.
    Truncated,
    /// Declares more than it sends.
    Short,
    /// Says 401.
    Unauthorized,
    /// Says 403.
    Forbidden,
    /// Says 429.
    Busy,
    /// Says 500.
    Broken,
    /// Closes the connection.
    Closes,
    /// Never answers.
    Silent,
}

const SERVERS: [Server; 12] = [
    Server::Missing,
    Server::Empty,
    Server::Null,
    Server::Garbage,
    Server::Truncated,
    Server::Short,
    Server::Unauthorized,
    Server::Forbidden,
    Server::Busy,
    Server::Broken,
    Server::Closes,
    Server::Silent,
];

/// Cases at a time: those that wait for a silent server, and some beside them.
const AT_ONCE: usize = 40;

/// Returns a gate of a type, given the address of the server.
type Sample = fn(SocketAddr) -> Value;

/// Gates of each type, whose inputs the server has.
const SAMPLES: [(&str, Sample); 11] = [
    ("imageDigests", |_| json!({"approved": [DIGEST]})),
    (
        "baseline",
        |_| json!({"configMaps": [{"name": "signed"}], "publicKeys": [SIGNED.0], "outside": "LeaveOut"}),
    ),
    (
        "credentialsRotated",
        |_| json!({"secrets": [{"name": "db"}], "capturedFrom": {"configMap": {"name": "captured"}}}),
    ),
    (
        "backupBefore",
        |server| json!({"objects": {"bucket": "council", "endpoint": format!("http://{server}"), "keys": [{"key": "db"}]}}),
    ),
    ("backupBefore", |_| json!({"volumeSnapshot": {"name": "db"}})),
    ("backupBefore", |_| json!({"velero": {"backup": "nightly"}})),
    ("jobResult", |_| {
        json!({"inspectionNamespace": "inspection", "looksAt": ["Volumes"],
            "pod": {"containers": [{"name": "scan", "image": format!("scanner@{DIGEST}")}]}})
    }),
    ("workloads", |_| json!({})),
    ("http", |server| json!({"url": format!("http://{server}/")})),
    (
        "condition",
        |_| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "db", "cel": "object.status.readyReplicas > 0"}),
    ),
    ("approval", |_| json!({"parties": [{"name": "rbkc", "group": "rbkc-leads"}]})),
];

/// A public key, and a ConfigMap with a baseline that is signed with it.
static SIGNED: LazyLock<(String, String)> = LazyLock::new(|| {
    let object = |kind: &str, name: &str, namespace: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    let raw = vec![object("Namespace", "shop", ""), object("ConfigMap", "web", "shop")];
    let baseline = Baseline {
        baseline: FORMAT.to_owned(),
        captured_at: Time(Timestamp::UNIX_EPOCH),
        source: Source::Manifests,
        namespaces: vec!["shop".to_owned()],
        secret_key: None,
        outside: false,
        kinds: Vec::new(),
        objects: observe(raw, &Marks::default()).objects,
    };
    let key = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
    let mut envelope = Envelope::new(serde_json::to_vec(&baseline).unwrap());
    let sig = k8s_openapi::ByteString(key.sign(&envelope.signed_bytes()).unwrap());
    envelope.signatures.push(Signature { keyid: key.public().id(), sig });
    let envelope = serde_json::to_string(&envelope).unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "signed"}, "data": {"baseline": envelope}});
    (key.public().to_pem(), map.to_string())
});

/// Key of the digests of captured Secrets.
fn digest_key() -> DigestKey {
    DigestKey::new(vec![7; 32]).unwrap()
}

/// A ConfigMap with an authentic record of captured values.
static CAPTURED: LazyLock<String> = LazyLock::new(|| {
    let digest = digest_key().digest(b"old").unwrap();
    let record = DigestRecord {
        format: record::FORMAT.to_owned(),
        namespace: "shop".to_owned(),
        quarantine: "seal".to_owned(),
        capture: DIGEST.to_owned(),
        at: "2025-11-24T00:00:00Z".to_owned(),
        secrets: [("db".to_owned(), [("password".to_owned(), digest)].into())].into(),
    };
    let mac = digest_key().mac(&record.text()).unwrap();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "captured"}, "data": {"shop": record.signed(mac)}})
        .to_string()
});

/// An inspection namespace as it has to be.
static INSPECTION: LazyLock<String> = LazyLock::new(|| {
    json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "inspection", "generation": 1},
        "spec": {"isolation": "Sealed", "purpose": "Inspection", "reason": "a test"},
        "status": {
            "observedGeneration": 1, "isolation": "CleanRoom", "controls": [{"name": "Network", "state": "Tested"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "CleanRoom", "message": "", "lastTransitionTime": "2025-11-24T00:00:00Z"}],
        },
    })
    .to_string()
});

/// Returns what every server has: what a gate is configured with is an answer, so that what it judges is none.
fn configured(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    match path.rsplit('/').next() {
        Some("signed") => Some(SIGNED.1.clone()),
        Some("captured") => Some(CAPTURED.clone()),
        Some("inspection") if path.contains("/quarantines/") => Some(INSPECTION.clone()),
        _ => None,
    }
}

async fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(server, stream));
        }
    });
    address
}

async fn answer(server: Server, mut stream: TcpStream) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.unwrap_or(0);
    let path = String::from_utf8_lossy(&request[..length]).split(' ').nth(1).unwrap_or("/").to_owned();
    let status = |code: u16, reason: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": format!("{reason} by the test")});
        (code, body.to_string())
    };
    // The last part of the path is an object's name, unless it is a plural.
    let is_list = path.split('?').next().is_some_and(|path| path.ends_with('s'));
    let configured = configured(&path);
    let is_short = server == Server::Short && configured.is_none();
    let (code, body) = match server {
        _ if configured.is_some() => (200, configured.unwrap_or_default()),
        Server::Missing if is_list => (
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
                .to_string(),
        ),
        Server::Missing => status(404, "NotFound"),
        Server::Empty => (200, "{}".to_owned()),
        Server::Null => (200, "null".to_owned()),
        Server::Garbage | Server::Short => (200, "<html>captive portal</html>".to_owned()),
        Server::Truncated => {
            (200, r#"{"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [{"#.to_owned())
        }
        Server::Unauthorized => status(401, "Unauthorized"),
        Server::Forbidden => status(403, "Forbidden"),
        Server::Busy => status(429, "TooManyRequests"),
        Server::Broken => status(500, "InternalError"),
        Server::Closes => return,
        Server::Silent => return futures::future::pending().await,
    };
    let length = if is_short { body.len() + 10 } else { body.len() };
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

fn question(kind: &str, sample: Value, phase: Phase) -> Question {
    let mut spec = json!({"name": "gate", "timeout": "3s"});
    spec[kind] = sample;
    let spec: GateSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(spec.type_name(), kind, "a sample is a gate of its type");
    let seal = Seal { uid: "seal".to_owned(), created_at: Some(Timestamp::UNIX_EPOCH), contents: None };
    Question {
        seals: [("shop".to_owned(), seal)].into(),
        compromised_since: Some(Timestamp::UNIX_EPOCH),
        ..Question::new("recovery", vec!["shop".to_owned()], phase, spec)
    }
}

/// Whether the endpoint of an `http` gate has answered, with what was not expected.
fn is_an_answer(kind: &str, server: Server) -> bool {
    use Server::{Broken, Busy, Forbidden, Missing, Unauthorized};
    kind == "http" && matches!(server, Missing | Unauthorized | Forbidden | Busy | Broken)
}

/// Whether the endpoint of an `http` gate answers as expected: what a body holds is none of its business.
fn is_expected(kind: &str, server: Server) -> bool {
    use Server::{Empty, Garbage, Null, Short, Truncated};
    kind == "http" && matches!(server, Empty | Garbage | Null | Short | Truncated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_type_of_gate_passes_on_what_is_no_answer() {
    let lacking: Vec<&str> =
        GATE_TYPES.iter().map(|of| of.name).filter(|name| SAMPLES.iter().all(|(of, _)| of != name)).collect();
    assert!(lacking.is_empty(), "src/gates/unknown_tests.rs has no sample of {lacking:?}");

    let asker =
        &Asker::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap().with_digest_key(Some(digest_key()));
    let mut cases = Vec::new();
    for server in SERVERS {
        let address = serve(server).await;
        // Setting up TLS takes longer than some answers may.
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        for (kind, sample) in SAMPLES {
            for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
                let account = Account { user: "recovery".to_owned(), client: client.clone() };
                let question = question(kind, sample(address), phase);
                cases.push(async move {
                    let asked = tokio::time::timeout(Duration::from_secs(30), asker.ask(&account, &question));
                    (kind, server, phase, asked.await.unwrap())
                });
            }
        }
    }
    let answers: Vec<_> = stream::iter(cases).buffer_unordered(AT_ONCE).collect().await;
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (kind, server, phase, answer) in answers {
        told.push((kind, answer.reason));
        let wanted = match () {
            () if is_expected(kind, server) => Verdict::Pass,
            () if is_an_answer(kind, server) => Verdict::Fail,
            () => Verdict::Unknown,
        };
        if answer.verdict != wanted || answer.message.is_empty() {
            wrong.push(format!("{kind}, {server:?}, {}: {answer:?}", phase.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nobody stops at what it is configured with.
    for (kind, reason) in
        [("credentialsRotated", "SecretMissing"), ("jobResult", "ApiError"), ("baseline", "Forbidden")]
    {
        let reasons: Vec<_> =
            told.iter().filter(|(of, _)| *of == kind).map(|(_, reason)| reason.as_str()).collect();
        assert!(reasons.contains(&reason), "{kind}: {reasons:?}");
    }
}
