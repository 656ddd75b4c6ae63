use std::sync::Arc;

use futures::io::Cursor;
use serde_json::{Value, json};

use super::*;
use crate::isolation::evidence::Recipient;

const RUNNING: &str = r#"{"running": {}}"#;
const ENDED: &str = r#"{"terminated": {"exitCode": 1}}"#;
const WAITING: &str = r#"{"waiting": {"reason": "CrashLoopBackOff"}}"#;

fn pod(state: Option<&str>, last: Option<&str>) -> Pod {
    let parsed = |text: Option<&str>| text.map(|text| serde_json::from_str::<Value>(text).unwrap());
    let status = |name: &str| {
        json!({
            "name": name, "image": "web", "imageID": "sha256:1", "containerID": "cri://1", "ready": true,
            "restartCount": 2, "state": parsed(state), "lastState": parsed(last),
        })
    };
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "uid": "u1"},
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "init", "image": "web:1"}],
            "containers": [{"name": "main", "image": "web:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "web:1"}],
        },
        "status": {
            "initContainerStatuses": [status("init")],
            "containerStatuses": [status("main")],
            "ephemeralContainerStatuses": [status("debug")],
        },
    }))
    .unwrap()
}

#[test]
fn logs_are_requested_of_current_and_previous_runs() {
    for (state, last, asked_for) in [
        (None, None, (false, false)),
        (Some(WAITING), None, (false, false)),
        (Some(RUNNING), None, (true, false)),
        (Some(ENDED), None, (true, false)),
        (Some(RUNNING), Some(ENDED), (true, true)),
        (Some(ENDED), Some(ENDED), (true, true)),
        (Some(WAITING), Some(ENDED), (true, false)),
    ] {
        let found = containers(&[pod(state, last)]);
        assert_eq!(found.iter().map(|c| c.kind).collect::<Vec<_>>(), ["init", "container", "ephemeral"]);
        for container in &found {
            let asked_of = (container.is_asked(false), container.is_asked(true));
            assert_eq!(asked_of, asked_for, "{state:?} {last:?}");
        }
        let logs = usize::from(asked_for.0) + usize::from(asked_for.1);
        assert_eq!(asked(&found).len(), 3 * logs);
    }
}

#[test]
fn index_names_containers_nodes_and_images() {
    let mut pod = pod(Some(RUNNING), None);
    let index = serde_json::to_value(&containers(&[pod.clone()])[1]).unwrap();
    for (key, value) in [
        ("pod", "web-1"),
        ("podUid", "u1"),
        ("node", "node-1"),
        ("image", "web:1"),
        ("imageID", "sha256:1"),
        ("containerID", "cri://1"),
    ] {
        assert_eq!(index[key], value, "{index}");
    }
    // A pod that no node has heard of is in the index all the same.
    pod.status = None;
    let unheard = containers(&[pod]);
    assert_eq!(unheard.len(), 3);
    assert!(unheard.iter().all(|c| c.log == Log::None("it never started".into())));
}

#[test]
fn log_absent_from_its_node_is_missing_or_a_failure() {
    for (state, previous, expected) in [
        (RUNNING, false, Some(true)),
        (ENDED, false, Some(false)),
        (RUNNING, true, None),
        (ENDED, true, None),
    ] {
        let container = &containers(&[pod(Some(state), Some(ENDED))])[1];
        let miss = container.miss(previous, &container.unavailable(previous));
        assert_eq!(miss.map(|miss| miss.failure), expected, "{state} {previous}");
    }
}

fn refusal(code: u16) -> IoError {
    let status = kube::core::Status { code, message: "no".into(), ..kube::core::Status::default() };
    IoError::Api { what: "get log".into(), source: Arc::new(kube::Error::Api(Box::new(status))) }
}

