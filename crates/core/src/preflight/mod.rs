//! Preflight: what else isolating a namespace would cut off, and whether the responders could still log in. What the cluster depends on
//! is never isolated. What the responders depend on is isolated only after they have accepted the risk.

mod addresses;
mod gathered;
pub mod impact;
mod judge;
mod webhooks;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use gathered::{ClusterSnapshot, Listed, Login};
pub use judge::judge;
pub use webhooks::{MatchingWebhook, configuration_of, webhooks_matching};

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Severity {
    /// Blocks isolation. Cannot be accepted.
    Refusal,
    /// Blocks isolation until the risk is accepted.
    Risk,
    /// Blocks nothing.
    Note,
}

/// Subject of a finding. A risk is accepted by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The cluster itself, or this product, runs there. Cannot be accepted.
    Protected,
    /// The cluster's network plugin runs there. Cannot be accepted.
    Cni,
    /// A storage driver runs there. Cannot be accepted.
    Csi,
    /// The cluster's DNS is served from there. Cannot be accepted.
    Dns,
    /// Flux or Argo CD runs there, or whatever deploys a RecoveryPlan.
    Gitops,
    /// The evidence store is served from there.
    Evidence,
    /// An admission or conversion webhook is served from there.
    Webhook,
    /// An aggregated API is served from there.
    Apiservice,
    /// The caller's own login depends on it.
    Login,
    /// A RecoveryPlan and its account live there.
    PlanAccount,
    /// A component in another namespace elects its leader by a Lease in there.
    Leases,
    /// Something could not be read, so that the risk is unknown.
    Unknown,
    /// An admission webhook intercepts writes of the isolation. Blocks nothing.
    Intercepting,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    /// Parses the name of a risk. Kinds that cannot be accepted have none.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::RISKS.into_iter().find(|kind| kind.name() == text);
        named.ok_or_else(|| format!("no risk is called '{text}'"))
    }
}

impl Kind {
    /// Kinds that can be accepted.
    pub const RISKS: [Self; 8] = [
        Self::Gitops,
        Self::Evidence,
        Self::Webhook,
        Self::Apiservice,
        Self::Login,
        Self::PlanAccount,
        Self::Leases,
        Self::Unknown,
    ];

    /// Returns the name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Cni => "cni",
            Self::Csi => "csi",
            Self::Dns => "dns",
            Self::Gitops => "gitops",
            Self::Evidence => "evidence",
            Self::Webhook => "webhook",
            Self::Apiservice => "apiservice",
            Self::Login => "login",
            Self::PlanAccount => "plan-account",
            Self::Leases => "leases",
            Self::Unknown => "unknown",
            Self::Intercepting => "intercepting",
        }
    }

    /// Returns the explanation of this kind for the help of `--accept-risk`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Protected => "The cluster itself, or this product, runs there",
            Self::Cni => "The cluster's network plugin runs there",
            Self::Csi => "A storage driver runs there",
            Self::Dns => "The cluster's DNS is served from there",
            Self::Gitops => "Flux or Argo CD run there, or what delivers a RecoveryPlan",
            Self::Evidence => "The evidence store is served from there",
            Self::Webhook => "An admission or conversion webhook is served from there",
            Self::Apiservice => "A part of the API is served from there",
            Self::Login => "Your own login goes through there",
            Self::PlanAccount => "A RecoveryPlan and its account live there",
            Self::Leases => "Somebody elsewhere elects a leader by a Lease in there",
            Self::Unknown => "Something could not be read, so the risk is unknown",
            Self::Intercepting => "An admission webhook intercepts what isolating writes",
        }
    }

    /// Returns the severity of findings of this kind.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Protected | Self::Cni | Self::Csi | Self::Dns => Severity::Refusal,
            Self::Intercepting => Severity::Note,
            _ => Severity::Risk,
        }
    }
}

/// One finding of the preflight: a risk, or something that could not be ruled out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Namespace concerned. `None`: any of them.
    pub namespace: Option<String>,
    /// Subject of the finding.
    pub kind: Kind,
    /// What was found, and what isolating would do to it.
    pub message: String,
}

impl Finding {
    /// Returns whether the finding blocks isolation, given the accepted risks.
    #[must_use]
    pub fn stops(&self, accepted: &[Kind]) -> bool {
        match self.kind.severity() {
            Severity::Refusal => true,
            Severity::Risk => !accepted.contains(&self.kind),
            Severity::Note => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_risk_is_accepted_by_the_name_that_is_shown() {
        for kind in Kind::RISKS {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
            assert_eq!(kind.severity(), Severity::Risk, "{kind}");
        }
        for kind in [Kind::Protected, Kind::Cni, Kind::Csi, Kind::Dns, Kind::Intercepting] {
            assert!(kind.name().parse::<Kind>().is_err(), "{kind} cannot be accepted");
        }
    }
}
