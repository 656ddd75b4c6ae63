//! Records of the requirements last accepted: one ConfigMap per namespace, in the operator's namespace, where no tenant writes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::act::{Act, ActError, refused};
use super::context::Context;
use super::running::{State, at_least_as_new};
use super::stores::Stores;
use crate::api::{Incident, MANAGED_BY_LABEL, RECORDS_NAMESPACE, Reason, field_manager};
use crate::calls::{IoError, call, call_opt};
use crate::clock;
use crate::engine::{AcceptedRecord, AcceptedState, RequirementsWrite};
use crate::isolation::MANAGED_BY;
use crate::plan::Plan;
use crate::plan::ratchet::{Requirements, Scope};

/// Label of the operator's records, and its value on these.
pub(crate) const RECORD_LABEL: &str = "resurgam.dev/record";
const RECORD: &str = "accepted-requirements";
const OF_NAMESPACE: &str = "resurgam-accepted.";
const OF_EXTERNAL: &str = "resurgam-accepted-external.";

/// Keys of a record.
const INCIDENT: &str = "incident";
const INCIDENT_UID: &str = "incidentUid";
const REQUIREMENTS: &str = "requirements";
const PLAN: &str = "plan";
const SERVICE: &str = "service";
const ACCEPTED_BY: &str = "acceptedBy";
const ACCEPTED_AT: &str = "acceptedAt";
const EXCEPTIONS: &str = "exceptions";

/// Returns the name of the ConfigMap of a scope.
pub(crate) fn name(scope: &Scope) -> String {
    match scope {
        Scope::Namespace(namespace) => format!("{OF_NAMESPACE}{namespace}"),
        Scope::External { plan_namespace, service } => format!("{OF_EXTERNAL}{plan_namespace}.{service}"),
    }
}

/// Returns the scope of a ConfigMap with this name.
pub(crate) fn scope(name: &str) -> Option<Scope> {
    if let Some(namespace) = name.strip_prefix(OF_NAMESPACE) {
        return Some(Scope::Namespace(namespace.to_owned()));
    }
    let (plan_namespace, service) = name.strip_prefix(OF_EXTERNAL)?.split_once('.')?;
    Some(Scope::External { plan_namespace: plan_namespace.to_owned(), service: service.to_owned() })
}

/// Returns the label selector of the records.
pub(crate) fn selector() -> String {
    format!("{RECORD_LABEL}={RECORD}")
}

/// Returns the record of a scope: the watch's, or this process's own last write if that is newer (I6).
pub(super) fn observe(stores: &Stores, state: &mut State, scope: &Scope) -> AcceptedState {
    let name = name(scope);
    let watched = stores.accepted.get(&ObjectRef::new(&name).within(RECORDS_NAMESPACE));
    if let (Some(watched), Some(own)) = (&watched, state.accepted_own.get(&name))
        && at_least_as_new(&watched.metadata, &own.metadata)
    {
        state.accepted_own.remove(&name);
    }
    let Some(object) = state.accepted_own.get(&name).cloned().map(Arc::new).or(watched) else {
        return AcceptedState::Missing;
    };
    let uid = object.data.as_ref().and_then(|data| data.get(INCIDENT_UID));
    if uid.is_some_and(|uid| !incident_is_there(stores, uid)) {
        return AcceptedState::Outdated { revision: object.resource_version().unwrap_or_default() };
    }
    // Each version is parsed once, since plans are reconciled often.
    let read = state.accepted_read.entry(name);
    let version = object.resource_version();
    let read = read.and_modify(|read| {
        if read.0 != version {
            *read = (version.clone(), parse(&object));
        }
    });
    read.or_insert_with(|| (version, parse(&object))).1.clone()
}

fn incident_is_there(stores: &Stores, uid: &str) -> bool {
    let is = |object: &Arc<super::stores::Guarded<Incident>>| {
        kube::Resource::meta(object.as_ref()).uid.as_deref() == Some(uid)
    };
    stores.incidents.state().iter().any(is)
}