#[test]
fn only_a_log_that_is_there_and_cannot_be_had_is_a_failure() {
    let silent = || IoError::Timeout { what: "get log".into(), after: Duration::from_secs(15) };
    let (running, ended) =
        (&containers(&[pod(Some(RUNNING), None)])[1], &containers(&[pod(Some(ENDED), None)])[1]);
    // Of whom, of the run before, what came back; is it missing, and is that a failure?
    for (container, previous, error, expected) in [
        (running, false, refusal(400), Some(true)),
        (running, false, refusal(403), Some(true)),
        (running, false, refusal(500), Some(true)),
        (running, false, silent(), Some(true)),
        (running, false, refusal(404), Some(false)),
        (running, true, refusal(400), None),
        (running, true, refusal(404), None),
        (running, true, refusal(500), Some(true)),
        (running, true, silent(), Some(true)),
        (ended, false, refusal(400), Some(false)),
        (ended, false, silent(), Some(true)),
    ] {
        let log = container.judge(previous, &error);
        let miss = container.miss(previous, &log);
        assert_eq!(miss.as_ref().map(|miss| miss.failure), expected, "{previous} {error}");
        if let Some(miss) = miss {
            for word in ["web-1", "main", "node-1", "get log"] {
                assert!(miss.what.contains(word), "{word} in {}", miss.what);
            }
        }
    }
}

async fn read_back(log: &str, limit: u64) -> (Vec<u8>, bool) {
    let identity = age::x25519::Identity::generate();
    let recipient: Recipient = identity.to_public().to_string().parse().unwrap();
    let log = Cursor::new(log.as_bytes().to_vec());
    match read(log, limit, Encrypted::to(&[recipient]).unwrap()).await.unwrap() {
        Read::Encrypted { text, bytes, truncated } => {
            let clear = age::decrypt(&identity, &text).unwrap();
            assert_eq!(u64::try_from(clear.len()).unwrap(), bytes);
            (clear, truncated)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_log_is_cut_at_its_limit_and_says_so() {
    for (limit, kept, truncated) in [(4, "line", true), (8, "line one", false), (9, "line one", false)] {
        assert_eq!(read_back("line one", limit).await, (kept.as_bytes().to_vec(), truncated), "{limit}");
    }
    let long = "x".repeat(3 * CHUNK);
    let limit = u64::try_from(2 * CHUNK + 7).unwrap();
    let (kept, truncated) = read_back(&long, limit).await;
    assert_eq!((kept.len(), truncated), (2 * CHUNK + 7, true));
}

#[tokio::test]
async fn kubelet_error_text_is_no_log() {
    let recipient: Recipient = age::x25519::Identity::generate().to_public().to_string().parse().unwrap();
    let text = || Encrypted::to(std::slice::from_ref(&recipient)).unwrap();
    let said = Cursor::new(b"unable to retrieve container logs for containerd://1".to_vec());
    assert!(matches!(read(said, 1000, text()).await.unwrap(), Read::Unavailable));
    let in_parts =
        Cursor::new(b"unable to ".to_vec()).chain(Cursor::new(b"retrieve container logs for x".to_vec()));
    assert!(matches!(read(in_parts, 1000, text()).await.unwrap(), Read::Unavailable));
    assert!(matches!(read(Cursor::new(Vec::new()), 1000, text()).await.unwrap(), Read::Nothing));
    // A program may say the same; the time before it tells that it did.
    let logged = Cursor::new(b"2025-11-24T03:00:00Z unable to retrieve container logs for us".to_vec());
    assert!(matches!(read(logged, 1000, text()).await.unwrap(), Read::Encrypted { .. }));
}

#[test]
fn containers_are_counted_once_each() {
    let mut found = containers(&[pod(Some(RUNNING), Some(ENDED))]);
    let kept = || Log::Kept {
        kept: Kept { object: "o".into(), digest: "d".into(), size: 1 },
        bytes: 1,
        truncated: false,
    };
    (found[0].log, found[0].previous_log) = (kept(), kept());
    found[1].previous_log = kept();
    assert_eq!(count(&found), 2);
    assert_eq!(serde_json::to_value(kept()).unwrap()["kept"]["digest"], "d", "the index says where");
}
