//! Many services of which one in ten fails at random: at the end each is recovered, or waits for a failed one that it depends on.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use control_plane::{ControlPlane, Identity};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::wait::{condition, eventually, is_running, kind, text};
use crate::{Operator, OperatorOptions, SplitMix, apply};

const KINDS: &str = "resurgam.dev/v1alpha1";
const NAMESPACE: &str = "many";
const PLAN: &str = "many";
const DIGEST: &str = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";
/// Objects that are waited for at a time.
const AT_ONCE: usize = 16;

/// How a service fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its image is on no list: a gate before restore fails.
    Image,
    /// Its Job ends badly: a step fails.
    Step,
    /// What runs is not fit: a gate before release fails.
    Unfit,
}

/// One service.
#[derive(Clone, Debug)]
struct Service {
    depends_on: Vec<usize>,
    failure: Option<Failure>,
}

/// A plan of many services.
#[derive(Clone, Debug)]
pub struct Many {
    services: Vec<Service>,
    deadline: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Services that failed.
    pub failed: usize,
    /// Services that recovered.
    pub recovered: usize,
    /// Services that wait for one that failed.
    pub held_up: usize,
}

fn name(service: usize) -> String {
    format!("many-{service}")
}

impl Many {
    /// Returns a plan of so many services, of which about one in ten fails: dependencies and failures follow from the seed.
    #[must_use]
    pub fn new(services: usize, seed: u64, deadline: Duration) -> Self {
        let mut random = SplitMix::new(seed);
        let service = |id: usize| {
            let mut below = |to: u64| random.between(0, to);
            let count = if id == 0 { 0 } else { below(3) };
            let depends_on: BTreeSet<usize> =
                (0..count).map(|_| usize::try_from(below(id as u64)).unwrap_or(0)).collect();
            let failure = match below(30) {
                0 => Some(Failure::Image),
                1 => Some(Failure::Step),
                2 => Some(Failure::Unfit),
                _ => None,
            };
            Service { depends_on: depends_on.into_iter().collect(), failure }
        };
        Self { services: (0..services).map(service).collect(), deadline }
    }

    /// Returns the failed services that a service waits for, directly or not; itself if it fails.
    fn roots(&self, service: usize) -> BTreeSet<usize> {
        let of = &self.services[service];
        let above: BTreeSet<usize> = of.depends_on.iter().flat_map(|&on| self.roots(on)).collect();
        if above.is_empty() && of.failure.is_some() { BTreeSet::from([service]) } else { above }
    }

    /// Plays it on a cluster with the product installed, and checks how every service ended. Returns also the last operator and the plan, for
    /// the judge.
    ///
    /// # Errors
    /// A service ended otherwise than it should, or not in time.
    pub async fn play(
        &self,
        cluster: &ControlPlane,
        binary: &Path,
        tell: &(dyn Fn(String) + Sync),
    ) -> Result<(Outcome, Operator, String)> {
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        apply(&admin, "platform", &self.estate()).await?;
        let runs = |id: usize| {
            let api = kind(&admin, "apps/v1", "Deployment", Some(&name(id)));
            let runs = |object: &Value| is_running("Deployment", object);
            async move { eventually(&api, "web", &format!("{} to run", name(id)), self.deadline, runs).await }
        };
        self.each(runs).await?;
        tell(format!("{} services run", self.services.len()));
        // Nobody starts it again if it loses its lease on a busy machine.
        let options = OperatorOptions { lease_seconds: 60, ..OperatorOptions::within(cluster, binary) };
        let operator = Operator::start(cluster, &options)?;
        apply(&cluster.client(Identity::Responder).await?, "on-call", &self.quarantines()).await?;
        let quarantines = kind(&admin, KINDS, "Quarantine", None);
        let isolated = |id: usize| {
            let (quarantines, is_ready) = (quarantines.clone(), |o: &Value| condition(o, "Ready") == "True");
            async move { eventually(&quarantines, &name(id), "to be isolated", self.deadline, is_ready).await }
        };
        self.each(isolated).await?;
        tell("everything is isolated".to_owned());
        let plan = self.plan();
        apply(&cluster.client(Identity::GitOps).await?, "gitops", std::slice::from_ref(&plan)).await?;
        let records = kind(&admin, KINDS, "ServiceRecovery", Some(NAMESPACE));
        let ended = |id: usize| {
            let (records, roots) = (records.clone(), self.roots(id));
            async move {
                let record = format!("{PLAN}.{}", name(id));
                let roots: Vec<String> = roots.into_iter().map(name).collect();
                let is_so = |o: &Value| match roots.is_empty() {
                    true => condition(o, "Recovered") == "True" && condition(o, "Healthy") == "True",
                    false => roots.iter().any(|root| text(o, "/status/heldUpBy") == root),
                };
                let what = match roots.is_empty() {
                    true => format!("{record} to recover"),
                    false => format!("{record} to wait for one of {}", roots.join(", ")),
                };
                let found = eventually(&records, &record, &what, self.deadline, is_so).await?;
                ensure!(
                    roots.is_empty() || condition(&found, "Recovered") == "False",
                    "{record} is open, and waits for {}",
                    roots.join(", ")
                );
                anyhow::Ok(found)
            }
        };
        self.each(ended).await?;
        let mut outcome = Outcome::default();
        for id in 0..self.services.len() {
            let roots = self.roots(id);
            outcome.failed += usize::from(roots.contains(&id));
            outcome.recovered += usize::from(roots.is_empty());
            outcome.held_up += usize::from(!roots.is_empty() && !roots.contains(&id));
        }
        Ok((outcome, operator, plan.to_string()))
    }

