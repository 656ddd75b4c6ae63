//! Input of the preflight check. Failed reads are kept as such.

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

/// Listed objects, or why the list failed.
pub type Listed<T> = Result<Vec<T>, String>;

/// State of the cluster, as far as the caller may read it.
#[derive(Clone, Debug)]
pub struct ClusterSnapshot {
    /// DaemonSets: network and storage plugins are among them.
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
    /// Labels of namespaces, which webhooks select by.
    pub namespaces: Listed<PartialObjectMeta<Namespace>>,
    /// CustomResourceDefinitions, for their conversion webhooks.
    pub crds: Listed<CustomResourceDefinition>,
    /// Aggregated APIs.
    pub apiservices: Listed<APIService>,
    /// Ingresses: which namespace serves a host.
    pub ingresses: Listed<Ingress>,
    /// HTTPRoutes: which namespace serves a host. Empty if the kind is not installed.
    pub routes: Listed<DynamicObject>,
    /// Leases: the leader elections in a namespace.
    pub leases: Listed<Lease>,
    /// Names of the pods of the target namespaces.
    pub pods: BTreeMap<String, Listed<String>>,
    /// RecoveryPlans. Empty if the kind is not installed.
    pub plans: Listed<RecoveryPlan>,
    /// How the caller authenticates.
    pub login: Login,
    /// Addresses of the evidence store, if configured.
    pub evidence: Listed<String>,
    /// When the snapshot was read.
    pub now: Timestamp,
}

/// How the caller authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The caller's user name as the API server reports it, or why it did not.
    pub username: Result<String, String>,
    /// What the login depends on: a description, and its address.
    pub through: Vec<(String, String)>,
    /// Other users in the kubeconfig for the same cluster with a client certificate: they log in without any other service.
    pub others: Vec<String>,
    /// Why it is unknown what the login depends on.
    pub unclear: Option<String>,
}

impl Default for Login {
    fn default() -> Self {
        let username = Err("nobody has asked yet".to_owned());
        Self { username, through: Vec::new(), others: Vec::new(), unclear: None }
    }
}
