//! Gate `baseline` on a real API server: an estate is captured and signed by the command, then tampered with, then used as ever.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rehearsal::{Shared, kind};
use resurgam::api::gate::{AfterCompromise, BaselineSpec, SecretKeyFrom};
use resurgam::api::{GateReason, GateSpec, ObjectName, Phase, Verdict};
use resurgam::engine::Answer;
use resurgam::gates::{Account, Asker, Question, rights};
use serde_json::{Value, json};

use super::says;

mod estate;
mod kept;
mod planted;

use estate::{CANARY, OTHER, SHOP};

/// Apart from those of other gates, whose tests bind roles in the whole cluster.
static CONTROL_PLANE: Shared<ControlPlane> = Shared::new();

async fn cluster() -> &'static ControlPlane {
    CONTROL_PLANE.get(rehearsal::shared_cluster).await.unwrap()
}

/// One estate, its inventory, and an account that may read what the gate says that it reads.
struct Bench {
    administrator: Client,
    account: Account,
    asker: Asker,
    folder: tempfile::TempDir,
    spec: BaselineSpec,
}

impl Bench {
    async fn new() -> Self {
        let cluster = cluster().await;
        let administrator = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        let user = "system:serviceaccount:baseline-plan:recovery".to_owned();
        let account = Account { client: acting_as(&user).await, user };
        let mut bench = Self {
            administrator,
            account,
            asker: Asker::new(Vec::new()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            spec: BaselineSpec::default(),
        };
        rehearsal::apply(&bench.administrator, "platform", &estate::objects()).await.unwrap();
        bench.grant().await;
        bench.settled().await;
        bench.capture().await;
        bench
    }

    /// Grants what the gate says that it needs, and no more.
    async fn grant(&self) {
        let spec = BaselineSpec {
            config_maps: vec![name("approved")],
            secret_key_from: Some(key_from("digest-key")),
            ..BaselineSpec::default()
        };
        let needed = rights(&question(&spec, Phase::Continuous));
        let subject = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "baseline-plan"}]);
        let mut all = Vec::new();
        for place in [None, Some("baseline-plan"), Some(SHOP)] {
            let rules: Vec<Value> = needed
                .iter()
                .filter(|right| right.namespace.as_deref() == place)
                .map(|right| {
                    let mut rule = json!({"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]});
                    if let Some(name) = &right.name {
                        rule["resourceNames"] = json!([name]);
                    }
                    rule
                })
                .collect();
            let (role, binding) =
                if place.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
            let meta = json!({"name": "baseline-reads", "namespace": place});
            let api = "rbac.authorization.k8s.io";
            let version = format!("{api}/v1");
            all.push(json!({"apiVersion": version, "kind": role, "metadata": meta, "rules": rules}));
            all.push(json!({"apiVersion": version, "kind": binding, "metadata": meta, "subjects": subject,
                "roleRef": {"apiGroup": api, "kind": role, "name": "baseline-reads"}}));
        }
        rehearsal::apply(&self.administrator, "platform", &all).await.unwrap();
    }

    /// Waits until everything runs.
    async fn settled(&self) {
        for (of, name, field, count) in [
            ("Deployment", "web", "availableReplicas", 1),
            ("StatefulSet", "db", "currentReplicas", 1),
            ("DaemonSet", "agent", "numberAvailable", 2),
        ] {
            let done = |object: &Value| {
                object["status"][field] == count
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            };
            let api = kind(&self.administrator, "apps/v1", of, Some(SHOP));
            rehearsal::eventually(&api, name, name, rehearsal::DEADLINE, done).await.unwrap();
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn resurgam(&self, arguments: &[&str]) -> (String, bool) {
        resurgam(arguments).await
    }

    async fn done(&self, arguments: &[&str]) -> String {
        done(arguments).await
    }

    /// Captures and signs, and gives the gate what it reads.
    async fn capture(&mut self) {
        let (key, inventory, private) = (self.path("digest.key"), self.path("a.json"), self.path("one.pem"));
        std::fs::write(&key, [7; 32]).unwrap();
        self.done(&["capture", "-n", SHOP, "--secret-key", &key, "-o", &inventory]).await;
        let public = self.done(&["keygen", "-o", &private]).await;
        self.spec = BaselineSpec {
            config_maps: vec![name("approved")],
            public_keys: vec![public],
            secret_key_from: Some(key_from("digest-key")),
            ..BaselineSpec::default()
        };
        self.sign("approved").await;
    }

    /// Signs the inventory as it is, and stores it as this ConfigMap.
    async fn sign(&self, map: &str) {
        let (inventory, private, maps) = (self.path("a.json"), self.path("one.pem"), self.path("maps.yaml"));
        let target = format!("baseline-plan/{map}");
        self.done(&["sign", &inventory, "--key", &private, "--config-map", &target, "-o", &maps]).await;
        let map: Value = serde_yaml::from_str(&std::fs::read_to_string(maps).unwrap()).unwrap();
        rehearsal::apply(&self.administrator, "approver", &[map]).await.unwrap();
    }

    async fn ask(&self, phase: Phase) -> Answer {
        self.ask_as(&self.spec, phase).await
    }

    async fn ask_as(&self, spec: &BaselineSpec, phase: Phase) -> Answer {
        self.asker.ask(&self.account, &question(spec, phase)).await
    }

    /// Waits until the gate passes: what was changed is put back by controllers.
    async fn passes(&self, after: &str) {
        let mut last = None;
        let waiting = async {
            loop {
                let answer = self.ask(Phase::Continuous).await;
                if answer.verdict == Verdict::Pass {
                    return;
                }
                last = Some(answer);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(ended.is_ok(), "{after}: {last:?}");
    }
}

/// Returns a client that acts as this user.
async fn acting_as(user: &str) -> Client {
    let path = cluster().await.kubeconfig(Identity::PlatformAdministrator);
    let mut kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
    for named in &mut kubeconfig.auth_infos {
        named.auth_info.as_mut().unwrap().impersonate = Some(user.to_owned());
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Runs `resurgam baseline`, and returns what it wrote and whether it succeeded.
async fn resurgam(arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_resurgam"));
    command.env("KUBECONFIG", cluster().await.kubeconfig(Identity::PlatformAdministrator));
    command.arg("baseline").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}

async fn done(arguments: &[&str]) -> String {
    let (text, success) = resurgam(arguments).await;
    assert!(success, "{arguments:?}: {text}");
    text
}

fn name(name: &str) -> ObjectName {
    ObjectName { name: name.to_owned() }
}

fn key_from(secret: &str) -> SecretKeyFrom {
    SecretKeyFrom { secret: name(secret), key: "key".to_owned() }
}

fn question(spec: &BaselineSpec, phase: Phase) -> Question {
    let gate = GateSpec { name: "approved".into(), baseline: Some(spec.clone()), ..GateSpec::default() };
    // Later than the capture, which is of now.
    let compromised_since = Some("2099-01-01T00:00:00Z".parse().unwrap());
    Question { compromised_since, ..Question::new("baseline-plan", vec![SHOP.to_owned()], phase, gate) }
}

/// One test for all that shares the estate: each tampering has it for itself.
#[tokio::test(flavor = "multi_thread")]
async fn planted_changes_are_named_and_ordinary_ones_are_not() {
    let bench = Bench::new().await;
    for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
        let answer = bench.ask(phase).await;
        assert_eq!(says(&answer), (Verdict::Pass, "MatchesBaseline"), "{phase:?} {answer:?}");
    }
    let mut said = Vec::new();
    for tampering in planted::tamperings() {
        said.push(planted::is_caught(&bench, &tampering).await);
    }
    assert!(said.len() >= 25);
    let changes = planted::ordinary_changes(&bench).await;
    assert!(changes >= 200, "{changes}");
    every_way_to_unknown(&bench).await;
    diff_reads_like_a_review(&bench).await;

    let inventory = std::fs::read_to_string(bench.path("a.json")).unwrap();
    assert!(
        inventory.contains("hmac-sha256:") && !inventory.contains(CANARY),
        "no Secret's value is captured"
    );
    said.push(format!("{:?}", bench.ask(Phase::Continuous).await));
    let base64 = serde_json::to_value(k8s_openapi::ByteString(CANARY.into())).unwrap();
    let told = said.iter().find(|text| text.contains(CANARY) || text.contains(base64.as_str().unwrap()));
    assert_eq!(told, None, "no Secret's value is told");
}

async fn every_way_to_unknown(bench: &Bench) {
    let with = |change: fn(&mut BaselineSpec)| {
        let mut spec = bench.spec.clone();
        change(&mut spec);
        spec
    };
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(bench.administrator.clone(), "baseline-plan");
    let good = maps.get("approved").await.unwrap();
    let data = |text: String| json!({"metadata": {"name": "approved"}, "data": {"baseline": text}, "binaryData": null});
    let envelope = {
        let maps = bench.path("envelope");
        bench.done(&["sign", &bench.path("a.json"), "--key", &bench.path("one.pem"), "-o", &maps]).await;
        std::fs::read_to_string(maps).unwrap()
    };
    let forged = {
        // A signed inventory, with another payload in it.
        let mut value: Value = serde_json::from_str(&envelope).unwrap();
        let payload = value["payload"].as_str().unwrap().to_owned();
        value["payload"] = json!(payload.replacen('A', "B", 1));
        value.to_string()
    };
    let unsigned = {
        let mut value: Value = serde_json::from_str(&envelope).unwrap();
        value["signatures"] = json!([]);
        value.to_string()
    };
    for (text, reason) in [
        (forged, "SignatureInvalid"),
        (unsigned, "SignatureInvalid"),
        (envelope[..envelope.len() / 2].to_owned(), "BaselineMalformed"),
        ("{}".to_owned(), "BaselineMalformed"),
        (std::fs::read_to_string(bench.path("a.json")).unwrap(), "BaselineMalformed"),
        (String::new(), "BaselineMissing"),
    ] {
        // Larger than the account of what was applied may be.
        let map = serde_json::from_value(data(text)).unwrap();
        maps.replace("approved", &PostParams::default(), &map).await.unwrap();
        let answer = bench.ask(Phase::BeforeRelease).await;
        assert_eq!(says(&answer), (Verdict::Unknown, reason), "{answer:?}");
        assert!(answer.message.contains("baseline-plan/approved"), "{answer:?}");
    }
    let mut again = good.clone();
    again.metadata.resource_version = None;
    again.metadata.managed_fields = None;
    maps.replace("approved", &PostParams::default(), &again).await.unwrap();
    bench.passes("the baseline is back").await;

    // Whoever has another key.
    let other = bench.done(&["keygen", "-o", &bench.path("other.pem")]).await;
    let mut foreign = bench.spec.clone();
    foreign.public_keys = vec![other.clone()];
    let mut both = bench.spec.clone();
    both.public_keys.push(other);
    both.signatures = Some(2);
    for (spec, reason) in [
        (foreign, GateReason::SignatureInvalid),
        (both, GateReason::SignatureInvalid),
        (with(|spec| spec.public_keys = vec!["no key".into()]), GateReason::Malformed),
        // RBAC grants what the plan names, and nothing else.
        (with(|spec| spec.config_maps = vec![name("another")]), GateReason::Forbidden),
        (with(|spec| spec.secret_key_from = Some(key_from("another"))), GateReason::Forbidden),
        (
            with(|spec| spec.secret_key_from.as_mut().unwrap().key = "short".into()),
            GateReason::SecretKeyInvalid,
        ),
        (
            with(|spec| spec.secret_key_from.as_mut().unwrap().key = "wrong".into()),
            GateReason::SecretKeyInvalid,
        ),
        (
            with(|spec| spec.secret_key_from.as_mut().unwrap().key = "absent".into()),
            GateReason::SecretKeyInvalid,
        ),
    ] {
        let answer = bench.ask_as(&spec, Phase::BeforeRelease).await;
        assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, reason), "{answer:?}");
    }
    let answer = bench.ask_as(&with(|spec| spec.secret_key_from = None), Phase::BeforeRelease).await;
    assert_eq!(answer.verdict, Verdict::Pass);
    assert!(answer.message.contains("values of Secrets"), "{answer:?}");

    let ask = async |change: &dyn Fn(&mut Question), spec: &BaselineSpec| {
        let mut question = question(spec, Phase::BeforeRelease);
        change(&mut question);
        bench.asker.ask(&bench.account, &question).await
    };
    let early = |question: &mut Question| {
        question.compromised_since = Some("2025-11-17T00:00:00Z".parse().unwrap());
    };
    let answer = ask(&|question| question.compromised_since = None, &bench.spec).await;
    assert_eq!(says(&answer), (Verdict::Unknown, "NoCompromiseTime"), "{answer:?}");
    let answer = ask(&early, &bench.spec).await;
    assert_eq!(says(&answer), (Verdict::Unknown, "CapturedAfterCompromise"), "{answer:?}");
    let answer = ask(&early, &with(|spec| spec.after_compromise = AfterCompromise::Reviewed)).await;
    assert_eq!((answer.verdict, answer.exceptions.len()), (Verdict::Pass, 1), "{answer:?}");
    let answer = ask(&|question| question.namespaces.push(OTHER.into()), &bench.spec).await;
    assert_eq!(says(&answer), (Verdict::Unknown, "NotInBaseline"), "{answer:?}");

    // An account that may not list one of the kinds.
    let bindings = kind(&bench.administrator, "rbac.authorization.k8s.io/v1", "RoleBinding", Some(SHOP));
    let binding = bindings.get("baseline-reads").await.unwrap();
    bindings.delete("baseline-reads", &DeleteParams::default()).await.unwrap();
    let refused = async {
        loop {
            let answer = bench.ask(Phase::BeforeRelease).await;
            if answer.verdict == Verdict::Unknown {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert_eq!(says(&answer), (Verdict::Unknown, "Forbidden"), "{answer:?}");
    assert!(answer.message.contains("baseline-plan:recovery") && answer.message.contains(SHOP), "{answer:?}");
    let mut binding = serde_json::to_value(binding).unwrap();
    binding["metadata"] = json!({"name": "baseline-reads", "namespace": SHOP});
    rehearsal::apply(&bench.administrator, "platform", &[binding]).await.unwrap();
    bench.passes("the account may list again").await;
}

async fn diff_reads_like_a_review(bench: &Bench) {
    let inventory = bench.path("a.json");
    let key = bench.path("digest.key");
    let line = ["diff", inventory.as_str(), "--secret-key", key.as_str()];
    assert!(bench.done(&line).await.contains("0 differences in "));
    let maps = kind(&bench.administrator, "v1", "ConfigMap", Some(SHOP));
    let patch = |value: &str| Patch::Merge(json!({"data": {"mode": value}}));
    maps.patch("web", &PatchParams::default(), &patch("tampered")).await.unwrap();
    let (text, success) = bench.resurgam(&line).await;
    assert!(!success);
    let expected = format!("~ ConfigMap {SHOP}/web\n    data.mode\n      was 'live'\n      is  'tampered'\n");
    assert!(text.starts_with(&expected), "{text}");
    maps.patch("web", &PatchParams::default(), &patch("live")).await.unwrap();
    bench.passes("diff").await;

    // The same estate, as manifests in a folder.
    let folder: PathBuf = bench.folder.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let of_shop = estate::objects().into_iter().filter(|object| object["metadata"]["namespace"] == SHOP);
    let text: Vec<String> = of_shop.map(|object| serde_yaml::to_string(&object).unwrap()).collect();
    std::fs::write(folder.join("all.yaml"), text.join("---\n")).unwrap();
    let (folder, rendered) = (folder.display().to_string(), bench.path("rendered.json"));
    let capture = [
        "capture",
        "--from-manifests",
        &folder,
        "--scratch",
        "baseline-scratch",
        "--secret-key",
        &key,
        "-o",
        &rendered,
    ];
    bench.done(&capture).await;
    let (text, _) = bench.resurgam(&["diff", &rendered, "--secret-key", &key]).await;
    // What the test itself granted is in no manifest.
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("baseline-reads")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("2 differences in "), "{text}");
}
