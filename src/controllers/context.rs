//! State that all plan tasks share.

use kube::{Client, Config};

use super::events::Events;
use super::gate_tasks::GateRunner;
use super::health_cache::HealthCache;
use super::preparation::ReviewSlots;
use super::process::Process;
use super::running::State;
use super::stores::{Stores, Wakeups};
use super::verdicts::VerdictSlots;
use crate::leader::Leadership;
use crate::plan::Plan;
use crate::steps::{StepClients, StepServices};

/// State that all plan tasks share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) events: Events,
    pub(crate) gate_runner: GateRunner,
    /// Wakes gates and steps when objects in the cluster cache change.
    pub(crate) wakeups: Wakeups,
    /// What steps use besides the API server.
    pub(crate) step_services: StepServices,
    /// Limits reviews of rights that plans will need.
    pub(crate) review_slots: ReviewSlots,
    /// Limits writes of Decisions' statuses.
    pub(crate) verdict_slots: VerdictSlots,
    /// Metrics, heartbeats and shutdown signal of the process.
    pub(crate) process: Process,
    /// The configuration that `client` was created from.
    pub(crate) config: Config,
    /// Health of services, for the quarantine controller.
    pub(crate) health: HealthCache,
}

impl Context {
    /// Returns a client that impersonates the plan's account.
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
                tracing::error!(account = plan.account, %error, "no client for the plan's account; the plan cannot act");
                None
            }
        }
    }

    /// Returns what a step reads and writes with. `client` impersonates the plan's account.
    pub(crate) fn step_clients(&self, client: Client) -> StepClients {
        StepClients { client, services: self.step_services.clone() }
    }
}

/// Returns the user name of a service account.
pub(crate) fn account_user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// Returns a client that impersonates a service account.
///
/// # Errors
/// The account's name is no valid header value, or no client can be created.
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
