//! Isolating without an operator, while somebody else is at it too, or the API server does not answer as one would like.

use control_plane::Identity;
use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use resurgam::api::{ISOLATION_LABEL, Isolation, Quarantine, QuarantineLevel, QuarantineSpec};
use resurgam::isolation::label;
use resurgam::isolation::offline::{self, Outcome, Request};
use resurgam::isolation::probe::ProbeResult;
use resurgam::isolation::{network, verify_as_caller};
use serde_json::json;

use crate::isolation::api;
use crate::isolation::meanwhile::{Asked, Happens, meanwhile, namespace, of, somebody};
use crate::isolation::support::allowing;

fn spec(isolation: QuarantineLevel) -> QuarantineSpec {
    QuarantineSpec { isolation, reason: "unusual activity".into(), ..QuarantineSpec::default() }
}

/// Asked for by who is on call, while nobody leads.
fn alone() -> Request {
    Request {
        spec: spec(QuarantineLevel::Contained),
        operator: false,
        unlisted: None,
        policies: Default::default(),
    }
}

fn quarantines(client: &Client) -> Api<Quarantine> {
    Api::all(client.clone())
}

async fn quarantined(client: &Client, name: &str) {
    let made = Quarantine::new(name, spec(QuarantineLevel::Contained));
    quarantines(client).create(&PostParams::default(), &made).await.unwrap();
}

/// As an operator labels it.
async fn labelled(name: &str, level: Isolation) {
    let operator = of(Identity::Operator).await;
    let namespace = Api::<Namespace>::all(operator.clone()).get(name).await.unwrap();
    let spec = spec(QuarantineLevel::Contained);
    label::label(&operator, &namespace, &spec, level, false).await.unwrap();
}

/// Says what an operator says once it is done.
async fn told_ready(name: &str) {
    let operator = quarantines(&of(Identity::Operator).await);
    let generation = operator.get(name).await.unwrap().metadata.generation;
    let ready = json!({"type": "Ready", "status": "True", "reason": "Isolated", "message": "",
        "observedGeneration": generation, "lastTransitionTime": "2026-11-01T00:00:00Z"});
    let status = Patch::Merge(json!({"status": {"observedGeneration": generation, "conditions": [ready]}}));
    operator.patch_status(name, &PatchParams::default(), &status).await.unwrap();
}

/// Writes something into an object that isolates nothing: who has read it before has read another version.
async fn noted<K>(all: Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let note = json!({"metadata": {"annotations": {"note": format!("{:?}", std::time::Instant::now())}}});
    all.patch(name, &PatchParams::default(), &Patch::Merge(note)).await.unwrap();
}

/// Isolates as who is on call, with this happening before each of these requests.
async fn isolated<F>(
    name: &'static str,
    request: Request,
    before: &str,
    act: impl Fn(usize) -> F + Send + Sync + 'static,
) -> (Outcome, usize)
where
    F: Future<Output = Happens> + Send + 'static,
{
    let before = before.replace("NAME", name);
    let (client, asked) = meanwhile(of(Identity::Responder).await, &before, move |nth| act(nth).boxed());
    let outcome = offline::isolate(&client, name, &request).await;
    (outcome, asked.count())
}

const MAKE_QUARANTINE: &str = "POST /apis/resurgam.dev/v1alpha1/quarantines";
const PATCH_QUARANTINE: &str = "PATCH /apis/resurgam.dev/v1alpha1/quarantines/NAME";
const LABEL: &str = "PATCH /api/v1/namespaces/NAME";
const DENY: &str = "POST /apis/networking.k8s.io/v1/namespaces/NAME/networkpolicies";
const TRY: &str = "POST /apis/networking.k8s.io/v1/namespaces/NAME/networkpolicies dry";

/// So often anew, if somebody wrote in between.
const ATTEMPTS: usize = 6;

async fn network_of(name: &str) -> Vec<String> {
    allowing(&of(Identity::Responder).await, name).await
}

async fn label_of(name: &str) -> Option<String> {
    let namespace = Api::<Namespace>::all(of(Identity::Responder).await).get(name).await.unwrap();
    namespace.labels().get(ISOLATION_LABEL).cloned()
}

/// Isolated, and nothing to be said about it.
async fn is_isolated(name: &str, laid: &Outcome) {
    assert!(laid.isolated && laid.problems.is_empty(), "{laid:#?}");
    assert!(!laid.notes.iter().any(|note| note.contains("an operator isolates it too")), "{laid:#?}");
    assert_eq!((laid.fence.as_str(), laid.lock.as_str()), ("verified (contained)", "verified (contained)"));
    assert_eq!(laid.network, "denied both ways");
    assert_eq!(network_of(name).await, [network::DEFAULT_DENY]);
    assert_eq!(label_of(name).await.as_deref(), Some("contained"));
}

