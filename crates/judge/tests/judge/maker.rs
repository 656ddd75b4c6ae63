//! Logs, made by hand: a run that keeps every promise, event by event, each under a name by which a test changes just it.

use std::collections::BTreeMap;

use judge::{CannotJudge, Options, Report, Rule, judge};
use serde_json::{Value, json};

pub const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
pub const ACCOUNT: &str = "system:serviceaccount:recovery:recovery";
pub const REPLICASETS: &str = "system:serviceaccount:kube-system:replicaset-controller";
pub const FLUX: &str = "system:serviceaccount:flux-system:kustomize-controller";
pub const ADMIN: &str = "platform-administrator";
pub const LEAD: &str = "recovery-lead";

/// `web` waits for the group of `db` and `dns`; `db`'s edge to `dns` is within the group.
pub const PLAN: &str = "
apiVersion: resurgam.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: p, namespace: recovery}
spec:
  maxParallel: 2
  serviceAccountName: recovery
  defaults:
    gates:
      beforeRestore: [{name: images, imageDigests: {}}]
      beforeRelease: [{name: up, workloads: {}}]
      continuous: [{name: up, workloads: {}}]
  services:
  - {name: db, together: core, dependsOn: [dns]}
  - {name: dns, together: core}
  - {name: web, namespaces: [web-a, web-b], dependsOn: [db]}
";

/// A log in the making: a clock, the store's revision, and everything as it was last written.
#[derive(Default)]
pub struct Maker {
    /// Each event, with the name that tests know it by.
    pub events: Vec<(String, Value)>,
    pub ms: u64,
    pub revision: u64,
    pub objects: BTreeMap<String, Value>,
}

pub fn time(ms: u64) -> String {
    format!("2026-11-23T20:{:02}:{:02}.{:03}000Z", ms / 60_000, ms / 1000 % 60, ms % 1000)
}

pub fn namespaces(service: &str) -> &'static [&'static str] {
    match service {
        "web" => &["web-a", "web-b"],
        "db" => &["db"],
        "dns" => &["dns"],
        _ => &[],
    }
}

impl Maker {
    pub fn at(&mut self, ms: u64) -> &mut Self {
        self.ms = ms;
        self
    }

