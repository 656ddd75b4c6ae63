//! Images by tag, and other digests of the same image.

use k8s_openapi::api::core::v1::Node;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api::{GateSpec, Verdict};
use crate::isolation::Seal;

const NODE: &str = "n1";

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn listed(entries: &[&str], tags: ImageTags) -> ImagePolicy {
    let approved = Some(entries.iter().map(|entry| (*entry).to_owned()).collect());
    policy(&ImageDigestsSpec { approved, approved_from: None, tags }, "recovery", None).unwrap()
}

fn question(phase: Phase) -> Question {
    Question::new("recovery", vec!["shop".into()], phase, GateSpec::default())
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}})
}

fn spec(image: &str) -> Value {
    json!({"nodeName": NODE, "containers": [{"name": "c", "image": image}]})
}

/// A Deployment of this image, and for each running image ID a Pod of it. `None`: not reported yet.
fn web(image: &str, pods: &[(&str, Option<&str>)]) -> Inventory {
    let template = json!({"spec": spec(image)});
    let selector = json!({"matchLabels": {"app": "web"}});
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true}]);
    let mut replica_set =
        json!({"metadata": meta("web-1"), "spec": {"selector": selector, "template": template}});
    replica_set["metadata"]["ownerReferences"] = owner("Deployment", "web");
    let pod = |(index, (image, id)): (usize, &(&str, Option<&str>))| {
        let mut pod = json!({"metadata": meta(&format!("web-1-{index}")), "spec": spec(image), "status": {"phase": "Running"}});
        pod["metadata"]["ownerReferences"] = owner("ReplicaSet", "web-1");
        if let Some(id) = id {
            pod["status"]["containerStatuses"] = statuses(id);
        }
        parsed(pod)
    };
    Inventory {
        deployments: vec![parsed(
            json!({"metadata": meta("web"), "spec": {"selector": selector, "template": template}}),
        )],
        replica_sets: vec![parsed(replica_set)],
        pods: pods.iter().enumerate().map(pod).collect(),
        ..Default::default()
    }
}

fn statuses(id: &str) -> Value {
    json!([{"name": "c", "image": "x", "imageID": id, "ready": true, "restartCount": 0, "state": {"running": {}}}])
}

fn nodes(same: &[&[String]]) -> NodeImages {
    let images: Vec<_> = same
        .iter()
        .map(|digests| {
            json!({"names": digests.iter().map(|digest| format!("r.example/x@{digest}")).collect::<Vec<_>>()})
        })
        .collect();
    let node: Node = parsed(json!({"metadata": {"name": NODE}, "status": {"images": images}}));
    let mut nodes = NodeImages::default();
    nodes.add(NODE, &node);
    nodes
}

fn short(answer: &Answer) -> (Verdict, &'static str) {
    (answer.verdict, answer.reason.as_str())
}

const PHASES: [Phase; 3] = [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous];

#[test]
fn listed_tag_passes_before_restore_as_an_exception_only() {
    use Verdict::{Fail, Pass};
    let entry = format!("r.example/x:1 {}", digest('a'));
    let latest = format!("nginx {}", digest('a'));
    for (entry, image, tags, expected) in [
        (&entry, "r.example/x:1", ImageTags::ProveWhenRunning, (Pass, "Approved")),
        (&latest, "docker.io/library/nginx:latest", ImageTags::ProveWhenRunning, (Pass, "Approved")),
        (&entry, "r.example/x:1", ImageTags::Forbid, (Fail, "NotPinned")),
        (&entry, "r.example/x:2", ImageTags::ProveWhenRunning, (Fail, "NotApproved")),
        (&entry, "r.example/x", ImageTags::ProveWhenRunning, (Fail, "NotApproved")),
        (&entry, "x:1", ImageTags::ProveWhenRunning, (Fail, "NotApproved")),
        (&entry, "", ImageTags::ProveWhenRunning, (Fail, "NotPinned")),
        (&entry, "r.example/X:1", ImageTags::ProveWhenRunning, (Fail, "NotPinned")),
        (&digest('a'), "r.example/x:1", ImageTags::ProveWhenRunning, (Fail, "NotApproved")),
    ] {
        let policy = listed(&[entry], tags);
        let answer =
            judge(&policy, &question(Phase::BeforeRestore), &web(image, &[]), &NodeImages::default());
        assert_eq!(short(&answer), expected, "{entry} '{image}' {tags:?}: {answer:?}");
        let exception =
            format!("Deployment shop/web, container c: '{image}' is by tag: proved only by what runs");
        let expected = if expected.0 == Pass { vec![exception] } else { Vec::new() };
        assert_eq!(answer.exceptions, expected, "{entry} '{image}'");
    }
}

