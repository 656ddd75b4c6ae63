//! `Incident`: an attack, the time since when the cluster may be compromised, and the organisations concerned.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the incident lead states about the attack. Setting an Incident's name in a plan arms the plan.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "Incident",
    plural = "incidents",
    category = "recovery",
    derive = "PartialEq",
    doc = "An attack: what happened, since when, and the organisations concerned. Setting its name in a plan arms the plan.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Compromised since", type_ = "date", json_path = ".spec.compromisedSince"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// Title of the incident, in one line.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,

    /// The earliest time at which the attacker may have been inside. Nothing created since then is trusted unchecked.
    pub compromised_since: Time,

    /// State of the incident.
    #[serde(default)]
    pub state: IncidentState,

    /// Organisations concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parties: Vec<Party>,

    /// Case numbers at the regulator, the police or a supplier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 200)))]
    pub references: Vec<String>,
}

/// State of an incident.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncidentState {
    /// Discovered, and not known to be contained.
    #[default]
    Open,
    /// The attacker is considered locked out.
    Contained,
    /// Declared over by the incident lead.
    Closed,
}

/// An organisation concerned by the incident.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Name of the organisation, such as `rbkc`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When the organisation became aware of a personal data breach. The 72 hours of UK GDPR Art. 33 run from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aware_at: Option<Time>,
    /// Contact at the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub contact: Option<String>,
}
