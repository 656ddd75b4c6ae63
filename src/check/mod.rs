//! `resurgam check`: whether isolating and recovering would work on this cluster. One file per category: `gather` reads facts, `judge`
//! (pure) evaluates them.
//!
//! To add a check: its constant and judge go into the file of its category, the constant into that file's `CHECKS`, and a section with
//! its id into `docs/checks.md`. To add a category: its file, and its place in [`CATEGORIES`], [`Facts`] and [`judge`].

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Serialize;

pub mod delivery;
pub mod installation;
pub mod isolation;
pub mod kubernetes;
pub mod network;
pub mod operator;
pub mod plans;
mod read;
pub mod render;
pub mod rights;
pub mod schema;
pub mod storage;

pub use read::Fact;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Id, and its section in `docs/checks.md`.
    pub id: &'static str,
    /// What holds if the check passes.
    pub title: &'static str,
    /// Severity of a failure.
    pub severity: Severity,
}

/// Severity of a failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Isolating or recovering does not work.
    Fatal,
    /// Worth knowing in advance.
    Warning,
}

/// Verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The check does not apply to this cluster.
    NotApplicable,
    /// The check passed.
    Passed,
    /// It failed, but isolating and recovering work.
    Warning,
    /// Unknown, usually because the caller may not read what it needs.
    Unknown,
    /// The check failed.
    Failed,
}

/// One check and its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The check.
    pub check: Check,
    /// Its verdict.
    pub verdict: Verdict,
    /// Culprit, cause, and who clears it. For a passed check: a detail, or empty.
    pub message: String,
}

impl Check {
    /// Creates a check without which isolating or recovering does not work.
    #[must_use]
    pub const fn fatal(id: &'static str, title: &'static str) -> Self {
        Self { id, title, severity: Severity::Fatal }
    }

    /// Creates a check of something worth knowing in advance.
    #[must_use]
    pub const fn warning(id: &'static str, title: &'static str) -> Self {
        Self { id, title, severity: Severity::Warning }
    }

    fn outcome(self, verdict: Verdict, message: impl Into<String>) -> Outcome {
        Outcome { check: self, verdict, message: message.into() }
    }

    fn passes(self, detail: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Passed, detail)
    }

    /// Returns the outcome of a check that does not apply.
    fn does_not_apply(self, why: impl Into<String>) -> Outcome {
        self.outcome(Verdict::NotApplicable, why)
    }

    fn warns(self, message: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Warning, message)
    }

    /// Returns a failure of the check's severity.
    fn fails(self, message: impl Into<String>) -> Outcome {
        match self.severity {
            Severity::Fatal => self.outcome(Verdict::Failed, message),
            Severity::Warning => self.warns(message),
        }
    }

    fn unknown(self, why: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Unknown, why)
    }
}

/// A category of checks.
#[derive(Clone, Copy, Debug)]
pub struct Category {
    /// Its heading.
    pub title: &'static str,
    /// Its checks, in display order.
    pub checks: &'static [Check],
}

/// All categories, in display order. The last three are checked after installation only.
pub const CATEGORIES: [Category; 9] = [
    Category { title: "Kubernetes", checks: &kubernetes::CHECKS },
    Category { title: "Network", checks: &network::CHECKS },
    Category { title: "Storage", checks: &storage::CHECKS },
    Category { title: "Rights", checks: &rights::CHECKS },
    Category { title: "Delivery and backup", checks: &delivery::CHECKS },
    Category { title: "Plans", checks: &plans::CHECKS },
    Category { title: "Installation", checks: &installation::CHECKS },
    Category { title: "Operator", checks: &operator::CHECKS },
    Category { title: "Isolation", checks: &isolation::CHECKS },
];

/// What to check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only the checks before installation.
    pub pre: bool,
    /// Only the rights of this plan: namespace and name.
    pub plan: Option<(String, String)>,
}

/// All facts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Facts of the API server.
    pub kubernetes: kubernetes::Facts,
    /// Facts of the cluster's network.
    pub network: network::Facts,
    /// Facts of volumes and snapshots.
    pub storage: storage::Facts,
    /// Facts of wildcard holders.
    pub rights: rights::Facts,
    /// Facts of GitOps and backup tools.
    pub delivery: delivery::Facts,
    /// Facts of plans' accounts.
    pub plans: plans::Facts,
    /// Facts of the installation. `None`: not requested.
    pub installed: Option<Installed>,
}

/// Facts of the installation.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Facts of CRDs, policies, lists and namespaces.
    pub installation: installation::Facts,
    /// Facts of the operator.
    pub operator: operator::Facts,
    /// Facts of isolated namespaces.
    pub isolation: isolation::Facts,
}

/// Reads all facts as the caller.
///
/// # Errors
/// The API server cannot be reached.
pub async fn gather(client: &Client, scope: &Scope) -> Fact<Facts> {
    let server = kubernetes::version(client).await?;
    let groups = delivery::gather(client).await;
    let installed = async {
        if scope.pre {
            return None;
        }
        let (installation, operator, isolation) =
            futures::join!(installation::gather(client), operator::gather(client), isolation::gather(client));
        Some(Installed { installation, operator, isolation })
    };
    let (kubernetes, network, storage, rights, plans, installed) = futures::join!(
        kubernetes::gather(client, server),
        network::gather(client, &groups),
        storage::gather(client),
        rights::gather(client),
        plans::gather(client, scope.plan.as_ref()),
        installed,
    );
    Ok(Facts { kubernetes, network, storage, rights, delivery: groups, plans, installed })
}

/// Evaluates all checks. Pure.
#[must_use]
pub fn judge(facts: &Facts, now: Timestamp) -> Report {
    let mut outcomes = [
        kubernetes::judge(&facts.kubernetes),
        network::judge(&facts.network),
        storage::judge(&facts.storage),
        rights::judge(&facts.rights),
        delivery::judge(&facts.delivery),
        plans::judge(&facts.plans),
    ]
    .concat();
    if let Some(installed) = &facts.installed {
        outcomes.extend(installation::judge(&installed.installation));
        outcomes.extend(operator::judge(&installed.operator, now));
        outcomes.extend(isolation::judge(&installed.isolation));
    }
    Report { pre: facts.installed.is_none(), outcomes }
}

/// Result of all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Only the checks before installation were requested.
    pub pre: bool,
    /// The outcomes, in display order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Returns the overall verdict: failed or unknown if a fatal check is, else passed, even with warnings.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of = |outcome: &Outcome| match (outcome.verdict, outcome.check.severity) {
            (Verdict::Failed | Verdict::Unknown, Severity::Fatal) => outcome.verdict,
            _ => Verdict::Passed,
        };
        self.outcomes.iter().map(of).max().unwrap_or(Verdict::Passed)
    }

    /// Returns the fatal checks that have not passed.
    pub fn blocking(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| {
            outcome.check.severity == Severity::Fatal && outcome.verdict >= Verdict::Unknown
        })
    }

    /// Returns the number of outcomes with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.verdict == verdict).count()
    }
}

#[cfg(test)]
mod tests;