#[test]
fn tag_is_released_only_once_its_listed_digest_runs() {
    use Verdict::{Fail, Pass, Unknown};
    const X: &str = "r.example/x:1";
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    let (one, two) = (format!("{X} {a} {b}"), format!("r.example/y:1 {c}"));
    let policy = listed(&[&one, &two], ImageTags::ProveWhenRunning);
    let pinned = format!("{X}@{a}");
    for (pods, release, continuous) in [
        (vec![(X, Some(a.as_str()))], (Pass, "Approved"), (Pass, "Approved")),
        (vec![(X, Some(b.as_str()))], (Pass, "Approved"), (Pass, "Approved")),
        (vec![("r.example/x:1", Some(&a[7..]))], (Pass, "Approved"), (Pass, "Approved")),
        // Another approved image under this tag is not what the tag stands for.
        (vec![(X, Some(c.as_str()))], (Fail, "RunningImageNotApproved"), (Fail, "RunningImageNotApproved")),
        (
            vec![(X, Some(a.as_str())), (X, Some(c.as_str()))],
            (Fail, "RunningImageNotApproved"),
            (Fail, "RunningImageNotApproved"),
        ),
        (vec![(X, Some(""))], (Unknown, "TagNotProved"), (Unknown, "NoImageID")),
        (vec![(X, None)], (Unknown, "TagNotProved"), (Unknown, "InProgress")),
        // Nothing runs: after release that is how autoscalers leave it.
        (vec![], (Unknown, "TagNotProved"), (Pass, "Approved")),
        // What runs is another name: it proves itself, and not the tag.
        (vec![(pinned.as_str(), Some(a.as_str()))], (Unknown, "TagNotProved"), (Pass, "Approved")),
        (vec![("r.example/y:1", Some(c.as_str()))], (Unknown, "TagNotProved"), (Pass, "Approved")),
    ] {
        let inventory = web(X, &pods);
        for (phase, expected) in [(Phase::BeforeRelease, release), (Phase::Continuous, continuous)] {
            let answer = judge(&policy, &question(phase), &inventory, &NodeImages::default());
            assert_eq!(short(&answer), expected, "{phase:?} {pods:?}: {answer:?}");
            assert_eq!(answer.exceptions.len(), usize::from(expected.0 == Pass), "{phase:?} {pods:?}");
        }
    }
}

#[test]
fn tag_of_an_image_volume_never_passes() {
    let entry = format!("r.example/x:1 {}", digest('a'));
    let policy = listed(&[&entry], ImageTags::ProveWhenRunning);
    let mut inventory = web("r.example/x:1", &[("r.example/x:1", Some(&digest('a')))]);
    let mut pod = spec("r.example/x:1");
    pod["volumes"] = json!([{"name": "data", "image": {"reference": "r.example/x:1"}}]);
    inventory.pods.push(parsed(
        json!({"metadata": meta("bare"), "spec": pod, "status": {"containerStatuses": statuses(&digest('a'))}}),
    ));
    for phase in PHASES {
        let answer = judge(&policy, &question(phase), &inventory, &NodeImages::default());
        assert_eq!(short(&answer), (Verdict::Fail, "NotPinned"), "{phase:?} {answer:?}");
        assert!(answer.message.starts_with("Pod shop/bare, volume data: "), "{answer:?}");
    }
}

