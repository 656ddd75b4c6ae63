//! Whom the fence lets through, as data: stated here once more, and tried from both sides. What is on the list passes, and
//! whoever is not on it is refused, so that the list is neither narrower nor wider than this.

use serde_json::{Value, json};

use crate::attack::attempt::{Ask, Attack, Outcome, make};
use crate::attack::rig::{LEVELS, Level, estate, shared_stage};
use crate::attack::served::{Served, get};
use crate::attack::who::{Who, machinery};

/// Levels at which something passes.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Every,
    /// `sealed`, where this is at zero.
    Sealed,
    /// `sealed` and `clean-room`: where processes are not to be left alive.
    Ending,
    Room,
}

/// What is done, as precisely as the fence tells it apart.
#[derive(Clone, Copy, PartialEq)]
enum Do {
    Create,
    /// Any change.
    Update,
    /// Only finalizers or owner references change.
    Tidy,
    /// Only a finalizer of the group of snapshots comes or goes.
    Protect,
    /// Anything but the specification changes.
    Keep,
    Delete,
    /// The subresource `status`.
    Status,
}

const NODE: &str = "system:node:node-1";
const SCHEDULER: &str = "system:kube-scheduler";
const GARBAGE: &str = "generic-garbage-collector";

/// (level, account, what it does, to which kinds; `*`: all but what is said of it below).
const PASSES: &[(At, &str, &[Do], &[&str])] = &[
    // Status, each of its own kind.
    (At::Every, "deployment-controller", &[Do::Status], &["deployments"]),
    (At::Every, "replicaset-controller", &[Do::Status], &["replicasets"]),
    (At::Every, "statefulset-controller", &[Do::Status], &["statefulsets"]),
    (At::Every, "daemon-set-controller", &[Do::Status], &["daemonsets"]),
    (At::Every, "job-controller", &[Do::Status], &["jobs"]),
    (At::Every, "cronjob-controller", &[Do::Status], &["cronjobs"]),
    (At::Every, "replication-controller", &[Do::Status], &["replicationcontrollers"]),
    (At::Every, "disruption-controller", &[Do::Status], &["poddisruptionbudgets", "pods"]),
    (At::Every, "horizontal-pod-autoscaler", &[Do::Status], &["horizontalpodautoscalers"]),
    (At::Every, "resourcequota-controller", &[Do::Status], &["resourcequotas"]),
    (At::Every, "persistent-volume-binder", &[Do::Status], &["persistentvolumeclaims"]),
    (At::Every, "expand-controller", &[Do::Status], &["persistentvolumeclaims"]),
    (At::Every, "node-controller", &[Do::Status], &["pods"]),
    (At::Every, "pod-garbage-collector", &[Do::Status], &["pods"]),
    (At::Every, "service-controller", &[Do::Status], &["services"]),
    (At::Every, NODE, &[Do::Status], &["pods", "persistentvolumeclaims"]),
    (At::Every, SCHEDULER, &[Do::Status], &["pods"]),
    // What ends.
    (At::Every, NODE, &[Do::Delete], &["pods"]),
    (At::Every, "pod-garbage-collector", &[Do::Delete], &["pods"]),
    (At::Ending, "replicaset-controller", &[Do::Delete], &["pods"]),
    (At::Ending, "statefulset-controller", &[Do::Delete], &["pods"]),
    (At::Ending, "daemon-set-controller", &[Do::Delete], &["pods"]),
    (At::Ending, "job-controller", &[Do::Delete], &["pods"]),
    (At::Ending, "replication-controller", &[Do::Delete], &["pods"]),
    (At::Every, "job-controller", &[Do::Tidy], &["pods"]),
    (At::Every, "pvc-protection-controller", &[Do::Tidy], &["persistentvolumeclaims"]),
    (At::Every, "statefulset-controller", &[Do::Tidy], &["persistentvolumeclaims"]),
    // Of accounts that are gone: the tokens controller has no account of its own.
    (At::Every, "system:kube-controller-manager", &[Do::Delete], &["secrets of tokens"]),
    (At::Every, GARBAGE, &[Do::Tidy, Do::Delete], &["*"]),
    (At::Room, GARBAGE, &[Do::Delete], &["persistentvolumeclaims"]),
    // Snapshots are bound, told of, and protected.
    (At::Every, "snapshot-controller", &[Do::Status, Do::Protect], &["volumesnapshots"]),
    (At::Every, "snapshot-controller", &[Do::Protect], &["persistentvolumeclaims"]),
    // Bookkeeping that starts nothing.
    (At::Every, "deployment-controller", &[Do::Create, Do::Update], &["replicasets"]),
    (At::Sealed, "deployment-controller", &[Do::Delete], &["replicasets"]),
    (At::Every, "statefulset-controller", &[Do::Create, Do::Update, Do::Delete], &["controllerrevisions"]),
    (At::Every, "daemon-set-controller", &[Do::Create, Do::Update, Do::Delete], &["controllerrevisions"]),
    (At::Every, "endpoint-controller", &[Do::Create, Do::Update, Do::Delete], &["endpoints"]),
    (At::Every, "endpointslice-controller", &[Do::Create, Do::Update, Do::Delete], &["endpointslices"]),
    (
        At::Every,
        "endpointslicemirroring-controller",
        &[Do::Create, Do::Update, Do::Delete],
        &["endpointslices"],
    ),
    // The clean room runs.
    (At::Room, "replicaset-controller", &[Do::Create, Do::Keep], &["pods"]),
    (At::Room, "statefulset-controller", &[Do::Create, Do::Keep], &["pods"]),
    (At::Room, "daemon-set-controller", &[Do::Create, Do::Keep], &["pods"]),
    (At::Room, "job-controller", &[Do::Create, Do::Keep], &["pods"]),
    (At::Room, "replication-controller", &[Do::Create, Do::Keep], &["pods"]),
    (At::Room, "statefulset-controller", &[Do::Create], &["persistentvolumeclaims"]),
    (At::Room, "ephemeral-volume-controller", &[Do::Create], &["persistentvolumeclaims"]),
    (At::Room, "persistent-volume-binder", &[Do::Update], &["persistentvolumeclaims"]),
    (At::Room, SCHEDULER, &[Do::Keep], &["persistentvolumeclaims"]),
    (At::Room, SCHEDULER, &[Do::Create], &["pods/binding"]),
    (At::Room, NODE, &[Do::Create], &["serviceaccounts/token"]),
];

