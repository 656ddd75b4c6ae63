//! A small estate, and a plan for it, for each test: namespaces, a Deployment in each, an account, rights, a list of images.

use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::ListParams;
use rehearsal::{
    End, Operator, OperatorOptions, Shared, condition, eventually, kind, object, text, three_boroughs,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const KINDS: &str = "resurgam.dev/v1alpha1";
pub const DIGEST: &str = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";

/// A control plane with an operator.
pub struct Stage {
    pub cluster: ControlPlane,
    options: OperatorOptions,
    operator: Mutex<Operator>,
}

impl End for Stage {
    fn end(&self) {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner).end();
        self.cluster.kill();
    }
}

impl Stage {
    /// Installs everything on a control plane, Incident `nov-2025` too, and starts an operator. `change`: its options.
    pub async fn start(
        cluster: ControlPlane,
        change: impl FnOnce(&mut OperatorOptions),
    ) -> anyhow::Result<Stage> {
        rehearsal::install(&cluster).await?;
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        rehearsal::apply(&admin, "platform", &[incident("nov-2025")]).await?;
        let mut options = OperatorOptions::within(&cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
        change(&mut options);
        let operator = Mutex::new(Operator::start(&cluster, &options)?);
        Ok(Stage { cluster, options, operator })
    }

    /// Kills the operator, and starts another one.
    pub fn restart_operator(&self) {
        let mut running = self.operator.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Operator::start(&self.cluster, &self.options).unwrap();
        std::mem::replace(&mut *running, next).kill().unwrap();
    }
}

static STAGE: Shared<Stage> = Shared::new();

/// Who can read the logs that the operator keeps.
static IDENTITY: LazyLock<age::x25519::Identity> = LazyLock::new(age::x25519::Identity::generate);

/// Returns the clear text of a log in the operator's evidence store.
pub async fn kept_log(object: &str) -> String {
    let text = std::fs::read(cluster().await.dir().join("evidence").join(object)).unwrap();
    String::from_utf8(age::decrypt(&*IDENTITY, &text).unwrap()).unwrap()
}

async fn stage() -> &'static Stage {
    let keeps_logs = |options: &mut OperatorOptions| {
        let recipient = IDENTITY.to_public().to_string();
        options.arguments.extend(["--evidence-recipient".to_owned(), recipient]);
        options.arguments.extend(super::registries::arguments());
    };
    let start = async || {
        let cluster = rehearsal::shared_cluster().await?;
        // Where logs are kept, nothing is stopped before they are read.
        cluster.write_container_logs(&["a container's log"], &[])?;
        Stage::start(cluster, keeps_logs).await
    };
    STAGE.get(start).await.unwrap()
}

pub async fn cluster() -> &'static ControlPlane {
    &stage().await.cluster
}

