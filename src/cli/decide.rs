//! `resurgam decide`: shows what a Decision would be about, and makes it, as the caller.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};

use self::report::{Outcome, Report};
use super::Output;
use crate::api::{Action, Decision};
use crate::calls::call;

mod find;
mod made;
mod possible;
mod report;

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

  # Do not wait for what becomes of it.
  resurgam decide social-care retry --reason 'mended' --wait 0s

  # For somebody else to apply, or for Git.
  resurgam decide social-care retry --reason 'mended' --export > decision.yaml

A Decision is made in your own name, takes the verb of its action on recoveryplans/PLAN, and has effect on exactly what is shown: once \
that has changed, it has none. What became of it is its condition Applied: kubectl get dec. What is not yours, by your own rights, is \
marked.

Actions: retry, skip, override, acceptexception, acceptloosening, approve and reject answer what is asked; hold, unhold and abort are \
possible at any time. What each does and takes: docs/decisions.md.

Exit status: 0 it took effect, or is possible with --dry-run, or is made with --wait 0s; 1 it has no effect, or none yet, or, without an \
action, nothing is asked; 2 it could not be found out, was refused, does not answer what is asked, or the command line is wrong.";

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

    /// How long to wait for what becomes of it. 0s: do not wait.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    wait: crate::api::Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn action(text: &str) -> Result<Action, String> {
    let is_it = |action: &&Action| action.as_str().eq_ignore_ascii_case(text);
    let all = || Action::all().iter().map(|action| action.verb()).collect::<Vec<_>>().join(", ");
    Action::all().iter().find(is_it).copied().ok_or_else(|| format!("no such action. There are {}", all()))
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(decide(args))
}

async fn decide(args: &Args) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let record = find::find_record(&client, &namespace, args).await?;
    let status = record.status.clone().unwrap_or_default();
    let mut report = Report::new(&record, &status);
    if !args.export {
        let actions = possible::actions(&status);
        let reviewed = possible::possible(&client, &namespace, &report.plan, &actions).await;
        (report.actions, report.rights_unknown) = reviewed;
    }
    match possible::considered(&client, &namespace, &record).await {
        Ok(considered) => report.being_considered = considered,
        Err(error) => anstream::eprintln!("warning: whether another Decision is being considered: {error}"),
    }
    if args.output == Output::Text && !args.export {
        anstream::print!("{}", report.shown());
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
    let decided_on = report.decided_on(action, &status).map_err(anyhow::Error::msg)?;
    let user = made::caller(&client).await?;
    let decision = made::decision(args, action, &namespace, &record, &decided_on, &user)?;
    if args.export {
        anstream::print!("{}", made::manifest(&decision)?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.output == Output::Text {
        anstream::println!("{}: {}", action.as_str(), effect(action));
    }
    if action == Action::Approve && args.group.is_none() {
        let groups = find::parties(&client, &namespace, &record).await;
        if !groups.is_empty() {
            let groups = groups.join(", ");
            anstream::eprintln!(
                "warning: parties are asked, and this counts for none of them: --group GROUP says for which ({groups})"
            );
        }
    }
    if !args.dry_run && !made::confirmed(args, action)? {
        anstream::eprintln!("you said no: nothing was decided");
        return Ok(ExitCode::FAILURE);
    }
    let decisions: Api<Decision> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams { dry_run: args.dry_run, ..PostParams::default() };
    let name = decision.name_any();
    match call(format!("make Decision {name}"), decisions.create(&params, &decision)).await {
        // Its name follows from who decides what: it is the same Decision.
        Err(error) if error.is_conflict() && !args.dry_run => {
            anstream::eprintln!("you have decided this already: Decision {name}");
        }
        made => drop(made?),
    }
    report.decision = Some(name.clone());
    if args.dry_run {
        finish(args, &report, &format!("Decision {name} is possible. Nothing was made"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.wait.0.is_zero() {
        finish(
            args,
            &report,
            &format!("Decision {name} is made. What became of it: kubectl get dec {name} -n {namespace}"),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    report.outcome = outcome(decisions, &name, args).await;
    let end = match &report.outcome {
        Some(Outcome { took_effect: true, message, .. }) => format!("Decision {name} took effect: {message}"),
        Some(Outcome { reason, message, .. }) => {
            format!("Decision {name} has no effect: {reason}: {message}")
        }
        None => format!(
            "Decision {name} is made, and within {} nobody has said what became of it: a write to the service is under way, or no operator \
             runs: resurgam status -n {namespace}",
            args.wait
        ),
    };
    finish(args, &report, &end)?;
    let took_effect = report.outcome.as_ref().is_some_and(|outcome| outcome.took_effect);
    Ok(if took_effect { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the operator says what became of a Decision. `None`: it has not said so in time.
async fn outcome(decisions: Api<Decision>, name: &str, args: &Args) -> Option<Outcome> {
    let is_judged = |decision: Option<&Decision>| decision.and_then(Outcome::of).is_some();
    let waiting = tokio::time::timeout(args.wait.0, await_condition(decisions, name, is_judged)).await;
    Outcome::of(waiting.ok()?.ok()?.as_ref()?)
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

fn finish(args: &Args, report: &Report, end: &str) -> Result<()> {
    match args.output {
        Output::Text => anstream::println!("{end}"),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_is_named_in_any_case() {
        assert_eq!(action("acceptexception"), Ok(Action::AcceptException));
        assert_eq!(action("Retry"), Ok(Action::Retry));
        assert!(action("resume").unwrap_err().contains("retry, override"));
    }
}
