//! Step `restoreBackup`: the Restore of Velero to create, what may be in its namespace before and after, and its progress.

use serde_json::{Value, json};

use super::{StepContext, StepProblem, job, listed, namespace_of};
use crate::api::step::RestoreBackupSpec;
use crate::api::{Reason, StepPhase};
use crate::baseline::shortened;
use crate::engine::StepProgress;

mod contents;

pub use contents::{Left, before, left};

/// API group of Velero.
pub const GROUP: &str = "velero.io";
/// API version of Velero's kinds.
pub const API_VERSION: &str = "velero.io/v1";
/// Namespace and ServiceAccount of Velero, unless the step names others.
const VELERO: &str = "velero";
/// Annotation on a Restore with the digest of what it was created for.
const MADE_FOR_ANNOTATION: &str = "resurgam.dev/step-of";
/// Label on a Restore with the name of its step.
const STEP_LABEL: &str = "resurgam.dev/step";
/// What a Restore leaves out: the fence refuses network policies of a clean room to everybody.
const EXCLUDED: [&str; 4] = [
    "networkpolicies.networking.k8s.io",
    "ciliumnetworkpolicies.cilium.io",
    "networkpolicies.crd.projectcalico.org",
    "networkpolicies.projectcalico.org",
];
/// Maximum length of a text of Velero in a message, in characters.
const TEXT_LIMIT: usize = 200;
/// Maximum number of Velero's validation errors in a message.
const LISTED: usize = 3;

/// Returns why the Restore can never be created.
pub(super) fn problem(spec: &RestoreBackupSpec, phase: StepPhase, namespaces: &[String]) -> Option<String> {
    if phase != StepPhase::CleanRoom {
        return Some("writes into a clean room: it needs phase CleanRoom".to_owned());
    }
    namespace(spec, namespaces).err().map(|error| error.to_string())
}

/// Returns the namespace that is restored into.
///
/// # Errors
/// The service does not have it, or the step names none and the service has several.
pub fn namespace<'a>(spec: &'a RestoreBackupSpec, namespaces: &'a [String]) -> Result<&'a str, StepProblem> {
    namespace_of(spec.namespace.as_ref(), namespaces, "Restore")
}

/// Returns the namespace of Velero.
#[must_use]
pub fn velero_namespace(spec: &RestoreBackupSpec) -> &str {
    spec.velero_namespace.as_ref().map_or(VELERO, |name| &name.0)
}

/// Returns the ServiceAccount as which Velero writes, in Velero's namespace.
#[must_use]
pub fn velero_account(spec: &RestoreBackupSpec) -> &str {
    spec.velero_account.as_ref().map_or(VELERO, |name| &name.0)
}

/// Returns the Restore's name. It is the same for each start within one attempt, and differs between attempts.
#[must_use]
pub fn name(context: &StepContext) -> String {
    job::name(context)
}

/// Returns why Velero's account may not write into the namespace, which the fence would refuse in the middle of a restore. `recover`,
/// `wildcard`: whether it is allowed `recover` and `never-granted` on the Quarantine.
#[must_use]
pub fn not_granted(
    spec: &RestoreBackupSpec,
    namespace: &str,
    recover: bool,
    wildcard: bool,
) -> Option<(Reason, String)> {
    let (velero, account) = (velero_namespace(spec), velero_account(spec));
    let user = format!("system:serviceaccount:{velero}:{account}");
    if wildcard {
        return Some((
            Reason::WildcardHolder,
            format!(
                "{user} holds every verb on quarantines/{namespace} by a wildcard, such as cluster-admin's, which is no grant: the fence refuses \
                 it. Bind it to a ClusterRole that names its API groups, without resurgam.dev (docs/steps.md has one), and grant it recover"
            ),
        ));
    }
    (!recover).then(|| {
        let role = format!("velero-recover-{namespace}");
        let message = format!(
            "{user} may not 'recover' quarantines.resurgam.dev/{namespace}, so the fence refuses what it restores: kubectl create clusterrole \
             {role} --verb=recover --resource=quarantines.resurgam.dev --resource-name={namespace} && kubectl create clusterrolebinding {role} \
             --clusterrole={role} --serviceaccount={velero}:{account}"
        );
        (Reason::VeleroNotGranted, message)
    })
}

