//! `resurgam version`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Output;
use crate::check::{Fact, Verdict, installation, kubernetes, operator};
use crate::isolation::policies;
use crate::status::{OperatorView, operator_view};
use crate::version;

/// Arguments of `resurgam version`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only of this command: no cluster is asked.
    #[arg(long)]
    client: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// A part, its version, and whether it is compatible with this command.
struct Part {
    name: &'static str,
    /// For people.
    is: String,
    fits: Verdict,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let parts = if args.client {
        Vec::new()
    } else {
        let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
        runtime.block_on(parts())?
    };
    let fits = parts.iter().map(|part| part.fits).max().unwrap_or(Verdict::Passed);
    match args.output {
        Output::Text => anstream::print!("{}", text(&parts, fits)),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&value(&parts, fits))?),
    }
    Ok(match fits {
        Verdict::NotApplicable | Verdict::Passed | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(2),
    })
}

async fn parts() -> Result<Vec<Part>> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let server = kubernetes::version(&client).await.map_err(anyhow::Error::msg)?;
    let (operator, policies, kinds) =
        futures::join!(operators(&client), installation::policies(&client), installation::kinds(&client));
    let server = Part { name: "server", fits: kubernetes::fits(&server), is: server.git };
    Ok(vec![operator, of_policies(policies), of_kinds(kinds), server])
}

fn unknown(name: &'static str, why: String) -> Part {
    Part { name, is: format!("not known: {why}"), fits: Verdict::Unknown }
}

async fn operators(client: &Client) -> Part {
    const NAME: &str = "operator";
    let lease = match operator::lease(client).await {
        Ok(lease) => lease,
        Err(why) => return unknown(NAME, why),
    };
    match operator_view(lease.as_ref(), Timestamp::now()) {
        OperatorView::Silent { .. } => unknown(NAME, "none leads".to_owned()),
        OperatorView::Leading { .. } => {
            match lease.as_ref().and_then(|l| l.annotations().get(version::ANNOTATION)) {
                None => unknown(NAME, "it does not say".to_owned()),
                Some(found) => {
                    let fits = if version::is_compatible(found) { Verdict::Passed } else { Verdict::Failed };
                    Part { name: NAME, is: found.clone(), fits }
                }
            }
        }
    }
}

fn of_policies(policies: Fact<std::collections::BTreeMap<String, installation::State>>) -> Part {
    use installation::State;
    const NAME: &str = "policies";
    let policies = match policies {
        Ok(policies) => policies,
        Err(why) => return unknown(NAME, why),
    };
    let of = |wanted: fn(&State) -> bool| policies.values().filter(|state| wanted(state)).count();
    let counts = [
        (of(|s| *s == State::Missing), "missing"),
        (of(|s| *s == State::Changed), "changed"),
        (of(|s| matches!(s, State::Older(_))), "older"),
        (of(|s| matches!(s, State::Newer(_))), "newer"),
    ];
    let wrong: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let own = policies::VERSION;
    if wrong.is_empty() {
        Part { name: NAME, is: format!("version {own}"), fits: Verdict::Passed }
    } else {
        let is = format!("{} of {}, compared with version {own}", wrong.join(", "), policies.len());
        Part { name: NAME, is, fits: Verdict::Failed }
    }
}

fn of_kinds(kinds: Fact<std::collections::BTreeMap<String, installation::Kind>>) -> Part {
    const NAME: &str = "kinds";
    match kinds {
        Err(why) => unknown(NAME, why),
        Ok(kinds) => {
            let outcome = installation::kinds_fit(&Ok(kinds));
            let is = match outcome.verdict {
                Verdict::Passed => "as this command has them".to_owned(),
                _ => outcome.message,
            };
            Part { name: NAME, is, fits: outcome.verdict }
        }
    }
}

fn text(parts: &[Part], fits: Verdict) -> String {
    let mut lines = vec![format!("command   {}", version::full())];
    lines.extend(parts.iter().map(|part| format!("{:<9} {}", part.name, part.is)));
    if !parts.is_empty() {
        lines.push(match fits {
            Verdict::NotApplicable | Verdict::Passed | Verdict::Warning => "They fit.".to_owned(),
            _ => {
                let name = |wanted: Verdict| {
                    let names = parts.iter().filter(|part| part.fits == wanted).map(|part| part.name);
                    names.collect::<Vec<_>>().join(", ")
                };
                match fits {
                    Verdict::Unknown => format!(
                        "Whether they fit is not known: {}. See resurgam check.",
                        name(Verdict::Unknown)
                    ),
                    _ => format!(
                        "These do not fit this command: {}. See resurgam check.",
                        name(Verdict::Failed)
                    ),
                }
            }
        });
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn value(parts: &[Part], fits: Verdict) -> Value {
    let parts: serde_json::Map<String, Value> = parts
        .iter()
        .map(|part| (part.name.to_owned(), json!({"version": part.is, "result": part.fits})))
        .collect();
    let mut all =
        json!({"command": {"version": version::VERSION, "commit": version::COMMIT}, "result": fits});
    if let Some(all) = all.as_object_mut() {
        all.extend(parts);
    }
    all
}
