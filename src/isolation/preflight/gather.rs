//! Reads what the preflight judges, as the caller. Read errors are kept as facts.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::config::Kubeconfig;
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{ClusterSnapshot, Listed, login};
use crate::api::{OPERATOR_NAMESPACE, RecoveryPlan};
use crate::calls::{IoError, call, call_opt};

/// Reads all facts. `evidence`: the evidence store, if the caller names one.
pub async fn gather(
    client: &Client,
    targets: &[String],
    kubeconfig: Option<&Kubeconfig>,
    evidence: Option<String>,
) -> ClusterSnapshot {
    let route = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let route = ApiResource::from_gvk(&route);
    let routes: Api<DynamicObject> = Api::all_with(client.clone(), &route);
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let (daemonsets, deployments, statefulsets, services, csi_drivers) =
        futures::join!(all(client), all::<Deployment>(client), all(client), all(client), all(client));
    let (validating, mutating, crds, apiservices, ingresses) =
        futures::join!(all(client), all(client), all(client), all(client), all(client));
    let (routes, leases, plans, whoami, pods, operator) = futures::join!(
        listed("HTTPRoutes", &routes, true),
        all::<Lease>(client),
        async { listed("RecoveryPlans", &Api::<RecoveryPlan>::all(client.clone()), true).await },
        call("ask who I am", async {
            reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await
        }),
        pods(client, targets),
        operators_store(client),
    );
    let namespaces = namespaces(client).await;
    let mut login = kubeconfig.map(login::through).unwrap_or_default();
    login.username = whoami
        .map(|review| review.status.and_then(|s| s.user_info).and_then(|u| u.username).unwrap_or_default())
        .map_err(|error| error.to_string());
    let evidence = match evidence {
        Some(address) => Ok(vec![address]),
        None => operator,
    };
    ClusterSnapshot {
        daemonsets,
        deployments,
        statefulsets,
        services,
        csi_drivers,
        validating,
        mutating,
        namespaces,
        crds,
        apiservices,
        ingresses,
        routes,
        leases,
        pods,
        plans,
        login,
        evidence,
        now: crate::clock::now(),
    }
}

async fn all<K>(client: &Client) -> Listed<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    listed(&K::plural(&()), &Api::<K>::all(client.clone()), false).await
}

async fn listed<K>(what: &str, api: &Api<K>, optional: bool) -> Listed<K>
where
    K: Clone + DeserializeOwned + Debug,
{
    // A cached list is recent enough, and cheap for the API server.
    let params = ListParams::default().match_any();
    match call(format!("list {what}"), api.list(&params)).await {
        Ok(list) => Ok(list.items),
        Err(error) if optional && error.is_not_served() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

async fn namespaces(client: &Client) -> Listed<PartialObjectMeta<Namespace>> {
    let api: Api<Namespace> = Api::all(client.clone());
    let list = call("list namespaces", api.list_metadata(&ListParams::default().match_any())).await;
    list.map(|list| list.items).map_err(|error| error.to_string())
}

async fn pods(client: &Client, targets: &[String]) -> BTreeMap<String, Listed<String>> {
    use futures::{StreamExt, stream};
    stream::iter(targets.to_vec())
        .map(|namespace| async move {
            let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let params = ListParams::default().match_any();
            let list = call(format!("list pods in {namespace}"), api.list_metadata(&params)).await;
            let names = list.map(|list| list.iter().map(ResourceExt::name_any).collect());
            (namespace, names.map_err(|error| error.to_string()))
        })
        .buffer_unordered(8)
        .collect()
        .await
}

/// Returns the operator's evidence store from the arguments of its Deployment. Without a Deployment, there is none.
async fn operators_store(client: &Client) -> Listed<String> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let what = format!("list deployments in {OPERATOR_NAMESPACE}");
    let found: Result<_, IoError> = call_opt(what, api.list(&ListParams::default())).await;
    let found = found.map_err(|error| error.to_string())?;
    let pods = found.into_iter().flat_map(|list| list.items).filter_map(|d| d.spec?.template.spec);
    let words = pods.flat_map(|pod| pod.containers).flat_map(|container| {
        let values = container.env.into_iter().flatten().filter_map(|variable| variable.value);
        container.args.into_iter().chain(container.command).flatten().chain(values).collect::<Vec<_>>()
    });
    Ok(words.filter(|word| word.contains("://") || word.contains(".svc")).collect())
}