/// Returns why the Backup cannot be restored from. `None`: it is complete.
#[must_use]
pub fn backup_problem(backup: Option<&Value>, spec: &RestoreBackupSpec) -> Option<String> {
    let name = format!("Backup {}/{}", velero_namespace(spec), spec.backup_name);
    let Some(backup) = backup else { return Some(format!("{name} does not exist")) };
    match text(backup, "/status/phase") {
        "Completed" => None,
        "" => Some(format!("{name} has not begun")),
        phase => Some(format!("{name} is {}, and not Completed", shortened(phase, TEXT_LIMIT))),
    }
}

/// Returns the Restore to create.
///
/// # Errors
/// The step names no namespace.
pub fn wanted(spec: &RestoreBackupSpec, context: &StepContext) -> Result<Value, StepProblem> {
    let namespace = namespace(spec, &context.namespaces)?;
    let from = spec.from.as_ref().map_or(namespace, |from| &from.0);
    let mut restore = json!({
        "backupName": spec.backup_name,
        "includedNamespaces": [from],
        "excludedResources": EXCLUDED,
        // What is not said means true.
        "includeClusterResources": false,
        // Nothing that is there is changed. Volumes would keep their content with `update`, too.
        "existingResourcePolicy": "none",
        // A modifier of the whole server could change what is restored. Versions before 1.19 have none, and drop this field.
        "skipDefaultResourceModifier": true,
    });
    if from != namespace {
        restore["namespaceMapping"] = json!({from: namespace});
    }
    if let Some(timeout) = spec.item_operation_timeout {
        // Velero's durations have no days.
        restore["itemOperationTimeout"] = json!(format!("{}ms", timeout.0.as_millis()));
    }
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": "Restore",
        "metadata": {
            "name": name(context),
            "namespace": velero_namespace(spec),
            "labels": {STEP_LABEL: context.step},
            "annotations": {MADE_FOR_ANNOTATION: context.digest()},
        },
        "spec": restore,
    }))
}

/// How far a Restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It has not ended, or has failed.
    Progress(StepProgress),
    /// Velero says that it is complete. What is in the namespace decides.
    Completed,
}

/// Returns how far the Restore is. One that was created for something else than this attempt fails the step.
#[must_use]
pub fn judge(restore: Option<&Value>, spec: &RestoreBackupSpec, context: &StepContext) -> Followed {
    let name = format!("Restore {}/{}", velero_namespace(spec), name(context));
    let failed = |why: String| Followed::Progress(StepProgress::Failed(why));
    let Some(restore) = restore else {
        return failed(format!("{name} was deleted before it ended"));
    };
    let made_for = restore.pointer("/metadata/annotations").and_then(|all| all.get(MADE_FOR_ANNOTATION));
    if made_for.and_then(Value::as_str) != Some(&context.digest()) || context.claimed_at.is_none() {
        return failed(format!("{name} is there, and not created by this attempt: delete it"));
    }
    match text(restore, "/status/phase") {
        "Completed" => Followed::Completed,
        phase @ ("PartiallyFailed" | "Failed" | "FailedValidation") => {
            failed(format!("{name} {phase}{}", why(restore)))
        }
        phase => {
            let phase = if phase.is_empty() { "has not begun" } else { phase };
            let (done, total) = (
                count(restore, "/status/progress/itemsRestored"),
                count(restore, "/status/progress/totalItems"),
            );
            let items = if total > 0 { format!(", {done} of {total} items") } else { String::new() };
            let deleted = if restore.pointer("/metadata/deletionTimestamp").is_some() {
                ", is being deleted"
            } else {
                ""
            };
            Followed::Progress(StepProgress::Running(format!(
                "{name}: {}{items}{deleted}",
                shortened(phase, TEXT_LIMIT)
            )))
        }
    }
}

/// Returns why a Restore failed, in Velero's words and counts.
fn why(restore: &Value) -> String {
    let mut why = String::new();
    let invalid: Vec<String> = restore
        .pointer("/status/validationErrors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|error| shortened(error, TEXT_LIMIT))
        .collect();
    if !invalid.is_empty() {
        why += &format!(": {}", listed(&invalid, LISTED));
    }
    let reason = text(restore, "/status/failureReason");
    if !reason.is_empty() {
        why += &format!(": {}", shortened(reason, TEXT_LIMIT));
    }
    let counts = [
        ("/status/errors", "errors"),
        ("/status/warnings", "warnings"),
        ("/status/restoreItemOperationsFailed", "failed operations"),
        ("/status/hookStatus/hooksFailed", "failed hooks"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .map(|(at, what)| (count(restore, at), what))
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !counts.is_empty() {
        why += &format!(": {}", counts.join(", "));
    }
    format!("{why}. velero restore describe --details shows each")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn count(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

#[cfg(test)]
mod tests;
