//! One try of the network, with a kubelet by hand: pods run, report and end as a test has it. On a real node it is tried by
//! `tests/network`.

use std::sync::{Arc, Mutex};

use control_plane::Identity;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use resurgam::api::field_manager;
use resurgam::isolation::network::{DEFAULT_DENY, wanted};
use resurgam::isolation::probe::network::NodeVerdict::Enforced;
use resurgam::isolation::probe::network::{
    ConnectorReport, DENIED_NAMESPACE, NodeVerdict, OPEN_NAMESPACE, TargetResult,
};
use resurgam::isolation::probe::pods::{ProbeRun, Side};
use resurgam::isolation::probe::{AttemptError, attempt};
use serde_json::json;

use crate::isolation::api;
use crate::isolation::meanwhile::{meanwhile, of};

/// What becomes of pods; they are named without the try that they belong to.
#[derive(Clone, Copy)]
struct Kubelet {
    /// Is it reached: by which pod, which listener, once that is to be denied?
    reached: fn(&str, &str, bool) -> bool,
    /// Once the first appears, the second has ended.
    ends: Option<(&'static str, &'static str)>,
    /// This one cannot be started.
    fails: &'static str,
    /// This one is deleted by somebody.
    deletes: &'static str,
    /// This one is never heard of.
    ignores: &'static str,
}

/// A network that enforces policies, and nothing goes wrong.
const SOUND: Kubelet =
    Kubelet { reached: |_, _, denied| !denied, ends: None, fails: "", deletes: "", ignores: "" };

/// One whose second node lets in what is denied.
const LETS_IN: Kubelet = Kubelet { reached: |_, to, denied| !denied || to == "denied-1", ..SOUND };

/// There is one place for tries.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A connector, the node that it is on, and the policies that were there when it appeared.
type Connector = (String, String, Vec<String>);
type Seen = Arc<Mutex<Vec<Connector>>>;
/// What a try came to, node by node.
type Verdicts = Result<Vec<NodeVerdict>, AttemptError>;

fn short(pod: &Pod) -> String {
    let id = format!("-{}", pod.labels()["resurgam.dev/probe"]);
    pod.name_any().strip_suffix(&id).unwrap().to_owned()
}

impl Kubelet {
    /// Sees to it, for as long as it is polled.
    async fn run(self, seen: Seen) {
        let administrator = of(Identity::PlatformAdministrator).await;
        let both = [OPEN_NAMESPACE, DENIED_NAMESPACE].map(|namespace| {
            let pods = Api::<Pod>::namespaced(administrator.clone(), namespace);
            watcher(pods, watcher::Config::default()).applied_objects().boxed()
        });
        let mut pods = stream::select_all(both);
        while let Some(pod) = pods.try_next().await.unwrap() {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            let is_new = phase == Some("Pending") && pod.metadata.deletion_timestamp.is_none();
            if !is_new || short(&pod) == self.ignores {
                continue;
            }
            self.look_after(&administrator, &pod, &seen).await;
        }
    }

    async fn look_after(self, administrator: &Client, pod: &Pod, seen: &Seen) {
        let name = short(pod);
        let args = pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
        if name == self.deletes {
            let pods = api::<Pod>(administrator, &pod.namespace().unwrap());
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
        } else if name == self.fails {
            let why =
                json!({"terminated": {"exitCode": 1, "reason": "StartError", "message": "no such program"}});
            told(administrator, pod, "Failed", why).await;
        } else if args[1] == "listen" {
            told(administrator, pod, "Running", json!({"running": {}})).await;
        } else {
            let policies = api::<NetworkPolicy>(administrator, DENIED_NAMESPACE);
            let there = policies.list(&ListParams::default()).await.unwrap();
            assert!(there.iter().all(|policy| policy.spec == wanted(DENIED_NAMESPACE, None)[0].spec));
            let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
            let names = there.iter().map(ResourceExt::name_any).collect();
            seen.lock().unwrap().push((name.clone(), node, names));
            if let Some((_, listener)) = self.ends.filter(|(when, _)| *when == name) {
                end(administrator, listener).await;
            }
            told(
                administrator,
                pod,
                "Succeeded",
                json!({"terminated": {"exitCode": 0, "message": self.report(&name, &args)}}),
            )
            .await;
        }
    }

    fn report(&self, name: &str, args: &[String]) -> String {
        let goals = args.windows(2).filter(|pair| ["--open", "--denied"].contains(&pair[0].as_str()));
        let targets = goals.map(|pair| {
            let (listener, address) = pair[1].split_once('=').unwrap();
            assert_eq!(address, "10.0.0.7:8443");
            let connected = (self.reached)(name, listener, pair[0] == "--denied");
            (
                listener.to_owned(),
                TargetResult {
                    connected,
                    detail: if connected { String::new() } else { "timed out".into() },
                },
            )
        });
        serde_json::to_string(&ConnectorReport { targets: targets.collect() }).unwrap()
    }
}

