//! A small recovery that is run repeatedly on one control plane with all kinds of faults. Each run has its own names, so that it starts
//! from scratch and is judged by its own part of the audit log.

pub mod boroughs;
pub mod chaos;
pub mod clock;
pub mod crash;
pub mod crew;
mod history;
pub mod leaders;
pub mod load;
pub mod silence;
pub mod upgrade;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::estate::{Estate, look};
use crate::{apply, condition, documents, eventually, kind, object, smallest};

pub use history::History;

const KINDS: &str = "resurgam.dev/v1alpha1";
/// Time limit of a recovery with faults, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// One recovery: of a database and its dependent.
pub struct Trial<'a> {
    cluster: &'a ControlPlane,
    admin: Client,
    name: String,
    /// Manifests that start it: Quarantines, Incident and plan.
    begins: Vec<Value>,
    text: String,
    namespaces: [String; 2],
    before: Estate,
    log_from: u64,
}

/// Result of a trial that ended correctly.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// History of each object.
    pub history: History,
    /// Report of the judge.
    pub report: judge::Report,
}

impl<'a> Trial<'a> {
    /// Deploys the estate, and waits until it runs. `name` must be new.
    ///
    /// # Errors
    /// The API server denied something, or the estate does not run in time.
    pub async fn lay_down(cluster: &'a ControlPlane, name: &str) -> Result<Self> {
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        let log_from = std::fs::metadata(cluster.audit_log())?.len();
        let text = named(&smallest()?, name)?;
        let all = documents(&text)?;
        let begins =
            |m: &Value| ["Quarantine", "Incident", "RecoveryPlan"].map(Value::from).contains(&m["kind"]);
        let (begins, mut first): (Vec<_>, Vec<_>) = all.into_iter().partition(begins);
        first.extend(documents(&include_str!("more.yaml").replace("library", name))?);
        apply(&admin, "platform", &first).await?;
        let namespaces = [format!("{name}-db"), format!("{name}-web")];
        for (namespace, kind_, name) in
            [(&namespaces[0], "StatefulSet", "postgres"), (&namespaces[1], "Deployment", "catalogue")]
        {
            let api = kind(&admin, "apps/v1", kind_, Some(namespace));
            let what = format!("{kind_} {namespace}/{name} to run");
            eventually(&api, name, &what, DEADLINE, |object| crate::wait::is_running(kind_, object)).await?;
        }
        let before = look(&admin, &namespaces).await?;
        Ok(Self { cluster, admin, name: name.to_owned(), begins, text, namespaces, before, log_from })
    }