#[tokio::test]
async fn concurrent_quarantine_writes_are_retried_a_few_times() {
    // Somebody made it, and took it away again before it could be read.
    namespace("taken-away").await;
    let responder = of(Identity::Responder).await;
    let client = |name: &'static str, again: bool| {
        let responder = responder.clone();
        meanwhile(responder.clone(), MAKE_QUARANTINE, move |nth| {
            let responder = responder.clone();
            async move {
                if again || nth == 1 {
                    quarantined(&responder, name).await;
                }
                None
            }
            .boxed()
        })
    };
    let deleted = |(client, made): (Client, Asked), name: &'static str| {
        let get = format!("GET /apis/resurgam.dev/v1alpha1/quarantines/{name}");
        let (client, _) = meanwhile(client, &get, move |_| {
            async move {
                let lead = of(Identity::RecoveryLead).await;
                quarantines(&lead).delete(name, &DeleteParams::default()).await.unwrap();
                None
            }
            .boxed()
        });
        (client, made)
    };
    let (client_once, _) = deleted(client("taken-away", false), "taken-away");
    let once = offline::isolate(&client_once, "taken-away", &alone()).await;
    assert_eq!(once.quarantine, "made");
    is_isolated("taken-away", &once).await;

    namespace("taken-away-again").await;
    let (client_again, made) = deleted(client("taken-away-again", true), "taken-away-again");
    let again = offline::isolate(&client_again, "taken-away-again", &alone()).await;
    assert_eq!((again.isolated, made.count()), (false, ATTEMPTS), "{again:#?}");
    assert!(again.problems[0].contains("create Quarantine taken-away-again: "), "{again:#?}");

    // What is no conflict is not tried again.
    namespace("not-made").await;
    let (refused, posts) = isolated("not-made", alone(), MAKE_QUARANTINE, |_| async { Some(422) }).await;
    assert_eq!((refused.isolated, posts), (false, 1), "{refused:#?}");
    assert!(refused.problems[0].contains("as the test has it"), "{refused:#?}");

    // Somebody writes into it while it is tightened.
    let sealed = || Request { spec: spec(QuarantineLevel::Sealed), ..alone() };
    for (name, until, tries) in [("tightened", 1, 2), ("tightened-again", ATTEMPTS, ATTEMPTS)] {
        namespace(name).await;
        quarantined(&responder, name).await;
        let (laid, patches) = isolated(name, sealed(), PATCH_QUARANTINE, move |nth| async move {
            if nth <= until {
                noted(quarantines(&of(Identity::Responder).await), name).await;
            }
            None
        })
        .await;
        assert_eq!(patches, tries, "{laid:#?}");
        if tries == ATTEMPTS {
            assert!(laid.problems[0].contains("tighten Quarantine tightened-again: "), "{laid:#?}");
        } else {
            assert_eq!(laid.quarantine, "tightened to Sealed");
            is_isolated(name, &laid).await;
        }
    }
}

#[tokio::test]
async fn concurrent_namespace_writes_are_retried_a_few_times() {
    for (name, until, tries) in [("written", 1, 2), ("written-again", ATTEMPTS, ATTEMPTS)] {
        namespace(name).await;
        let (laid, patches) = isolated(name, alone(), LABEL, move |nth| async move {
            if nth <= until {
                noted(Api::<Namespace>::all(of(Identity::TenantAdministrator).await), name).await;
            }
            None
        })
        .await;
        assert_eq!(patches, tries, "{laid:#?}");
        if tries == ATTEMPTS {
            assert!(laid.problems[0].contains("label namespace written-again: "), "{laid:#?}");
            assert_eq!(label_of(name).await, None);
        } else {
            is_isolated(name, &laid).await;
        }
    }

    // What is no conflict is not tried again.
    namespace("not-labelled").await;
    let (laid, patches) = isolated("not-labelled", alone(), LABEL, |_| async { Some(422) }).await;
    assert_eq!((laid.isolated, patches), (false, 1), "{laid:#?}");
    assert!(laid.problems[0].contains("as the test has it"), "{laid:#?}");
}

