//! Before a namespace is cut off: what else would be cut off with it, and would anybody still get in? What the cluster lives on is
//! never isolated; what the people who respond depend on only with their word that they know.

mod addresses;
mod gathered;
pub mod impact;
mod judge;
mod webhooks;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use gathered::{Gathered, Listed, Login};
pub use judge::judge;
pub use webhooks::{MatchingWebhook, configuration_of, webhooks_matching};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Weight {
    /// Never isolated, whoever asks.
    Refusal,
    /// Isolated only by somebody who says that they know.
    Risk,
    /// Stops nothing.
    Note,
}

/// What a finding is about. A risk is accepted by this name.
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
    /// Flux or Argo CD run there, or what delivers a RecoveryPlan.
    Gitops,
    /// The evidence store is served from there.
    Evidence,
    /// An admission or conversion webhook is served from there.
    Webhook,
    /// A part of the API is served from there.
    Apiservice,
    /// Your own login goes through there.
    Login,
    /// A RecoveryPlan and its account live there.
    PlanAccount,
    /// Somebody elsewhere elects a leader by a Lease in there.
    Leases,
    /// Something could not be read, so nobody knows.
    Unknown,
    /// An admission webhook intercepts what isolating writes. Stops nothing.
    Intercepting,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    /// Reads the name of a risk. What cannot be accepted has none.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::RISKS.into_iter().find(|kind| kind.name() == text);
        named.ok_or_else(|| format!("no risk is called '{text}'"))
    }
}

impl Kind {
    /// The kinds that can be accepted.
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

    /// Returns its name, as people write it.
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

    /// Returns what a finding of this kind says, for the help of the command that accepts risks.
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
            Self::Unknown => "Something could not be read, so nobody knows",
            Self::Intercepting => "An admission webhook intercepts what isolating writes",
        }
    }

    /// How much findings of this kind weigh.
    #[must_use]
    pub const fn weight(self) -> Weight {
        match self {
            Self::Protected | Self::Cni | Self::Csi | Self::Dns => Weight::Refusal,
            Self::Intercepting => Weight::Note,
            _ => Weight::Risk,
        }
    }
}

/// One thing that the preflight found, or that nobody can rule out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The namespace that it is about; `None`: any of them.
    pub namespace: Option<String>,
    /// What it is about.
    pub kind: Kind,
    /// What was found, and what isolating would do to it.
    pub message: String,
}

impl Finding {
    /// Does it stop the isolation, with these risks accepted?
    #[must_use]
    pub fn stops(&self, accepted: &[Kind]) -> bool {
        match self.kind.weight() {
            Weight::Refusal => true,
            Weight::Risk => !accepted.contains(&self.kind),
            Weight::Note => false,
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
            assert_eq!(kind.weight(), Weight::Risk, "{kind}");
        }
        for kind in [Kind::Protected, Kind::Cni, Kind::Csi, Kind::Dns, Kind::Intercepting] {
            assert!(kind.name().parse::<Kind>().is_err(), "{kind} cannot be accepted");
        }
    }
}