/// A listener that runs no more.
async fn end(administrator: &Client, listener: &str) {
    for namespace in [OPEN_NAMESPACE, DENIED_NAMESPACE] {
        for pod in api::<Pod>(administrator, namespace).list(&ListParams::default()).await.unwrap() {
            if short(&pod) == listener {
                told(administrator, &pod, "Failed", json!({"terminated": {"exitCode": 137}})).await;
            }
        }
    }
}

async fn told(administrator: &Client, pod: &Pod, phase: &str, state: serde_json::Value) {
    let container = json!({"name": "probe", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
    let status = json!({"status": {"phase": phase, "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}], "containerStatuses": [container]}});
    let pods = api::<Pod>(administrator, &pod.namespace().unwrap());
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// One try on two nodes, as the operator, or with that client. On the heap: as part of a test's future it is large for a
/// thread's stack.
fn tried(
    id: &'static str,
    kubelet: Kubelet,
    client: Option<Client>,
) -> BoxFuture<'static, (Verdicts, Vec<Connector>)> {
    async move {
        let this = ProbeRun { image: "registry.example/resurgam".into(), id: id.into() };
        let client = match client {
            Some(client) => client,
            None => of(Identity::Operator).await,
        };
        let (nodes, seen) = (["by-hand-1", "by-hand-2"].map(str::to_owned), Seen::default());
        let outcome = tokio::select! {
            outcome = attempt(&client, &this, &nodes) => outcome,
            () = kubelet.run(seen.clone()) => panic!("the kubelet ended"),
        };
        let verdicts = outcome.map(|all| {
            assert_eq!(all.keys().collect::<Vec<_>>(), nodes.each_ref());
            all.into_values().collect()
        });
        let mut seen = seen.lock().unwrap().clone();
        seen.sort();
        (verdicts, seen)
    }
    .boxed()
}

/// All that a try leaves: nothing that is not on its way out.
async fn is_clean() {
    let administrator = of(Identity::PlatformAdministrator).await;
    for namespace in [OPEN_NAMESPACE, DENIED_NAMESPACE] {
        let pods = api::<Pod>(&administrator, namespace).list(&ListParams::default()).await.unwrap();
        let kept: Vec<_> = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(ResourceExt::name_any)
            .collect();
        assert_eq!(kept, Vec::<String>::new(), "{namespace}");
        let policies = api::<NetworkPolicy>(&administrator, namespace);
        assert!(policies.list(&ListParams::default()).await.unwrap().items.is_empty(), "{namespace}");
    }
}

fn is_unclear(verdict: &NodeVerdict, why: &str) {
    match verdict {
        NodeVerdict::Inconclusive(said) => assert!(said.contains(why), "{why} in {said}"),
        other => panic!("{other:?}"),
    }
}

fn is_open(verdict: &NodeVerdict) {
    assert!(matches!(verdict, NodeVerdict::NotEnforced(_)), "{verdict:?}");
}

#[tokio::test]
async fn enforcing_network_is_verified_and_probes_leave_nothing() {
    let _turn = TURN.lock().await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let left = ProbeRun { image: "i".into(), id: "left".into() };
    let pod = left.listener(Side::Denied, "denied-0", "by-hand-1").unwrap();
    api::<Pod>(&administrator, DENIED_NAMESPACE).create(&PostParams::default(), &pod).await.unwrap();
    let policies = api::<NetworkPolicy>(&administrator, DENIED_NAMESPACE);
    policies.create(&PostParams::default(), &wanted(DENIED_NAMESPACE, None)[0]).await.unwrap();

    let (verdicts, seen) = tried("sound", SOUND, None).await;
    assert_eq!(verdicts.unwrap(), [Enforced, Enforced]);
    let (first, last) = ("by-hand-1".to_owned(), "by-hand-2".to_owned());
    let deny = vec![DEFAULT_DENY.to_owned()];
    let expected = [
        ("in-after".into(), last.clone(), deny.clone()),
        ("in-before".into(), last.clone(), vec![]),
        ("out-after-0".into(), first.clone(), deny.clone()),
        ("out-after-1".into(), last.clone(), deny),
        ("out-before-0".into(), first, vec![]),
        ("out-before-1".into(), last, vec![]),
    ];
    assert_eq!(seen, expected);
    is_clean().await;
}

#[tokio::test]
async fn node_that_does_not_enforce_policies_is_named() {
    let _turn = TURN.lock().await;
    let verdicts = tried("inward", LETS_IN, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    is_open(&verdicts[1]);
    let outward = Kubelet { reached: |from, _, denied| !denied || from == "out-after-0", ..SOUND };
    let verdicts = tried("outward", outward, None).await.0.unwrap();
    is_open(&verdicts[0]);
    assert_eq!(verdicts[1], Enforced);
}

#[tokio::test]
async fn listener_that_ended_unreached_proves_nothing() {
    let _turn = TURN.lock().await;
    let ends = Some(("in-after", "denied-1"));
    let verdicts = tried("ended", Kubelet { ends, ..SOUND }, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    is_unclear(&verdicts[1], "its listener, Pod resurgam-probe-denied/denied-1-ended, has ended");
    let verdicts = tried("reached", Kubelet { ends, ..LETS_IN }, None).await.0.unwrap();
    is_open(&verdicts[1]);
    let control = Kubelet { ends: Some(("in-after", "control")), ..SOUND };
    for verdict in tried("control", control, None).await.0.unwrap() {
        is_unclear(&verdict, "its listener, Pod resurgam-probe/control-control, has ended");
    }
}

#[tokio::test]
async fn silent_connector_leaves_only_its_own_links_unknown() {
    let _turn = TURN.lock().await;
    let verdicts = tried("gone", Kubelet { deletes: "out-after-1", ..SOUND }, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    is_unclear(&verdicts[1], "out-after-1-gone is deleted by another writer");
}

#[tokio::test]
async fn listener_that_does_not_start_ends_the_probe_cleanly() {
    let _turn = TURN.lock().await;
    match tried("unstarted", Kubelet { fails: "denied-1", ..SOUND }, None).await.0.unwrap_err() {
        AttemptError::Pod(DENIED_NAMESPACE, pod, state) => {
            assert_eq!(pod, "denied-1-unstarted");
            assert_eq!(state, "Failed (StartError: no such program)");
        }
        other => panic!("{other}"),
    }
    is_clean().await;
}

#[tokio::test]
async fn a_watch_that_breaks_is_followed_by_a_last_look() {
    let _turn = TURN.lock().await;
    let watch = format!("GET /api/v1/namespaces/{OPEN_NAMESPACE}/pods?");
    // Of a pod that is where it should be by then, that is enough.
    let (client, _) = meanwhile(of(Identity::Operator).await, &watch, |_| {
        async {
            let pods = api::<Pod>(&of(Identity::PlatformAdministrator).await, OPEN_NAMESPACE);
            let pending = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending");
            while pods.list(&ListParams::default()).await.unwrap().iter().any(pending) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Some(422)
        }
        .boxed()
    });
    assert_eq!(tried("late", SOUND, Some(client)).await.0.unwrap(), [Enforced, Enforced]);
    // Of one that is not, nothing is concluded.
    let (client, _) = meanwhile(of(Identity::Operator).await, &watch, |_| async { Some(422) }.boxed());
    let idle = tried("early", Kubelet { ignores: "control", ..SOUND }, Some(client));
    match idle.await.0 {
        Err(AttemptError::Pod(OPEN_NAMESPACE, pod, state)) => {
            assert!(pod == "control-early" && state.starts_with("still Pending"), "{pod} is {state}");
            assert!(!state.ends_with("after 90 s"), "{state}, and was not waited for as long");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn somebody_elses_policy_ends_the_try_before_it_begins() {
    let _turn = TURN.lock().await;
    let administrator = of(Identity::PlatformAdministrator).await;
    for (namespace, name) in
        [(DENIED_NAMESPACE, "of-others"), (OPEN_NAMESPACE, DEFAULT_DENY), (OPEN_NAMESPACE, "of-others")]
    {
        let mut policy = wanted(namespace, None).remove(0);
        policy.metadata.name = Some(name.into());
        let policies = api::<NetworkPolicy>(&administrator, namespace);
        policies.create(&PostParams::default(), &policy).await.unwrap();
        match tried("foreign", SOUND, None).await {
            (Err(AttemptError::Foreign(of, foreign)), seen) => {
                assert_eq!((of, foreign.as_str(), seen.len()), (namespace, name, 0));
            }
            (other, _) => panic!("{other:?}"),
        }
        policies.get(name).await.unwrap();
        policies.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn by_whom_it_was_written_is_on_record() {
    let _turn = TURN.lock().await;
    let written = Arc::new(Mutex::new(Vec::new()));
    let all = written.clone();
    let last = format!("POST /api/v1/namespaces/{DENIED_NAMESPACE}/pods");
    let (client, _) = meanwhile(of(Identity::Operator).await, &last, move |nth| {
        let all = all.clone();
        async move {
            // The last of them, once everything else is there.
            if nth == 6 {
                let administrator = of(Identity::PlatformAdministrator).await;
                let ours = ListParams::default().labels("resurgam.dev/probe=written");
                let pods = api::<Pod>(&administrator, DENIED_NAMESPACE).list(&ours).await.unwrap();
                let policies = api::<NetworkPolicy>(&administrator, DENIED_NAMESPACE);
                let policies = policies.list(&ListParams::default()).await.unwrap();
                let managed =
                    pods.iter().map(|pod| &pod.metadata).chain(policies.iter().map(|p| &p.metadata));
                let managers =
                    managed.map(|meta| meta.managed_fields.as_ref().unwrap()[0].manager.clone().unwrap());
                all.lock().unwrap().extend(managers);
            }
            None
        }
        .boxed()
    });
    tried("written", SOUND, Some(client)).await.0.unwrap();
    let written = written.lock().unwrap();
    assert!(written.len() >= 5 && written.iter().all(|by| by == field_manager::ISOLATION), "{written:?}");
}