/// Parses a record. A malformed record is unreadable, which blocks.
fn parse(object: &ConfigMap) -> AcceptedState {
    let revision = object.resource_version().unwrap_or_default();
    match try_parse(object) {
        Ok(record) => AcceptedState::Record { revision, record },
        Err(why) => AcceptedState::Unreadable {
            revision,
            why: format!("ConfigMap {RECORDS_NAMESPACE}/{}: {why}", object.name_any()),
        },
    }
}

fn try_parse(object: &ConfigMap) -> Result<AcceptedRecord, String> {
    let get = |key: &str| {
        let value = object.data.as_ref().and_then(|data| data.get(key));
        value.ok_or_else(|| format!("it has no {key}"))
    };
    get(INCIDENT_UID)?;
    let requirements: Requirements =
        serde_json::from_str(get(REQUIREMENTS)?).map_err(|error| format!("{REQUIREMENTS}: {error}"))?;
    let exceptions =
        serde_json::from_str(get(EXCEPTIONS)?).map_err(|error| format!("{EXCEPTIONS}: {error}"))?;
    Ok(AcceptedRecord { requirements: Arc::new(requirements), by: get(ACCEPTED_BY)?.clone(), exceptions })
}

fn records(context: &Context) -> Api<ConfigMap> {
    Api::namespaced(context.client.clone(), RECORDS_NAMESPACE)
}

/// Returns the UID of the plan's Incident in the watch's store.
fn incident_uid(stores: &Stores, plan: &Plan) -> Option<String> {
    let object = stores.incidents.get(&ObjectRef::new(plan.incident.as_deref()?))?;
    kube::Resource::meta(object.as_ref()).uid.clone()
}

impl Act {
    /// Writes records of accepted requirements, each only over the version that the decision was based on.
    pub(super) async fn accept(&self, accepting: &[RequirementsWrite]) -> Result<(), ActError> {
        let uid = incident_uid(&self.context.stores, &self.plan);
        let (Some(incident), Some(uid)) = (self.plan.incident.clone(), uid) else {
            return Err(refused(Reason::Conflict, "the plan's Incident is not known yet".to_owned()));
        };
        self.plan_is_current().await?;
        for new in accepting {
            let name = name(&new.scope);
            let written = match &new.over {
                None => self.record(&name, None, &incident, &uid, &new.record).await?,
                Some(version) => {
                    self.is_not_of_another_incident(&name, &uid, new).await?;
                    self.record(&name, Some(version), &incident, &uid, &new.record).await?
                }
            };
            self.running.state().accepted_own.insert(name, written);
        }
        Ok(())
    }

