//! Trials: isolate, check, release, compare.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::{DeleteParams, DynamicObject};
use serde_json::{Value, json};

use super::check::{Attempts, Violations, status_errors, violations};
use super::inventory::{differences, inventory};
use super::scene::LOOK;
use super::{Promise, Sabotage, Scene, Trick};
use crate::{DEADLINE, apply, await_condition, eventually, field, kind, object};

/// Time limit for all promises to hold, and for the command. These limits tell slow from stuck on a machine with a hundred other tests
/// at work; how fast something was is in the report.
const HOLD: Duration = Duration::from_secs(240);
/// Time limit for a control to be enforced after the webhook that blocked it is removed.
const MEND: Duration = Duration::from_secs(120);
/// Time limit for a release.
const RELEASE: Duration = Duration::from_secs(300);
/// Risks that the command accepts: a webhook that is down is no reason not to isolate.
const RISKS: &str = "gitops,evidence,webhook,apiservice,login,plan-account,leases,unknown";

/// Result of one namespace.
#[derive(Clone, Debug)]
pub struct Report {
    /// Tricks in the namespace.
    pub sabotage: Sabotage,
    /// Time after the request for isolation at which each promise was first observed to hold.
    pub held: BTreeMap<Promise, Duration>,
    /// Violations. Empty: none.
    pub wrong: Vec<String>,
    /// Status of the Quarantine at that time, and the command's output.
    pub said: String,
}

impl Report {
    /// Returns whether there are no violations.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Returns the time of each promise on one line.
    #[must_use]
    pub fn times(&self) -> String {
        let times =
            self.held.iter().map(|(promise, after)| format!("{promise} {:.1} s", after.as_secs_f64()));
        times.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sabotage)?;
        writeln!(f, "  held: {}", self.times())?;
        for wrong in &self.wrong {
            writeln!(f, "  wrong: {}", wrong.replace('\n', "\n         "))?;
        }
        if !self.is_right() && !self.said.is_empty() {
            writeln!(f, "  said: {}", self.said.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

/// Sabotages a namespace, isolates it with the running operator, checks it, releases it and compares. A namespace without violations is
/// removed; another one is kept for inspection, without its webhooks.
///
/// # Errors
/// The trial cannot be run. Violations by the operator are in the report.
pub async fn with_operator(cluster: &ControlPlane, sabotage: &Sabotage) -> Result<Report> {
    let trial = async {
        let trial = Trial::lay_down(cluster, &format!("saboteur-{}", sabotage.name), sabotage).await?;
        trial.isolate_and_release().await
    };
    trial.await.with_context(|| sabotage.to_string())
}

/// Sabotages a namespace, isolates it by the command without an operator, and checks the command's promises and its output.
///
/// # Errors
/// The trial cannot be run. Violations by the command are in the report.
pub async fn by_command(cluster: &ControlPlane, binary: &Path, sabotage: &Sabotage) -> Result<Report> {
    let trial = async {
        let trial = Trial::lay_down(cluster, &alone(sabotage), sabotage).await?;
        trial.command(binary).await
    };
    trial.await.with_context(|| sabotage.to_string())
}

/// Releases a namespace that the command isolated, with the running operator, and removes it.
///
/// # Errors
/// The namespace is not released in time, or the API server denied something.
pub async fn clean_up(cluster: &ControlPlane, sabotage: &Sabotage) -> Result<()> {
    let scene = Scene::at(cluster, &alone(sabotage)).await?;
    let trial = Trial { scene, sabotage: sabotage.clone() };
    // Deleted before an operator has adopted it, a Quarantine is gone at once, and lets nothing out.
    let quarantines = kind(&trial.scene.admin, "resurgam.dev/v1alpha1", "Quarantine", None);
    let what = format!("an operator to adopt Quarantine {}", trial.scene.namespace());
    let adopted = |q: &Value| field(q, "/metadata/finalizers").as_array().is_some_and(|all| !all.is_empty());
    eventually(&quarantines, trial.scene.namespace(), &what, DEADLINE, adopted).await?;
    let mut report = trial.report();
    trial.release(&mut report).await?;
    ensure!(report.is_right(), "{report}");
    trial.scene.remove().await
}

/// Returns the namespace that the command isolates.
fn alone(sabotage: &Sabotage) -> String {
    format!("saboteur-alone-{}", sabotage.name)
}

struct Trial<'a> {
    scene: Scene<'a>,
    sabotage: Sabotage,
}

/// Last observation.
struct Observed {
    violations: Violations,
    status_errors: Vec<String>,
}

impl<'a> Trial<'a> {
    async fn lay_down(cluster: &'a ControlPlane, namespace: &str, sabotage: &Sabotage) -> Result<Self> {
        let mut scene = Scene::lay_down(cluster, namespace).await?;
        scene.plant(&sabotage.tricks).await?;
        Ok(Self { scene, sabotage: sabotage.clone() })
    }

    async fn isolate_and_release(self) -> Result<Report> {
        let scene = &self.scene;
        let before = inventory(scene).await?;
        let began = Instant::now();
        self.isolate().await?;
        let mut report = self.report();
        let standing = self.standing(true);
        let observed = self.until_held(&mut report, began, began + HOLD, &standing).await?;
        self.accuse(&mut report, &observed, &standing, HOLD).await?;
        if report.is_right() {
            let earnest =
                violations(scene, &standing, &[Promise::WritesRefused], Attempts::InEarnest).await?;
            if !earnest.broken().is_empty() {
                report.wrong.push(format!("not as a dry-run: {earnest}"));
            }
        }
        scene.remove_webhooks().await?;
        let left = self.standing(false);
        if report.is_right() && left != standing {
            let gone = Instant::now();
            let observed = self.until_held(&mut report, began, gone + MEND, &left).await?;
            self.accuse(&mut report, &observed, &left, MEND).await?;
        }
        if report.is_right() {
            self.release(&mut report).await?;
        }
        if report.is_right() {
            let after = inventory(scene).await?;
            report.wrong.extend(differences(scene, &before, &after).await?);
        }
        if report.is_right() {
            scene.remove().await?;
        }
        Ok(report)
    }

    fn report(&self) -> Report {
        let sabotage = self.sabotage.clone();
        Report { sabotage, held: BTreeMap::new(), wrong: Vec::new(), said: String::new() }
    }

    /// Isolates the namespace as on-call staff, without waiting.
    async fn isolate(&self) -> Result<()> {
        let responder = self.scene.cluster.client(Identity::Responder).await?;
        let quarantine = json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": self.scene.namespace()},
            "spec": {"isolation": "Sealed", "reason": "a saboteur was here", "incidentRef": {"name": "saboteur"}},
        });
        apply(&responder, "on-call", &[quarantine]).await
    }

