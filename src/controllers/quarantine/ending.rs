//! Reads whether the kind of a Quarantine that is being deleted stays, and tells where the namespace stays isolated.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::events::EventType;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::Context;
use crate::api::Quarantine;
use crate::calls::call_opt;
use crate::isolation::ending::{Ending, KindState, ending};

/// What is being deleted, and waits for something else, is looked at again this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Returns what the deletion of a Quarantine means, with a live look at its kind.
pub(super) async fn of(context: &Context, quarantine: &Quarantine) -> Ending {
    if quarantine.metadata.deletion_timestamp.is_none() {
        return Ending::None;
    }
    let name = Quarantine::crd_name();
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let kind = call_opt(format!("get CustomResourceDefinition {name}"), crds.get_metadata(name)).await;
    ending(match kind {
        Ok(Some(kind)) if kind.metadata.deletion_timestamp.is_none() => KindState::Served,
        Ok(Some(_)) => KindState::Terminating,
        Ok(None) => KindState::Missing,
        Err(error) => KindState::Unknown(error.to_string()),
    })
}

/// Tells, once, that it stays isolated. Returns when to look again.
pub(super) async fn tell(context: &Context, quarantine: &Quarantine, why: String) -> Duration {
    let name = quarantine.name_any();
    if !context.remember(&name, |memory| std::mem::replace(&mut memory.kept, true)) {
        let note = format!(
            "namespace {name} stays isolated though its Quarantine is marked as deleted: {why}. To let it out, somebody who \
             may release it removes the label resurgam.dev/isolation from the namespace (docs/isolation.md)"
        );
        tracing::warn!("{note}");
        context.tell(quarantine, EventType::Warning, "StaysIsolated", note).await;
    }
    LOOK_AGAIN
}
