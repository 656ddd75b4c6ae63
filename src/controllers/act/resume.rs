//! Reads suspended CronJobs and Jobs, and resumes those that the plan names, as the plan's account.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::super::observe::seals;
use super::{Act, ActError, refused};
use crate::api::conditions::shorten;
use crate::api::field_manager;
use crate::api::service_recovery::{ResumeState, ResumeStatus};
use crate::api::{Reason, ServiceKey};
use crate::calls::{IoError, call};
use crate::clock;
use crate::engine::ResumeObservation;
use crate::isolation::controls::cleanup;
use crate::isolation::workloads::list_kind;
use crate::resume::{self, ResumeKey, SuspendedObject};

/// How often field managers are removed from what was resumed, if others write meanwhile.
const MANAGERS_ATTEMPTS: u32 = 5;

impl Act {
    /// Reads what is suspended and keeps the result.
    pub(super) async fn read_suspended(&self, attempt: i64) -> Result<(), ActError> {
        let client = self.account()?;
        let all = match self.suspended(&client).await {
            Ok(found) => self.judged(&found),
            Err(error) if error.is_transient() => return Err(error.into()),
            // An object that cannot be read is not resumed. That does not block recovery.
            Err(error) => resume::unreadable(&self.service().resume, &error.to_string()),
        };
        self.keep_resumes(attempt, all);
        Ok(())
    }

    /// Resumes what the plan names, each as read live. The intent was written before.
    pub(super) async fn resume(&self, attempt: i64, dependencies: &[ServiceKey]) -> Result<(), ActError> {
        futures::try_join!(
            self.plan_is_current(),
            self.requirements_are_accepted(),
            self.dependencies_stand(dependencies)
        )?;
        let client = self.account()?;
        let found = match self.suspended(&client).await {
            Ok(found) => found,
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => {
                self.keep_resumes(attempt, resume::unreadable(&self.service().resume, &error.to_string()));
                return Ok(());
            }
        };
        let mut all = self.judged(&found);
        for seen in all.iter_mut().filter(|seen| seen.status.state == ResumeState::Due) {
            let ResumeStatus { kind, namespace, name, .. } = seen.status.clone();
            let Some(object) = found.get(&(kind, namespace.clone(), name.clone())) else { continue };
            let done = match object {
                SuspendedObject::CronJob(_) => write::<CronJob>(&client, &namespace, &name, object).await,
                SuspendedObject::Job(_) => write::<Job>(&client, &namespace, &name, object).await,
            };
            match done {
                Ok(()) => {
                    (seen.status.state, seen.changes_at) = (ResumeState::Resumed, None);
                    seen.status.message.clear();
                }
                // Everything is read and judged again after a conflict or transient failure.
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    (seen.status.state, seen.status.message) =
                        (ResumeState::Held, shorten(&error.to_string(), 512));
                }
            }
        }
        self.keep_resumes(attempt, all);
        Ok(())
    }

    fn account(&self) -> Result<Client, ActError> {
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        client
            .ok_or_else(|| refused(Reason::AccountUnknown, "the plan's account is not known yet".to_owned()))
    }

    async fn suspended(&self, client: &Client) -> Result<BTreeMap<ResumeKey, SuspendedObject>, IoError> {
        let (mut cronjobs, mut jobs) = (Vec::new(), Vec::new());
        for namespace in &self.service().namespaces {
            let (these, those) = futures::try_join!(
                list_kind::<CronJob>(client, namespace),
                list_kind::<Job>(client, namespace)
            )?;
            cronjobs.extend(these);
            jobs.extend(those);
        }
        Ok(resume::found(cronjobs, jobs))
    }

    fn judged(&self, found: &BTreeMap<ResumeKey, SuspendedObject>) -> Vec<ResumeObservation> {
        let service = self.service();
        resume::judge(&service.resume, found, &seals(&self.context.stores, service), clock::now())
    }

    fn keep_resumes(&self, attempt: i64, all: Vec<ResumeObservation>) {
        let mut state = self.running.state();
        let held = state.services.entry(self.service().name.clone()).or_default();
        held.resumes = Some((attempt, self.plan.generation, all));
    }
}

async fn write<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    object: &SuspendedObject,
) -> Result<(), IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    for attempt in 1.. {
        let what = format!("resume {} {namespace}/{name}", K::kind(&()));
        let resumed = call(what, api.patch_metadata(name, &params, &Patch::Merge(object.resume()))).await?;
        match cleanup::remove_managers_once(&api, &resumed.metadata).await {
            // A controller wrote in between. Resuming again changes nothing, and returns what is there now.
            Err(error) if error.is_conflict() && attempt < MANAGERS_ATTEMPTS => {}
            // The namespace is released, and a retry would find nothing to resume.
            Err(error) => {
                tracing::warn!(%error, "resumed, but its field managers are left");
                break;
            }
            Ok(()) => break,
        }
    }
    Ok(())
}