    /// Polls until all promises hold at once, except exempt ones, and the status is correct; or until the time limit.
    async fn until_held(
        &self,
        report: &mut Report,
        began: Instant,
        until: Instant,
        standing: &[Trick],
    ) -> Result<Observed> {
        let exempt = exempt(standing);
        loop {
            let found = violations(&self.scene, standing, &Promise::SEALED, Attempts::DryRun).await?;
            let quarantine = self.quarantine().await?;
            let status_errors = status_errors(&self.scene, standing, &quarantine, &found).await?;
            for promise in Promise::SEALED {
                if found.holds(promise) {
                    report.held.entry(promise).or_insert_with(|| began.elapsed());
                } else {
                    report.held.remove(&promise);
                }
            }
            let all =
                found.broken().iter().all(|promise| exempt.contains(promise)) && status_errors.is_empty();
            if all || Instant::now() >= until {
                return Ok(Observed { violations: found, status_errors });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the tricks that are in place.
    fn standing(&self, webhooks: bool) -> Vec<Trick> {
        let is_webhook = |trick: &Trick| matches!(trick, Trick::Webhook(_));
        self.sabotage.tricks.iter().copied().filter(|trick| webhooks || !is_webhook(trick)).collect()
    }

    async fn accuse(
        &self,
        report: &mut Report,
        observed: &Observed,
        standing: &[Trick],
        limit: Duration,
    ) -> Result<()> {
        let exempt = exempt(standing);
        let broken = observed.violations.broken();
        if broken.iter().any(|promise| !exempt.contains(promise)) {
            report.wrong.push(format!("after {} s: {}", limit.as_secs(), observed.violations));
        }
        report.wrong.extend(
            observed
                .status_errors
                .iter()
                .map(|error| format!("the status after {} s: {error}", limit.as_secs())),
        );
        report.said = describe_status(&self.quarantine().await?);
        Ok(())
    }

    async fn quarantine(&self) -> Result<Value> {
        object(&kind(&self.scene.admin, "resurgam.dev/v1alpha1", "Quarantine", None), self.scene.namespace())
            .await
    }

    /// Releases the namespace as the recovery lead.
    async fn release(&self, report: &mut Report) -> Result<()> {
        let lead = self.scene.cluster.client(Identity::RecoveryLead).await?;
        let quarantines = kind(&lead, "resurgam.dev/v1alpha1", "Quarantine", None);
        let name = self.scene.namespace();
        quarantines.delete(name, &DeleteParams::default()).await.context("release")?;
        let gone = await_condition(quarantines.clone(), name, |o: Option<&DynamicObject>| o.is_none());
        match tokio::time::timeout(RELEASE, gone).await {
            Ok(outcome) => outcome.map(drop).context("waiting for the release"),
            Err(_) => {
                report.wrong.push(format!("not released after {} s", RELEASE.as_secs()));
                report.said = describe_status(&self.quarantine().await?);
                Ok(())
            }
        }
    }

    async fn command(self, binary: &Path) -> Result<Report> {
        let scene = &self.scene;
        let mut report = self.report();
        let began = Instant::now();
        let run = tokio::process::Command::new(binary)
            .args([
                "quarantine",
                scene.namespace(),
                "--incident",
                "saboteur",
                "--reason",
                "a saboteur was here",
            ])
            .args(["--yes", "--accept-risk", RISKS])
            .env("KUBECONFIG", scene.cluster.kubeconfig(Identity::Responder))
            .env_remove("RUST_MIN_STACK")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(HOLD, run).await {
            Ok(output) => output.with_context(|| format!("run {}", binary.display()))?,
            Err(_) => bail!("the command takes longer than {} s", HOLD.as_secs()),
        };
        let took = began.elapsed();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let found = violations(scene, &self.sabotage.tricks, &Promise::BY_COMMAND, Attempts::DryRun).await?;
        let broken = found.broken();
        report.held.extend(Promise::BY_COMMAND.iter().filter(|p| found.holds(**p)).map(|p| (*p, took)));
        let mut exempt = exempt(&self.sabotage.tricks);
        // Who is on call raises no quota: the operator does. The command says which one it is.
        let has_no_room = |trick: &Trick| {
            matches!(trick, Trick::Quotas(super::Quotas::NoPolicies | super::Quotas::FullPolicies))
        };
        if self.sabotage.tricks.iter().any(has_no_room) {
            exempt.push(Promise::NetworkCut);
        }
        if broken.iter().any(|promise| !exempt.contains(promise)) {
            report.wrong.push(found.to_string());
        }
        let other_policies = self.sabotage.tricks.contains(&Trick::Policies(super::Policies::Cilium));
        // The label is one of two that isolate: without it the namespace is cut off and refuses, and somebody has to know.
        let is_unlabelled = self.sabotage.tricks.iter().any(Trick::keeps_the_label_off);
        let is_so = broken.is_empty() && !other_policies && !is_unlabelled;
        let code = output.status.code();
        if is_so && code != Some(0) {
            report.wrong.push(format!("the exit code is {code:?}, and all that the command promises is so"));
        }
        if !is_so {
            if code == Some(0) {
                report
                    .wrong
                    .push("the exit code is 0, and not all is so that the command promises".to_owned());
            }
            let culprits: Vec<String> =
                self.sabotage.tricks.iter().flat_map(|trick| trick.culprits(scene)).collect();
            if !culprits.iter().any(|culprit| said.contains(culprit)) {
                report.wrong.push(format!("the command names none of {}", culprits.join(", ")));
            }
        }
        if is_unlabelled && broken.is_empty() && !other_policies && !said.contains("isolated, with problems")
        {
            report
                .wrong
                .push("the command does not say that the isolation lists isolate it all the same".to_owned());
        }
        report.said = said;
        scene.remove_webhooks().await?;
        Ok(report)
    }
}

/// Returns the promises that need not hold while these tricks are in place, if the status says so.
fn exempt(standing: &[Trick]) -> Vec<Promise> {
    standing.iter().filter_map(|trick| trick.exempts()).collect()
}

/// Formats conditions and controls, one line each.
fn describe_status(quarantine: &Value) -> String {
    let of = |at: &str| field(quarantine, at).as_array().cloned().unwrap_or_default();
    let condition_line =
        |c: &Value| format!("{}={} {}: {}", c["type"], c["status"], c["reason"], c["message"]);
    let control_line = |c: &Value| format!("{} {}: {}", c["name"], c["state"], c["message"]);
    let conditions = of("/status/conditions");
    let controls = of("/status/controls");
    let lines = conditions.iter().map(condition_line).chain(controls.iter().map(control_line));
    let isolation = field(quarantine, "/status/isolation");
    format!("{isolation}\n{}", lines.collect::<Vec<_>>().join("\n")).replace('"', "")
}
