//! Who attacks.

use control_plane::Identity;
use kube::Client;
use kube::api::ListParams;
use rehearsal::kind;

use crate::attack::rig::Rig;

/// Somebody, with a way to act as them: by credentials of their own, or by the platform administrator's right to impersonate.
#[derive(Clone)]
pub struct Who {
    /// As the API server names them.
    pub user: String,
    pub groups: Vec<&'static str>,
    /// Their rights may stand in the way before a policy does.
    pub limited: bool,
    /// Impersonated, by the client of the platform administrator.
    pub acted: bool,
    pub client: Client,
}

impl Who {
    /// The built-in controller that this is the account of.
    pub fn controller(&self) -> Option<&str> {
        self.user.strip_prefix("system:serviceaccount:kube-system:")
    }
}

async fn oneself(rig: &Rig, identity: Identity, limited: bool) -> Who {
    let client = rig.client(identity).await;
    let user = rehearsal::name_of(&client).await.unwrap();
    Who { user, groups: Vec::new(), limited, acted: false, client }
}

pub fn acting(admin: &Client, user: &str, groups: &[&'static str], limited: bool) -> Who {
    Who { user: user.to_owned(), groups: groups.to_vec(), limited, acted: true, client: admin.clone() }
}

/// People and their tools, who may do nothing in an isolated namespace.
pub async fn outsiders(rig: &Rig) -> Vec<Who> {
    let admin = rig.client(Identity::PlatformAdministrator).await;
    let account = |namespace: &str, name: &str, limited| {
        acting(&admin, &format!("system:serviceaccount:{namespace}:{name}"), &[], limited)
    };
    vec![
        oneself(rig, Identity::TenantAdministrator, true).await,
        // Flux's.
        oneself(rig, Identity::GitOps, false).await,
        account("flux-system", "helm-controller", false),
        account("argocd", "argocd-application-controller", false),
        account("velero", "velero", false),
        account("keda", "keda-operator", true),
        account("database-operator", "database-operator", true),
        oneself(rig, Identity::PlatformAdministrator, false).await,
        // By a certificate that no right can be taken from.
        acting(&admin, "somebody", &["system:masters", "system:authenticated"], false),
        oneself(rig, Identity::Responder, true).await,
        // Bound to `admin` in each of the namespaces.
        account("attack-contained", "default", true),
        account("attack-sealed", "default", true),
        account("attack-room", "default", true),
    ]
}

/// Everybody who attacks.
pub async fn everybody(rig: &Rig) -> Vec<Who> {
    let mut all = outsiders(rig).await;
    all.extend(machinery(rig).await);
    all
}

/// The cluster's own: every controller that there is an account of, and what has none.
pub async fn machinery(rig: &Rig) -> Vec<Who> {
    let admin = rig.client(Identity::PlatformAdministrator).await;
    let accounts = kind(&admin, "v1", "ServiceAccount", Some("kube-system"));
    let accounts = accounts.list(&ListParams::default()).await.unwrap();
    let mut all: Vec<Who> = accounts
        .iter()
        .map(|account| {
            let name = account.metadata.name.as_deref().unwrap();
            acting(&admin, &format!("system:serviceaccount:kube-system:{name}"), &[], false)
        })
        .collect();
    assert!(all.len() > 30, "the controllers of the cluster have accounts of their own: {}", all.len());
    all.push(acting(&admin, "system:kube-controller-manager", &[], false));
    all.push(acting(&admin, "system:kube-scheduler", &[], false));
    all.push(acting(&admin, "system:node:node-1", &["system:nodes", "system:authenticated"], false));
    all
}
