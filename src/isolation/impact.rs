//! Reads what isolating a namespace would stop. All writes are dry-runs.

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use resurgam_core::preflight::impact::{NamespaceRead, judge};

use super::controls::pods;
use super::label;
use super::network;
use super::workloads;
use crate::api::{Isolation, Quarantine, QuarantineSpec};
use crate::calls::{IoError, call};

pub use resurgam_core::preflight::impact::{Impact, References};

/// Reads objects of other namespaces that may depend on any namespace.
pub async fn elsewhere(client: &Client) -> References {
    let mut all = References::default();
    let params = ListParams::default().match_any();
    let (services, policies): (Api<Service>, Api<NetworkPolicy>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let (services, policies) = futures::join!(
        call("list services", services.list(&params)),
        call("list networkpolicies", policies.list(&params))
    );
    match services {
        Ok(list) => all.services = list.items,
        Err(error) => all.unread.push(error.to_string()),
    }
    match policies {
        Ok(list) => all.policies = list.items,
        Err(error) => all.unread.push(error.to_string()),
    }
    all
}

/// Returns the impact of isolating this namespace.
pub async fn impact(client: &Client, name: &str, spec: &QuarantineSpec, elsewhere: &References) -> Impact {
    fn why(error: IoError) -> String {
        error.to_string()
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let (namespace, inventory, pods, ingresses) = futures::join!(
        call(format!("get namespace {name}"), namespaces.get(name)),
        workloads::inventory(client, name),
        pods::list(client, name),
        workloads::list_kind::<Ingress>(client, name),
    );
    let read = NamespaceRead {
        namespace: namespace.map_err(why),
        inventory: inventory.map_err(why),
        pods: pods.map_err(why),
        ingresses: ingresses.map_err(why),
    };
    let namespace = read.namespace.clone().unwrap_or_default();
    let mut impact = judge(name, read, elsewhere);
    if impact.already.is_none() {
        impact.refused = refused(client, &namespace, spec).await;
    }
    impact
}

/// Returns the errors of the writes as dry-runs.
async fn refused(client: &Client, namespace: &Namespace, spec: &QuarantineSpec) -> Vec<String> {
    let name = namespace.name_any();
    let params = PostParams { dry_run: true, field_manager: None };
    let quarantines: Api<Quarantine> = Api::all(client.clone());
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &name);
    let quarantine = Quarantine::new(&name, spec.clone());
    let deny = network::wanted(&name, None).into_iter().next().unwrap_or_default();
    let (made, denied, labelled) = futures::join!(
        call(format!("create Quarantine {name}"), quarantines.create(&params, &quarantine)),
        call(
            format!("create NetworkPolicy {name}/{}", network::DEFAULT_DENY),
            policies.create(&params, &deny)
        ),
        label::label(client, namespace, spec, Isolation::Contained, true),
    );
    let errors = [made.map(drop).err(), denied.map(drop).err(), labelled.map(drop).err()];
    // A conflict means that the object exists already.
    errors.into_iter().flatten().filter(|error| !error.is_conflict()).map(|error| error.to_string()).collect()
}