    /// One event, answered at once; the clock goes on by a millisecond.
    pub fn event(
        &mut self,
        tag: &str,
        user: &str,
        verb: &str,
        object: Value,
        answer: (u16, Value),
    ) -> &mut Self {
        let (code, response) = answer;
        let account = if user == ACCOUNT { OPERATOR } else { user };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "x",
            "stage": "ResponseComplete", "requestURI": "/x?fieldManager=y", "verb": verb,
            "user": {"username": account, "groups": ["system:authenticated"]}, "objectRef": object,
            "responseStatus": {"metadata": {}, "code": code}, "responseObject": response,
            "requestReceivedTimestamp": time(self.ms), "stageTimestamp": time(self.ms),
        });
        if user == ACCOUNT {
            event["impersonatedUser"] = json!({"username": user});
        }
        self.events.push((tag.to_owned(), event));
        self.ms += 1;
        self
    }

    /// A write that makes the next revision of an object of what it was. The key is `resource/namespace/name`.
    pub fn write(&mut self, tag: &str, user: &str, key: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        let parts: Vec<&str> = key.split('/').collect();
        let (resource, namespace, name) = (parts[0], parts[1], parts[2]);
        let kind = match resource {
            "namespaces" => "Namespace",
            "servicerecoveries" => "ServiceRecovery",
            "quarantines" => "Quarantine",
            "recoveryplans" => "RecoveryPlan",
            "decisions" => "Decision",
            "pods" => "Pod",
            "deployments" => "Deployment",
            "cronjobs" => "CronJob",
            "networkpolicies" => "NetworkPolicy",
            "serviceaccounts" => "ServiceAccount",
            "jobs" => "Job",
            "configmaps" => "ConfigMap",
            "databases" => "Database",
            other => panic!("{other}"),
        };
        let before = self.objects.get(key).cloned();
        let (verb, code) = if before.is_some() { ("patch", 200) } else { ("create", 201) };
        let mut body = before.clone().unwrap_or_else(|| {
            json!({"kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-of-{key}")}})
        });
        let was = body["spec"].clone();
        change(&mut body);
        self.revision += 1;
        body["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if body["spec"] != was {
            body["metadata"]["generation"] = json!(body["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
        }
        self.objects.insert(key.to_owned(), body.clone());
        self.event(tag, user, verb, reference(key), (code, body.clone()));
        // What was sent: all of it, over what it was.
        let mut request = body;
        let kept = |key: &str| request["metadata"].get(key).cloned().unwrap_or_default();
        request["metadata"] =
            json!({"name": name, "labels": kept("labels"), "annotations": kept("annotations")});
        if let Some(before) = before {
            request["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        }
        let last = self.events.last_mut().unwrap();
        last.1["requestObject"] = request;
        self
    }

    pub fn delete(&mut self, tag: &str, user: &str, key: &str) -> &mut Self {
        self.objects.remove(key);
        self.event(tag, user, "delete", reference(key), (200, json!({"kind": "Status"})))
    }

    /// A read of one object, with its answer.
    pub fn read(&mut self, tag: &str, user: &str, key: &str) -> &mut Self {
        let found = self.objects.get(key).cloned();
        let answer = found.map_or_else(|| (404, json!({"kind": "Status"})), |body| (200, body));
        self.event(tag, user, "get", reference(key), answer)
    }

    pub fn list(&mut self, tag: &str, user: &str, resource: &str, namespace: &str) -> &mut Self {
        let object = json!({"resource": resource, "namespace": namespace});
        self.event(tag, user, "list", object, (200, Value::Null))
    }

    /// The operator's Lease, renewed by this replica at a time that its clock tells.
    pub fn lease(&mut self, holder: &str, told: u64) -> &mut Self {
        let object =
            json!({"resource": "leases", "apiGroup": "coordination.k8s.io", "namespace": "x", "name": "x"});
        let lease = json!({"spec": {"holderIdentity": holder, "renewTime": time(told)}});
        self.event("lease", OPERATOR, "patch", object, (200, lease))
    }

    /// Changes the events of this name; there must be one.
    pub fn change(&mut self, tag: &str, change: impl Fn(&mut Value)) -> &mut Self {
        let mut found = self.events.iter_mut().filter(|(name, _)| name == tag).peekable();
        assert!(found.peek().is_some(), "no event '{tag}'");
        found.for_each(|(_, event)| change(event));
        self
    }

    /// Takes out the events of this name; there must be one.
    pub fn without(&mut self, tag: &str) -> &mut Self {
        let before = self.events.len();
        self.events.retain(|(name, _)| name != tag);
        assert!(self.events.len() < before, "no event '{tag}'");
        self
    }

    pub fn text(&self) -> String {
        self.events.iter().map(|(_, event)| format!("{event}\n")).collect()
    }

    pub fn judge(&self) -> Result<Report, CannotJudge> {
        self.judge_with(PLAN, &Options::default())
    }

    pub fn judge_with(&self, plan: &str, options: &Options) -> Result<Report, CannotJudge> {
        judge(self.text().as_bytes(), plan, options)
    }

    /// The rules that are broken.
    pub fn rules(&self) -> Vec<Rule> {
        self.judge().unwrap().violations.iter().map(|v| v.rule).collect()
    }

    /// What is wrong, one a line.
    pub fn messages(&self) -> String {
        let report = self.judge().unwrap();
        report.violations.iter().map(|v| format!("{}: {}\n", v.rule, v.message)).collect()
    }
}

/// The `objectRef` of a key.
pub fn reference(key: &str) -> Value {
    let parts: Vec<&str> = key.split('/').collect();
    let group = match parts[0] {
        "servicerecoveries" | "quarantines" | "recoveryplans" | "decisions" => "resurgam.dev",
        "deployments" => "apps",
        "jobs" => "batch",
        "databases" => "example.org",
        "cronjobs" => "batch",
        "networkpolicies" => "networking.k8s.io",
        _ => "",
    };
    let namespace = if parts[0] == "namespaces" { parts[2] } else { parts[1] };
    json!({"resource": parts[0], "namespace": namespace, "name": parts[2], "apiGroup": group})
}

impl Maker {
    /// Everything made and sealed, and the plan armed.
    pub fn sealed() -> Self {
        let mut log = Self::default();
        for ns in ["db", "dns", "web-a", "web-b"] {
            log.write("made", ADMIN, &format!("namespaces//{ns}"), |_| {});
            log.write("account", ADMIN, &format!("serviceaccounts/{ns}/app"), |_| {});
            log.write("policy", ADMIN, &format!("networkpolicies/{ns}/allow"), |_| {});
            log.write("workload", ADMIN, &format!("deployments/{ns}/app"), |o| {
                o["spec"] = json!({"replicas": 2})
            });
            log.pod(&format!("first pod {ns}"), REPLICASETS, ns);
            log.write("isolated", "on-call", &format!("quarantines//{ns}"), |o| {
                o["spec"] = json!({"isolation": "Sealed"})
            });
        }
        for ns in ["db", "dns", "web-a", "web-b"] {
            log.label(&format!("seal {ns}"), OPERATOR, ns, "sealed");
            log.delete(&format!("policy away {ns}"), OPERATOR, &format!("networkpolicies/{ns}/allow"));
            log.write(&format!("stop {ns}"), OPERATOR, &format!("deployments/{ns}/app"), |o| {
                o["metadata"]["annotations"] =
                    json!({"resurgam.dev/seal": "s", "resurgam.dev/replicas": "2"});
                o["spec"]["replicas"] = json!(0);
            });
            log.delete(&format!("account away {ns}"), OPERATOR, &format!("serviceaccounts/{ns}/app"));
            log.write(&format!("account back {ns}"), OPERATOR, &format!("serviceaccounts/{ns}/app"), |_| {});
        }
        log.write("plan", ADMIN, "recoveryplans/recovery/p", |o| o["metadata"]["uid"] = json!("u-1"));
        for service in ["db", "dns", "web"] {
            log.write(&format!("{service} begun"), OPERATOR, &key(service), |o| {
                o["spec"] = json!({"attempt": 1, "planRef": {"name": "p", "uid": "u-1"}, "service": service});
                o["status"] = json!({"attempt": 1, "stage": "Isolated"});
            });
        }
        log.at(5_000);
        log
    }

    pub fn pod(&mut self, tag: &str, user: &str, namespace: &str) -> &mut Self {
        self.objects.remove(&format!("pods/{namespace}/app-x"));
        self.write(tag, user, &format!("pods/{namespace}/app-x"), |_| {})
    }

    pub fn label(&mut self, tag: &str, user: &str, namespace: &str, level: &str) -> &mut Self {
        self.write(tag, user, &format!("namespaces//{namespace}"), |o| {
            o["metadata"]["labels"] =
                if level.is_empty() { json!({}) } else { json!({"resurgam.dev/isolation": level}) };
        });
        if level.is_empty() {
            let last = self.events.last_mut().unwrap();
            last.1["requestObject"]["metadata"]["labels"] = json!({"resurgam.dev/isolation": null});
        }
        self
    }

    /// A service's status, by the operator.
    pub fn status(&mut self, tag: &str, service: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        self.write(tag, OPERATOR, &key(service), |o| change(&mut o["status"]))
    }

    /// The conditions that are true; the others are said to be false.
    pub fn conditions(&mut self, tag: &str, service: &str, stage: &str, truths: &[&str]) -> &mut Self {
        self.status(tag, service, |status| {
            status["stage"] = json!(stage);
            status["conditions"] = conditions(truths);
        })
    }

    /// Claimed, and its gates before restore are asked.
    pub fn begin(&mut self, service: &str, attempt: u64) -> &mut Self {
        for ns in namespaces(service) {
            self.write(&format!("claim {ns}"), OPERATOR, &format!("quarantines//{ns}"), |o| {
                o["status"]["claimedBy"] = json!({"plan": "p", "planNamespace": "recovery", "planUid": "u-1",
                    "service": service, "attempt": attempt});
            });
        }
        let now = time(self.ms / 1000 * 1000);
        self.status(&format!("{service} claimed"), service, |status| {
            *status = json!({"attempt": attempt, "stage": "PreChecks", "claimedAt": now, "conditions": conditions(&[])});
        })
    }

    /// What gates look at.
    pub fn look(&mut self, tag: &str, service: &str) -> &mut Self {
        for ns in namespaces(service) {
            self.list(tag, ACCOUNT, "pods", ns);
        }
        self
    }

    /// Every dependency is read live.
    pub fn live(&mut self, tag: &str, service: &str) -> &mut Self {
        let on: &[&str] = if service == "web" { &["db"] } else { &[] };
        for dependency in on {
            self.read(tag, OPERATOR, &key(dependency));
        }
        self
    }

    fn gate(&mut self, service: &str, phase: &str, name: &str) {
        let (now, attempt_gate) = (time(self.ms), format!("{service} {phase}"));
        let stage = if phase == "BeforeRestore" { "Restoring" } else { "Reconnecting" };
        self.status(&attempt_gate, service, |status| {
            let said = json!({"phase": phase, "name": name, "verdict": "Pass", "since": now});
            match status["gates"].as_array_mut() {
                Some(gates) => gates.push(said),
                None => status["gates"] = json!([said]),
            }
            status["stage"] = json!(stage);
            let state = if stage == "Restoring" { "Running" } else { "Done" };
            status["steps"] = json!([{"name": "start", "state": state}]);
        });
    }

    fn ask(&mut self, service: &str, level: &str) {
        self.live(&format!("{service} reads for {level}"), service);
        self.write(&format!("{service} asks for {level}"), OPERATOR, &key(service), |o| {
            o["spec"]["attempt"] = o["status"]["attempt"].clone();
            o["spec"]["isolation"] = json!(level);
        });
    }

    /// Its gates pass; into the clean room.
    pub fn enter(&mut self, service: &str) -> &mut Self {
        self.look(&format!("{service} looks before restore"), service);
        self.gate(service, "BeforeRestore", "images");
        self.ask(service, "CleanRoom");
        for ns in namespaces(service) {
            self.label(&format!("clean room {ns}"), OPERATOR, ns, "clean-room");
        }
        self
    }

    /// Its step.
    pub fn step(&mut self, service: &str) -> &mut Self {
        self.live(&format!("{service} reads for its step"), service);
        for ns in namespaces(service) {
            self.write(&format!("step {ns}"), ACCOUNT, &format!("deployments/{ns}/app"), |o| {
                o["spec"]["replicas"] = json!(2)
            });
            self.pod(&format!("pod {ns}"), REPLICASETS, ns);
        }
        self
    }

    /// Its gates pass; out of the clean room.
    pub fn open(&mut self, service: &str) -> &mut Self {
        self.look(&format!("{service} looks before release"), service);
        self.gate(service, "BeforeRelease", "up");
        self.ask(service, "Open");
        for ns in namespaces(service) {
            self.write(
                &format!("policy back {ns}"),
                OPERATOR,
                &format!("networkpolicies/{ns}/allow"),
                |_| {},
            );
            self.label(&format!("open {ns}"), OPERATOR, ns, "");
        }
        self
    }

    pub fn recovered(&mut self, service: &str) -> &mut Self {
        self.look(&format!("{service} looks on"), service);
        self.conditions(&format!("{service} recovered"), service, "Recovered", &["Recovered", "Healthy"])
    }

    /// The whole way of a service.
    pub fn recover(&mut self, service: &str, from: u64, to: u64) -> &mut Self {
        self.at(from).begin(service, 1).enter(service).step(service).open(service).at(to).recovered(service)
    }

    /// The group is recovered, in 2 s.
    pub fn core() -> Self {
        let mut log = Self::sealed();
        log.recover("dns", 10_000, 11_000).recover("db", 10_100, 12_000);
        log
    }

    /// A run without fault: the group, then `web` after 10 ms in 3 s.
    pub fn clean() -> Self {
        let mut log = Self::core();
        log.recover("web", 12_010, 15_010);
        log
    }
}

pub fn key(service: &str) -> String {
    format!("servicerecoveries/recovery/p.{service}")
}

pub fn conditions(truths: &[&str]) -> Value {
    let condition = |type_: &&str| json!({"type": type_, "status": if truths.contains(type_) { "True" } else { "False" }});
    ["Recovered", "Healthy", "NeedsDecision"].iter().map(condition).collect()
}
