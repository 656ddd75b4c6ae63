//! What the preflight looks at. What could not be read is kept as such.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::core::{DynamicObject, PartialObjectMeta};

use crate::api::RecoveryPlan;

/// What was listed, or why it could not be.
pub type Listed<T> = Result<Vec<T>, String>;

/// What the judge looks at: all of the cluster, as far as the caller may read it.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Workloads that run on every node: network and storage plugins are among them.
    pub daemonsets: Listed<DaemonSet>,
    /// Workloads.
    pub deployments: Listed<Deployment>,
    /// Workloads.
    pub statefulsets: Listed<StatefulSet>,
    /// Services.
    pub services: Listed<Service>,
    /// Storage drivers by name.
    pub csi_drivers: Listed<CSIDriver>,
    /// Admission webhooks.
    pub validating: Listed<ValidatingWebhookConfiguration>,
    /// Admission webhooks.
    pub mutating: Listed<MutatingWebhookConfiguration>,
    /// Labels of namespaces, by which webhooks select them.
    pub namespaces: Listed<PartialObjectMeta<Namespace>>,
    /// Kinds, for their conversion webhooks.
    pub crds: Listed<CustomResourceDefinition>,
    /// Parts of the API that others serve.
    pub apiservices: Listed<APIService>,
    /// Which hosts are served from where.
    pub ingresses: Listed<Ingress>,
    /// Which hosts are served from where; empty where the kind is not installed.
    pub routes: Listed<DynamicObject>,
    /// Who leads what.
    pub leases: Listed<Lease>,
    /// Names of the pods of the namespaces in question.
    pub pods: BTreeMap<String, Listed<String>>,
    /// Plans; empty where the kind is not installed.
    pub plans: Listed<RecoveryPlan>,
    /// How the caller gets in.
    pub login: Login,
    /// Addresses of the evidence store, as far as anybody said.
    pub evidence: Listed<String>,
    /// When all this was read.
    pub now: Timestamp,
}

/// How the caller gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who the API server says the caller is, or why it did not say.
    pub username: Result<String, String>,
    /// What the login goes through: what it is, and its address.
    pub through: Vec<(String, String)>,
    /// Other users of the kubeconfig for the same cluster who hold a client certificate: ways in that need nobody.
    pub others: Vec<String>,
    /// Why nobody can say what the login goes through.
    pub unclear: Option<String>,
}

impl Default for Login {
    fn default() -> Self {
        let username = Err("nobody has asked yet".to_owned());
        Self { username, through: Vec::new(), others: Vec::new(), unclear: None }
    }
}
