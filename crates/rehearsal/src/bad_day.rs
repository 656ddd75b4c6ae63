//! The bad day of `examples/bad-day`: almost nothing goes as planned, and people decide, each as themselves.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::wait::{DEADLINE, condition, eventually, is_running, kind, text};
use crate::{Line, Operator, OperatorOptions, apply, documents, read, repository, three_boroughs};

const AT: &str = "examples/bad-day";
const KINDS: &str = "resurgam.dev/v1alpha1";
/// Namespace of the plan.
pub const NAMESPACE: &str = "recovery";
/// Name of the plan.
pub const PLAN: &str = "district";
/// What the attacker puts in the place of the database.
const FORGED: &str =
    "registry.example/database:1@sha256:0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c";

/// One run of the day.
pub struct BadDay<'a> {
    /// The cluster, with the product installed.
    pub cluster: &'a ControlPlane,
    /// The binary under test.
    pub binary: &'a Path,
    /// Who listens.
    pub tell: &'a (dyn Fn(Line) + Sync),
}

impl BadDay<'_> {
    /// Plays it. Returns the last operator, and the plan that was in force at the end, for the judge.
    ///
    /// # Errors
    /// Something did not come to pass in time, or was refused.
    pub async fn play(&self) -> Result<(Operator, String)> {
        self.scene("A district council's services run; the attacker was in one of them");
        self.lay_down().await?;
        // Nobody but this story starts it again: it must not lose its lease on a busy machine.
        let options =
            OperatorOptions { lease_seconds: 15, ..OperatorOptions::within(self.cluster, self.binary) };
        let operator = Operator::start(self.cluster, &options)?;

        self.scene("On-call staff isolate everything, and GitOps applies the plan");
        self.isolate().await?;
        self.amend(|_| {}).await?;

        self.scene("A step fails, starts again by itself, and fails again: a person is asked");
        self.asked("database", "StepFailed").await?;
        self.quote("database", &self.question("database").await?);
        self.attach().await?;
        self.decide(
            "recovery-lead",
            "database",
            "retry",
            &["--reason", "the volume with the dumps is attached"],
        )
        .await?;
        self.recovered("database").await?;

        self.scene("The database is back, and others have started on it, when the attacker swaps its image");
        self.asked("housing", "ApprovalNeeded").await?;
        self.swap(FORGED).await?;
        let contained = |o: &Value| text(o, "/status/history/0/reason") == "Contained";
        let record = self.record("database", "to isolate itself", contained).await?;
        self.quote("database", &format!("isolated itself: {}", text(&record, "/status/history/0/message")));
        let waits = |o: &Value| o.to_string().contains("\"reason\":\"Dependency\"");
        self.record("housing", "to wait for the database", waits).await?;
        self.quote("housing", "waits in its clean room, and opens nothing meanwhile");

        self.scene("The operator dies. What is isolated stays so, and the next one goes on where it was");
        operator.kill()?;
        let operator = Operator::start(self.cluster, &options)?;
        // Either the gate is asked first, or what its rollout was like when it was stopped.
        self.quote("database", &self.question("database").await?);
        self.swap("registry.example/database:1@sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1").await?;
        self.decide("recovery-lead", "database", "retry", &["--reason", "the approved image is back"])
            .await?;
        // Unless the rollout to the attacker's image was complete when it was stopped, two revisions served.
        let settles = |o: &Value| {
            condition(o, "Recovered") == "True"
                || text(o, "/status/decision/reason") == "RolloutNotRestorable"
        };
        let record = self.record("database", "to come back, or to ask about its rollout", settles).await?;
        if condition(&record, "Recovered") != "True" {
            let why = "the revision that starts is the approved one";
            self.decide("recovery-lead", "database", "override", &["--reason", why]).await?;
        }
        self.recovered("database").await?;

        self.scene("Two councils look at housing: one refuses at first");
        self.asked("housing", "ApprovalNeeded").await?;
        self.decide(
            "ana",
            "housing",
            "approve",
            &["--group", "district-leads", "--reason", "seen with the vendor"],
        )
        .await?;
        self.decide(
            "bo",
            "housing",
            "reject",
            &["--group", "county-leads", "--reason", "the tenancies of last week are missing"],
        )
        .await?;
        self.quote("housing", &self.question("housing").await?);
        self.decide(
            "bo",
            "housing",
            "approve",
            &["--group", "county-leads", "--reason", "they are there now"],
        )
        .await?;
        self.asked("housing", "ApprovalNeeded").await?;
        self.decide("ana", "housing", "approve", &["--group", "district-leads", "--reason", "seen again"])
            .await?;
        self.recovered("housing").await?;

        self.scene("Nobody can answer the ledger check any more: GitOps takes that gate out of the plan");
        let plan = self
            .amend(|plan| {
                let services = plan["spec"]["services"].as_array_mut();
                let payments = services.into_iter().flatten().find(|of| of["name"] == "payments");
                if let Some(gates) = payments.map(|payments| &mut payments["gates"]) {
                    gates["beforeRelease"] = json!([]);
                }
            })
            .await?;
        self.asked("payments", "Loosened").await?;
        self.quote("payments", &self.question("payments").await?);
        self.decide(
            "recovery-lead",
            "payments",
            "acceptloosening",
            &["--reason", "finance has counted by hand"],
        )
        .await?;
        self.recovered("payments").await?;

        self.scene(
            "The portal goes on without statistics, which are held up, and which the plan does not need",
        );
        self.recovered("portal").await?;

        self.scene("Forensics: the attacker was inside a month earlier than was thought");
        let incidents = kind(&self.cluster.client(Identity::RecoveryLead).await?, KINDS, "Incident", None);
        let earlier = json!({"spec": {"compromisedSince": "2026-10-20T03:00:00Z"}});
        incidents.patch("district-2026", &PatchParams::default(), &Patch::Merge(&earlier)).await?;
        for service in ["database", "housing", "payments", "portal"] {
            self.asked(service, "Superseded").await?;
            let why = "no gate of it looks at when something was made";
            self.decide("recovery-lead", service, "acceptexception", &["--reason", why]).await?;
            self.recovered(service).await?;
        }

        self.scene(
            "Recovered, with exceptions; one optional service stays isolated, and a person is asked about it",
        );
        let plans = kind(&self.admin().await?, KINDS, "RecoveryPlan", Some(NAMESPACE));
        let ends = |o: &Value| {
            let conditions = o.pointer("/status/conditions").and_then(Value::as_array);
            conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Recovered" && c["status"] == "True" && c["reason"] == "WithExceptions")
        };
        eventually(&plans, PLAN, "the plan to be recovered with exceptions", DEADLINE, ends).await?;
        for (service, exception) in self.exceptions().await? {
            self.quote(&service, &exception);
        }
        Ok((operator, plan))
    }

    fn scene(&self, what: &str) {
        (self.tell)(Line::Scene(what.to_owned()));
    }

    fn quote(&self, who: &str, what: &str) {
        (self.tell)(Line::Quote(who.to_owned(), what.to_owned()));
    }

    async fn admin(&self) -> Result<kube::Client> {
        self.cluster.client(Identity::PlatformAdministrator).await
    }

    /// Lays down the estate and the rights that `resurgam access` prints for the plan, and waits until everything runs.
    async fn lay_down(&self) -> Result<()> {
        let admin = self.admin().await?;
        let estate = read(&format!("{AT}/estate.yaml"))?;
        apply(&admin, "platform", &estate).await?;
        let plan = repository(&format!("{AT}/plan.yaml"));
        let out = tokio::process::Command::new(self.binary).arg("access").arg(plan).output().await?;
        ensure!(out.status.success(), "resurgam access: {}", String::from_utf8_lossy(&out.stderr));
        apply(&admin, "platform", &documents(std::str::from_utf8(&out.stdout)?)?).await?;
        for workload in estate.iter().filter(|object| object["kind"] == "Deployment") {
            let (name, namespace) = (text(workload, "/metadata/name"), text(workload, "/metadata/namespace"));
            let api = kind(&admin, "apps/v1", "Deployment", Some(namespace));
            eventually(&api, name, "to run", DEADLINE, |object| is_running("Deployment", object)).await?;
        }
        Ok(())
    }

    async fn isolate(&self) -> Result<()> {
        let (incident, quarantines): (Vec<Value>, Vec<Value>) =
            read(&format!("{AT}/day.yaml"))?.into_iter().partition(|object| object["kind"] == "Incident");
        apply(&self.cluster.client(Identity::RecoveryLead).await?, "lead", &incident).await?;
        apply(&self.cluster.client(Identity::Responder).await?, "on-call", &quarantines).await?;
        for quarantine in &quarantines {
            three_boroughs::isolated(self.cluster, text(quarantine, "/metadata/name")).await?;
        }
        Ok(())
    }

    /// Applies the plan as GitOps, changed. Returns it.
    async fn amend(&self, change: impl FnOnce(&mut Value)) -> Result<String> {
        let mut plan = read(&format!("{AT}/plan.yaml"))?.remove(0);
        change(&mut plan);
        apply(&self.cluster.client(Identity::GitOps).await?, "gitops", std::slice::from_ref(&plan)).await?;
        Ok(plan.to_string())
    }

    /// The volume with the dumps is attached to a node.
    async fn attach(&self) -> Result<()> {
        let nodes = kind(&self.admin().await?, "v1", "Node", None);
        let all = nodes.list(&ListParams::default()).await?;
        let node =
            all.items.first().and_then(|node| node.metadata.name.clone()).context("there is no node")?;
        let patch = json!({"metadata": {"labels": {"district.example/dumps": "attached"}}});
        nodes.patch(&node, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Changes the database's image: the attacker while it is open, the recovery lead while it is isolated.
    async fn swap(&self, image: &str) -> Result<()> {
        let who = if image == FORGED { Identity::PlatformAdministrator } else { Identity::RecoveryLead };
        let deployments =
            kind(&self.cluster.client(who).await?, "apps/v1", "Deployment", Some("district-database"));
        let patch =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
        deployments.patch("database", &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        Ok(())
    }

    async fn record(
        &self,
        service: &str,
        what: &str,
        is_it: impl Fn(&Value) -> bool + Send,
    ) -> Result<Value> {
        let records = kind(&self.admin().await?, KINDS, "ServiceRecovery", Some(NAMESPACE));
        eventually(&records, &format!("{PLAN}.{service}"), &format!("{service} {what}"), DEADLINE, is_it)
            .await
    }

    async fn asked(&self, service: &str, reason: &str) -> Result<Value> {
        let asks = |o: &Value| text(o, "/status/decision/reason") == reason;
        self.record(service, &format!("to ask: {reason}"), asks).await
    }

    async fn recovered(&self, service: &str) -> Result<()> {
        let is_back = |o: &Value| {
            condition(o, "Recovered") == "True"
                && condition(o, "Healthy") == "True"
                && condition(o, "NeedsDecision") == "False"
        };
        self.record(service, "to be recovered and healthy", is_back).await?;
        self.quote(service, "recovered, and its gates pass");
        Ok(())
    }

    async fn question(&self, service: &str) -> Result<String> {
        let record = self.record(service, "to ask", |o| condition(o, "NeedsDecision") == "True").await?;
        let conditions = record.pointer("/status/conditions").and_then(Value::as_array);
        let asks = conditions.into_iter().flatten().find(|c| c["type"] == "NeedsDecision");
        Ok(asks.map(|c| text(c, "/message").to_owned()).unwrap_or_default())
    }

    /// `resurgam decide`, as somebody, which takes effect.
    async fn decide(&self, who: &str, service: &str, action: &str, more: &[&str]) -> Result<()> {
        let kubeconfig = match who {
            "ana" => self.person(who, "district-leads")?,
            "bo" => self.person(who, "county-leads")?,
            _ => self.cluster.kubeconfig(Identity::RecoveryLead).to_owned(),
        };
        let ran = tokio::process::Command::new(self.binary)
            .args(["decide", service, action, "-n", NAMESPACE, "--yes", "--wait", "60s"])
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .output()
            .await?;
        let out = String::from_utf8_lossy(&ran.stdout);
        ensure!(
            ran.status.success(),
            "{who}: resurgam decide {service} {action}: {out}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        self.quote(who, &format!("resurgam decide {service} {action} {}", more.join(" ")));
        self.quote("", out.lines().last().unwrap_or_default());
        Ok(())
    }

    /// A kubeconfig of somebody in a group.
    fn person(&self, name: &str, group: &str) -> Result<PathBuf> {
        let admin = std::fs::read_to_string(self.cluster.kubeconfig(Identity::PlatformAdministrator))?;
        let mut config = documents(&admin)?.remove(0);
        config["users"][0]["user"]["as"] = json!(name);
        config["users"][0]["user"]["as-groups"] = json!([group, "system:authenticated"]);
        let path = self.cluster.dir().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    async fn exceptions(&self) -> Result<Vec<(String, String)>> {
        let records = kind(&self.admin().await?, KINDS, "ServiceRecovery", Some(NAMESPACE));
        let mut all = Vec::new();
        for record in records.list(&ListParams::default()).await?.items {
            let record = serde_json::to_value(record)?;
            let of = record.pointer("/status/exceptions").and_then(Value::as_array).cloned();
            let service = text(&record, "/spec/service").to_owned();
            all.extend(
                of.into_iter().flatten().filter_map(|e| Some((service.clone(), e.as_str()?.to_owned()))),
            );
        }
        Ok(all)
    }
}
