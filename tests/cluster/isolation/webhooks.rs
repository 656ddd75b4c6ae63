//! Admission webhooks that fail closed and do not answer: each keeps one control at most from being enforced, and no other.

use std::time::Duration;

use control_plane::Identity;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use rehearsal::install_kinds;
use resurgam::api::quarantine::ControlName::{self, Guard, Identity as Accounts, Lock, Network, Workloads};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, conditions};
use resurgam::isolation::evidence::Store;
use resurgam::isolation::list::{Listed, Lists};
use resurgam::isolation::network::DEFAULT_DENY;
use serde_json::json;

use crate::isolation::support::{
    Estate, allowing, apply, client, controller, isolate, not_enforced, readiness, ready, rig, start, until,
    within,
};
use crate::isolation::{api, meanwhile, was_refused};

const VALIDATING: &str = "ValidatingWebhookConfiguration";
const MUTATING: &str = "MutatingWebhookConfiguration";

/// What a webhook is asked about: group, resource, operations.
type Rule = (&'static str, &'static str, &'static [&'static str]);

/// A webhook of one namespace at whose address nobody listens.
struct Webhook {
    kind: &'static str,
    namespace: &'static str,
}

impl Webhook {
    /// Installs it, and waits until the API server asks it: about ConfigMaps, too, so that this can be tried.
    async fn install(kind: &'static str, namespace: &'static str, rules: &[Rule]) -> Self {
        let administrator = client(Identity::PlatformAdministrator).await;
        Self::install_as(&administrator, &administrator, kind, namespace, rules).await
    }

    async fn install_as(
        administrator: &Client,
        tries: &Client,
        kind: &'static str,
        namespace: &'static str,
        rules: &[Rule],
    ) -> Self {
        // Whatever is asked about has no namespace that would tell it apart, but for namespaces themselves.
        let rule = |(group, resource, operations): &Rule| {
            let scope =
                if ["namespaces", "quarantines"].contains(resource) { "Cluster" } else { "Namespaced" };
            json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations, "scope": scope})
        };
        let rules: Vec<_> = rules.iter().chain([&("", "configmaps", &["CREATE"][..])]).map(rule).collect();
        let hook = json!({
            "name": format!("{namespace}.policy.example"),
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": rules,
            "matchConditions": [{"name": "its-own",
                "expression": format!("request.resource.resource != 'quarantines' || request.name == '{namespace}'")}],
        });
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": namespace}, "webhooks": [hook]});
        apply(administrator, &configuration.to_string()).await;
        let maps: Api<ConfigMap> = api(tries, namespace);
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "asked-about"}})).unwrap();
        let dry = PostParams { dry_run: true, field_manager: None };
        within("the webhook to be asked", async {
            let asked = |error: kube::Error| error.to_string().contains("failed calling webhook");
            while !maps.create(&dry, &map).await.is_err_and(asked) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        Self { kind, namespace }
    }

    async fn remove(self, administrator: &Client) {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", self.kind);
        let all: Api<DynamicObject> = Api::all_with(administrator.clone(), &ApiResource::from_gvk(&kind));
        all.delete(self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// One webhook, and what it keeps from being done.
struct Case {
    name: &'static str,
    asked: Rule,
    fails: ControlName,
    reason: &'static str,
    /// What lives although it is sealed, allows although it is cut off, and is trusted although it is recreated.
    live: &'static [&'static str],
    allowing: &'static [&'static str],
    trusted: &'static [&'static str],
}

/// All is done but for one control, which is labelling the namespace.
const NAMESPACES: Case = Case {
    name: "hook-namespaces",
    asked: ("", "namespaces", &["UPDATE"]),
    fails: Lock,
    reason: "LabelFailed",
    live: &[],
    allowing: &[DEFAULT_DENY],
    trusted: &[],
};

const CASES: [Case; 8] = [
    NAMESPACES,
    // Our finalizer cannot be put on it.
    Case {
        name: "hook-quarantines",
        asked: ("resurgam.dev", "quarantines", &["UPDATE"]),
        fails: Guard,
        reason: "FinalizerFailed",
        ..NAMESPACES
    },
    Case {
        name: "hook-policies",
        asked: ("networking.k8s.io", "networkpolicies", &["CREATE", "UPDATE"]),
        fails: Network,
        reason: "NetworkFailed",
        allowing: &["allow-all"],
        ..NAMESPACES
    },
    Case {
        name: "hook-neutralising",
        asked: ("networking.k8s.io", "networkpolicies", &["UPDATE"]),
        fails: Network,
        reason: "NetworkFailed",
        allowing: &["allow-all", DEFAULT_DENY],
        ..NAMESPACES
    },
    Case {
        name: "hook-scaling",
        asked: ("apps", "deployments", &["UPDATE"]),
        fails: Workloads,
        reason: "StopFailed",
        ..NAMESPACES
    },
    Case {
        name: "hook-pods",
        asked: ("", "pods", &["DELETE"]),
        fails: Workloads,
        reason: "PodsFailed",
        live: &["bare", "web"],
        ..NAMESPACES
    },
    Case {
        name: "hook-accounts",
        asked: ("", "serviceaccounts", &["DELETE"]),
        fails: Accounts,
        reason: "IdentityFailed",
        trusted: &["default", "worker"],
        ..NAMESPACES
    },
    // Deleted, and not created again: their tokens are as void.
    Case {
        name: "hook-accounts-created",
        asked: ("", "serviceaccounts", &["CREATE"]),
        fails: Accounts,
        reason: "IdentityFailed",
        ..NAMESPACES
    },
];

