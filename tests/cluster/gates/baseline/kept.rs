//! What a baseline has read is read again only where something has changed, and never counts for longer than the account may read it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use kube::api::DynamicObject;
use resurgam::api::gate::Outside;
use resurgam::cluster_cache::ClusterCache;
use resurgam::gates::KeptReads;

use super::*;

const RBAC: &str = "rbac.authorization.k8s.io";
/// More objects of a kind than a page holds.
const MANY: usize = 260;

/// Three namespaces, their signed inventory, and an account that may read them.
struct Estate {
    name: &'static str,
    admin: Client,
    account: Account,
    asker: Asker,
    cache: ClusterCache,
    kept: Option<Arc<KeptReads>>,
    spec: BaselineSpec,
    _folder: tempfile::TempDir,
}

impl Estate {
    /// `operator`: who watches.
    async fn new(name: &'static str, operator: &Client, outside: Outside) -> Self {
        let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
        let user = format!("system:serviceaccount:{name}:recovery");
        let mut all = Vec::new();
        for place in ["", "-a", "-b", "-c"] {
            let namespace = format!("{name}{place}");
            all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
            all.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace},
                "data": {"mode": "live"}}));
            all.extend(granted(name, Some(&namespace)));
        }
        all.extend(granted(name, None));
        rehearsal::apply(&admin, "platform", &all).await.unwrap();
        let mut estate = Self {
            name,
            account: Account { client: acting_as(&user).await, user },
            asker: Asker::new(Vec::new()).unwrap(),
            cache: ClusterCache::start(operator),
            kept: None,
            spec: BaselineSpec::default(),
            _folder: tempfile::tempdir().unwrap(),
            admin,
        };
        for place in estate.namespaces() {
            // What controllers put into every namespace.
            let maps = kind(&estate.admin, "v1", "ConfigMap", Some(&place));
            rehearsal::eventually(&maps, "kube-root-ca.crt", "certificates", rehearsal::DEADLINE, |_| true)
                .await
                .unwrap();
            let accounts = kind(&estate.admin, "v1", "ServiceAccount", Some(&place));
            rehearsal::eventually(&accounts, "default", "an account", rehearsal::DEADLINE, |_| true)
                .await
                .unwrap();
        }
        estate.capture(outside).await;
        estate.kept = Some(estate.asker.keep_reads(&estate.cache));
        estate
    }

    async fn capture(&mut self, outside: Outside) {
        let path = |name: &str| self._folder.path().join(name).display().to_string();
        let (inventory, private, maps) = (path("a.json"), path("key.pem"), path("maps.yaml"));
        let namespaces = self.namespaces();
        let mut arguments = vec!["capture", "-o", &inventory];
        namespaces.iter().for_each(|namespace| arguments.extend(["-n", namespace.as_str()]));
        done(&arguments).await;
        let public = done(&["keygen", "-o", &private]).await;
        let target = format!("{}/approved", self.name);
        done(&["sign", &inventory, "--key", &private, "--config-map", &target, "-o", &maps]).await;
        let map: Value = serde_yaml::from_str(&std::fs::read_to_string(maps).unwrap()).unwrap();
        rehearsal::apply(&self.admin, "approver", &[map]).await.unwrap();
        self.spec = BaselineSpec {
            config_maps: vec![super::name("approved")],
            public_keys: vec![public],
            outside,
            ..BaselineSpec::default()
        };
    }

    fn namespaces(&self) -> Vec<String> {
        ["-a", "-b", "-c"].map(|place| format!("{}{place}", self.name)).to_vec()
    }

    fn question(&self) -> Question {
        let mut question = question(&self.spec, Phase::Continuous);
        question.plan_namespace = self.name.to_owned();
        question.namespaces = self.namespaces();
        question
    }

    async fn ask(&self) -> Answer {
        self.asker.ask(&self.account, &self.question()).await
    }

    async fn ask_cached(&self) -> Option<Answer> {
        self.asker.ask_cached(&self.cache, &self.account, &self.question()).await
    }

    /// Reads everything, and then what still changed.
    async fn begin(&self) {
        assert_eq!(self.ask_cached().await, None, "nothing is kept yet");
        self.says(Verdict::Pass, "").await;
    }

    /// Evaluates on what is kept until it says so.
    async fn says(&self, verdict: Verdict, named: &str) -> Answer {
        let mut last = None;
        let waiting = async {
            loop {
                let answer = match self.ask_cached().await {
                    Some(answer) => answer,
                    None => self.ask().await,
                };
                if answer.verdict == verdict && answer.message.contains(named) {
                    return answer;
                }
                last = Some(answer);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        ended.unwrap_or_else(|_| panic!("{verdict:?} {named}: {last:?}"))
    }

    /// Evaluates until nothing is read again.
    async fn is_quiet(&self) {
        loop {
            let from = end_of_log().await;
            self.ask_cached().await;
            if self.lists(from).await.is_empty() {
                return;
            }
        }
    }

    /// Evaluates until something has been read again since.
    async fn reads_again(&self, since: u64) -> BTreeMap<String, usize> {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            self.ask_cached().await;
            let lists = self.lists(since).await;
            if !lists.is_empty() {
                return lists;
            }
            assert!(std::time::Instant::now() < deadline, "nothing was read again");
        }
    }

    /// The lists of the account since, by kind and namespace, with how many there were.
    async fn lists(&self, since: u64) -> BTreeMap<String, usize> {
        let mut log = std::fs::File::open(cluster().await.audit_log()).unwrap();
        log.seek(SeekFrom::Start(since)).unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        let mut lists = BTreeMap::new();
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if event["impersonatedUser"]["username"] == self.account.user && event["verb"] == "list" {
                let of = &event["objectRef"];
                let place = of["namespace"].as_str().unwrap_or("-");
                let dot = if of["apiGroup"].is_string() { "." } else { "" };
                let [resource, group] =
                    ["resource", "apiGroup"].map(|field| of[field].as_str().unwrap_or_default());
                *lists.entry(format!("{resource}{dot}{group} {place}")).or_default() += 1;
            }
        }
        lists
    }

    fn of(&self, version: &str, of: &str, place: &str) -> Api<DynamicObject> {
        kind(&self.admin, version, of, Some(&format!("{}{place}", self.name)))
    }
}

