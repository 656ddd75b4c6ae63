//! Stops what runs in a sealed namespace: workloads to zero, pods deleted, ServiceAccounts recreated.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::events::EventType;

use super::super::super::PassError;
use super::PassRun;
use crate::api::QuarantineReason;
use crate::api::quarantine::{ControlName, LostTokenSecrets};
use crate::isolation::controls::{identity, pods, workloads};
use crate::isolation::pass::{Pass, PassFailure};

/// Maximum number of unmanaged pods named in the status.
const UNMANAGED: usize = 64;

impl PassRun<'_> {
    /// Scales workloads to zero. The answers to the writes show the result.
    pub(super) async fn stop_workloads(&mut self, pass: &mut Pass) {
        let client = self.context.client.clone();
        let seal = self.quarantine.uid().unwrap_or_default();
        let mut inventory = workloads::inventory(&client, self.name).await;
        if let Ok(found) = &mut inventory {
            match workloads::stop(&client, found, &seal).await {
                // Nothing else can start while the fence holds, and each answer contains the current object.
                Ok(0) => {}
                Ok(_) => self.drift.push("workloads".to_owned()),
                Err(error) => {
                    self.drift.push("workloads".to_owned());
                    inventory = workloads::inventory(&client, self.name).await;
                    self.report_failure(
                        pass,
                        ControlName::Workloads,
                        QuarantineReason::StopFailed,
                        &error.into(),
                    )
                    .await;
                }
            }
        }
        match inventory {
            Ok(found) => {
                // A ReplicaSet that its Deployment does not adopt is stopped once all Deployments are.
                if found.rollouts.iter().any(|set| !set.is_stopped()) {
                    self.wake_within(Duration::from_secs(1));
                }
                pass.workloads = found.workloads.len();
                self.observation.inventory = Some(found);
            }
            Err(error) => {
                self.report_failure(pass, ControlName::Workloads, QuarantineReason::StopFailed, &error.into())
                    .await
            }
        }
    }

    /// Deletes every pod, whatever its owner references say, and reads back the result. The deletion of the last pod wakes the next pass.
    pub(super) async fn end_pods(&mut self, pass: &mut Pass) {
        let client = self.context.client.clone();
        let found = match pods::list(&client, self.name).await {
            Ok(found) => found,
            Err(error) => {
                return self
                    .report_failure(pass, ControlName::Workloads, QuarantineReason::PodsFailed, &error.into())
                    .await;
            }
        };
        if let Some(inventory) = &self.observation.inventory {
            let is_lost = |pod: &&Pod| inventory.is_lost(pod);
            pass.unmanaged =
                found.iter().filter(is_lost).map(ResourceExt::name_any).take(UNMANAGED).collect();
            pass.contents = Some(inventory.contents(&found));
        }
        let news = self.unannounced(pass);
        self.record_contents(pass).await;
        let ended = pods::end(&client, self.name, &found).await;
        let written = !matches!(ended, Ok(0));
        if let Err(error) = ended {
            self.report_failure(pass, ControlName::Workloads, QuarantineReason::PodsFailed, &error.into())
                .await;
        }
        self.announce_unmanaged(&news).await;
        let found = if written { pods::list(&client, self.name).await } else { Ok(found) };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                return self
                    .report_failure(pass, ControlName::Workloads, QuarantineReason::PodsFailed, &error.into())
                    .await;
            }
        };
        pass.alive = found.iter().filter(|pod| pods::is_live(pod)).map(ResourceExt::name_any).collect();
        let static_pods = found.iter().filter(|pod| pods::is_static(pod) && pods::is_live(pod));
        let static_pods: Vec<_> = static_pods.map(ResourceExt::name_any).collect();
        if !static_pods.is_empty() {
            let message = format!("static pods, which only their nodes can stop: {}", static_pods.join(", "));
            pass.failure = Some(PassFailure { reason: QuarantineReason::StaticPods, message, stalled: true });
        }
        self.observation.pods = Some(found);
    }

    /// Records what is about to be deleted, unless the status has it: no later pass can find it. A failed write delays nothing.
    async fn record_contents(&mut self, pass: &mut Pass) {
        let status = self.quarantine.status.clone().unwrap_or_default();
        let known = status.contents.unwrap_or_default();
        let is_known = pass.contents.is_none_or(|now| status.contents.is_some() && known.max(now) == known)
            && pass.unmanaged.iter().all(|pod| status.unmanaged_pods.contains(pod));
        if is_known {
            return;
        }
        self.update_in_place(pass);
        if let Err(error) = self.record(pass).await {
            tracing::warn!(%error, "what the namespace contained is not recorded; stopping it all the same");
        }
    }

    /// Returns the pods that no workload recreates and that the status does not name yet.
    fn unannounced(&self, pass: &Pass) -> Vec<String> {
        let known = self.quarantine.status.as_ref().map_or(&[][..], |status| &status.unmanaged_pods);
        pass.unmanaged.iter().filter(|name| !known.contains(name)).cloned().collect()
    }

    /// Publishes an Event that names each deleted pod that no workload will recreate, once.
    async fn announce_unmanaged(&self, news: &[String]) {
        if !news.is_empty() {
            let note =
                format!("captured, then deleted: pods that no workload will bring back: {}", news.join(", "));
            self.context
                .publish_event(&self.quarantine, EventType::Warning, "UnmanagedPodsDeleted", note)
                .await;
        }
    }

    /// Recreates ServiceAccounts, which revokes their tokens. Does not wait for pods to end.
    pub(super) async fn recreate_accounts(&mut self, pass: &mut Pass) {
        let (client, mark) = (self.context.client.clone(), self.mark());
        let accounts = match identity::list(&client, self.name).await {
            Ok(accounts) => accounts,
            Err(error) => {
                return self.identity_failed(pass, &error.into()).await;
            }
        };
        // This process deleted the record of this sealing, so no account is missing.
        let is_over = self.context.remember(self.name, |memory| memory.renewed.as_ref() == Some(&mark));
        if is_over && accounts.iter().all(|account| mark.is_on(&account.metadata)) {
            self.observation.accounts = Some(accounts);
            return;
        }
        if !accounts.iter().all(|account| mark.is_on(&account.metadata)) {
            // Read before, as the cluster deletes them once their accounts are gone. Without a key, the operator may not list Secrets.
            pass.lost_token_secrets = Some(match &self.context.options.evidence.key {
                Some(_) => identity::token_secrets(&client, self.name, &accounts, &mark).await,
                None => LostTokenSecrets {
                    unknown: "the operator lists Secrets only with --evidence-key".to_owned(),
                    ..LostTokenSecrets::default()
                },
            });
        }
        match identity::renew_listed(&client, self.name, &mark, &accounts).await {
            Ok(is_written) => {
                self.context.remember(self.name, |memory| memory.renewed = Some(mark));
                if !is_written {
                    self.observation.accounts = Some(accounts);
                    return;
                }
                self.drift.push("service accounts".to_owned());
            }
            Err(error) => self.identity_failed(pass, &error.into()).await,
        }
        match identity::list(&client, self.name).await {
            Ok(accounts) => self.observation.accounts = Some(accounts),
            Err(error) => self.identity_failed(pass, &error.into()).await,
        }
    }

    async fn identity_failed(&mut self, pass: &mut Pass, error: &PassError) {
        self.report_failure(pass, ControlName::Identity, QuarantineReason::IdentityFailed, error).await;
    }
}