/// Does one permission cover what is done?
fn covers(permitted: Do, done: Do) -> bool {
    permitted == done
        || (permitted == Do::Update && matches!(done, Do::Tidy | Do::Protect | Do::Keep))
        || (permitted == Do::Keep && matches!(done, Do::Tidy | Do::Protect))
        || (permitted == Do::Tidy && done == Do::Protect)
}

/// Does an account pass, by the list?
fn listed(level: &str, user: &str, done: Do, what: &str) -> bool {
    let account = user.strip_prefix("system:serviceaccount:kube-system:").unwrap_or(user);
    PASSES.iter().any(|(at, who, dos, whats)| {
        let holds = match at {
            At::Every => true,
            At::Sealed => level == "sealed",
            At::Ending => level != "contained",
            At::Room => level == "clean-room",
        };
        // Data goes with its owner in the clean room only.
        let any = whats == &["*"] && !(what == "persistentvolumeclaims" && done == Do::Delete);
        holds && *who == account && (any || whats.contains(&what)) && dos.iter().any(|d| covers(*d, done))
    })
}

/// Does an account pass with an attack of the other tables?
pub fn passes(level: &str, user: &str, attack: &Attack) -> bool {
    // Volumes are the binder's, wherever their claims are.
    if attack.policy == crate::attack::from_elsewhere::VOLUMES {
        return user == "system:serviceaccount:kube-system:persistent-volume-binder";
    }
    if attack.policy != crate::attack::attempt::FENCE {
        return false;
    }
    let what = attack.what();
    let (what, status) = what.strip_suffix("/status").map_or((what.as_str(), false), |plural| (plural, true));
    let done: &[Do] = match (attack.operation(), status) {
        ("UPDATE", true) => &[Do::Status],
        ("CREATE", false) => &[Do::Create],
        ("DELETE", false) => &[Do::Delete],
        // What of it changes the attack does not say.
        ("UPDATE", false) => &[Do::Update, Do::Tidy, Do::Protect, Do::Keep],
        _ => &[],
    };
    done.iter().any(|done| listed(level, user, *done, what))
}