/// The operator's process lives, and answers for its health.
pub async fn operator_is_up() {
    let stage = stage().await;
    let ended = stage.operator.lock().unwrap_or_else(PoisonError::into_inner).ended().unwrap();
    assert!(ended.is_none(), "the operator ended: {ended:?}");
    let log = std::fs::read_to_string(stage.cluster.dir().join("operator.log")).unwrap();
    let address = log.rsplit("address=").next().and_then(|rest| rest.split_whitespace().next()).unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Kills the operator, and starts another one.
pub async fn restart_operator() {
    stage().await.restart_operator();
}

/// The estate of one test. Plan and account live in the namespace `<case>`, service `x` in `<case>-x`.
pub struct Bench {
    pub case: &'static str,
    pub admin: Client,
    cluster: &'static ControlPlane,
}

impl Bench {
    /// Lays the services down as the attack left them, and isolates them all.
    pub async fn new(case: &'static str, services: &[&str]) -> Bench {
        Self::with(case, services, |_| {}).await
    }

    /// Lays the services down, and isolates nothing.
    pub async fn open(case: &'static str, services: &[&str], more: impl FnOnce(&mut Vec<Value>)) -> Bench {
        Self::on(cluster().await, case, services, more).await
    }

    /// As `open`, on another control plane, which has Incident `nov-2025` and an operator.
    pub async fn on(
        cluster: &'static ControlPlane,
        case: &'static str,
        services: &[&str],
        more: impl FnOnce(&mut Vec<Value>),
    ) -> Bench {
        let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        let bench = Bench { case, admin, cluster };
        let mut manifests = bench.manifests(services);
        more(&mut manifests);
        rehearsal::apply(&bench.admin, "platform", &manifests).await.unwrap();
        bench
    }

    /// As `new`, with a mistake among the manifests, or more of them.
    pub async fn with(case: &'static str, services: &[&str], spoil: impl FnOnce(&mut Vec<Value>)) -> Bench {
        let bench = Self::open(case, services, spoil).await;
        bench.isolate(services).await;
        bench
    }

    /// Isolates services, and waits until they are.
    pub async fn isolate(&self, services: &[&str]) {
        let cluster = self.cluster;
        let responder = cluster.client(Identity::Responder).await.unwrap();
        let namespaces: Vec<String> = services.iter().map(|s| self.namespace(s)).collect();
        let quarantines: Vec<Value> = namespaces.iter().map(|namespace| quarantine(namespace)).collect();
        rehearsal::apply(&responder, "on-call", &quarantines).await.unwrap();
        for namespace in &namespaces {
            three_boroughs::isolated(cluster, namespace).await.unwrap();
        }
    }

    pub fn namespace(&self, service: &str) -> String {
        format!("{}-{service}", self.case)
    }

    fn manifests(&self, services: &[&str]) -> Vec<Value> {
        let case = self.case;
        let namespaces: Vec<String> = services.iter().map(|s| self.namespace(s)).collect();
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
        let operator =
            json!([{"kind": "ServiceAccount", "name": "resurgam", "namespace": "resurgam-system"}]);
        let restore = format!("{case}-restore");
        let recover = format!("{case}-recover");
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": case}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "recovery", "namespace": case}}),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "approved-images", "namespace": case},
                "data": {"images": DIGEST},
            }),
            role(
                "Role",
                "recovery",
                case,
                &json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]),
            ),
            binding("Role", "recovery", case, &account),
            role(
                "Role",
                "impersonate",
                case,
                &json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["recovery"], "verbs": ["impersonate"]}]),
            ),
            binding("Role", "impersonate", case, &operator),
            role(
                "ClusterRole",
                &restore,
                "",
                &json!([
                    {"apiGroups": ["", "apps", "batch"], "resources": ["pods", "replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs", "jobs"], "verbs": ["get", "list", "watch"]},
                    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]},
                ]),
            ),
            role(
                "ClusterRole",
                &recover,
                "",
                &json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": namespaces, "verbs": ["recover"]}]),
            ),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": recover},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": recover}, "subjects": account,
            }),
        ];
        for namespace in &namespaces {
            all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
            all.push(binding("ClusterRole", &restore, namespace, &account));
            all.push(deployment(namespace));
        }
        all
    }

    /// A plan with gates for everything, armed.
    pub fn plan(&self, name: &str, services: Value) -> Value {
        let images = json!({"name": "images", "imageDigests": {"approvedFrom": {"configMap": {"name": "approved-images"}}}, "interval": "500ms", "failureLimit": 1});
        let up = json!({"name": "up", "workloads": {}, "interval": "500ms"});
        json!({
            "apiVersion": KINDS, "kind": "RecoveryPlan", "metadata": {"name": name, "namespace": self.case},
            "spec": {
                "incidentRef": {"name": "nov-2025"}, "serviceAccountName": "recovery", "services": services,
                "defaults": {"gates": {"beforeRestore": [images], "beforeRelease": [up]}},
            },
        })
    }

    /// GitOps applies a plan.
    pub async fn apply(&self, plan: &Value) {
        let gitops = self.cluster.client(Identity::GitOps).await.unwrap();
        rehearsal::apply(&gitops, "gitops", std::slice::from_ref(plan)).await.unwrap();
    }

    /// A service of this test: its name (that of its namespace) and what it depends on.
    pub fn service(&self, name: &str, depends_on: &[&str]) -> Value {
        json!({"name": name, "namespaces": [self.namespace(name)], "dependsOn": depends_on})
    }

    /// Waits until a service says why it is blocked, in these words, and returns its ServiceRecovery.
    pub async fn says(&self, plan: &str, service: &str, reason: &str, words: &[&str]) -> Value {
        let records = kind(&self.admin, KINDS, "ServiceRecovery", Some(self.case));
        let what = format!("{plan}.{service} to say {reason}: {}", words.join(", "));
        let blocked = |o: &Value| {
            let blocks = rehearsal::field(o, "/status/blockedBy").as_array();
            blocks.into_iter().flatten().any(|block| {
                let told = format!("{} {}", block["name"], block["message"]);
                block["reason"] == reason && words.iter().all(|word| told.contains(word))
            })
        };
        eventually(&records, &format!("{plan}.{service}"), &what, rehearsal::DEADLINE, blocked).await.unwrap()
    }

    /// Waits until the plan's Ready has this status, reason and words.
    pub async fn plan_says(&self, plan: &str, status: &str, reason: &str, words: &[&str]) -> Value {
        let plans = kind(&self.admin, KINDS, "RecoveryPlan", Some(self.case));
        let what = format!("plan {plan} to say {reason}: {}", words.join(", "));
        let said = |o: &Value| {
            let conditions = rehearsal::field(o, "/status/conditions").as_array();
            conditions.into_iter().flatten().any(|c| {
                let message = c["message"].as_str().unwrap_or_default();
                c["type"] == "Ready"
                    && c["status"] == status
                    && c["reason"] == reason
                    && words.iter().all(|word| message.contains(word))
            })
        };
        eventually(&plans, plan, &what, rehearsal::DEADLINE, said).await.unwrap()
    }

    /// Waits until a service is recovered and healthy.
    pub async fn recovers(&self, plan: &str, service: &str) -> Value {
        let records = kind(&self.admin, KINDS, "ServiceRecovery", Some(self.case));
        let what = format!("{plan}.{service} to recover");
        let done = |o: &Value| condition(o, "Recovered") == "True" && condition(o, "Healthy") == "True";
        eventually(&records, &format!("{plan}.{service}"), &what, rehearsal::DEADLINE, done).await.unwrap()
    }

    /// A service's namespace bears this label, and nothing runs in it.
    pub async fn stays(&self, service: &str, label: &str) {
        let name = self.namespace(service);
        let namespace = object(&kind(&self.admin, "v1", "Namespace", None), &name).await.unwrap();
        assert_eq!(text(&namespace, "/metadata/labels/resurgam.dev~1isolation"), label, "{name}");
        let pods = kind(&self.admin, "v1", "Pod", Some(&name)).list(&ListParams::default()).await.unwrap();
        assert!(pods.items.is_empty(), "{name} has {} pods", pods.items.len());
    }

    /// Judges a plan of this bench by all that has been logged so far.
    pub async fn judged(&self, plan: &Value) -> judge::Report {
        let file = self.cluster.dir().join(format!("{}.judged.yaml", self.case));
        std::fs::write(&file, plan.to_string()).unwrap();
        // Whole lines only: the API server may be writing the next one.
        let mut text = std::fs::read(self.cluster.audit_log()).unwrap();
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        let log = self.cluster.dir().join(format!("{}.judged.log", self.case));
        std::fs::write(&log, text).unwrap();
        // The stand-in for a database's operator, of a test that shares this log; and Velero, of steps that restore.
        let operate = ["cnpg:cnpg-manager", "velero:velero"];
        let operate = operate.map(|account| format!("system:serviceaccount:{account}")).to_vec();
        let options = judge::Options { operate, ..judge::Options::default() };
        let report = judge::judge_files(&log, &file, &options).unwrap();
        assert!(report.is_clean(), "{report}");
        report
    }

    /// A service's namespace is sealed and empty, and by the audit log has been nothing else since it was isolated.
    pub async fn stays_sealed(&self, service: &str) {
        self.stays(service, "sealed").await;
        let name = self.namespace(service);
        let log = std::fs::read_to_string(self.cluster.audit_log()).unwrap();
        // Whole lines only: the API server may be writing the next one.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(&name));
        let mut labels = Vec::new();
        for event in lines.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let is_namespace =
                event["objectRef"]["resource"] == "namespaces" && event["objectRef"]["name"] == name;
            let dry_run = text(&event, "/requestURI").contains("dryRun");
            if is_namespace && !dry_run && event["responseObject"]["kind"] == "Namespace" {
                labels
                    .push(text(&event, "/responseObject/metadata/labels/resurgam.dev~1isolation").to_owned());
            }
        }
        let isolated: Vec<&String> = labels.iter().skip_while(|label| label.is_empty()).collect();
        assert!(!isolated.is_empty(), "the audit log does not show that {name} was isolated");
        assert!(isolated.iter().all(|label| *label == "sealed"), "{name}: {labels:?}");
    }

    /// The recovery lead's client.
    pub async fn lead(&self) -> Client {
        self.cluster.client(Identity::RecoveryLead).await.unwrap()
    }
}