#[tokio::test]
async fn transient_network_failure_is_retried_beside_the_label() {
    for (name, code, until, tries) in [
        ("cut-again", 500, 1, 2),
        ("never-cut", 500, usize::MAX, ATTEMPTS),
        ("cut-refused", 422, usize::MAX, 1),
    ] {
        namespace(name).await;
        let answer = move |nth| async move { (nth <= until).then_some(code) };
        let (laid, posts) = isolated(name, alone(), DENY, answer).await;
        assert_eq!(posts, tries, "{laid:#?}");
        assert_eq!(label_of(name).await.as_deref(), Some("contained"));
        if until == 1 {
            is_isolated(name, &laid).await;
        } else {
            assert!(!laid.isolated && laid.problems[0].starts_with("the network is not cut: "), "{laid:#?}");
            assert_eq!(
                (laid.network.as_str(), laid.fence.as_str()),
                ("NetworkPolicy resurgam-default-deny is not in place", "verified (contained)")
            );
        }
    }
}

#[tokio::test]
async fn an_operator_that_is_faster_is_waited_for_and_nobody_else() {
    const NOTE: &str = "an operator isolates it too; its Quarantine is not Ready yet";
    let operator = || Request { operator: true, ..alone() };
    // (namespace, who leads, isolated before, an operator is faster, it says that it is done; so it is waited for in vain)
    let cases = [
        ("isolated-before-alone", alone(), true, false, false, false),
        ("isolated-before-led", operator(), true, false, false, true),
        ("isolated-before-done", operator(), true, false, true, false),
        ("led-and-slow", operator(), false, false, false, false),
        ("faster-and-done", alone(), false, true, true, false),
        ("faster-and-at-it", alone(), false, true, false, true),
    ];
    join_all(cases.map(|(name, request, before, faster, done, in_vain)| async move {
        namespace(name).await;
        let responder = of(Identity::Responder).await;
        if before {
            let first = offline::isolate(&responder, name, &alone()).await;
            is_isolated(name, &first).await;
        }
        if before && done {
            told_ready(name).await;
        }
        let (laid, _) = isolated(name, request, LABEL, move |_| async move {
            if faster {
                labelled(name, Isolation::Contained).await;
            }
            if faster && done {
                told_ready(name).await;
            }
            None
        })
        .await;
        assert!(laid.isolated, "{laid:#?}");
        assert_eq!(laid.notes.iter().any(|note| note == NOTE), in_vain, "{laid:#?}");
    }))
    .await;
}

#[tokio::test]
async fn the_network_is_cut_behind_a_fence_that_comes_first() {
    let name = "fenced-first";
    namespace(name).await;
    let (laid, denies) = isolated(name, alone(), DENY, move |_| async move {
        quarantined(&of(Identity::Responder).await, name).await;
        labelled(name, Isolation::Contained).await;
        told_ready(name).await;
        None
    })
    .await;
    assert_eq!(denies, 1);
    is_isolated(name, &laid).await;
}

#[tokio::test]
async fn slow_fence_is_retried_and_a_clean_room_reported_at_once() {
    namespace("takes-a-moment").await;
    let (laid_, tries) =
        isolated("takes-a-moment", alone(), TRY, |nth| async move { (nth < 4).then_some(500) }).await;
    assert_eq!(tries, 4);
    is_isolated("takes-a-moment", &laid_).await;

    // Where nobody leads, nobody takes that label off.
    namespace("in-its-room").await;
    quarantined(&of(Identity::Responder).await, "in-its-room").await;
    labelled("in-its-room", Isolation::CleanRoom).await;
    let (room, reads) =
        isolated("in-its-room", alone(), "GET /api/v1/namespaces/NAME", |_| async { None }).await;
    assert!(!room.isolated && room.fence == "the namespace is labelled clean-room", "{room:#?}");
    assert_eq!(
        reads, 4,
        "it is read before, once to see the fence, and once for policies of other APIs; and its pods are"
    );
}

#[tokio::test]
async fn fence_that_never_refuses_is_reported_after_a_deadline() {
    namespace("never-seen").await;
    let (laid, tries) = isolated("never-seen", alone(), TRY, |_| async { Some(500) }).await;
    assert!(!laid.isolated && tries > 10, "{laid:#?}");
    assert!(laid.problems[0].starts_with("the fence could not be verified within 30 s: "), "{laid:#?}");
    assert_eq!(
        label_of("never-seen").await.as_deref(),
        Some("contained"),
        "it is isolated as far as anybody knows"
    );
}

#[tokio::test]
async fn what_is_sealed_already_is_verified_as_such() {
    namespace("sealed-before").await;
    labelled("sealed-before", Isolation::Sealed).await;
    let (laid, _) = isolated("sealed-before", alone(), LABEL, |_| async { None }).await;
    assert_eq!(laid.fence, "verified (sealed)", "{laid:#?}");
}

