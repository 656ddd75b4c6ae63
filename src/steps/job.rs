//! Step `job`: creates a Job of the plan once per attempt, and follows it to its end.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use resurgam_core::steps::job::{
    Logs, ended, judge, name, namespace, selector, still_running, wanted, with_logs,
};

use super::{JobStepSpec, Step, StepClients, StepContext, StepError, StepServices};
use crate::access::Right;
use crate::api::field_manager;
use crate::calls::{call, call_opt, list_all};
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::isolation::evidence::keep_ends;
use crate::job_pods;

/// Jobs of a step on a page of a list.
const PAGE: u32 = 100;

/// Pods of a Job whose logs are kept.
const PODS: u32 = 16;

impl Step for JobStepSpec {
    /// The Job's name depends on the attempt, so no right can name it.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let Ok(namespace) = namespace(self, &context.namespaces) else { return Vec::new() };
        let mut rights = vec![
            Right::create::<Job>(namespace),
            Right::get_any::<Job>(namespace),
            Right::list::<Job>(namespace),
        ];
        rights.extend(job_pods::rights(namespace));
        rights
    }

    fn interests(&self, context: &StepContext) -> Vec<Interest> {
        let namespace = namespace(self, &context.namespaces);
        namespace.map_or_else(
            |_| Vec::new(),
            |namespace| vec![Interest::Workloads { namespace: namespace.to_owned() }],
        )
    }

    fn start<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let job = wanted(self, context)?;
            let (name, namespace) = (name(context), namespace(self, &context.namespaces)?);
            let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
            // After a restart of the operator it is there: it is followed, whatever else may be listed.
            let own = call_opt(format!("read Job {namespace}/{name}"), jobs.get(&name)).await?;
            if own.is_none() {
                let of_step = ListParams::default().labels(&selector(context));
                let what = format!("list Jobs of step {} in {namespace}", context.step);
                let others = list_all(&what, &jobs, of_step, PAGE).await?;
                if let Some(other) = still_running(&others, context) {
                    return Err(StepError::Waiting(format!(
                        "Job {namespace}/{other} of an earlier start still runs, and nothing is started beside it: {name} starts once \
                         it has ended or is deleted"
                    )));
                }
            }
            let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
            match call(format!("create Job {namespace}/{name}"), jobs.create(&params, &job)).await {
                Ok(created) => Ok(judge(Some(&created), context)),
                // The Job exists after a restart, or because an answer was lost. The core judges whether it belongs to this attempt.
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {
                    let found = call_opt(format!("read Job {namespace}/{name}"), jobs.get(&name)).await?;
                    Ok(match ended(found.as_ref(), context) {
                        // Keeping its logs takes time: that is for the observer.
                        Some(_) => StepProgress::Running(format!("Job {name} has ended")),
                        None => judge(found.as_ref(), context),
                    })
                }
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        StepClients { client, services }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let (name, namespace) = (name(context), namespace(self, &context.namespaces)?);
            let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
            let found = call_opt(format!("read Job {namespace}/{name}"), jobs.get(&name)).await?;
            let progress = judge(found.as_ref(), context);
            let Some(ended) = ended(found.as_ref(), context) else { return Ok(progress) };
            let what = format!("list pods of Job {namespace}/{name}");
            let pods = call(what, job_pods::list(client, namespace, ended, PODS)).await;
            let pods = pods.map_err(|error| error.to_string());
            let logs = match &pods {
                Ok(pods) => keep_logs(client, services, namespace, pods).await,
                Err(_) => Ok(Vec::new()),
            };
            Ok(with_logs(progress, &pods, &logs))
        }
        .boxed()
    }
}

/// Keeps the ends of the pods' logs. They may contain anything, so that they are only kept encrypted. What cannot be kept keeps no step
/// from ending.
async fn keep_logs(client: &Client, services: &StepServices, namespace: &str, pods: &[Pod]) -> Logs {
    let Some(evidence) = &services.evidence else { return Err("there is no evidence store".to_owned()) };
    if evidence.recipients.is_empty() {
        return Err("the operator has no --evidence-recipient to encrypt it for".to_owned());
    }
    Ok(keep_ends(client, evidence, namespace, pods).await)
}
