//! `resurgam decide`: shows what a Decision would be about, and makes it, as the caller.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::api::{ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Output;
use crate::api::conditions::{NEEDS_DECISION, find};
use crate::api::{Action, Decision, DecisionSpec, RecoveryPlan, ServiceRecovery, ServiceRecoveryStatus};
use crate::calls::{call, call_opt, list_all};
use crate::plan::Plan;

/// Page size of a list.
const PAGE: u32 = 500;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  # What is asked about a service, and which actions answer it.
  resurgam decide social-care

  # Answer it. What it is about is shown first; --yes does not ask again.
  resurgam decide social-care retry --reason 'the approved image is back'

  # Approve for a party of a gate approval, in the name of your group.
  resurgam decide social-care approve --group council:rbkc-leads --reason 'seen with the vendor'

  # At any time: keep a service where it is, or isolate it again.
  resurgam decide payments hold --reason 'the bank asks for a day'
  resurgam decide payments abort --reason 'the attacker is back'

  # For somebody else to apply, or for Git.
  resurgam decide social-care retry --reason 'mended' --export > decision.yaml

A Decision is made in your own name, takes the verb of its action on recoveryplans/PLAN, and has effect on exactly what is shown: once \
that has changed, it has none.

Actions: retry, skip, override, acceptexception, acceptloosening, approve and reject answer what is asked; hold, unhold and abort are \
possible at any time. What each does and takes: docs/decisions.md.

Exit status: 0 it took effect, or is possible with --dry-run; 1 it has not taken effect, or, without an action, nothing is asked; 2 it could \
not be found out, was refused, does not answer what is asked, or the command line is wrong.";

/// Arguments of `resurgam decide`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Name of the service.
    service: String,

    /// What to do. Without it, what is asked is shown.
    #[arg(value_name = "ACTION", ignore_case = true, value_parser = action)]
    action: Option<Action>,

    /// Why, for those who are accountable for it.
    #[arg(long, value_name = "TEXT", value_parser = super::quarantine::reason)]
    reason: Option<String>,

    /// Namespace of the plan. Default: that of the kubeconfig's context.
    #[arg(short, long)]
    namespace: Option<String>,

    /// Name of the plan, where several have a service of this name.
    #[arg(long)]
    plan: Option<String>,

    /// One of your groups, in whose name you approve.
    #[arg(long)]
    group: Option<String>,

    /// Print the Decision as a manifest, and make nothing.
    #[arg(long, conflicts_with = "dry_run")]
    export: bool,

    /// Let the API server check it, and make nothing.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask. Required without a terminal.
    #[arg(short, long)]
    yes: bool,

    /// How long to wait until it takes effect.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: crate::api::Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn action(text: &str) -> Result<Action, String> {
    let is_it = |action: &&Action| action.as_str().eq_ignore_ascii_case(text);
    let all = || Action::all().iter().map(|action| action.verb()).collect::<Vec<_>>().join(", ");
    Action::all().iter().find(is_it).copied().ok_or_else(|| format!("no such action. There are {}", all()))
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    plan: &'a str,
    service: &'a str,
    stage: &'static str,
    attempt: i64,
    /// What is asked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    /// What answers it, and what is possible at any time.
    actions: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_effect: Option<bool>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(decide(args))
}

