//! `resurgam access PLAN.yaml`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::ManifestFormat;
use crate::access::{self, Access, Answer, CheckQuestion, Comparison, Manifest, Right};
use crate::calls::call_opt;
use crate::plan::Plan;
use crate::reviews;

mod report;

/// Questions asked of the API server at a time.
const PARALLEL: usize = 16;

/// What `--help` ends with.
const EXAMPLES: &str = "\
A plan acts as an account in its own namespace, and the operator as that account. It may do what is granted here and nothing \
else: list what its gates look at, patch what its steps start, and `recover` the Quarantines of its namespaces, each by name. In \
an isolated namespace no Role and no RoleBinding can be written any more: apply this before the day, and again when the plan is \
changed.

Examples:
  # Before the day: grant it, or commit it next to the plan.
  resurgam access plan.yaml | kubectl apply --server-side -f -

  # Grant as well who writes the plan: GitOps, and the platform engineers.
  resurgam access plan.yaml --author system:serviceaccount:flux-system:kustomize-controller --author-group platform-engineers

  # Is anything missing? What is printed can be applied.
  resurgam access plan.yaml --check

  # On the day, while namespaces are isolated: what a recovery lead may still grant.
  resurgam access plan.yaml --late | kubectl apply --server-side -f -

What --late prints grants reading, scaling and resuming in all namespaces, as there is no other way left: delete it afterwards. It \
grants neither the account nor the right to act as it. Those are in the plan's namespace, which is not isolated, and are an \
administrator's to apply.

Exit status with --check: 0 nothing is missing; 1 something is, or is held by a wildcard, which lets nothing out; 2 it could not \
be found out. It takes `create` on subjectaccessreviews.authorization.k8s.io, and `get` on the account.";

/// Arguments of `resurgam access`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// A file with a RecoveryPlan, as YAML; other kinds in it are passed over. `-` reads standard input.
    plan: PathBuf,

    /// Namespace of a plan that names none.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Ask the cluster which rights are missing, and print only those.
    #[arg(long)]
    check: bool,

    /// What a recovery lead applies when namespaces are isolated already: ClusterRoles, as no Role can be written there.
    #[arg(long)]
    late: bool,

    /// Grant this user the right to write the plan, too (repeatable): `use` on its account. Name all authors each time, as a binding
    /// is applied as a whole. For an account: system:serviceaccount:NAMESPACE:NAME.
    #[arg(long, value_name = "USER", conflicts_with_all = ["check", "late"])]
    author: Vec<String>,

    /// As --author, for a group.
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["check", "late"])]
    author_group: Vec<String>,

    /// How it is written; with --check, json is what was found for each plan.
    #[arg(short, long, value_enum, default_value_t = ManifestFormat::Yaml)]
    output: ManifestFormat,
}

impl Args {
    fn has_authors(&self) -> bool {
        !self.author.is_empty() || !self.author_group.is_empty()
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let plans = plans(args)?;
    if args.check {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(check(args, &plans));
    }
    let manifests = printed(args, &plans);
    match args.output {
        ManifestFormat::Yaml => {
            anstream::print!(
                "{}{}",
                report::heading(&plans, args.late, args.has_authors()),
                access::yaml(&manifests)?
            )
        }
        ManifestFormat::Json => {
            anstream::println!("{}", serde_json::to_string_pretty(&access::list(&manifests))?)
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The manifests that the arguments ask for.
fn printed(args: &Args, plans: &[Access]) -> Vec<Manifest> {
    if args.late {
        return access::late(plans);
    }
    let subject = |kind: &str, name: &String| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let users = args.author.iter().map(|name| subject("User", name));
    let groups = args.author_group.iter().map(|name| subject("Group", name));
    let subjects: Vec<Value> = users.chain(groups).collect();
    let mut manifests = access::manifests(plans);
    if !subjects.is_empty() {
        manifests.extend(access::authors(plans, &subjects));
    }
    manifests
}

/// Returns what each plan of the file needs. An invalid part of a plan is reported, and the valid part is included.
fn plans(args: &Args) -> Result<Vec<Access>> {
    let (file, objects) = super::plan_file::read(&args.plan)?;
    let mut plans = Vec::new();
    for mut object in objects {
        let name = object.metadata.name.clone().unwrap_or_default();
        if object.metadata.namespace.is_none() {
            object.metadata.namespace.clone_from(&args.namespace);
        }
        if object.metadata.namespace.is_none() {
            bail!("{file}: RecoveryPlan {name} names no namespace: give it with --namespace");
        }
        let plan = Plan::from_object(&object);
        for problem in &plan.problems {
            anstream::eprintln!("warning: RecoveryPlan {name}: {}", problem.message);
        }
        plans.push(Access::from_plan(&plan));
    }
    Ok(plans)
}

async fn check(args: &Args, plans: &[Access]) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let mut found = Vec::new();
    for access in plans {
        found.push(compare(&client, access, args.late).await);
    }
    match args.output {
        ManifestFormat::Yaml => anstream::print!("{}", report::text(&found, args.late)?),
        ManifestFormat::Json => anstream::println!("{}", serde_json::to_string_pretty(&found)?),
    }
    Ok(if !found.iter().all(Comparison::is_complete) {
        ExitCode::FAILURE
    } else if found.iter().any(|found| !found.unknown.is_empty()) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

async fn compare(client: &Client, access: &Access, late: bool) -> Comparison {
    let asked = stream::iter(access.questions()).map(|question| async move {
        let answer = ask(client, access, &question).await;
        (question, answer)
    });
    access.compare(asked.buffered(PARALLEL).collect().await, late)
}

async fn ask(client: &Client, access: &Access, question: &CheckQuestion) -> Answer {
    match question {
        CheckQuestion::Account => {
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &access.namespace);
            let what = format!("get ServiceAccount {}/{}", access.namespace, access.account);
            let found = call_opt(what, accounts.get(&access.account)).await;
            found.map(|found| found.is_some()).map_err(|error| error.to_string())
        }
        CheckQuestion::May { user, right, .. } | CheckQuestion::Wildcard { user, right } => {
            may(client, user, right).await
        }
    }
}

async fn may(client: &Client, user: &str, right: &Right) -> Answer {
    let mut parts = user.split(':').skip(2);
    let account = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let what = format!("ask whether {user} may {right}");
    reviews::account_may(client, account, right.attributes(), what).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