pub fn quarantine(namespace: &str) -> Value {
    json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": namespace},
        "spec": {"isolation": "Sealed", "reason": "Shared network compromised", "incidentRef": {"name": "nov-2025"}},
    })
}

pub fn incident(name: &str) -> Value {
    json!({
        "apiVersion": KINDS, "kind": "Incident", "metadata": {"name": name},
        "spec": {"title": "Intrusion", "compromisedSince": "2025-11-17T00:00:00Z"},
    })
}

/// The recovery lead's, on something that nobody was asked, about service `web` of the case's plan `plan`.
pub fn decision(case: &str) -> Value {
    json!({
        "apiVersion": KINDS, "kind": "Decision", "metadata": {"name": case, "namespace": case},
        "spec": {"by": "recovery-lead", "plan": "plan", "service": "web", "action": "Retry", "reason": "a test",
            "decidedOn": format!("sha256:{}", "0a".repeat(32))},
    })
}

pub fn deployment(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": format!("registry.example/web:1@{DIGEST}")}]},
            },
        },
    })
}

pub fn role(kind: &str, name: &str, namespace: &str, rules: &Value) -> Value {
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules,
    });
    if kind == "Role" {
        role["metadata"]["namespace"] = json!(namespace);
    }
    role
}

pub fn binding(kind: &str, role: &str, namespace: &str, subjects: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": subjects,
    })
}
