//! Is the deletion of a Quarantine a release? Admission asked whoever deletes one; but the deletion of its kind, the
//! CustomResourceDefinition, marks every Quarantine as deleted without asking anybody.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::events::EventType;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::Context;
use crate::api::Quarantine;
use crate::calls::{IoError, call_opt};

/// What is being deleted, and waits for something else, is looked at again this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the deletion of a Quarantine means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is not being deleted.
    None,
    /// Somebody who may release it deleted it.
    Release,
    /// It stays isolated: why.
    Keep(String),
}

/// What the deletion of a Quarantine means, with a live look at its kind.
pub(super) async fn of(context: &Context, quarantine: &Quarantine) -> Ending {
    if quarantine.metadata.deletion_timestamp.is_none() {
        return Ending::None;
    }
    let name = Quarantine::crd_name();
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let kind = call_opt(format!("get CustomResourceDefinition {name}"), crds.get_metadata(name)).await;
    judge(kind.map(|kind| kind.map(|kind| kind.metadata.deletion_timestamp.is_some())))
}

/// `kind`: is the kind being deleted? `None`: it is not there any more.
fn judge(kind: Result<Option<bool>, IoError>) -> Ending {
    let why = match kind {
        Ok(Some(false)) => return Ending::Release,
        Ok(Some(true)) => "its kind is being deleted, which asked nobody who may release it".to_owned(),
        Ok(None) => "its kind is not there any more".to_owned(),
        Err(error) => format!("whether its kind is being deleted is not known: {error}"),
    };
    Ending::Keep(why)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_a_release_only_where_its_kind_is_known_to_stay() {
        let silent = IoError::Timeout { what: "get".into(), after: Duration::from_secs(1) };
        assert_eq!(judge(Ok(Some(false))), Ending::Release);
        for kind in [Ok(Some(true)), Ok(None), Err(silent)] {
            let text = format!("{kind:?}");
            assert!(matches!(judge(kind), Ending::Keep(_)), "{text}");
        }
    }
}
