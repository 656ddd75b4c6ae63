use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api::{GateSpec, Verdict};

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

/// Approved.
fn good() -> String {
    format!("registry/app:1@{}", digest('a'))
}

/// By digest, but not approved.
fn bad() -> String {
    format!("registry/app:1@{}", digest('b'))
}

fn question(phase: Phase) -> Question {
    Question::new("recovery", vec!["library".into()], phase, GateSpec::default())
}

fn list(entries: &[String], tags: ImageTags) -> ImagePolicy {
    let spec = ImageDigestsSpec { approved: Some(entries.to_vec()), approved_from: None, tags };
    policy(&spec, "recovery", None).unwrap()
}

fn asked(phase: Phase, inventory: &Inventory) -> Answer {
    let policy = list(&[digest('a')], ImageTags::Forbid);
    judge(&policy, &question(phase), inventory, &NodeImages::default())
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "library", "uid": format!("uid-{name}")})
}

fn template(image: &str) -> Value {
    json!({"spec": {"containers": [{"name": "app", "image": image}]}})
}

fn deployment(name: &str, image: &str) -> Value {
    let selector = json!({"matchLabels": {"app": name}});
    json!({"metadata": meta(name), "spec": {"selector": selector, "template": template(image)}})
}

/// The object with a controller of this kind and name.
fn owned(mut object: Value, kind: &str, name: &str) -> Value {
    let group = if matches!(kind, "CronJob" | "Job") { "batch/v1" } else { "apps/v1" };
    object["metadata"]["ownerReferences"] = json!([
        {"apiVersion": group, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true}
    ]);
    object
}

/// A ReplicaSet of the Deployment `web`.
fn replica_set(name: &str, image: &str) -> Value {
    let mut meta = meta(name);
    meta["labels"] = json!({"app": "web"});
    owned(
        json!({"metadata": meta, "spec": {"selector": {}, "template": template(image)}}),
        "Deployment",
        "web",
    )
}

/// A Pod that runs `image_id`.
fn pod(name: &str, image: &str, image_id: &str) -> Value {
    json!({
        "metadata": meta(name),
        "spec": {"containers": [{"name": "app", "image": image}]},
        "status": {"phase": "Running", "containerStatuses": [status("app", image_id)]},
    })
}

fn status(name: &str, image_id: &str) -> Value {
    json!({"name": name, "image": "x", "imageID": image_id, "ready": true, "restartCount": 0,
        "state": {"running": {}}})
}

const PHASES: [Phase; 3] = [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous];

#[test]
fn subject_is_the_images_whatever_the_list_and_the_pods_are() {
    let inventory = |image: &str, pods: &[&str]| Inventory {
        deployments: vec![parsed(deployment("web", image))],
        pods: pods.iter().map(|name| parsed(pod(name, image, image))).collect(),
        ..Inventory::default()
    };
    let subject = |approved: char, inventory: &Inventory| {
        let policy = list(&[digest(approved)], ImageTags::Forbid);
        let answer = judge(&policy, &question(Phase::Continuous), inventory, &NodeImages::default());
        (answer.verdict, answer.subject.unwrap())
    };
    let (passes, before) = subject('a', &inventory(&good(), &["web-1"]));
    let (fails, edited) = subject('b', &inventory(&good(), &["web-2", "web-3"]));
    assert_eq!((passes, fails, &edited), (Verdict::Pass, Verdict::Fail, &before));
    let (fails, tampered) = subject('a', &inventory(&bad(), &["web-1"]));
    assert_eq!(fails, Verdict::Fail);
    assert_ne!(tampered, before);
}

