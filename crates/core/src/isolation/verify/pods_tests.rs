use serde_json::{Value, json};

use super::*;

fn told(status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
}

/// A pod in that phase whose container is in that state.
fn pod(phase: &str, state: Value) -> Pod {
    let container = json!({
        "name": "probe", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state,
    });
    told(json!({"phase": phase, "podIP": "10.0.0.7", "containerStatuses": [container]}))
}

#[test]
fn only_a_process_that_runs_and_has_an_address_is_connected_to() {
    let running = || pod("Running", json!({"running": {}}));
    assert!(is_running(&running()));
    assert_eq!(address(&running()).as_deref(), Some("10.0.0.7:8443"));
    let with = |change: fn(&mut Pod)| {
        let mut pod = running();
        change(&mut pod);
        pod
    };
    let ip = |pod: &mut Pod, ip: &str| pod.status.as_mut().unwrap().pod_ip = Some(ip.to_owned());
    let v6 = with(|pod| pod.status.as_mut().unwrap().pod_ip = Some("fd00::7".to_owned()));
    assert_eq!(address(&v6).as_deref(), Some("[fd00::7]:8443"));
    for nowhere in ["", "somewhere"] {
        let mut pod = running();
        ip(&mut pod, nowhere);
        assert_eq!((is_running(&pod), address(&pod)), (true, None), "{nowhere:?}");
    }
    for dead in [
        pod("Pending", json!({"running": {}})),
        pod("Running", json!({"waiting": {}})),
        pod("Succeeded", json!({"terminated": {"exitCode": 0}})),
        told(json!({"phase": "Running", "podIP": "10.0.0.7"})),
        told(json!({})),
        with(|pod| {
            let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
            pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        }),
    ] {
        assert!(!is_running(&dead), "{dead:?}");
        assert_eq!(address(&dead), None, "{dead:?}");
    }
}

#[test]
fn termination_message_is_read_only_from_ended_containers() {
    let ended = json!({"terminated": {"exitCode": 0, "message": "heard"}});
    for (phase, state, has, words) in [
        ("Succeeded", ended.clone(), true, Some("heard")),
        ("Failed", ended, true, Some("heard")),
        ("Failed", json!({"terminated": {"exitCode": 1}}), true, None),
        ("Running", json!({"running": {}}), false, None),
        ("", json!({}), false, None),
    ] {
        let pod = pod(phase, state);
        assert_eq!((has_ended(&pod), termination_message(&pod)), (has, words), "{pod:?}");
    }
    assert!(!has_ended(&Pod::default()));
}

#[test]
fn pod_state_is_described_in_kubernetes_terms() {
    for (pod, says) in [
        (Pod::default(), "Pending"),
        (told(json!({"phase": "Running"})), "Running"),
        (
            told(json!({"phase": "Failed", "reason": "Evicted", "message": "no disk"})),
            "Failed (Evicted: no disk)",
        ),
        (
            pod("Pending", json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}})),
            "Pending (ErrImagePull: no such image)",
        ),
        (pod("Failed", json!({"terminated": {"exitCode": 1, "reason": "Error"}})), "Failed (Error)"),
    ] {
        assert_eq!(describe_state(&pod), says);
    }
}

#[test]
fn probe_pods_run_on_their_side_with_the_run_id() {
    let try_ = ProbeRun { image: "registry.example/resurgam".into(), id: "x7".into() };
    let goals = [
        ProbeTarget { name: "api".into(), address: "10.0.0.1:443".into(), denied: true },
        ProbeTarget { name: "peer".into(), address: "10.0.0.2:8443".into(), denied: false },
    ];
    let listener = try_.listener(Side::Open, "a", "node-1").unwrap();
    let connector = try_.connector(Side::Denied, "b", "node-2", &goals).unwrap();
    let args = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap().join(" ");
    assert_eq!(args(&listener), "probe listen --port 8443 --say x7");
    assert_eq!(
        args(&connector),
        "probe connect --hear x7 --patience 20s --denied api=10.0.0.1:443 --open peer=10.0.0.2:8443"
    );
    for (pod, name, namespace, node) in
        [(listener, "a-x7", OPEN_NAMESPACE, "node-1"), (connector, "b-x7", DENIED_NAMESPACE, "node-2")]
    {
        assert_eq!(pod.metadata.name.as_deref(), Some(name));
        assert_eq!(pod.metadata.namespace.as_deref(), Some(namespace));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some(node));
        assert_eq!(spec.containers[0].image.as_deref(), Some("registry.example/resurgam"));
        // What one try leaves, the next finds, whosever try it was.
        let labels = pod.metadata.labels.unwrap();
        assert_eq!(labels[TRY_LABEL], "x7");
        let managed = ProbeRun::selector();
        let (managed, any) = managed.split_once(',').unwrap();
        assert_eq!(managed, format!("{MANAGED_BY_LABEL}={}", labels[MANAGED_BY_LABEL]));
        assert_eq!(any, TRY_LABEL);
    }
}