    /// Isolates everything and arms the plan.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn begin(&self) -> Result<()> {
        apply(&self.admin, "platform", &self.begins).await
    }

    /// Returns the manifests that start it, for callers that apply them differently.
    #[must_use]
    pub fn begins(&self) -> &[Value] {
        &self.begins
    }

    /// Returns the namespaces of the database and its dependent.
    #[must_use]
    pub fn namespaces(&self) -> &[String; 2] {
        &self.namespaces
    }

    /// Waits until one of its Quarantines satisfies a predicate.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn quarantine(
        &self,
        namespace: &str,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let quarantines = kind(&self.admin, KINDS, "Quarantine", None);
        eventually(&quarantines, namespace, &format!("Quarantine {namespace} {what}"), DEADLINE, is).await
    }

    /// Waits until the ServiceRecovery of one of its services satisfies a predicate.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn service(&self, service: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let records = kind(&self.admin, KINDS, "ServiceRecovery", Some(&self.recovery()));
        let name = format!("{}.{service}", self.name);
        eventually(&records, &name, &format!("{name} {what}"), DEADLINE, is).await
    }

    /// Waits until everything is recovered.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn recovered(&self) -> Result<()> {
        self.recovered_within(DEADLINE).await
    }

    /// Waits until everything is recovered, with another time limit.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn recovered_within(&self, deadline: Duration) -> Result<()> {
        let plans = kind(&self.admin, KINDS, "RecoveryPlan", Some(&self.recovery()));
        let ready =
            |plan: &Value| condition(plan, "Ready") == "True" && condition(plan, "Recovered") == "True";
        let what = format!("plan {} to be recovered", self.name);
        match eventually(&plans, &self.name, &what, deadline, ready).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error).context(self.standing().await),
        }
    }

    /// Describes its services and Quarantines, to explain a timeout.
    async fn standing(&self) -> String {
        let records = kind(&self.admin, KINDS, "ServiceRecovery", Some(&self.recovery()));
        let quarantines = kind(&self.admin, KINDS, "Quarantine", None);
        let mut told = vec![format!("{}, and so it stands:", Timestamp::now())];
        for namespace in &self.namespaces {
            for (api, name) in [(&records, &format!("{}.{namespace}", self.name)), (&quarantines, namespace)]
            {
                let status = object(api, name)
                    .await
                    .map_or_else(|error| format!("{error:#}"), |o| o["status"].to_string());
                told.push(format!("{name}: {status}"));
            }
        }
        told.join("\n")
    }

    /// Checks that the estate is as before, that nothing was done twice, and that the judge found no violation.
    ///
    /// # Errors
    /// A check fails, or the log proves nothing.
    pub async fn end(&self) -> Result<Outcome> {
        let mut wanted = self.before.clone();
        for (what, object) in &mut wanted {
            // Never resumed unless a plan opts into it.
            if what.starts_with("CronJob ") {
                object["suspend"] = json!(true);
            }
        }
        let found = look(&self.admin, &self.namespaces).await?;
        let differs = |(what, object): (&String, &Value)| {
            let is = found.get(what);
            (is != Some(object)).then(|| format!("{what} should be {object}, and is {is:?}"))
        };
        let mut wrong: Vec<String> = wanted.iter().filter_map(differs).collect();
        wrong.extend(found.keys().filter(|what| !wanted.contains_key(*what)).map(|w| format!("{w} is new")));
        ensure!(wrong.is_empty(), "{}: the estate is not as it was: {}", self.name, wrong.join("; "));

        let log = self.log()?;
        let report = judge::judge(log.as_slice(), &self.text, &judge::Options::default())?;
        ensure!(report.is_clean(), "{}: {report}", self.name);
        Ok(Outcome { history: History::read(&log, &self.name)?, report })
    }

    /// Removes the trial's objects.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn clear(self) -> Result<()> {
        let delete = DeleteParams::background();
        let recovery = self.recovery();
        let plans = kind(&self.admin, KINDS, "RecoveryPlan", Some(&recovery));
        plans.delete(&self.name, &delete).await?;
        let lead = self.cluster.client(Identity::RecoveryLead).await?;
        for namespace in &self.namespaces {
            kind(&lead, KINDS, "Quarantine", None).delete(namespace, &delete).await?;
            kind(&self.admin, "v1", "Namespace", None).delete(namespace, &delete).await?;
        }
        let records = kind(&self.admin, KINDS, "ServiceRecovery", Some(&recovery));
        for record in records.list(&ListParams::default()).await? {
            records.delete(record.metadata.name.as_deref().unwrap_or_default(), &delete).await?;
        }
        Ok(())
    }

    fn recovery(&self) -> String {
        format!("{}-recovery", self.name)
    }

    /// Returns the audit log since the trial's start.
    fn log(&self) -> Result<Vec<u8>> {
        let log = log_since(self.cluster.audit_log(), self.log_from)?;
        let lines = log.split_inclusive(|byte| *byte == b'\n').filter(|line| self.is_of(line));
        Ok(lines.flatten().copied().collect())
    }

    /// Returns whether a line belongs to this trial. Namespaces and Quarantines of earlier trials are judged with those.
    fn is_of(&self, line: &[u8]) -> bool {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let name = crate::text(&event, "/objectRef/name");
        let shared = ["namespaces", "quarantines"].contains(&crate::text(&event, "/objectRef/resource"));
        !shared || name.is_empty() || name == self.recovery() || self.namespaces.iter().any(|own| own == name)
    }
}

/// Returns the complete lines of a log from an offset on.
fn log_since(log: &Path, from: u64) -> Result<Vec<u8>> {
    let mut file = std::fs::File::open(log)?;
    // One more, to see whether a line begins there.
    file.seek(SeekFrom::Start(from.saturating_sub(1)))?;
    let mut log = Vec::new();
    file.read_to_end(&mut log)?;
    let line_ends = |byte: &u8| *byte == b'\n';
    let end = log.iter().rposition(line_ends).unwrap_or_default() + 1;
    log.truncate(end);
    let start = if from == 0 { 0 } else { log.iter().position(line_ends).context("nothing was logged")? + 1 };
    Ok(log.split_off(start))
}

/// Returns the smallest plan with the trial's names.
fn named(smallest: &str, name: &str) -> Result<String> {
    let text = smallest
        .replace(
            "kind: Namespace\nmetadata:\n  name: recovery",
            "kind: Namespace\nmetadata:\n  name: library-recovery",
        )
        .replace("namespace: recovery", "namespace: library-recovery")
        .replace("nov-2025", "library");
    ensure!(text.contains("  name: library-recovery\n"), "examples/smallest.yaml has no namespace recovery");
    Ok(text.replace("library", name))
}