impl Case {
    async fn play(self) {
        let administrator = client(Identity::PlatformAdministrator).await;
        let estate = Estate::new(self.name, "").await;
        let webhook = Webhook::install(VALIDATING, self.name, &[self.asked]).await;
        isolate(self.name, QuarantineLevel::Sealed).await;
        let told = until(self.name, "told of the webhook alone", |quarantine| {
            let amiss = not_enforced(quarantine);
            let (_, reason, _) = readiness(quarantine);
            amiss.keys().eq([&self.fails]) && reason == self.reason
        })
        .await;
        let (state, _, message) = readiness(&told);
        let control = &not_enforced(&told)[&self.fails];
        for text in [&message, control] {
            let culprit = format!("webhook {}.policy.example of {VALIDATING} {}", self.name, self.name);
            let command = format!("kubectl delete validatingwebhookconfiguration/{}", self.name);
            assert!(text.contains(&culprit) && text.contains(&command), "{}: {text}", self.name);
        }
        assert_ne!(state, "True", "{}", self.name);

        estate.is_fenced().await;
        assert_eq!(allowing(&estate.tenant, self.name).await, self.allowing, "{}", self.name);
        let live = estate.live().await;
        assert_eq!(live.len(), self.live.len(), "{}: {live:?}", self.name);
        assert!(self.live.iter().all(|name| live.iter().any(|pod| pod.starts_with(name))), "{live:?}");
        assert_eq!(estate.trusted().await, self.trusted, "{}", self.name);

        webhook.remove(&administrator).await;
        ready(self.name, Isolation::Sealed).await;
        estate.is_sealed().await;
    }
}

#[tokio::test]
async fn a_webhook_that_is_down_fails_its_control_alone() {
    let _running = controller().await;
    join_all(CASES.into_iter().map(|case| Box::pin(case.play()))).await;
}

/// The policies refuse before any validating webhook is asked.
#[tokio::test]
async fn a_webhook_on_everything_leaves_the_lists_to_fence() {
    let _running = controller().await;
    let (name, administrator) = ("hook-everything", client(Identity::PlatformAdministrator).await);
    let estate = Estate::new(name, "").await;
    let webhook = Webhook::install(VALIDATING, name, &[("*", "*", &["*"]), ("", "namespaces", &["*"])]).await;
    isolate(name, QuarantineLevel::Sealed).await;
    until(name, "told of all that fails", |quarantine| {
        not_enforced(quarantine).keys().eq([&Lock, &Network, &Workloads, &Accounts])
    })
    .await;
    estate.is_fenced().await;
    webhook.remove(&administrator).await;
    ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;
}

#[tokio::test]
async fn a_mutating_webhook_on_pods_keeps_nothing_from_being_sealed() {
    let _running = controller().await;
    let (name, administrator) = ("hook-injector", client(Identity::PlatformAdministrator).await);
    let estate = Estate::new(name, "").await;
    let webhook = Webhook::install(MUTATING, name, &[("", "pods", &["CREATE"])]).await;
    isolate(name, QuarantineLevel::Sealed).await;
    let sealed = ready(name, Isolation::Sealed).await;
    was_refused(&sealed, ControlName::Fence);
    estate.is_sealed().await;
    webhook.remove(&administrator).await;
}