#[test]
fn jobs_that_ran_since_the_isolation_are_judged_by_what_their_pods_ran() {
    use Verdict::{Fail, Pass};
    const X: &str = "r.example/x:1";
    let entry = format!("{X} {}", digest('a'));
    let policy = listed(&[&entry], ImageTags::ProveWhenRunning);
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "migrate", "uid": "migrate", "controller": true}]);
    let mut asked = question(Phase::BeforeRelease);
    let contents = Some(crate::api::quarantine::Contents::default());
    let created_at = Some("2026-11-20T00:00:00Z".parse().unwrap());
    asked.seals.insert("shop".into(), Seal { uid: "seal".into(), created_at, contents });
    let (before, since) = ("2026-11-19T23:59:59Z", "2026-11-20T00:00:01Z");
    for (ended, created, runs, expected) in [
        (true, since, Some(digest('a')), (Pass, "Approved")),
        (true, since, Some(digest('b')), (Fail, "RunningImageNotApproved")),
        (true, before, Some(digest('b')), (Pass, "NothingToCheck")),
        (true, since, Some(String::new()), (Pass, "NothingToCheck")),
        (true, since, None, (Pass, "NothingToCheck")),
        // Isolation suspended it: nothing runs it.
        (false, since, None, (Pass, "Approved")),
    ] {
        let conditions = if ended { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        let job = json!({"metadata": meta("migrate"), "spec": {"suspend": true, "template": {"spec": spec(X)}}, "status": {"conditions": conditions}});
        let pod = runs.as_ref().map(|id| {
            let mut pod = json!({"metadata": meta("migrate-1"), "spec": spec(X),
                "status": {"phase": "Succeeded", "containerStatuses": statuses(id)}});
            pod["metadata"]["ownerReferences"] = owner.clone();
            pod["metadata"]["creationTimestamp"] = json!(created);
            parsed(pod)
        });
        let inventory =
            Inventory { jobs: vec![parsed(job)], pods: pod.into_iter().collect(), ..Default::default() };
        let answer = judge(&policy, &asked, &inventory, &NodeImages::default());
        assert_eq!(short(&answer), expected, "{ended} {created} {runs:?}: {answer:?}");
    }
}

#[test]
fn exceptions_are_few_and_count_the_others() {
    let entry = format!("r.example/x:1 {}", digest('a'));
    let policy = listed(&[&entry], ImageTags::ProveWhenRunning);
    let one = web("r.example/x:1", &[]).deployments.remove(0);
    let many = |count: usize| {
        let named = |index: usize| {
            let mut one = one.clone();
            (one.metadata.name, one.metadata.uid) = (Some(format!("web-{index}")), Some(index.to_string()));
            one
        };
        let inventory = Inventory { deployments: (0..count).map(named).collect(), ..Default::default() };
        judge(&policy, &question(Phase::BeforeRestore), &inventory, &NodeImages::default()).exceptions
    };
    assert_eq!((many(6).len(), many(7).len(), many(40).len()), (6, 6, 6));
    assert_eq!(many(40)[5], "35 more images are by tag: proved only by what runs");
}

