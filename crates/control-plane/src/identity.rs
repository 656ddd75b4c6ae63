//! Identities of the cluster, with their kubeconfig files.

use anyhow::Context;
use k8s_openapi::ByteString;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use crate::pki::Certified;

/// An identity with its own credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// User `platform-administrator`: `cluster-admin`. Sets clusters up.
    PlatformAdministrator,
    /// User `tenant-administrator`: all rights in every namespace, and on namespaces; no impersonation, no privilege escalation by RBAC.
    /// The attacker whose requests must be denied.
    TenantAdministrator,
    /// User `on-call-responder`: may isolate, by the product's ClusterRole `resurgam-responder`.
    Responder,
    /// User `recovery-lead`: may repair, release and decide, by the product's ClusterRole `resurgam-recovery-lead`.
    RecoveryLead,
    /// User `upgrader`: a recovery lead who also holds the product's ClusterRole and Role `resurgam-upgrade`.
    Upgrader,
    /// Service account `flux-system/kustomize-controller`: `cluster-admin`, as Flux installs itself by default.
    GitOps,
    /// Service account `resurgam-system/resurgam`: the operator, by the product's ClusterRole `resurgam-operator`.
    Operator,
}

/// Credentials of an identity.
pub(crate) enum Account {
    /// A client certificate with this common name.
    User(&'static str),
    /// A token of this ServiceAccount.
    ServiceAccount { namespace: &'static str, name: &'static str },
}

impl Identity {
    /// All identities.
    pub const ALL: [Identity; 7] = [
        Identity::PlatformAdministrator,
        Identity::TenantAdministrator,
        Identity::Responder,
        Identity::RecoveryLead,
        Identity::Upgrader,
        Identity::GitOps,
        Identity::Operator,
    ];

    /// Returns the name in kebab case, as in the name of its kubeconfig file.
    pub fn name(self) -> &'static str {
        match self {
            Identity::PlatformAdministrator => "platform-administrator",
            Identity::TenantAdministrator => "tenant-administrator",
            Identity::Responder => "responder",
            Identity::RecoveryLead => "recovery-lead",
            Identity::Upgrader => "upgrader",
            Identity::GitOps => "gitops",
            Identity::Operator => "operator",
        }
    }

    pub(crate) fn account(self) -> Account {
        match self {
            Identity::PlatformAdministrator => Account::User("platform-administrator"),
            Identity::TenantAdministrator => Account::User("tenant-administrator"),
            Identity::Responder => Account::User("on-call-responder"),
            Identity::RecoveryLead => Account::User("recovery-lead"),
            Identity::Upgrader => Account::User("upgrader"),
            Identity::GitOps => {
                Account::ServiceAccount { namespace: "flux-system", name: "kustomize-controller" }
            }
            Identity::Operator => Account::ServiceAccount { namespace: "resurgam-system", name: "resurgam" },
        }
    }
}

/// Server part of a kubeconfig.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Such as `https://127.0.0.1:41234`.
    pub(crate) url: String,
    /// The certificate authority, PEM.
    pub(crate) authority: String,
}

impl Server {
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        let url: http::Uri = self.url.parse()?;
        url.port_u16().with_context(|| format!("{url} has no port"))
    }

    pub(crate) fn with_certificate(&self, user: &str, certified: &Certified) -> anyhow::Result<Kubeconfig> {
        let credentials = json!({
            "client-certificate-data": base64(&certified.certificate),
            "client-key-data": base64(&certified.key),
        });
        self.kubeconfig(user, &credentials)
    }

    pub(crate) fn with_token(&self, user: &str, token: &str) -> anyhow::Result<Kubeconfig> {
        self.kubeconfig(user, &json!({ "token": token }))
    }

    fn kubeconfig(&self, user: &str, credentials: &Value) -> anyhow::Result<Kubeconfig> {
        let cluster = json!({
            "server": self.url,
            "certificate-authority-data": base64(&self.authority),
        });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "control-plane", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": user, "context": {"cluster": "control-plane", "user": user}}],
            "current-context": user,
        });
        Ok(serde_json::from_value(kubeconfig)?)
    }
}

/// Kubernetes' own notation of bytes.
fn base64(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
