//! Gate `workloads`: reads the service's namespaces.

use futures::FutureExt;
use futures::future::BoxFuture;
use resurgam_core::gates::workloads::{judge, not_applicable};

use super::{Answer, Cached, Context, Gate, Interest, Question, inventory};
use crate::access::Right;
use crate::api::gate::WorkloadsSpec;

impl Gate for WorkloadsSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        match not_applicable(question.phase) {
            Some(_) => Vec::new(),
            None => inventory::interests(&question.namespaces).collect(),
        }
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        match not_applicable(question.phase) {
            Some(_) => Vec::new(),
            None => inventory::rights(&question.namespaces),
        }
    }

    fn cached(&self) -> Cached {
        Cached::Whole
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move {
            let question = context.question;
            if let Some(unknown) = not_applicable(question.phase) {
                return unknown;
            }
            match context.reads.inventory(&question.namespaces).await {
                Ok(inventory) => judge(self, question, &inventory),
                Err(unknown) => unknown,
            }
        }
        .boxed()
    }
}
