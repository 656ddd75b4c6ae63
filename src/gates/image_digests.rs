//! Gate `imageDigests`: reads the service's namespaces and the list of approved digests.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use resurgam_core::gates::image_digests::{ImagePolicy, judge, nodes_to_ask, policy};
use resurgam_core::gates::images::NodeImages;

use super::{Answer, Cached, Context, Gate, Interest, Question, inventory};
use crate::access::Right;
use crate::api::gate::ImageDigestsSpec;

/// Maximum number of nodes that one evaluation asks.
const MAX_NODES: usize = 16;

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

    fn cached(&self) -> Cached {
        Cached::Whole
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        async move { image_policy(self, context).await.map(drop) }.boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move {
            let Context { reads, question, .. } = context;
            // Read concurrently, so that a live inventory is shared with gates evaluated at the same time.
            let (policy, inventory) =
                futures::join!(image_policy(self, context), reads.inventory(&question.namespaces));
            match policy.and_then(|policy| Ok((policy, inventory?))) {
                Ok((policy, inventory)) => {
                    let asked = nodes_to_ask(&policy, question, &inventory);
                    let nodes = node_images(context, asked).await;
                    judge(&policy, question, &inventory, &nodes)
                }
                Err(unknown) => unknown,
            }
        }
        .boxed()
    }
}

/// Reads and parses the gate's list of approved images.
async fn image_policy(spec: &ImageDigestsSpec, context: Context<'_>) -> Result<ImagePolicy, Answer> {
    let namespace = &context.question.plan_namespace;
    let list = match &spec.approved_from {
        Some(from) => context.reads.config_map(namespace, &from.config_map.name).await?,
        None => None,
    };
    policy(spec, namespace, list.as_deref())
}

/// Reads the images of these nodes, as far as the plan's account may. A plan needs no right to that: it can list all digests instead.
async fn node_images(context: Context<'_>, asked: BTreeSet<String>) -> NodeImages {
    let mut nodes = NodeImages::default();
    for (index, name) in asked.into_iter().enumerate() {
        if index >= MAX_NODES {
            nodes.add_unread(&name, format!("only {MAX_NODES} nodes are asked at a time"));
            continue;
        }
        match context.reads.node(&name).await {
            Ok(node) => nodes.add(&name, &node),
            Err(why) => nodes.add_unread(&name, why.message),
        }
    }
    nodes
}
