//! Gate `jobResult`: creates its Job once per attempt, in a namespace that is isolated for it, and reads the result.
//!
//! What it creates has names derived from the question, so that asking again creates nothing more. Jobs of earlier attempts are deleted
//! when that of a new one is created; the last one stays for people to look at.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use resurgam_core::gates::job_result::{
    GATE_LABEL, Inspection, awaits_volumes, ended_pod, job, judge, name, not_applicable, not_isolated,
    selector,
};
use sha2::{Digest, Sha256};

use super::inventory::unreadable;
use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::gate::JobResultSpec;
use crate::api::{GROUP, Quarantine, field_manager};
use crate::job_pods;

/// Bytes of a program's log that its digest is of.
const LOG_LIMIT: i64 = 1 << 20;
/// Jobs and pods of one gate that one evaluation reads: one of each is there as a rule.
const PAGE: u32 = 16;

mod volumes;

impl Gate for JobResultSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        if not_applicable(question.phase).is_some() {
            return Vec::new();
        }
        let namespace = &self.inspection_namespace.0;
        vec![
            Interest::Workloads { namespace: namespace.clone() },
            Interest::Pods { namespace: namespace.clone() },
        ]
    }

    /// The Job's name depends on the attempt, so no right can name it.
    fn rights(&self, question: &Question) -> Vec<Right> {
        if not_applicable(question.phase).is_some() {
            return Vec::new();
        }
        let namespace = self.inspection_namespace.0.as_str();
        let on_quarantine = |verb| Right {
            namespace: None,
            group: GROUP.to_owned(),
            resource: "quarantines".to_owned(),
            verb,
            name: Some(namespace.to_owned()),
        };
        let delete = Right { verb: "delete", ..Right::get_any::<Job>(namespace) };
        let mut rights = vec![
            on_quarantine("get"),
            // The fence lets nobody else write there.
            on_quarantine("recover"),
            Right::create::<Job>(namespace),
            Right::get_any::<Job>(namespace),
            Right::list::<Job>(namespace),
            delete,
        ];
        rights.extend(job_pods::rights(namespace));
        rights.extend(volumes::rights(self, question));
        rights
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        let question = context.question;
        let checked = not_applicable(question.phase).map_or_else(|| job(self, question).map(drop), Err);
        std::future::ready(checked).boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move {
            if let Some(unknown) = not_applicable(context.question.phase) {
                return unknown;
            }
            match inspect(self, context).await {
                Ok(found) => judge(self, context.question, &found),
                Err(unknown) => unknown,
            }
        }
        .boxed()
    }
}

/// Reads the result, after creating the Job if it is not there.
async fn inspect(spec: &JobResultSpec, context: Context<'_>) -> Result<Inspection, Answer> {
    let question = context.question;
    let client = &context.reads.account.client;
    let wanted = job(spec, question)?;
    let namespace = spec.inspection_namespace.0.as_str();
    let quarantines: Api<Quarantine> = Api::all(client.clone());
    let quarantine = quarantines
        .get_opt(namespace)
        .await
        .map_err(|error| unreadable(&format!("cannot read Quarantine {namespace}"), &error))?;
    if let Some(unknown) = not_isolated(namespace, question, quarantine.as_ref()) {
        return Err(unknown);
    }
    let name = name(spec, question);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let what = |verb: &str| format!("cannot {verb} Job {namespace}/{name}");
    let found = jobs.get_opt(&name).await.map_err(|error| unreadable(&what("read"), &error))?;
    let Some(found) = found else {
        // Without its volumes it would run into its deadline.
        let sources = volumes::sources(spec, context).await?;
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
        let created = match jobs.create(&params, &wanted).await {
            Ok(created) => Some(created),
            // Another evaluation has created it, or an answer was lost. The next one reads it.
            Err(kube::Error::Api(status)) if Status::is_already_exists(&status) => None,
            Err(error) => return Err(unreadable(&what("create"), &error)),
        };
        delete_others(&jobs, question, &name).await;
        if let Some(created) = &created {
            volumes::create(spec, context, created, &sources).await?;
        }
        return Ok(Inspection { job: created, ..Inspection::default() });
    };
    let pods = job_pods::list(client, namespace, &found, PAGE)
        .await
        .map_err(|error| unreadable(&format!("cannot list pods of Job {namespace}/{name}"), &error))?;
    let mut inspection = Inspection { job: Some(found), pods, log: None };
    if let Some(job) =
        inspection.job.as_ref().filter(|_| !spec.volumes.is_empty() && awaits_volumes(&inspection))
    {
        let sources = volumes::sources(spec, context).await?;
        volumes::create(spec, context, job, &sources).await?;
    }
    if let Some(pod) = ended_pod(&inspection).map(ResourceExt::name_any) {
        inspection.log = Some(log(client, namespace, &pod).await);
    }
    Ok(inspection)
}

/// Returns the digest of the first part of a pod's log, or why it cannot be read.
async fn log(client: &Client, namespace: &str, pod: &str) -> Result<String, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams { limit_bytes: Some(LOG_LIMIT), ..LogParams::default() };
    match pods.logs(pod, &params).await {
        Ok(text) => {
            let digest = Sha256::digest(text.as_bytes());
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(format!("sha256:{digest}"))
        }
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => Err(error.to_string()),
    }
}

/// Deletes the gate's Jobs of earlier attempts, with their pods. What is left is deleted in the next attempt: it changes no verdict.
async fn delete_others(jobs: &Api<Job>, question: &Question, name: &str) {
    let params = ListParams::default().labels(&format!("{GATE_LABEL}={}", selector(question))).limit(PAGE);
    let others = match jobs.list(&params).await {
        Ok(found) => found.items,
        Err(error) => return tracing::warn!(%error, "Jobs of earlier attempts cannot be listed"),
    };
    for other in others.iter().map(ResourceExt::name_any).filter(|other| other != name) {
        if let Err(error) = jobs.delete(&other, &DeleteParams::background()).await {
            tracing::warn!(%error, job = other, "Job of an earlier attempt cannot be deleted");
        }
    }
}
