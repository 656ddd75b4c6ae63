//! Actions of people: reading the decisions that are needed, and making them.

use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::wait::{kind, object, text};

const KINDS: &str = "resurgam.dev/v1alpha1";

/// A decision that a service needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededDecision {
    /// Name of the service.
    pub service: String,
    /// Reason.
    pub reason: String,
    /// Digest of the question.
    pub digest: String,
    /// Message.
    pub message: String,
}

fn of(record: &Value) -> Option<NeededDecision> {
    let digest = text(record, "/status/decision/digest").to_owned();
    let conditions = record.pointer("/status/conditions").and_then(Value::as_array);
    let condition =
        conditions.into_iter().flatten().find(|c| c["type"] == "NeedsDecision" && c["status"] == "True")?;
    Some(NeededDecision {
        service: text(record, "/spec/service").to_owned(),
        reason: text(record, "/status/decision/reason").to_owned(),
        digest,
        message: condition["message"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Returns the decision that one service of a plan needs, if any.
///
/// # Errors
/// Its ServiceRecovery cannot be read.
pub async fn needed_decision(
    client: &Client,
    namespace: &str,
    plan: &str,
    service: &str,
) -> Result<Option<NeededDecision>> {
    let records = kind(client, KINDS, "ServiceRecovery", Some(namespace));
    Ok(of(&object(&records, &format!("{plan}.{service}")).await?))
}

/// Returns all decisions that are needed in a namespace.
///
/// # Errors
/// The ServiceRecoveries cannot be listed.
pub async fn decisions_needed(client: &Client, namespace: &str) -> Result<Vec<NeededDecision>> {
    let records =
        kind(client, KINDS, "ServiceRecovery", Some(namespace)).list(&ListParams::default()).await?;
    records
        .items
        .iter()
        .map(|record| Ok(of(&serde_json::to_value(record)?)))
        .filter_map(Result::transpose)
        .collect()
}

/// Makes a Decision to retry a service, for the current question.
///
/// # Errors
/// No decision is needed, or the API server denied it.
pub async fn retry(client: &Client, namespace: &str, plan: &str, service: &str, reason: &str) -> Result<()> {
    decide(client, "Retry", namespace, plan, service, reason).await
}

/// Makes a Decision about a service, for the current question.
///
/// # Errors
/// No decision is needed, or the API server denied it.
pub async fn decide(
    client: &Client,
    action: &str,
    namespace: &str,
    plan: &str,
    service: &str,
    reason: &str,
) -> Result<()> {
    let asked = needed_decision(client, namespace, plan, service).await?;
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