#[test]
fn every_kind_of_workload_is_looked_at_in_every_phase() {
    let of = |image: &str| -> Vec<(&'static str, Inventory)> {
        let spec = json!({"metadata": meta("it"), "spec": {"selector": {}, "serviceName": "it",
            "template": template(image)}});
        let cron = json!({"metadata": meta("it"), "spec": {"schedule": "0 0 * * *",
            "jobTemplate": {"spec": {"template": template(image)}}}});
        let pod = json!({"metadata": meta("it"), "spec": template(image)["spec"], "status": {"phase": "Running", "containerStatuses": [status("app", &good())]}});
        vec![
            ("Deployment", Inventory { deployments: vec![parsed(spec.clone())], ..Default::default() }),
            ("StatefulSet", Inventory { stateful_sets: vec![parsed(spec.clone())], ..Default::default() }),
            ("DaemonSet", Inventory { daemon_sets: vec![parsed(spec.clone())], ..Default::default() }),
            ("ReplicaSet", Inventory { replica_sets: vec![parsed(spec.clone())], ..Default::default() }),
            (
                "ReplicationController",
                Inventory {
                    replication_controllers: vec![parsed(json!({"metadata": meta("it"),
                    "spec": {"template": template(image)}}))],
                    ..Default::default()
                },
            ),
            ("Job", Inventory { jobs: vec![parsed(spec)], ..Default::default() }),
            ("CronJob", Inventory { cron_jobs: vec![parsed(cron)], ..Default::default() }),
            ("Pod", Inventory { pods: vec![parsed(pod)], ..Default::default() }),
        ]
    };
    for phase in PHASES {
        for (image, verdict, reason) in [
            (good(), Verdict::Pass, "Approved"),
            (bad(), Verdict::Fail, "NotApproved"),
            ("registry/app:1".to_owned(), Verdict::Fail, "NotPinned"),
            (String::new(), Verdict::Fail, "NotPinned"),
        ] {
            for (kind, inventory) in of(&image) {
                let answer = asked(phase, &inventory);
                let case = format!("{phase:?} {kind} '{image}': {answer:?}");
                assert_eq!((answer.verdict, answer.reason.as_str()), (verdict, reason), "{case}");
                if verdict == Verdict::Fail {
                    let culprit = format!("{kind} library/it, container app: ");
                    assert!(answer.message.starts_with(&culprit), "{case}");
                }
            }
        }
    }
}

#[test]
fn a_digest_that_is_not_approved_is_named() {
    let inventory = Inventory { deployments: vec![parsed(deployment("web", &bad()))], ..Default::default() };
    assert_eq!(
        asked(Phase::BeforeRestore, &inventory).message,
        format!("Deployment library/web, container app: {} is not on the approved list", digest('b'))
    );
}

#[test]
fn init_containers_ephemeral_containers_and_image_volumes_count() {
    for field in ["initContainers", "ephemeralContainers", "volumes"] {
        let mut spec = pod("it", &good(), &good())["spec"].clone();
        spec[field] = match field {
            "volumes" => json!([{"name": "other", "image": {"reference": bad()}}]),
            _ => json!([{"name": "other", "image": bad()}]),
        };
        let object = json!({"metadata": meta("it"), "spec": spec});
        let inventory = Inventory { pods: vec![parsed(object)], ..Default::default() };
        let answer = asked(Phase::BeforeRestore, &inventory);
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Fail, "NotApproved"), "{field}");
        assert!(answer.message.contains(" other: "), "{}", answer.message);
    }
}

