//! What isolating and recovering leave for people: what stays suspended, and what nothing brings back. Pure.

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::api::quarantine::{Deliverer, DelivererState};
use crate::api::service_recovery::{ResumeState, ResumeStatus, Stage};
use crate::api::{Isolation, Quarantine, QuarantineStatus, ServiceRecovery};
use crate::isolation::gitops::WAS_ANNOTATION;

/// Something that a person has to do after a recovery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftView {
    /// Isolated namespace that it belongs to.
    pub namespace: String,
    /// Kind and name of the object.
    pub object: String,
    /// What became of it.
    pub message: String,
    /// What to do next.
    pub next: String,
}

/// Returns what is left of these services and Quarantines, by namespace.
pub(super) fn left(
    records: &[&ServiceRecovery],
    quarantines: Option<&[DeserializeGuard<Quarantine>]>,
) -> Vec<LeftView> {
    let statuses = records.iter().filter_map(|record| record.status.as_ref());
    let recovered = statuses.filter(|status| status.stage == Stage::Recovered);
    let mut all: Vec<LeftView> = recovered.flat_map(|status| &status.resumes).filter_map(suspended).collect();
    let mut unknown: Vec<(String, &str)> = Vec::new();
    for object in quarantines.unwrap_or_default() {
        let Ok(quarantine) = &object.0 else { continue };
        let Some(status) = &quarantine.status else { continue };
        let namespace = quarantine.name_any();
        // Sealed, nothing is missed yet.
        if !matches!(status.isolation, Some(Isolation::CleanRoom | Isolation::Open)) {
            continue;
        }
        all.extend(of_quarantine(&namespace, status));
        if let Some(secrets) =
            status.lost_token_secrets.as_ref().filter(|secrets| !secrets.unknown.is_empty())
        {
            unknown.push((namespace, &secrets.unknown));
        }
    }
    all.extend(unknown_secrets(&unknown));
    all.sort();
    all.dedup();
    all
}

fn of_quarantine(namespace: &str, status: &QuarantineStatus) -> Vec<LeftView> {
    let entry = |object: String, message: &str, next: String| LeftView {
        namespace: namespace.to_owned(),
        object,
        message: message.to_owned(),
        next,
    };
    let pods = status.unmanaged_pods.iter().map(|pod| {
        let message =
            "was captured and deleted when the namespace was sealed, and no workload brings it back";
        entry(
            format!("Pod {namespace}/{pod}"),
            message,
            "its owner starts it again, if it is still wanted".to_owned(),
        )
    });
    let secrets = status.lost_token_secrets.iter().flat_map(|secrets| &secrets.names).map(|secret| {
        let message = "held a token that sealing revoked, and the cluster deleted it";
        let next = "its owner creates it again, or lets what used it ask for tokens (kubectl create token)";
        entry(format!("Secret {namespace}/{secret}"), message, next.to_owned())
    });
    // Before the release, the namespace's isolation still wants them suspended.
    let is_open = status.isolation == Some(Isolation::Open);
    let sources = status.deliverers.iter().filter(|of| is_open && of.state == DelivererState::Suspended);
    let sources = sources.map(|source| {
        let Deliverer { kind, namespace, name, .. } = source;
        let message = "was suspended while it delivered into an isolated namespace";
        entry(format!("{kind} {namespace}/{name}"), message, resume_source(source))
    });
    pods.chain(secrets).chain(sources).collect()
}

fn resume_source(Deliverer { kind, namespace, name, .. }: &Deliverer) -> String {
    if kind == "Application" {
        return format!(
            "a platform engineer checks what it would deploy, and restores spec.syncPolicy from its annotation {WAS_ANNOTATION}: kubectl \
             edit application {name} -n {namespace}"
        );
    }
    let kind = kind.to_lowercase();
    format!(
        "a platform engineer checks what it would deploy, and resumes it: kubectl patch {kind} {name} -n {namespace} --type=merge -p \
         '{{\"spec\":{{\"suspend\":false}}}}'"
    )
}

/// Returns a CronJob or Job that stays suspended after its service is recovered.
fn suspended(entry: &ResumeStatus) -> Option<LeftView> {
    let ResumeStatus { kind, namespace, name, state, fires, message } = entry;
    if !matches!(state, ResumeState::Suspended | ResumeState::Held) {
        return None;
    }
    let details = [state.as_str(), fires, message].into_iter().filter(|text| !text.is_empty());
    let command = format!(
        "kubectl patch {} {name} -n {namespace} -p '{{\"spec\":{{\"suspend\":false}}}}'",
        kind.as_str().to_lowercase()
    );
    Some(LeftView {
        namespace: namespace.clone(),
        object: format!("{} {namespace}/{name}", kind.as_str()),
        message: details.collect::<Vec<_>>().join(": "),
        next: format!("if it is to run again, its owner resumes it: {command}"),
    })
}

/// Maximum number of namespaces in one entry.
const NAMESPACES: usize = 5;

/// Returns one entry for all namespaces whose deleted token Secrets are not known.
fn unknown_secrets(namespaces: &[(String, &str)]) -> Option<LeftView> {
    let (first, why) = namespaces.first()?;
    let named: Vec<&str> = namespaces.iter().take(NAMESPACES).map(|(name, _)| name.as_str()).collect();
    let more = namespaces.len().saturating_sub(NAMESPACES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(LeftView {
        namespace: first.clone(),
        object: format!("Secrets of type kubernetes.io/service-account-token in {}{more}", named.join(", ")),
        message: format!(
            "sealing revokes their tokens, and the cluster deletes such Secrets then; whether there were any is not known: {why}"
        ),
        next: "if something cannot start for want of such a Secret, its owner creates it again".to_owned(),
    })
}