/// Who may repair may write policies into what is isolated: to them the fence shows by what nobody may do.
#[tokio::test]
async fn repairer_verifies_the_fence_by_a_pod_or_learns_it_cannot() {
    let name = "seen-by-all";
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let role =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let repair = json!({"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": [name], "verbs": ["repair"]});
    let rbac = "rbac.authorization.k8s.io/v1";
    let grants = [
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "repairs-it"}, "rules": [repair]}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "repairs-it"},
            "roleRef": role("ClusterRole", "repairs-it"), "subjects": [role("User", "repairer"), role("User", "mender")]}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "mender-responds"},
            "roleRef": role("ClusterRole", "resurgam-responder"), "subjects": [role("User", "mender")]}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "administers-it", "namespace": name},
            "roleRef": role("ClusterRole", "admin"), "subjects": [role("User", "repairer")]}),
    ];
    rehearsal::apply(&administrator, "test", &grants).await.unwrap();
    let responder = of(Identity::Responder).await;
    is_isolated(name, &offline::isolate(&responder, name, &alone()).await).await;
    let see = async |client: &Client| verify_as_caller::fence(client, name, Isolation::Contained).await;
    assert_eq!(see(&responder).await, ProbeResult::Denied, "by the policy");
    assert_eq!(see(&somebody("repairer").await).await, ProbeResult::Denied, "by the pod");
    match see(&somebody("mender").await).await {
        ProbeResult::Inconclusive(why) => {
            for word in ["right if you may repair", "\"mender\"", "cannot create resource \"pods\""] {
                assert!(why.contains(word), "{word} in {why}");
            }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whatever_is_left_of_a_network_is_cut_behind_the_fence() {
    let wanted = |name: &str| network::wanted(name, None).remove(0);
    // Ours, and it denies nothing; another of the very spec; ours and another; none.
    for (name, weak, others, ours) in [
        ("left-weak", true, false, true),
        ("left-other", false, true, false),
        ("left-both", false, true, true),
        ("left-none", false, false, false),
        ("left-alone", false, false, true),
    ] {
        namespace(name).await;
        let policies = api::<NetworkPolicy>(&of(Identity::PlatformAdministrator).await, name);
        let mut deny = wanted(name);
        if weak {
            deny.spec.as_mut().unwrap().policy_types = Some(vec!["Ingress".into()]);
        }
        if ours {
            policies.create(&PostParams::default(), &deny).await.unwrap();
        }
        if others {
            let mut other = wanted(name);
            other.metadata.name = Some("of-others".into());
            policies.create(&PostParams::default(), &other).await.unwrap();
        }
        labelled(name, Isolation::Contained).await;
        let (laid, _) = isolated(name, alone(), LABEL, |_| async { None }).await;
        is_isolated(name, &laid).await;
    }
}

#[tokio::test]
async fn what_still_allows_traffic_is_named_as_a_problem() {
    let name = "left-allowing";
    namespace(name).await;
    let policies = api::<NetworkPolicy>(&of(Identity::PlatformAdministrator).await, name);
    let mut other = network::wanted(name, None).remove(0);
    other.metadata.name = Some("of-others".into());
    policies.create(&PostParams::default(), &other).await.unwrap();
    const NEUTRALISE: &str = "PATCH /apis/networking.k8s.io/v1/namespaces/NAME/networkpolicies/of-others";
    let (laid, _) = isolated(name, alone(), NEUTRALISE, |_| async { Some(422) }).await;
    assert_eq!(laid.network, "NetworkPolicy of-others still allows traffic");
    assert!(
        !laid.isolated && laid.problems.iter().any(|problem| problem.contains(&laid.network)),
        "{laid:#?}"
    );
    assert_eq!(label_of(name).await.as_deref(), Some("contained"));
    assert_eq!(network_of(name).await, ["of-others", network::DEFAULT_DENY]);
}

#[tokio::test]
async fn a_namespace_that_is_on_no_list_is_isolated_and_not_wholly() {
    let name = "unlisted";
    namespace(name).await;
    let why = "write ConfigMap resurgam-system/resurgam-guard: refused";
    let request = Request { unlisted: Some(why.to_owned()), ..alone() };
    let (laid, _) = isolated(name, request, LABEL, |_| async { None }).await;
    assert!(!laid.isolated && laid.problems.len() == 1 && laid.problems[0].contains(why), "{laid:#?}");
    assert_eq!((laid.fence.as_str(), laid.network.as_str()), ("verified (contained)", "denied both ways"));
}