/// The kinds that the cluster's own machinery has to do with, and some that it has not.
const TRIED: &[&str] = &[
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "DaemonSet",
    "Database",
    "Deployment",
    "EndpointSlice",
    "Endpoints",
    "HorizontalPodAutoscaler",
    "Job",
    "Ingress",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
    "VolumeSnapshot",
];

/// What of a kind could be done with one of its objects, each told apart as the fence does.
fn deeds(served: &Served, namespace: &str, new: &Value, name: &str) -> Vec<(Do, Attack)> {
    let (kind, all) = (&served.kind, served.path(namespace));
    let one = format!("{all}/{name}");
    let status = format!("{one}/status");
    let deed = |what: &str, path: &str, ask| {
        crate::attack::attempt::attack(
            &format!("{what} {kind}"),
            path.to_owned(),
            ask,
            crate::attack::attempt::FENCE,
        )
    };
    let spec = match kind.as_str() {
        "ConfigMap" | "ControllerRevision" | "Secret" | "ServiceAccount" | "EndpointSlice" | "Endpoints" => {
            None
        }
        // The one field of it that may change, and how a rollout would be smuggled in.
        "Pod" => Some(json!({"spec": {"activeDeadlineSeconds": 77777}})),
        "PersistentVolumeClaim" => Some(json!({"spec": {"volumeName": "of-an-attacker"}})),
        "Job" => Some(json!({"spec": {"parallelism": 7}})),
        "VolumeSnapshot" => Some(json!({"spec": {"source": {"persistentVolumeClaimName": "another"}}})),
        _ => None,
    };
    let mut all_deeds = vec![
        (Do::Create, deed("create a new", &all, Ask::Create(new.clone()))),
        (Do::Keep, deed("label", &one, Ask::Merge(json!({"metadata": {"labels": {"attack": "1"}}})))),
        (
            Do::Tidy,
            deed(
                "change the finalizers of",
                &one,
                Ask::Merge(json!({"metadata": {"finalizers": ["attack.example/kept"]}})),
            ),
        ),
        (Do::Delete, deed("delete", &one, Ask::Delete)),
    ];
    if ["PersistentVolumeClaim", "VolumeSnapshot"].contains(&kind.as_str()) {
        let guarded = json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "snapshot.storage.kubernetes.io/attack"}]);
        all_deeds.push((Do::Protect, deed("protect by a finalizer of snapshots", &one, Ask::Json(guarded))));
    }
    if let Some(spec) = spec {
        all_deeds.push((Do::Update, deed("change", &one, Ask::Merge(spec))));
    }
    if !["ConfigMap", "ControllerRevision", "EndpointSlice", "Endpoints", "Secret", "ServiceAccount"]
        .contains(&kind.as_str())
    {
        let note = json!({"metadata": {"annotations": {"attack": "1"}}});
        all_deeds.push((Do::Status, deed("tell the status of", &status, Ask::Merge(note))));
    }
    all_deeds
}