/// Asked before any policy, it hides whether the fence refuses: that is told, and nothing waits for it.
#[tokio::test]
async fn a_fence_that_cannot_be_tried_delays_no_other_control() {
    let _running = controller().await;
    let (name, administrator) = ("hook-before-the-fence", client(Identity::PlatformAdministrator).await);
    let estate = Estate::new(name, "").await;
    let webhook = Webhook::install(MUTATING, name, &[("", "*", &["CREATE"])]).await;
    isolate(name, QuarantineLevel::Sealed).await;
    until(name, "stopped, and told that its fence is not verified", |quarantine| {
        let (state, _, message) = readiness(quarantine);
        let stopped = !not_enforced(quarantine).contains_key(&Workloads);
        state != "True" && stopped && message.contains(&format!("webhook \"{name}.policy.example\""))
    })
    .await;
    assert!(estate.is_cut_off().await);
    within("the last pod to end", async {
        while !estate.live().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    webhook.remove(&administrator).await;
    ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;
}

/// What is done already is not done again at each try: evidence is kept once, and accounts are recreated once.
#[tokio::test]
async fn control_failing_for_a_minute_stalls_and_names_its_culprit() {
    let _running = controller().await;
    let rows: [(&'static str, Rule, ControlName, &str); 2] = [
        (
            "hook-stalls",
            ("networking.k8s.io", "networkpolicies", &["CREATE", "UPDATE"]),
            Network,
            "NetworkFailed",
        ),
        ("hook-stalls-label", ("", "namespaces", &["UPDATE"]), Lock, "LabelFailed"),
    ];
    join_all(rows.map(|(name, asked, control, reason)| Box::pin(stalls(name, asked, control, reason)))).await;
}

async fn stalls(name: &'static str, asked: Rule, control: ControlName, reason: &str) {
    let administrator = client(Identity::PlatformAdministrator).await;
    let estate = Estate::new(name, "").await;
    let webhook = Webhook::install(VALIDATING, name, &[asked]).await;
    let began = std::time::Instant::now();
    isolate(name, QuarantineLevel::Sealed).await;
    let failing = |quarantine: &Quarantine| not_enforced(quarantine).keys().eq([&control]);
    let failing = until(name, "told of the failure", failing).await;
    assert_eq!(readiness(&failing).0, "Unknown", "it is tried again");
    let accounts = async || {
        let all = api::<ServiceAccount>(&administrator, name).list(&ListParams::default()).await.unwrap();
        all.iter().map(|account| (account.name_any(), account.uid())).collect::<Vec<_>>()
    };
    let recreated = accounts().await;
    // Longer than anything else is waited for: it takes a minute.
    let all: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let stalled = rehearsal::await_condition(all, name, |quarantine: Option<&Quarantine>| {
        let conditions =
            quarantine.and_then(|q| q.status.as_ref()).map(|status| status.conditions.as_slice());
        conditions.is_some_and(|conditions| conditions::is_true(conditions, conditions::STALLED))
    });
    let stalled = tokio::time::timeout(Duration::from_secs(120), stalled).await.unwrap().unwrap().unwrap();
    let (state, why, message) = readiness(&stalled);
    assert_eq!((state.as_str(), why.as_str()), ("False", reason), "{message}");
    assert!(message.contains(&format!("{name}.policy.example")), "{message}");
    assert!(began.elapsed() >= Duration::from_secs(60), "after {:?}", began.elapsed());
    let evidence = |quarantine: &Quarantine| quarantine.status.as_ref().and_then(|s| s.capture.clone());
    assert_eq!(evidence(&stalled), evidence(&failing), "evidence is kept once");
    assert_eq!(accounts().await, recreated, "accounts are recreated once");
    webhook.remove(&administrator).await;
    ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;
}

/// On a control plane of its own: the lists are everybody's.
#[tokio::test]
async fn a_webhook_on_the_lists_leaves_the_label_to_fence() {
    let plane = Box::pin(meanwhile::bare()).await;
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    install_kinds(&administrator).await.unwrap();
    for name in ["before", "after"] {
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply(&administrator, &made.to_string()).await;
    }
    let quarantine = |name: &str| {
        let spec = json!({"isolation": "Contained", "reason": "unusual activity"});
        json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": name}, "spec": spec})
    };
    let kubeconfig = plane.kubeconfig(Identity::Operator).to_owned();
    let rig = rig().await;
    let operator = start(kubeconfig, rig.evidence(Store::folder(rig.evidence.path())));
    let all: Api<Quarantine> = Api::all(administrator.clone());
    let reaches = async |name: &str, what: &str, is: &(dyn Fn(&Quarantine) -> bool + Sync)| {
        let condition =
            rehearsal::await_condition(all.clone(), name, |q: Option<&Quarantine>| q.is_some_and(is));
        match tokio::time::timeout(Duration::from_secs(60), condition).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("{name} is not {what}: {:#?}", all.get(name).await.unwrap().status),
        }
    };
    apply(&administrator, &quarantine("before").to_string()).await;
    reaches("before", "Ready", &|q| readiness(q).0 == "True").await;

    let tries = plane.client(Identity::Operator).await.unwrap();
    let asked: Rule = ("", "configmaps", &["UPDATE"]);
    let webhook = Webhook::install_as(&administrator, &tries, VALIDATING, "resurgam-system", &[asked]).await;
    apply(&administrator, &quarantine("after").to_string()).await;
    let told = reaches("after", "told of its list", &|q| {
        not_enforced(q).keys().eq([&ControlName::Guard]) && readiness(q).1 == "ListFailed"
    })
    .await;
    let guard = &not_enforced(&told)[&ControlName::Guard];
    assert!(guard.contains("webhook resurgam-system.policy.example"), "{guard}");
    assert_eq!(Lists::new(administrator.clone()).of("after").await.unwrap(), Listed::new([None, None]));
    assert_eq!(allowing(&administrator, "after").await, [DEFAULT_DENY]);
    webhook.remove(&administrator).await;
    reaches("after", "Ready", &|q| readiness(q).0 == "True").await;
    tokio::task::spawn_blocking(move || drop(operator)).await.unwrap();
    plane.stop().await.unwrap();
}
