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
use resurgam::isolation::probe::network::{DENIED_NAMESPACE, NodeVerdict, OPEN_NAMESPACE, Reached, Report};
use resurgam::isolation::probe::pods::Try;
use resurgam::isolation::probe::{AttemptError, attempt};
use serde_json::json;

use crate::api;
use crate::meanwhile::{meanwhile, of};

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
                Reached { connected, detail: if connected { String::new() } else { "timed out".into() } },
            )
        });
        serde_json::to_string(&Report { targets: targets.collect() }).unwrap()
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

/// One try on two nodes, as the operator, or with that client. On the heap: many of them in one future are too large for a
/// thread's stack.
fn tried(
    id: &'static str,
    kubelet: Kubelet,
    client: Option<Client>,
) -> BoxFuture<'static, (Verdicts, Vec<Connector>)> {
    async move {
        let this = Try { image: "registry.example/resurgam".into(), id: id.into() };
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

/// One after another: there is one place for tries.
#[tokio::test]
async fn what_a_try_of_the_network_shows_is_what_its_pods_said() {
    use NodeVerdict::Enforced;
    let unclear = |verdict: &NodeVerdict, words: &[&str]| match verdict {
        NodeVerdict::Unclear(why) => {
            words.iter().for_each(|word| assert!(why.contains(word), "{word} in {why}"))
        }
        other => panic!("{other:?}"),
    };
    let open = |verdict: &NodeVerdict| assert!(matches!(verdict, NodeVerdict::NotEnforced(_)), "{verdict:?}");

    // What an earlier try left is no hindrance.
    let administrator = of(Identity::PlatformAdministrator).await;
    let left = Try { image: "i".into(), id: "left".into() };
    let side = resurgam::isolation::probe::pods::Side::Denied;
    let denied = api::<Pod>(&administrator, DENIED_NAMESPACE);
    denied
        .create(&PostParams::default(), &left.listener(side, "denied-0", "by-hand-1").unwrap())
        .await
        .unwrap();
    let policies = api::<NetworkPolicy>(&administrator, DENIED_NAMESPACE);
    policies.create(&PostParams::default(), &wanted(DENIED_NAMESPACE, None)[0]).await.unwrap();
    let (verdicts, seen) = tried("sound", SOUND, None).await;
    assert_eq!(verdicts.unwrap(), [Enforced, Enforced]);
    let (first, last) = ("by-hand-1".to_owned(), "by-hand-2".to_owned());
    let deny = vec![DEFAULT_DENY.to_owned()];
    assert_eq!(
        seen,
        [
            ("in-after".into(), last.clone(), deny.clone()),
            ("in-before".into(), last.clone(), vec![]),
            ("out-after-0".into(), first.clone(), deny.clone()),
            ("out-after-1".into(), last.clone(), deny),
            ("out-before-0".into(), first, vec![]),
            ("out-before-1".into(), last, vec![]),
        ]
    );
    is_clean().await;

    // One node does not enforce; which one, and in which direction, is known.
    let inward = Kubelet { reached: |_, to, denied| !denied || to == "denied-1", ..SOUND };
    let verdicts = tried("inward", inward, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    open(&verdicts[1]);
    let outward = Kubelet { reached: |from, _, denied| !denied || from == "out-after-0", ..SOUND };
    let verdicts = tried("outward", outward, None).await.0.unwrap();
    open(&verdicts[0]);
    assert_eq!(verdicts[1], Enforced);

    // Who was not reached because it had ended shows nothing; who was reached before it did, does.
    let ended = Kubelet { ends: Some(("in-after", "denied-1")), ..SOUND };
    let verdicts = tried("ended", ended, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    unclear(&verdicts[1], &["its listener, Pod resurgam-probe-denied/denied-1-ended, has ended"]);
    let verdicts = tried("reached", Kubelet { ends: ended.ends, ..inward }, None).await.0.unwrap();
    open(&verdicts[1]);
    let control = Kubelet { ends: Some(("in-after", "control")), ..SOUND };
    for verdict in tried("control", control, None).await.0.unwrap() {
        unclear(&verdict, &["its listener, Pod resurgam-probe/control-control, has ended"]);
    }

    // A connector that says nothing says nothing of its own links alone.
    let gone = Kubelet { deletes: "out-after-1", ..SOUND };
    let verdicts = tried("gone", gone, None).await.0.unwrap();
    assert_eq!(verdicts[0], Enforced);
    unclear(&verdicts[1], &["out-after-1-gone is gone: somebody deleted it"]);

    // A listener that does not start ends the try, and leaves nothing either.
    let unstarted = Kubelet { fails: "denied-1", ..SOUND };
    match tried("unstarted", unstarted, None).await.0.unwrap_err() {
        AttemptError::Pod(DENIED_NAMESPACE, pod, state) => {
            assert_eq!(
                (pod.as_str(), state.as_str()),
                ("denied-1-unstarted", "Failed (StartError: no such program)")
            );
        }
        other => panic!("{other}"),
    }
    is_clean().await;

    a_watch_that_breaks_is_followed_by_a_last_look().await;
    somebody_elses_policy_ends_the_try_before_it_begins(&administrator).await;
    by_whom_it_was_written_is_on_record().await;
}

async fn a_watch_that_breaks_is_followed_by_a_last_look() {
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
    assert_eq!(
        tried("late", SOUND, Some(client)).await.0.unwrap(),
        [NodeVerdict::Enforced, NodeVerdict::Enforced]
    );
    // Of one that is not, nothing is concluded.
    let (client, _) = meanwhile(of(Identity::Operator).await, &watch, |_| async { Some(422) }.boxed());
    let idle = tried("early", Kubelet { ignores: "control", ..SOUND }, Some(client));
    match idle.await.0 {
        Err(AttemptError::Pod(OPEN_NAMESPACE, pod, state)) => {
            assert!(pod == "control-early" && state.starts_with("still "), "{pod} is {state}");
        }
        other => panic!("{other:?}"),
    }
}

async fn somebody_elses_policy_ends_the_try_before_it_begins(administrator: &Client) {
    for (namespace, name) in
        [(DENIED_NAMESPACE, "of-others"), (OPEN_NAMESPACE, DEFAULT_DENY), (OPEN_NAMESPACE, "of-others")]
    {
        let mut policy = wanted(namespace, None).remove(0);
        policy.metadata.name = Some(name.into());
        let policies = api::<NetworkPolicy>(administrator, namespace);
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

async fn by_whom_it_was_written_is_on_record() {
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
