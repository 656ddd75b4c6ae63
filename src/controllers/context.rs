//! What everything that is done for plans shares.

use kube::{Client, Config};

use super::events::Events;
use super::gate_tasks::Gatekeeper;
use super::health_cache::HealthCache;
use super::process::Process;
use super::running::State;
use super::stores::{Stores, Wakeups};
use crate::leader::Leadership;
use crate::plan::Plan;

/// What everything that is done for plans shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) events: Events,
    pub(crate) gatekeeper: Gatekeeper,
    /// Wakes who looks at objects of the cluster when they change.
    pub(crate) wakeups: Wakeups,
    /// What is shared with the process: what it counts, signs of life, how it ends.
    pub(crate) process: Process,
    /// What `client` was made from.
    pub(crate) config: Config,
    /// Told what was heard of services' health.
    pub(crate) health: HealthCache,
}

impl Context {
    /// A client that acts as the plan's account.
    pub(crate) fn account_client(&self, plan: &Plan, state: &mut State) -> Option<Client> {
        if let Some((account, client)) = &state.account
            && *account == plan.account
        {
            return Some(client.clone());
        }
        match impersonating(&self.config, &plan.namespace, &plan.account, &self.process.leadership) {
            Ok(client) => {
                state.account = Some((plan.account.clone(), client.clone()));
                Some(client)
            }
            Err(error) => {
                tracing::error!(account = plan.account, %error, "no client can be made for the plan's account");
                None
            }
        }
    }
}

/// Returns the name of a service account, as the API server knows it.
pub(crate) fn account_user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// A client that acts as a service account, by impersonation.
///
/// # Errors
/// The account's name fits no header, or no client can be made.
pub fn impersonating(
    config: &Config,
    namespace: &str,
    account: &str,
    leadership: &Leadership,
) -> anyhow::Result<Client> {
    let mut config = config.clone();
    let user = account_user(namespace, account);
    config.headers.push(("impersonate-user".parse()?, user.parse()?));
    Ok(crate::client::while_leading(config, leadership.clone())?)
}