    async fn each<T, F: Future<Output = Result<T>>>(&self, wait: impl Fn(usize) -> F) -> Result<()> {
        let all = (0..self.services.len()).map(wait);
        stream::iter(all).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }

    fn estate(&self) -> Vec<Value> {
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": NAMESPACE}]);
        let operator =
            json!([{"kind": "ServiceAccount", "name": "resurgam", "namespace": "resurgam-system"}]);
        let names: Vec<String> = (0..self.services.len()).map(name).collect();
        let rbac = "rbac.authorization.k8s.io/v1";
        let restore = json!([
            {"apiGroups": ["", "apps", "batch"], "verbs": ["get", "list", "watch"],
                "resources": ["pods", "replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs", "jobs"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]},
            {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
        ]);
        let recover = json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": names, "verbs": ["recover"]}]);
        let impersonate = json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["recovery"], "verbs": ["impersonate"]}]);
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "recovery", "namespace": NAMESPACE}}),
            json!({"apiVersion": KINDS, "kind": "Incident", "metadata": {"name": "many"},
                "spec": {"title": "Intrusion", "compromisedSince": "2025-11-17T00:00:00Z"}}),
            json!({"apiVersion": rbac, "kind": "Role", "metadata": {"name": "impersonate", "namespace": NAMESPACE}, "rules": impersonate}),
            json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": "impersonate", "namespace": NAMESPACE},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "impersonate"}, "subjects": operator}),
        ];
        for (role, rules) in [("many-restore", restore), ("many-recover", recover)] {
            all.push(json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules}));
            all.push(json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": account}));
        }
        for (id, service) in self.services.iter().enumerate() {
            let digest = match service.failure {
                Some(Failure::Image) => format!("sha256:{}", "0b".repeat(32)),
                _ => DIGEST.to_owned(),
            };
            let fit = if service.failure == Some(Failure::Unfit) { "no" } else { "yes" };
            all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name(id)}}));
            all.push(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": name(id), "labels": {"fit": fit}},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": format!("registry.example/web:1@{digest}")}]}}},
            }));
        }
        all
    }

    fn quarantines(&self) -> Vec<Value> {
        let quarantine = |id: usize| {
            json!({"apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": name(id)},
                "spec": {"isolation": "Sealed", "reason": "Intrusion", "incidentRef": {"name": "many"}}})
        };
        (0..self.services.len()).map(quarantine).collect()
    }

    fn plan(&self) -> Value {
        let service = |(id, of): (usize, &Service)| {
            let depends_on: Vec<String> = of.depends_on.iter().copied().map(name).collect();
            let mut service = json!({"name": name(id), "dependsOn": depends_on});
            if of.failure == Some(Failure::Step) {
                let job = json!({"backoffLimit": 0, "activeDeadlineSeconds": 1, "template": {"spec": {
                    "restartPolicy": "Never", "nodeSelector": {"many.example/none": "true"},
                    "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}}});
                service["restore"] = json!([{"name": "load", "job": {"spec": job}}]);
            }
            if of.failure == Some(Failure::Unfit) {
                service["gates"] = json!({"beforeRelease": [{"name": "fit", "failureLimit": 1, "interval": "1s", "startupGrace": "0s",
                    "condition": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "cel": "object.metadata.labels.fit == 'yes'"}}]});
            }
            service
        };
        let services: Vec<Value> = self.services.iter().enumerate().map(service).collect();
        json!({
            "apiVersion": KINDS, "kind": "RecoveryPlan", "metadata": {"name": PLAN, "namespace": NAMESPACE},
            "spec": {
                "incidentRef": {"name": "many"}, "serviceAccountName": "recovery", "maxParallel": 50,
                "defaults": {"gates": {
                    "beforeRestore": [{"name": "images", "imageDigests": {"approved": [DIGEST]}, "failureLimit": 1}],
                    "beforeRelease": [{"name": "up", "workloads": {}, "interval": "1s"}],
                }},
                "services": services,
            },
        })
    }
}
