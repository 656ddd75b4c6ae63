//! `resurgam check`: would isolating and recovering work on this cluster, now? One file for each category: what is read (`gather`), and
//! what follows from it (`judge`, pure).
//!
//! A new check: its constant and its judge go into the file of its category, the constant into that file's `CHECKS`, and a section
//! under its id into `docs/checks.md`. A new category: its file, and its place in [`CATEGORIES`], [`Facts`] and [`judge`].

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
    /// The section of `docs/checks.md` about it.
    pub id: &'static str,
    /// What is so where it passes.
    pub title: &'static str,
    /// What it means where it does not pass.
    pub severity: Severity,
}

/// What a check that does not pass means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Isolating or recovering does not work.
    Fatal,
    /// Something to know beforehand.
    Warning,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// There is nothing here that it is about.
    NotApplicable,
    /// It is so.
    Passed,
    /// It is not, and isolating and recovering work all the same.
    Warning,
    /// Nobody can say, mostly because the caller may not read what it takes.
    Unknown,
    /// It is not.
    Failed,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which check.
    pub check: Check,
    /// What came of it.
    pub verdict: Verdict,
    /// Culprit, cause, and who clears it. Where it passed: a detail, or nothing.
    pub message: String,
}

impl Check {
    /// A check that isolating or recovering does not work without.
    #[must_use]
    pub const fn fatal(id: &'static str, title: &'static str) -> Self {
        Self { id, title, severity: Severity::Fatal }
    }

    /// A check of what is good to know beforehand.
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

    /// Nothing was looked at, as there is nothing to look at.
    fn does_not_apply(self, why: impl Into<String>) -> Outcome {
        self.outcome(Verdict::NotApplicable, why)
    }

    fn warns(self, message: impl Into<String>) -> Outcome {
        self.outcome(Verdict::Warning, message)
    }

    /// As severe as the check is.
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

/// Checks that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Category {
    /// Its heading.
    pub title: &'static str,
    /// Its checks, in the order in which they are shown.
    pub checks: &'static [Check],
}

/// All categories, in the order in which they are shown. The last three are asked after installation only.
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

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only what has to be so before installation.
    pub pre: bool,
    /// Only this plan's rights: namespace and name.
    pub plan: Option<(String, String)>,
}

/// All that was read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of the API server.
    pub kubernetes: kubernetes::Facts,
    /// Of the cluster's network.
    pub network: network::Facts,
    /// Of volumes and snapshots.
    pub storage: storage::Facts,
    /// Of who holds wildcards.
    pub rights: rights::Facts,
    /// Of what delivers and backs up.
    pub delivery: delivery::Facts,
    /// Of plans' accounts.
    pub plans: plans::Facts,
    /// Of what was installed. `None`: not asked.
    pub installed: Option<Installed>,
}

/// What was read of what was installed.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Of kinds, policies, lists and namespaces.
    pub installation: installation::Facts,
    /// Of the operator.
    pub operator: operator::Facts,
    /// Of what is isolated.
    pub isolation: isolation::Facts,
}

/// Reads it all, as the caller.
///
/// # Errors
/// The API server could not be asked for its version: there is no cluster.
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

/// What follows. Pure.
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

/// What came of all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Only what has to be so before installation was asked.
    pub pre: bool,
    /// In the order in which they are shown.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Of all: failed where a fatal check did not pass, unknown where nobody can say of one, else passed, with warnings or not.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of = |outcome: &Outcome| match (outcome.verdict, outcome.check.severity) {
            (Verdict::Failed | Verdict::Unknown, Severity::Fatal) => outcome.verdict,
            _ => Verdict::Passed,
        };
        self.outcomes.iter().map(of).max().unwrap_or(Verdict::Passed)
    }

    /// The fatal checks that have not passed.
    pub fn blocking(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| {
            outcome.check.severity == Severity::Fatal && outcome.verdict >= Verdict::Unknown
        })
    }

    /// How many came to this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.verdict == verdict).count()
    }
}

#[cfg(test)]
mod tests;