async fn decide(args: &Args) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let record = find_record(&client, &namespace, args).await?;
    let status = record.status.clone().unwrap_or_default();
    let mut report = report(&record, &status);
    if args.output == Output::Text && !args.export {
        anstream::print!("{}", shown(&report));
    }
    let Some(action) = args.action else {
        if args.output == Output::Json {
            anstream::println!("{}", serde_json::to_string_pretty(&report)?);
        }
        return Ok(if report.question.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    if args.reason.is_none() && !args.dry_run {
        bail!("say why with --reason: those who are accountable for it will ask");
    }
    let decided_on = decided_on(action, &status).map_err(anyhow::Error::msg)?;
    let user = caller(&client).await?;
    let decision = decision(args, action, &namespace, &record, &decided_on, &user)?;
    if args.export {
        anstream::print!("{}", manifest(&decision)?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.output == Output::Text {
        anstream::println!("{}: {}", action.as_str(), effect(action));
    }
    if action == Action::Approve && args.group.is_none() {
        let groups = parties(&client, &namespace, &record).await;
        if !groups.is_empty() {
            let groups = groups.join(", ");
            anstream::eprintln!(
                "warning: parties are asked, and this counts for none of them: --group GROUP says for which ({groups})"
            );
        }
    }
    if !args.dry_run && !confirmed(args, action)? {
        anstream::eprintln!("you said no: nothing was decided");
        return Ok(ExitCode::FAILURE);
    }
    let decisions: Api<Decision> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams { dry_run: args.dry_run, ..PostParams::default() };
    let name = decision.name_any();
    call(format!("make Decision {name}"), decisions.create(&params, &decision)).await?;
    report.decision = Some(name.clone());
    if args.dry_run {
        finish(args, &report, &format!("Decision {name} is possible. Nothing was made"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let took = waits_for_effect(&client, &namespace, &record.name_any(), &decided_on, &name, args).await;
    report.took_effect = Some(took);
    let end = if took {
        format!("Decision {name} took effect")
    } else {
        format!(
            "Decision {name} is made, and has not taken effect within {}. What it is about may have changed meanwhile, or no operator \
             runs: resurgam status -n {namespace}",
            args.timeout
        )
    };
    finish(args, &report, &end)?;
    Ok(if took { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn find_record(client: &Client, namespace: &str, args: &Args) -> Result<ServiceRecovery> {
    let records: Api<ServiceRecovery> = Api::namespaced(client.clone(), namespace);
    if let Some(plan) = &args.plan {
        let name = crate::api::service_recovery_name(plan, &args.service);
        let found = call_opt(format!("read ServiceRecovery {namespace}/{name}"), records.get(&name)).await;
        return match found? {
            Some(record) => Ok(record),
            None => bail!("{}", not_there(client, namespace, args).await),
        };
    }
    let what = format!("list ServiceRecoveries in namespace {namespace}");
    let mut found = list_all(&what, &records, ListParams::default(), PAGE).await?;
    found.retain(|record| record.spec.service == args.service);
    match found.len() {
        0 => bail!("{}", not_there(client, namespace, args).await),
        1 => Ok(found.remove(0)),
        _ => {
            let plans: Vec<String> = found.into_iter().map(|record| record.spec.plan_ref.name).collect();
            bail!(
                "several plans have a service {}: say which with --plan: {}",
                args.service,
                plans.join(", ")
            )
        }
    }
}

/// Says why a service has no ServiceRecovery.
async fn not_there(client: &Client, namespace: &str, args: &Args) -> String {
    let service = &args.service;
    let plans: Api<RecoveryPlan> = Api::namespaced(client.clone(), namespace);
    let what = format!("list RecoveryPlans in namespace {namespace}");
    let plans = match list_all(&what, &plans, ListParams::default(), PAGE).await {
        Ok(plans) => plans,
        Err(error) => {
            return format!(
                "service {service} has no ServiceRecovery in namespace {namespace}, and its plan: {error}"
            );
        }
    };
    if let Some(name) = args.plan.as_ref().filter(|name| plans.iter().all(|plan| plan.name_any() != **name)) {
        return format!("there is no RecoveryPlan {namespace}/{name}");
    }
    let is_asked = |plan: &&RecoveryPlan| args.plan.as_ref().is_none_or(|name| plan.name_any() == *name);
    let with =
        plans.iter().filter(is_asked).find(|plan| plan.spec.services.iter().any(|of| of.name == *service));
    match with {
        Some(plan) if plan.spec.incident_ref.is_none() => {
            format!(
                "plan {namespace}/{} is Dormant: there is nothing to decide about {service} before it is armed",
                plan.name_any()
            )
        }
        Some(plan) => {
            format!(
                "the operator has not taken up service {service} of plan {namespace}/{} yet: resurgam status -n {namespace}",
                plan.name_any()
            )
        }
        None => {
            format!("no plan in namespace {namespace} has a service {service}. Is it another namespace (-n)?")
        }
    }
}

/// Returns the groups that a service asks to approve something.
async fn parties(client: &Client, namespace: &str, record: &ServiceRecovery) -> Vec<String> {
    let plans: Api<RecoveryPlan> = Api::namespaced(client.clone(), namespace);
    let name = &record.spec.plan_ref.name;
    let Ok(plan) = call(format!("read RecoveryPlan {namespace}/{name}"), plans.get(name)).await else {
        return Vec::new();
    };
    let plan = Plan::from_object(&plan);
    let Some(service) = plan.services.iter().find(|service| service.name == record.spec.service) else {
        return Vec::new();
    };
    let gates =
        service.gates.iter().filter_map(|gate| gate.spec.approval.as_ref()).flat_map(|of| &of.parties);
    let steps = service.steps.iter().filter_map(|step| step.manual.as_ref()).flat_map(|of| &of.parties);
    gates.chain(steps).map(|party| party.group.clone()).collect()
}

fn report<'a>(record: &'a ServiceRecovery, status: &ServiceRecoveryStatus) -> Report<'a> {
    let asked = status.decision.as_ref();
    let message = find(&status.conditions, NEEDS_DECISION).filter(|_| asked.is_some());
    let question = message.map(|of| format!("{}: {}", of.reason, of.message));
    let standing = status.standing_orders.iter().flat_map(|_| [Action::Hold, Action::Abort]);
    let actions = asked.into_iter().flat_map(|of| of.actions.clone()).chain(standing);
    Report {
        plan: &record.spec.plan_ref.name,
        service: &record.spec.service,
        stage: status.stage.as_str(),
        attempt: status.attempt,
        question,
        actions: actions.map(Action::as_str).collect(),
        decision: None,
        took_effect: None,
    }
}

fn shown(report: &Report<'_>) -> String {
    let Report { plan, service, stage, attempt, question, actions, .. } = report;
    let question = question.as_deref().unwrap_or("nothing is asked");
    format!(
        "{service} (plan {plan}): {stage}, attempt {attempt}\n  {question}\n  Possible now: {}\n",
        actions.join(", ")
    )
}

/// Returns the digest that the Decision repeats.
fn decided_on(action: Action, status: &ServiceRecoveryStatus) -> Result<String, String> {
    if action.is_standing_order() {
        let orders = status.standing_orders.as_ref();
        return orders.map(|orders| orders.digest.clone()).ok_or_else(|| {
            "the operator has not taken the service up yet, so that nothing can be ordered: hold its namespaces by their Quarantines".to_owned()
        });
    }
    let Some(question) = &status.decision else {
        return Err(format!("nothing is asked about it, so that there is nothing to {}", action.verb()));
    };
    if question.actions.contains(&action) {
        return Ok(question.digest.clone());
    }
    let possible: Vec<&str> = question.actions.iter().map(|action| action.as_str()).collect();
    Err(format!(
        "{} does not answer {}: {}",
        action.as_str(),
        question.reason,
        if possible.is_empty() {
            "no Decision does".to_owned()
        } else {
            format!("possible are {}", possible.join(", "))
        }
    ))
}

/// Returns what an action does, in a sentence.
const fn effect(action: Action) -> &'static str {
    match action {
        Action::Retry => "begins the next attempt: everything is proved again. Loosens nothing",
        Action::Override => "goes on although what is shown does not hold. The service ends WithExceptions",
        Action::AcceptLoosening => {
            "accepts that the plan requires less, exactly as shown. The service ends WithExceptions"
        }
        Action::AcceptException => {
            "goes on although what is shown fails, as long as it finds the same. The service ends WithExceptions"
        }
        Action::Skip => "goes on without the step. The service ends WithExceptions",
        Action::Approve => "approves what is shown, in your name",
        Action::Reject => "refuses it: what was approved so far is void, and the service keeps waiting",
        Action::Hold => "keeps the service where it is until Unhold. What is open stays open",
        Action::Unhold => "ends the hold: the service goes on",
        Action::Abort => "isolates the service again, stops what runs in it, and holds it until Unhold",
    }
}

async fn caller(client: &Client) -> Result<UserInfo> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = SelfSubjectReview::default();
    let answer = call("ask who you are", reviews.create(&PostParams::default(), &review)).await?;
    answer.status.and_then(|status| status.user_info).context("the API server does not say who you are")
}

fn decision(
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

fn manifest(decision: &Decision) -> Result<String> {
    serde_yaml::to_string(decision).context("the Decision cannot be written as YAML")
}

/// Asks for confirmation. Without a terminal, `--yes` is required.
fn confirmed(args: &Args, action: Action) -> Result<bool> {
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

/// Waits until the state that was decided on is no more, or the operator counts the approval.
async fn waits_for_effect(
    client: &Client,
    namespace: &str,
    record: &str,
    decided_on: &str,
    decision: &str,
    args: &Args,
) -> bool {
    let records: Api<ServiceRecovery> = Api::namespaced(client.clone(), namespace);
    let has_changed = |record: Option<&ServiceRecovery>| {
        let Some(status) = record.and_then(|record| record.status.as_ref()) else { return true };
        let asks = status.decision.as_ref().map(|question| question.digest.as_str());
        let orders = status.standing_orders.as_ref().map(|orders| orders.digest.as_str());
        let mentions =
            status.blocked_by.iter().any(|block| block.message.contains(&format!("Decision {decision})")));
        (asks != Some(decided_on) && orders != Some(decided_on)) || mentions
    };
    let waiting = tokio::time::timeout(args.timeout.0, await_condition(records, record, has_changed)).await;
    matches!(waiting, Ok(Ok(_)))
}

fn finish(args: &Args, report: &Report<'_>, end: &str) -> Result<()> {
    match args.output {
        Output::Text => anstream::println!("{end}"),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::api::service_recovery::{DecisionNeeded, StandingOrders};

    fn asked() -> ServiceRecoveryStatus {
        let since =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2025-11-24T08:00:00Z".parse().unwrap());
        let digest = "sha256:question".to_owned();
        let actions = vec![Action::Retry, Action::AcceptException];
        ServiceRecoveryStatus {
            decision: Some(DecisionNeeded { reason: Reason::GateFailed, digest, actions, since }),
            standing_orders: Some(StandingOrders {
                digest: "sha256:orders".to_owned(),
                number: 0,
                hold: None,
            }),
            ..ServiceRecoveryStatus::default()
        }
    }

    #[test]
    fn decision_repeats_the_digest_of_what_it_is_about() {
        assert_eq!(decided_on(Action::Retry, &asked()).unwrap(), "sha256:question");
        assert_eq!(decided_on(Action::Abort, &asked()).unwrap(), "sha256:orders");
        let error = decided_on(Action::Skip, &asked()).unwrap_err();
        assert_eq!(error, "Skip does not answer GateFailed: possible are Retry, AcceptException");
        let error = decided_on(Action::Retry, &ServiceRecoveryStatus::default()).unwrap_err();
        assert_eq!(error, "nothing is asked about it, so that there is nothing to retry");
    }

    #[test]
    fn action_is_named_in_any_case() {
        assert_eq!(action("acceptexception"), Ok(Action::AcceptException));
        assert_eq!(action("Retry"), Ok(Action::Retry));
        assert!(action("resume").unwrap_err().contains("retry, override"));
    }
}
