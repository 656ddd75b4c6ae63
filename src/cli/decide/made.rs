//! Makes a Decision, as the caller.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use super::Args;
use crate::api::{Action, Decision, DecisionSpec, ServiceRecovery};
use crate::calls::call;

/// Returns who the caller is.
pub(super) async fn caller(client: &Client) -> Result<UserInfo> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = SelfSubjectReview::default();
    let answer = call("ask who you are", reviews.create(&PostParams::default(), &review)).await?;
    answer.status.and_then(|status| status.user_info).context("the API server does not say who you are")
}

/// Returns the Decision to make.
pub(super) fn decision(
    args: &Args,
    action: Action,
    namespace: &str,
    record: &ServiceRecovery,
    decided_on: &str,
    user: &UserInfo,
) -> Result<Decision> {
    let by = user.username.clone().context("the API server does not say who you are")?;
    if let Some(group) = &args.group
        && !user.groups.as_ref().is_some_and(|groups| groups.contains(group))
    {
        let groups = user.groups.clone().unwrap_or_default().join(", ");
        bail!("you, {by}, are not in group {group}: you are in {groups}");
    }
    let reason = args.reason.clone().unwrap_or_else(|| "a trial, by --dry-run".to_owned());
    let digest = Sha256::digest(format!("{by}/{:?}/{decided_on}", args.group));
    let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-{}-{short}", args.service, action.verb());
    let spec = DecisionSpec {
        by,
        action,
        plan: record.spec.plan_ref.name.clone(),
        service: args.service.clone(),
        reason,
        decided_on: decided_on.to_owned(),
        group: args.group.clone(),
    };
    let mut decision = Decision::new(&name, spec);
    decision.metadata.namespace = Some(namespace.to_owned());
    Ok(decision)
}

/// Returns the Decision as a manifest.
pub(super) fn manifest(decision: &Decision) -> Result<String> {
    serde_yaml::to_string(decision).context("the Decision cannot be written as YAML")
}

/// Asks for confirmation. Without a terminal, `--yes` is required.
pub(super) fn confirmed(args: &Args, action: Action) -> Result<bool> {
    if args.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to confirm on: pass --yes. Nothing was decided");
    }
    anstream::eprint!("{} {} now? [y/N] ", action.as_str(), args.service);
    anstream::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