/// Everything may be read in a namespace, or what reaches in from outside.
fn granted(name: &str, namespace: Option<&str>) -> [Value; 2] {
    let (role, binding) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let (groups, resources) = match namespace {
        Some(_) => (json!(["*"]), json!(["*"])),
        None => (json!([RBAC, "admissionregistration.k8s.io"]), json!(["*"])),
    };
    let of = format!("{name}-reads");
    let meta = json!({"name": of, "namespace": namespace});
    let version = format!("{RBAC}/v1");
    [
        json!({"apiVersion": version, "kind": role, "metadata": meta,
            "rules": [{"apiGroups": groups, "resources": resources, "verbs": ["get", "list"]}]}),
        json!({"apiVersion": version, "kind": binding, "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": role, "name": of},
            "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": name}]}),
    ]
}

async fn end_of_log() -> u64 {
    std::fs::metadata(cluster().await.audit_log()).unwrap().len()
}

/// A kind of others, of this group.
async fn others(admin: &Client, group: &str) -> String {
    let version = format!("{group}/v1");
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("gadgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    rehearsal::apply(admin, "platform", &[definition]).await.unwrap();
    let definitions = kind(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let served = |object: &Value| rehearsal::condition(object, "Established") == "True";
    rehearsal::eventually(&definitions, &format!("gadgets.{group}"), "the kind", rehearsal::DEADLINE, served)
        .await
        .unwrap();
    version
}

fn named(version: &str, kind: &str, body: Value) -> DynamicObject {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "planted"}});
    object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn baseline_reads_again_only_what_has_changed() {
    let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
    let gadgets = others(&admin, "kept.example.org").await;
    let estate = Estate::new("kept", &admin, Outside::LeaveOut).await;
    estate.begin().await;

    let from = end_of_log().await;
    let answer = estate.ask_cached().await.unwrap();
    assert_eq!(says(&answer), (Verdict::Pass, "MatchesBaseline"));
    assert_eq!(estate.lists(from).await, BTreeMap::new(), "nothing has changed");

    let binding = json!({"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    for (version, of, plural, place, body) in [
        ("v1", "ConfigMap", "configmaps", "-b", json!({})),
        (&format!("{RBAC}/v1"), "RoleBinding", "rolebindings.rbac.authorization.k8s.io", "-c", binding),
        (gadgets.as_str(), "Gadget", "gadgets.kept.example.org", "-a", json!({})),
    ] {
        let api = estate.of(version, of, place);
        let only = BTreeMap::from([(format!("{plural} kept{place}"), 1)]);
        let from = end_of_log().await;
        api.create(&PostParams::default(), &named(version, of, body)).await.unwrap();
        let answer = estate.says(Verdict::Fail, "planted").await;
        assert!(answer.message.contains("it is not in the baseline"), "{answer:?}");
        assert_eq!(estate.lists(from).await, only);
        let from = end_of_log().await;
        api.delete("planted", &DeleteParams::default()).await.unwrap();
        estate.says(Verdict::Pass, "").await;
        assert_eq!(estate.lists(from).await, only);
    }

    // A live evaluation reads everything, whatever is kept.
    let from = end_of_log().await;
    assert_eq!(estate.ask().await.verdict, Verdict::Pass);
    let lists = estate.lists(from).await;
    for place in estate.namespaces() {
        for plural in ["configmaps", "secrets", "deployments.apps", "gadgets.kept.example.org"] {
            assert_eq!(lists.get(&format!("{plural} {place}")), Some(&1), "{lists:?}");
        }
    }

    // More than a page.
    let maps = estate.of("v1", "ConfigMap", "-c");
    for id in 0..MANY {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("many-{id:03}")}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
    estate.is_quiet().await;
    let from = end_of_log().await;
    maps.patch("settings", &PatchParams::default(), &Patch::Merge(json!({"data": {"mode": "debug"}})))
        .await
        .unwrap();
    let lists = estate.reads_again(from).await;
    assert_eq!(lists, BTreeMap::from([("configmaps kept-c".to_owned(), 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn baseline_finds_what_reaches_in_by_what_it_kept() {
    let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
    let estate = Estate::new("keptout", &admin, Outside::Compare).await;
    // Others bind roles in this cluster at the same time, so that it may fail.
    estate.ask().await;
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "keptout-planted"}, "webhooks": [{
        "name": "implant.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "timeoutSeconds": 1, "clientConfig": {"url": "https://implant.example.org/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keptout-a"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["replicationcontrollers"], "operations": ["CREATE"]}],
    }]});
    let api = kind(&admin, "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", None);
    let from = end_of_log().await;
    api.create(&PostParams::default(), &serde_json::from_value(hook).unwrap()).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let answer = loop {
        let answer = estate.ask_cached().await.unwrap();
        if estate
            .lists(from)
            .await
            .contains_key("validatingwebhookconfigurations.admissionregistration.k8s.io -")
        {
            break answer;
        }
        assert!(std::time::Instant::now() < deadline, "{answer:?}");
    };
    api.delete("keptout-planted", &DeleteParams::default()).await.unwrap();
    assert_eq!(says(&answer), (Verdict::Fail, "DiffersFromBaseline"));
    let lists = estate.lists(from).await;
    // Kinds that other tests install meanwhile are read once.
    let is_of_others = |what: &str| what.contains(".example.org ");
    let within = lists.keys().filter(|what| !what.ends_with(" -") && !is_of_others(what));
    let within: Vec<&String> = within.collect();
    assert_eq!(within, [""; 0], "nothing in the namespaces has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_not_watched_is_read_each_time() {
    let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
    let gadgets = others(&admin, "unwatched.example.org").await;
    // An operator without rights on kinds of others.
    let groups = [
        "",
        "admissionregistration.k8s.io",
        "apps",
        "autoscaling",
        "batch",
        "networking.k8s.io",
        "policy",
        RBAC,
        "resurgam.dev",
    ];
    let operator = "unwatched-operator";
    rehearsal::apply(
        &admin,
        "platform",
        &[
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": operator},
                "rules": [{"apiGroups": groups, "resources": ["*"], "verbs": ["list", "watch"]}]}),
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": operator},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": operator},
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": operator}]}),
        ],
    )
    .await
    .unwrap();
    let client = acting_as(operator).await;
    let estate = Estate::new("unwatched", &client, Outside::LeaveOut).await;
    estate.begin().await;
    let unwatched = |lists: &BTreeMap<String, usize>| {
        estate
            .namespaces()
            .iter()
            .all(|place| lists.get(&format!("gadgets.unwatched.example.org {place}")) == Some(&1))
            && !lists.keys().any(|what| what.starts_with("configmaps "))
    };
    let from = end_of_log().await;
    assert_eq!(estate.ask_cached().await.unwrap().verdict, Verdict::Pass);
    let lists = estate.lists(from).await;
    assert!(unwatched(&lists), "{lists:?}");
    // No watch tells of it, and the next evaluation finds it.
    let api = estate.of(&gadgets, "Gadget", "-b");
    api.create(&PostParams::default(), &named(&gadgets, "Gadget", json!({}))).await.unwrap();
    let answer = estate.ask_cached().await.unwrap();
    assert_eq!(answer.verdict, Verdict::Fail, "{answer:?}");
    assert!(answer.message.contains("Gadget unwatched-b/planted"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_right_turns_a_kept_answer_unknown() {
    let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
    let estate = Estate::new("lost", &admin, Outside::LeaveOut).await;
    estate.begin().await;
    let bindings = estate.of(&format!("{RBAC}/v1"), "RoleBinding", "-b");
    let binding = bindings.get("lost-reads").await.unwrap();
    bindings.delete("lost-reads", &DeleteParams::default()).await.unwrap();
    let lost = std::time::Instant::now();
    let answer = estate.says(Verdict::Unknown, "lost-b").await;
    assert_eq!(answer.reason, GateReason::Forbidden, "{answer:?}");
    assert!(lost.elapsed() < Duration::from_secs(30), "by the change of the binding, not by time");
    // A grant takes effect at once.
    let subjects = json!({"metadata": {"name": "lost-reads"}, "roleRef": binding.data["roleRef"], "subjects": binding.data["subjects"]});
    let again: DynamicObject = serde_json::from_value(subjects).unwrap();
    bindings.create(&PostParams::default(), &again).await.unwrap();
    estate.says(Verdict::Pass, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_once_nobody_asks() {
    let admin = cluster().await.client(Identity::PlatformAdministrator).await.unwrap();
    let mut estate = Estate::new("nobody", &admin, Outside::LeaveOut).await;
    estate.begin().await;
    assert!(estate.ask_cached().await.is_some());
    estate.kept = None;
    assert_eq!(estate.ask_cached().await, None);
    // Whoever asks again begins anew.
    estate.kept = Some(estate.asker.keep_reads(&estate.cache));
    assert_eq!(estate.ask_cached().await, None);
    estate.says(Verdict::Pass, "").await;
}