/// As a dry-run: is it let through as far as the policies go?
async fn tried(who: &Who, deed: &Attack) -> Result<bool, String> {
    match make(who, deed, true).await {
        Outcome::Through => Ok(true),
        Outcome::Refused(_) => Ok(false),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machinery_passes_where_it_is_listed_and_nowhere_else() {
    use futures::{StreamExt, stream};
    let stage = shared_stage(0).await;
    let machinery = machinery(stage.rig).await;
    let admin = stage.client(control_plane::Identity::PlatformAdministrator).await;
    // Those that the list names have accounts here: it names nobody who is not there.
    for (_, who, ..) in PASSES {
        let there = machinery.iter().any(|w| w.controller() == Some(who) || w.user == *who);
        // There is no cloud, so its controllers do not run.
        assert!(there || *who == "service-controller", "there is no {who}");
    }
    let mut cases = Vec::new();
    for Level { label, namespace } in LEVELS {
        for object in estate(namespace) {
            let kind = object["kind"].as_str().unwrap();
            // Sealed differs from contained in these only.
            if !TRIED.contains(&kind)
                || object["type"].is_string()
                || (label == "sealed"
                    && !["PersistentVolumeClaim", "Pod", "ReplicaSet", "VolumeSnapshot"].contains(&kind))
            {
                continue;
            }
            let served = stage
                .rig
                .served
                .iter()
                .find(|s| s.kind == kind && !s.version.starts_with("metrics"))
                .unwrap();
            let mut new = object.clone();
            new["metadata"] = json!({"name": "attack-new", "namespace": namespace});
            // In a sealed namespace only a pod that is over is left.
            let name = match kind {
                "Pod" if label == "sealed" => {
                    let pods = get(&admin, &served.path(namespace)).await.unwrap();
                    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
                }
                _ => object["metadata"]["name"].as_str().unwrap().to_owned(),
            };
            let deeds = deeds(served, namespace, &new, &name);
            cases.extend(deeds.into_iter().map(|(done, deed)| (label, done, served.plural.clone(), deed)));
        }
        // Where accounts are made anew, as on sealing, it is gone already.
        if label != "sealed" {
            let path = format!("/api/v1/namespaces/{namespace}/secrets/web-token");
            let deed = crate::attack::attempt::attack(
                "delete a token Secret",
                path,
                Ask::Delete,
                crate::attack::attempt::FENCE,
            );
            cases.push((label, Do::Delete, "secrets of tokens".to_owned(), deed));
        }
        let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bare"}, "target": {"kind": "Node", "name": "node-1"}});
        let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        let core = format!("/api/v1/namespaces/{namespace}");
        let named = crate::attack::attempt::attack;
        let fence = crate::attack::attempt::FENCE;
        let binding = named("bind a new", format!("{core}/pods/bare/binding"), Ask::Create(target), fence);
        let asked = named(
            "ask for a new token",
            format!("{core}/serviceaccounts/default/token"),
            Ask::Create(token),
            fence,
        );
        if label != "sealed" {
            cases.push((label, Do::Create, "pods/binding".to_owned(), binding));
        }
        cases.push((label, Do::Create, "serviceaccounts/token".to_owned(), asked));
    }
    // Whoever is not listed at all has the other tables to be refused in.
    let is_listed =
        |who: &Who| PASSES.iter().any(|(_, name, ..)| who.controller() == Some(name) || who.user == *name);
    let listed_ones: Vec<&Who> = machinery.iter().filter(|who| is_listed(who)).collect();
    let pairs: Vec<_> =
        cases.iter().flat_map(|case| listed_ones.iter().map(move |who| (case, *who))).collect();
    let tried_in_all = pairs.len();
    let wrong = stream::iter(pairs)
        .map(|((level, done, what, deed), who)| async move {
            let listed = listed(level, &who.user, *done, what);
            let case = || format!("{} ({level}), as {}", deed.name, who.user);
            match tried(who, deed).await {
                Ok(passed) if passed == listed => None,
                Ok(true) => Some(format!("{} passes and is not on the list", case())),
                Ok(false) => Some(format!("{} is on the list and does not pass", case())),
                // Somebody else's refusal, such as that it is there already: past the policies, so they let it through.
                Err(_) if listed => None,
                Err(why) => Some(format!("{}: {why}", case())),
            }
        })
        .buffer_unordered(32)
        .filter_map(std::future::ready)
        .collect::<Vec<_>>()
        .await;
    assert!(wrong.is_empty(), "{} of {tried_in_all}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the fence tells apart of what is done to a NetworkPolicy: who may isolate passes with what cuts, and with nothing else.
fn cuts(namespace: &str) -> Vec<(bool, Attack)> {
    let all = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
    let (deny, allow) = (format!("{all}/resurgam-default-deny"), format!("{all}/allow-front"));
    let both = json!([{"key": "resurgam.dev/isolated", "operator": "Exists"}, {"key": "resurgam.dev/isolated", "operator": "DoesNotExist"}]);
    let selecting = |expressions: &Value| json!({"spec": {"podSelector": {"matchExpressions": expressions}}});
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "nothing", "uid": "00000000-0000-4000-8000-000000000003"}]);
    let policy = |name: &str, spec: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec});
    let nothing =
        json!({"podSelector": {"matchExpressions": both}, "policyTypes": ["Ingress"], "ingress": [{}]});
    let deed = |passes: bool, name: &str, path: &str, ask: Ask| {
        (passes, crate::attack::attempt::attack(name, path.to_owned(), ask, crate::attack::attempt::FENCE))
    };
    vec![
        deed(true, "deny once more", &deny, Ask::Merge(json!({"spec": {"podSelector": {}}}))),
        deed(true, "neutralise once more", &allow, Ask::Merge(selecting(&both))),
        deed(false, "deny, and allow to come in", &deny, Ask::Merge(json!({"spec": {"ingress": [{}]}}))),
        deed(false, "deny, and allow to go out", &deny, Ask::Merge(json!({"spec": {"egress": [{}]}}))),
        deed(false, "deny one way", &deny, Ask::Merge(json!({"spec": {"policyTypes": ["Ingress"]}}))),
        deed(
            false,
            "deny some",
            &deny,
            Ask::Merge(json!({"spec": {"podSelector": {"matchLabels": {"app": "web"}}}})),
        ),
        deed(false, "neutralise the denial", &deny, Ask::Merge(selecting(&both))),
        deed(false, "own the denial", &deny, Ask::Merge(json!({"metadata": {"ownerReferences": owner}}))),
        deed(
            false,
            "keep the denial",
            &deny,
            Ask::Merge(json!({"metadata": {"finalizers": ["attack.example/kept"]}})),
        ),
        deed(false, "delete the denial", &deny, Ask::Delete),
        deed(false, "neutralise by half", &allow, Ask::Merge(selecting(&json!([both[0]])))),
        deed(false, "select pods again", &allow, Ask::Merge(selecting(&Value::Null))),
        deed(
            false,
            "neutralise, and allow more",
            &allow,
            Ask::Merge(json!({"spec": {"podSelector": {"matchExpressions": both}, "egress": [{}]}})),
        ),
        deed(
            false,
            "neutralise, and own",
            &allow,
            Ask::Merge(json!({"metadata": {"ownerReferences": owner}})),
        ),
        deed(
            false,
            "neutralise, and label",
            &allow,
            Ask::Merge(json!({"metadata": {"labels": {"attack": "1"}}})),
        ),
        deed(false, "delete what is neutralised", &allow, Ask::Delete),
        deed(
            false,
            "create a new one that selects nothing",
            &all,
            Ask::Create(policy("attack-new", nothing)),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responder_may_only_cut_the_network_behind_the_fence() {
    let stage = shared_stage(0).await;
    let whos = crate::attack::who::outsiders(stage.rig).await;
    let responder =
        rehearsal::name_of(&stage.client(control_plane::Identity::Responder).await).await.unwrap();
    let mut wrong = Vec::new();
    for level @ Level { label, namespace } in LEVELS {
        // What only bears the label has no denial that could be written.
        let has_denial = level.has_quarantine();
        let is_there =
            |(_, deed): &(bool, Attack)| has_denial || !deed.path.ends_with("resurgam-default-deny");
        for (cuts, deed) in cuts(namespace).into_iter().filter(is_there) {
            for who in &whos {
                // A wildcard is no grant.
                let passes = cuts && label != "clean-room" && who.user == responder;
                match make(who, &deed, true).await {
                    Outcome::Through if passes => {}
                    Outcome::Refused(_) if !passes => {}
                    Outcome::NoRight if !passes && who.limited => {}
                    other => wrong.push(format!("{} ({label}), as {}: {other:?}", deed.name, who.user)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