#[test]
fn index_and_platform_match_where_the_list_or_the_node_says_so() {
    use Verdict::{Fail, Pass, Unknown};
    let (index, platform, other) = (digest('a'), digest('b'), digest('c'));
    let pinned = format!("r.example/x:1@{index}");
    let evil = format!("r.example/x:1@{other}");
    let bare = index.clone();
    let line = format!("{index} {platform}");
    let both = [index.clone(), platform.clone()];
    let apart = [vec![index.clone(), other.clone()], vec![platform.clone()]];
    let apart: Vec<&[String]> = apart.iter().map(Vec::as_slice).collect();
    let said = &[both.as_slice()];
    for (list, runs, nodes, expected) in [
        (&line, platform.as_str(), nodes(&[]), (Pass, "Approved")),
        (&line, index.as_str(), nodes(&[]), (Pass, "Approved")),
        (&bare, platform.as_str(), nodes(&[]), (Unknown, "UnresolvedDigest")),
        (&bare, &platform[7..], nodes(&[]), (Unknown, "UnresolvedDigest")),
        (&bare, platform.as_str(), nodes(said), (Pass, "Approved")),
        (&bare, &platform[7..], nodes(said), (Pass, "Approved")),
        (&bare, other.as_str(), nodes(said), (Unknown, "UnresolvedDigest")),
        (&bare, platform.as_str(), nodes(&apart), (Unknown, "UnresolvedDigest")),
        (&bare, "r.example/x:1", nodes(said), (Unknown, "MalformedImageID")),
    ] {
        let policy = listed(&[list], ImageTags::Forbid);
        let inventory = web(&pinned, &[(&pinned, Some(runs))]);
        let answer = judge(&policy, &question(Phase::BeforeRelease), &inventory, &nodes);
        assert_eq!(short(&answer), expected, "{list} {runs} {nodes:?}: {answer:?}");
        if expected.1 == "UnresolvedDigest" {
            let runs = images::running(runs).unwrap();
            for word in ["index and platform", index.as_str(), runs.as_str(), "one entry", "node n1"] {
                assert!(answer.message.contains(word), "{word}: {}", answer.message);
            }
            assert!(answer.message.chars().count() < 512, "{}", answer.message);
            assert_eq!(answer.evidence, None);
        }
        // The same image ID under a spec that pins nothing approved is as if it were tampered with.
        for image in [evil.as_str(), "r.example/x:1"] {
            let inventory = web(&pinned, &[(image, Some(&other))]);
            let answer = judge(&policy, &question(Phase::BeforeRelease), &inventory, &nodes);
            assert_eq!(short(&answer), (Fail, "RunningImageNotApproved"), "{image}: {answer:?}");
        }
    }
}

#[test]
fn node_may_say_which_image_runs_under_a_tag() {
    const X: &str = "r.example/x:1";
    let entry = format!("{X} {}", digest('a'));
    let policy = listed(&[&entry], ImageTags::ProveWhenRunning);
    let inventory = web(X, &[(X, Some(&digest('b')))]);
    for (said, expected) in [
        ([digest('a'), digest('b')], (Verdict::Pass, "Approved")),
        ([digest('b'), digest('c')], (Verdict::Fail, "RunningImageNotApproved")),
    ] {
        let answer = judge(&policy, &question(Phase::BeforeRelease), &inventory, &nodes(&[&said]));
        assert_eq!(short(&answer), expected, "{said:?}: {answer:?}");
    }
}

#[test]
fn nodes_are_asked_only_for_what_the_list_leaves_open() {
    const X: &str = "r.example/x:1";
    let (a, b) = (digest('a'), digest('b'));
    let (pinned, tag) = (format!("{X}@{a}"), format!("{X} {a}"));
    for (image, runs, phase, asks) in [
        (pinned.as_str(), &b, Phase::BeforeRelease, true),
        (X, &b, Phase::Continuous, true),
        (pinned.as_str(), &a, Phase::BeforeRelease, false),
        (X, &a, Phase::BeforeRelease, false),
        (pinned.as_str(), &b, Phase::BeforeRestore, false),
        ("r.example/y:1", &b, Phase::BeforeRelease, false),
    ] {
        let policy = listed(&[&tag], ImageTags::ProveWhenRunning);
        let inventory = web(image, &[(image, Some(runs))]);
        let nodes = nodes_to_ask(&policy, &question(phase), &inventory);
        let expected = if asks { BTreeSet::from([NODE.to_owned()]) } else { BTreeSet::new() };
        assert_eq!(nodes, expected, "{phase:?} {image} {runs}");
    }
}

#[test]
fn a_node_that_cannot_be_read_is_named_with_the_reason() {
    let pinned = format!("r.example/x:1@{}", digest('a'));
    let inventory = web(&pinned, &[(&pinned, Some(&digest('b')))]);
    let mut nodes = NodeImages::default();
    nodes.add_unread(NODE, "cannot read Node n1: nodes \"n1\" is forbidden".to_owned());
    let policy = listed(&[&digest('a')], ImageTags::Forbid);
    let answer = judge(&policy, &question(Phase::BeforeRelease), &inventory, &nodes);
    assert_eq!(short(&answer), (Verdict::Unknown, "UnresolvedDigest"));
    assert!(answer.message.contains("is forbidden"), "{}", answer.message);
}