#[test]
fn running_images_are_judged_after_restore_only() {
    use Verdict::{Fail, Pass, Unknown};
    let waiting = |image_id: &str| {
        let mut status = status("app", image_id);
        status["state"] = json!({"waiting": {"reason": "ImagePullBackOff"}});
        json!([status])
    };
    let other = |image_id: &str| json!([status("app", &good()), status("injected", image_id)]);
    for (statuses, verdict, reason) in [
        (json!([status("app", &good())]), Pass, "Approved"),
        (json!([status("app", &digest('a'))]), Pass, "Approved"),
        (json!([status("app", &bad())]), Unknown, "UnresolvedDigest"),
        (json!([status("app", &"b".repeat(64))]), Unknown, "UnresolvedDigest"),
        (json!([status("app", &"a".repeat(64))]), Pass, "Approved"),
        (json!([status("app", &"b".repeat(63))]), Unknown, "MalformedImageID"),
        (json!([status("app", "")]), Unknown, "NoImageID"),
        (json!([status("app", "registry/app:1")]), Unknown, "MalformedImageID"),
        (json!([]), Unknown, "InProgress"),
        (json!(null), Unknown, "InProgress"),
        (waiting(""), Unknown, "InProgress"),
        (waiting(&bad()), Unknown, "UnresolvedDigest"),
        (other(&good()), Pass, "Approved"),
        (other(&bad()), Fail, "RunningImageNotApproved"),
        (other(""), Unknown, "NoImageID"),
    ] {
        let mut object = owned(pod("web-1", &good(), ""), "ReplicaSet", "web-1");
        object["status"]["containerStatuses"] = statuses.clone();
        let inventory = Inventory {
            deployments: vec![parsed(deployment("web", &good()))],
            pods: vec![parsed(object)],
            ..Default::default()
        };
        assert_eq!(asked(Phase::BeforeRestore, &inventory).verdict, Pass);
        for phase in [Phase::BeforeRelease, Phase::Continuous] {
            let answer = asked(phase, &inventory);
            assert_eq!((answer.verdict, answer.reason.as_str()), (verdict, reason), "{phase:?} {statuses}");
            assert!(
                verdict == Pass || answer.message.starts_with("Pod library/web-1, container "),
                "{answer:?}"
            );
            assert_eq!(answer.evidence.is_some(), verdict != Unknown);
        }
    }
}

#[test]
fn init_and_ephemeral_containers_that_run_are_judged() {
    for field in ["initContainerStatuses", "ephemeralContainerStatuses"] {
        let mut object = owned(pod("web-1-x", &good(), &good()), "ReplicaSet", "web-1");
        object["status"][field] = json!([status("other", &bad())]);
        let inventory = Inventory {
            deployments: vec![parsed(deployment("web", &good()))],
            pods: vec![parsed(object)],
            ..Default::default()
        };
        let answer = asked(Phase::Continuous, &inventory);
        assert_eq!(answer.reason, GateReason::RunningImageNotApproved, "{field}");
        assert!(answer.message.contains("container other"), "{}", answer.message);
    }
}

#[test]
fn fail_takes_precedence_over_unknown() {
    let inventory = Inventory {
        deployments: vec![parsed(deployment("web", &good()))],
        // In order of kinds, the Unknown comes first.
        pods: vec![parsed(owned(pod("a-first", &good(), ""), "ReplicaSet", "web-1"))],
        stateful_sets: vec![parsed(json!({"metadata": meta("z-last"),
            "spec": {"selector": {}, "serviceName": "z", "template": template(&bad())}}))],
        ..Default::default()
    };
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!(answer.reason, GateReason::NotApproved);
    assert!(answer.message.starts_with("StatefulSet library/z-last, container app: "), "{answer:?}");
}

