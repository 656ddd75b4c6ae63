//! Step `job`: creates a Job of the plan once per attempt, and follows it to its end.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use kube::core::Status;
use kube::{Api, Client};
use resurgam_core::steps::job::{judge, name, namespace, wanted};

use super::{JobStepSpec, Step, StepContext, StepError};
use crate::access::Right;
use crate::api::field_manager;
use crate::calls::{call, call_opt};
use crate::engine::StepProgress;
use crate::gates::Interest;

impl Step for JobStepSpec {
    /// The Job's name depends on the attempt, so no right can name it.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let Ok(namespace) = namespace(self, &context.namespaces) else { return Vec::new() };
        vec![Right::create::<Job>(namespace), Right::get_any::<Job>(namespace)]
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
        client: &'a Client,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let job = wanted(self, context)?;
            let (name, namespace) = (name(context), namespace(self, &context.namespaces)?);
            let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
            let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
            match call(format!("create Job {namespace}/{name}"), jobs.create(&params, &job)).await {
                Ok(created) => Ok(judge(Some(&created), context)),
                // The Job exists after a restart, or because an answer was lost. The core judges whether it belongs to this attempt.
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {
                    self.observe(client, context).await
                }
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        client: &'a Client,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let (name, namespace) = (name(context), namespace(self, &context.namespaces)?);
            let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
            let found = call_opt(format!("read Job {namespace}/{name}"), jobs.get(&name)).await?;
            Ok(judge(found.as_ref(), context))
        }
        .boxed()
    }
}
