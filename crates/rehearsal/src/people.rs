//! What people do: see what they are asked, and decide.

use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::wait::{kind, object, text};

const KINDS: &str = "resurgam.dev/v1alpha1";

/// What a person is asked about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The service.
    pub service: String,
    /// One word.
    pub reason: String,
    /// The digest of what is to be decided on.
    pub digest: String,
    /// The whole story.
    pub message: String,
}

fn of(record: &Value) -> Option<Asked> {
    let digest = text(record, "/status/decision/digest").to_owned();
    let conditions = record.pointer("/status/conditions").and_then(Value::as_array);
    let condition =
        conditions.into_iter().flatten().find(|c| c["type"] == "NeedsDecision" && c["status"] == "True")?;
    Some(Asked {
        service: text(record, "/spec/service").to_owned(),
        reason: text(record, "/status/decision/reason").to_owned(),
        digest,
        message: condition["message"].as_str().unwrap_or_default().to_owned(),
    })
}

/// What is asked about one service of a plan, if anything is.
///
/// # Errors
/// Its ServiceRecovery cannot be read.
pub async fn asked(client: &Client, namespace: &str, plan: &str, service: &str) -> Result<Option<Asked>> {
    let records = kind(client, KINDS, "ServiceRecovery", Some(namespace));
    Ok(of(&object(&records, &format!("{plan}.{service}")).await?))
}

/// Everything that is asked in a namespace.
///
/// # Errors
/// The ServiceRecoveries cannot be listed.
pub async fn decisions_needed(client: &Client, namespace: &str) -> Result<Vec<Asked>> {
    let records =
        kind(client, KINDS, "ServiceRecovery", Some(namespace)).list(&ListParams::default()).await?;
    records
        .items
        .iter()
        .map(|record| Ok(of(&serde_json::to_value(record)?)))
        .filter_map(Result::transpose)
        .collect()
}

/// Somebody decides that a service is to be tried again: on exactly what is asked now.
///
/// # Errors
/// Nothing is asked, or the API server refused the Decision.
pub async fn retry(client: &Client, namespace: &str, plan: &str, service: &str, reason: &str) -> Result<()> {
    decide(client, "Retry", namespace, plan, service, reason).await
}

/// Somebody decides about a service, on exactly what is asked now.
///
/// # Errors
/// Nothing is asked, or the API server refused the Decision.
pub async fn decide(
    client: &Client,
    action: &str,
    namespace: &str,
    plan: &str,
    service: &str,
    reason: &str,
) -> Result<()> {
    let asked = asked(client, namespace, plan, service).await?;
    let asked = asked.with_context(|| format!("nothing is asked about {service}"))?;
    ensure!(!asked.digest.is_empty(), "{service} needs a decision, but shows no digest of what to decide on");
    let by = crate::name_of(client).await?;
    let decision = json!({
        "apiVersion": KINDS, "kind": "Decision",
        "metadata": {"generateName": format!("{}-{service}-", action.to_lowercase()), "namespace": namespace},
        "spec": {"by": by, "action": action, "plan": plan, "service": service, "decidedOn": asked.digest, "reason": reason},
    });
    let decisions = kind(client, KINDS, "Decision", Some(namespace));
    decisions.create(&PostParams::default(), &serde_json::from_value(decision)?).await?;
    Ok(())
}