    async fn record(
        &self,
        name: &str,
        over: Option<&str>,
        incident: &str,
        uid: &str,
        record: &AcceptedRecord,
    ) -> Result<ConfigMap, ActError> {
        let encode = |value: serde_json::Result<String>| {
            value.map_err(|error| refused(Reason::Refused, format!("{name} cannot be written: {error}")))
        };
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": RECORDS_NAMESPACE, "resourceVersion": over,
                "labels": {MANAGED_BY_LABEL: MANAGED_BY, RECORD_LABEL: RECORD},
            },
            "data": {
                INCIDENT: incident,
                INCIDENT_UID: uid,
                REQUIREMENTS: encode(serde_json::to_string(&*record.requirements))?,
                PLAN: self.running.key.to_string(),
                SERVICE: self.service().name,
                ACCEPTED_BY: record.by,
                ACCEPTED_AT: clock::now().to_string(),
                EXCEPTIONS: encode(serde_json::to_string(&record.exceptions))?,
            },
        });
        let records = records(&self.context);
        let what = format!("record the accepted requirements in ConfigMap {RECORDS_NAMESPACE}/{name}");
        let manager = Some(field_manager::PLAN.to_owned());
        let written = if over.is_some() {
            let params = PatchParams { field_manager: manager, ..PatchParams::default() };
            call(what, records.patch(name, &params, &Patch::Merge(&object))).await?
        } else {
            let params = PostParams { dry_run: false, field_manager: manager };
            let object = serde_json::from_value(object)
                .map_err(|error| refused(Reason::Refused, format!("{name} cannot be written: {error}")))?;
            call(what, records.create(&params, &object)).await?
        };
        Ok(written)
    }

    /// Reads live whether the Incident of a record is gone. Only then may the record of another Incident be overwritten without a person.
    async fn is_not_of_another_incident(
        &self,
        name: &str,
        uid: &str,
        new: &RequirementsWrite,
    ) -> Result<(), ActError> {
        if !new.record.exceptions.is_empty() {
            return Ok(());
        }
        let what = format!("read ConfigMap {RECORDS_NAMESPACE}/{name}");
        let Some(found) = call_opt(what, records(&self.context).get(name)).await? else {
            return Err(refused(Reason::Conflict, format!("ConfigMap {RECORDS_NAMESPACE}/{name} is gone")));
        };
        let theirs = found.data.as_ref().and_then(|data| data.get(INCIDENT_UID));
        let Some(theirs) = theirs.filter(|theirs| *theirs != uid) else { return Ok(()) };
        if incident_uids(&self.context).await?.contains(theirs) {
            let message =
                format!("ConfigMap {RECORDS_NAMESPACE}/{name} is of another Incident, which is there");
            return Err(refused(Reason::Conflict, message));
        }
        Ok(())
    }

    /// Reads live whether what the plan requires of the service was accepted for each of its namespaces.
    pub(super) async fn requirements_are_accepted(&self) -> Result<(), ActError> {
        let uid = incident_uid(&self.context.stores, &self.plan);
        let records = records(&self.context);
        let reads = self.plan.scopes(self.id).into_iter().map(|scope| {
            let (records, uid) = (records.clone(), uid.clone());
            async move {
                let name = name(&scope);
                let what = format!("read ConfigMap {RECORDS_NAMESPACE}/{name}");
                let found = call_opt(what, records.get(&name)).await?;
                let of_this_incident = |object: &ConfigMap| {
                    let theirs = object.data.as_ref().and_then(|data| data.get(INCIDENT_UID));
                    theirs.is_some() && theirs == uid.as_ref()
                };
                let accepted = found.filter(of_this_incident).map(|object| parse(&object));
                let now = &self.service().requirements;
                match accepted {
                    Some(AcceptedState::Record { record, .. }) if *record.requirements == **now => Ok(()),
                    _ => {
                        let message = format!(
                            "what the plan requires for {scope} is not what was last accepted, by a live read of ConfigMap \
                             {RECORDS_NAMESPACE}/{name}"
                        );
                        Err(refused(Reason::NotAccepted, message))
                    }
                }
            }
        });
        futures::future::try_join_all(reads).await.map(|_| ())
    }
}

async fn incident_uids(context: &Context) -> Result<Vec<String>, IoError> {
    let incidents: Api<kube::core::PartialObjectMeta<Incident>> = Api::all(context.client.clone());
    let list = call("list Incidents", incidents.list_metadata(&ListParams::default())).await?;
    Ok(list.items.into_iter().filter_map(|incident| incident.metadata.uid).collect())
}

/// Deletes the records of Incidents that are gone by a live read. Until then such records are ignored.
pub(crate) async fn sweep(context: &Context) -> Result<(), IoError> {
    let uid = |object: &ConfigMap| object.data.as_ref().and_then(|data| data.get(INCIDENT_UID)).cloned();
    let suspect =
        |object: &Arc<ConfigMap>| uid(object).is_some_and(|uid| !incident_is_there(&context.stores, &uid));
    let suspects: Vec<Arc<ConfigMap>> = context.stores.accepted.state().into_iter().filter(suspect).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let there = incident_uids(context).await?;
    for object in suspects.iter().filter(|object| uid(object).is_some_and(|uid| !there.contains(&uid))) {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: object.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let (name, records) = (object.name_any(), records(context));
        let what = format!("delete ConfigMap {RECORDS_NAMESPACE}/{name}");
        match call_opt(what, records.delete(&name, &params)).await {
            Err(error) if error.is_conflict() => {}
            other => drop(other?),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "accepted_tests.rs"]
mod tests;
