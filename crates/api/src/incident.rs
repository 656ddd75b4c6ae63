//! `Incident`: what happened, since when, and who is party to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the incident lead states about the attack. Plans name it; setting that name arms them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "Incident",
    plural = "incidents",
    category = "recovery",
    derive = "PartialEq",
    doc = "What happened, since when, and who is party to it. Plans name it; setting that name arms them.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Compromised since", type_ = "date", json_path = ".spec.compromisedSince"),
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// One line that people know the incident by.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,

    /// The earliest moment at which the attacker may have been inside. Nothing made since then is trusted unchecked.
    pub compromised_since: Time,

    /// How far the incident has come.
    #[serde(default)]
    pub state: IncidentState,

    /// The organisations concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parties: Vec<Party>,

    /// Case numbers and the like: regulator, police, supplier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 200)))]
    pub references: Vec<String>,
}

/// How far an incident has come.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncidentState {
    /// Found, and not known to be contained.
    #[default]
    Open,
    /// The attacker is held to be shut out.
    Contained,
    /// Declared over by the incident lead.
    Closed,
}

/// An organisation concerned by the incident.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Its name, such as `rbkc`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// When it became aware of a breach of personal data. The 72 hours of UK GDPR Art. 33 run from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aware_at: Option<Time>,
    /// Whom to reach there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub contact: Option<String>,
}