#[test]
fn history_is_not_judged_but_a_forged_owner_hides_nothing() {
    let job = |ended: bool| {
        let conditions = if ended { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        json!({"metadata": meta("nightly-1"), "spec": {"template": template(&bad())},
            "status": {"conditions": conditions}})
    };
    let mut ended_pod = owned(pod("web-0", &good(), &bad()), "ReplicaSet", "web-1");
    ended_pod["status"]["phase"] = json!("Failed");
    let base = || Inventory {
        deployments: vec![parsed(deployment("web", &good()))],
        replica_sets: vec![parsed(replica_set("web-1", &good()))],
        cron_jobs: vec![parsed(json!({"metadata": meta("nightly"), "spec": {"schedule": "0 0 * * *",
            "jobTemplate": {"spec": {"template": template(&good())}}}}))],
        ..Default::default()
    };
    for (name, inventory, verdict) in [
        (
            "old ReplicaSet",
            Inventory { replica_sets: vec![parsed(replica_set("web-old", &bad()))], ..base() },
            Verdict::Pass,
        ),
        (
            "ReplicaSet of nobody seen",
            Inventory {
                replica_sets: vec![parsed(owned(replica_set("web-old", &bad()), "Deployment", "forged"))],
                ..base()
            },
            Verdict::Fail,
        ),
        (
            "ended Job of a CronJob",
            Inventory { jobs: vec![parsed(owned(job(true), "CronJob", "nightly"))], ..base() },
            Verdict::Pass,
        ),
        (
            "unended Job of a CronJob",
            Inventory { jobs: vec![parsed(owned(job(false), "CronJob", "nightly"))], ..base() },
            Verdict::Fail,
        ),
        ("ended Job of nobody", Inventory { jobs: vec![parsed(job(true))], ..base() }, Verdict::Pass),
        ("unended Job of nobody", Inventory { jobs: vec![parsed(job(false))], ..base() }, Verdict::Fail),
        ("ended Pod", Inventory { pods: vec![parsed(ended_pod)], ..base() }, Verdict::Pass),
        (
            "Pod of nobody seen",
            Inventory {
                pods: vec![parsed(owned(pod("x", &bad(), &good()), "ReplicaSet", "forged"))],
                ..base()
            },
            Verdict::Fail,
        ),
    ] {
        let answer = asked(Phase::Continuous, &inventory);
        assert_eq!(answer.verdict, verdict, "{name}: {answer:?}");
    }
}

#[test]
fn an_image_volume_that_was_slipped_into_a_running_pod_is_seen() {
    let mut object = owned(pod("web-1-x", &good(), &good()), "ReplicaSet", "web-1");
    object["spec"]["volumes"] = json!([{"name": "slipped", "image": {"reference": bad()}}]);
    let inventory = Inventory {
        deployments: vec![parsed(deployment("web", &good()))],
        replica_sets: vec![parsed(replica_set("web-1", &good()))],
        pods: vec![parsed(object)],
        ..Default::default()
    };
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!(answer.reason, GateReason::NotApproved);
    assert!(answer.message.starts_with("Pod library/web-1-x, volume slipped: "), "{answer:?}");
}

#[test]
fn nothing_found_is_unknown_and_names_where() {
    for phase in PHASES {
        let answer = asked(phase, &Inventory::default());
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
        assert!(answer.message.contains("namespace library"), "{}", answer.message);
    }
    let external = Question { namespaces: Vec::new(), ..question(Phase::BeforeRestore) };
    let answer = judge(
        &list(&[digest('a')], ImageTags::Forbid),
        &external,
        &Inventory::default(),
        &NodeImages::default(),
    );
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
}

#[test]
fn evidence_changes_with_uids_images_what_runs_and_the_list() {
    let inventory = |image_id: &str, uid: &str| {
        let mut object = pod("web", &good(), image_id);
        object["metadata"]["uid"] = json!(uid);
        Inventory { pods: vec![parsed(object)], ..Default::default() }
    };
    let evidence = |letters: &[char], inventory: &Inventory| {
        let entries: Vec<String> = letters.iter().map(|letter| digest(*letter)).collect();
        let policy = list(&entries, ImageTags::Forbid);
        judge(&policy, &question(Phase::Continuous), inventory, &NodeImages::default()).evidence.unwrap()
    };
    let first = evidence(&['a'], &inventory(&good(), "1"));
    assert_eq!(first, evidence(&['a'], &inventory(&good(), "1")));
    assert_ne!(first, evidence(&['a'], &inventory(&good(), "2")));
    let both = evidence(&['a', 'b'], &inventory(&good(), "1"));
    assert_ne!(both, evidence(&['a', 'b'], &inventory(&bad(), "1")));
    assert_ne!(first, both);
}
