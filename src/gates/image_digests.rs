//! Gate `imageDigests`: reads the service's namespaces and the list of approved digests.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use resurgam_core::gates::image_digests::{approved, judge};

use super::{Answer, Context, Gate, Interest, Question, inventory};
use crate::access::Right;
use crate::api::gate::ImageDigestsSpec;

impl Gate for ImageDigestsSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        let list = self.approved_from.iter().map(|from| Interest::ConfigMap {
            namespace: question.plan_namespace.clone(),
            name: from.config_map.name.clone(),
        });
        inventory::interests(&question.namespaces).chain(list).collect()
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        let list = self
            .approved_from
            .iter()
            .map(|from| Right::get::<ConfigMap>(&question.plan_namespace, &from.config_map.name));
        inventory::rights(&question.namespaces).into_iter().chain(list).collect()
    }

    fn is_cached(&self) -> bool {
        true
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move {
            let Context { reads, question, .. } = context;
            let namespace = &question.plan_namespace;
            let list = async {
                match &self.approved_from {
                    Some(from) => reads.config_map(namespace, &from.config_map.name).await,
                    None => Ok(None),
                }
            };
            // Read concurrently, so that a live inventory is shared with gates evaluated at the same time.
            let (list, inventory) = futures::join!(list, reads.inventory(&question.namespaces));
            let approved = list.and_then(|list| approved(self, namespace, list.as_deref()));
            match approved.and_then(|approved| Ok((approved, inventory?))) {
                Ok((approved, inventory)) => judge(&approved, question, &inventory),
                Err(unknown) => unknown,
            }
        }
        .boxed()
    }
}
