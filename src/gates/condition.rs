//! Gate `condition`: reads one object, and has the expression evaluated by a process of its own.

use futures::FutureExt;
use futures::future::BoxFuture;
use resurgam_core::gates::condition::{Evaluation, Target, input, judge, target};

use super::inventory::unreadable;
use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::GateReason;
use crate::api::gate::ConditionSpec;

impl Gate for ConditionSpec {
    fn interests(&self, _: &Question) -> Vec<Interest> {
        // Any kind may be asked about, and none is watched for it: the gate is evaluated at its interval.
        Vec::new()
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        // A gate that can name no object reads none.
        let target = target(self, &question.namespaces);
        target.into_iter().map(|target| right(&target)).collect()
    }

    fn subject(&self) -> String {
        format!("{} {}, or the expression about it,", self.kind, self.name)
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        std::future::ready(target(self, &context.question.namespaces).map(drop)).boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move { evaluate(self, context).await.unwrap_or_else(|unknown| unknown) }.boxed()
    }
}

fn right(target: &Target) -> Right {
    Right {
        namespace: target.namespace.clone(),
        group: target.resource.group.clone(),
        resource: target.resource.plural.clone(),
        verb: "get",
        name: Some(target.name.clone()),
    }
}

async fn evaluate(spec: &ConditionSpec, context: Context<'_>) -> Result<Answer, Answer> {
    let Context { asker, reads, question, .. } = context;
    let target = target(spec, &question.namespaces)?;
    let read = reads.object(&target.resource, target.namespace.as_deref(), &target.name).await;
    let object = read.map_err(|error| unread(&target, &error))?;
    let object = object.map(serde_json::to_value).transpose().map_err(|error| {
        Answer::unknown(GateReason::Unreadable, format!("{} is no JSON: {error}", target.title()))
    })?;
    let evaluation = Evaluation { expression: spec.cel.clone(), object: input(&target, object)? };
    let value = asker.evaluator.evaluate(&evaluation).await;
    Ok(judge(spec, question, &target, &evaluation.object, value))
}

fn unread(target: &Target, error: &kube::Error) -> Answer {
    let title = target.title();
    match error {
        // Only the API server itself says that an object is missing; for a kind that it does not serve, it answers in plain text.
        kube::Error::Api(status) if status.code == 404 => {
            let resource = &target.resource;
            let message = format!(
                "cannot read {title}: the API server does not serve {} in {}: its CRD is missing, or the gate needs another 'resource' or \
                 'scope'",
                resource.plural, resource.api_version
            );
            Answer::unknown(GateReason::KindMissing, message)
        }
        other => unreadable(&format!("cannot read {title}"), other),
    }
}
