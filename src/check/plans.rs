//! Rights of plans' accounts: whether each plan can recover its services.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use super::read::{account_may, first_few, list, why};
use super::{Check, Fact, Outcome};
use crate::access::{Access, CheckQuestion as Question};
use crate::api::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, RecoveryPlan};
use crate::calls::{call, call_opt};
use crate::isolation::OPERATOR;
use crate::plan::Plan;

const ACCOUNT: Check = Check::fatal("plan-accounts", "the account of each plan is there");
const RECOVER: Check =
    Check::fatal("plan-recover", "each plan's account may recover the namespaces that it names");
const IMPERSONATE: Check = Check::fatal("plan-impersonation", "the operator may act as each plan's account");

/// The checks, in display order.
pub const CHECKS: [Check; 3] = [ACCOUNT, RECOVER, IMPERSONATE];

/// Concurrent requests.
const PARALLEL: usize = 16;
/// Maximum number of plans checked, and of problems named.
const LIMITS: (usize, usize) = (50, 4);

/// Facts of one plan's account.
#[derive(Clone, Debug)]
pub struct PlanRights {
    /// `namespace/name`
    pub plan: String,
    /// `namespace/name`
    pub account: String,
    /// Whether it exists.
    pub exists: Fact<bool>,
    /// Namespaces that it may not recover, and those that it may by a wildcard only.
    pub recover: Fact<(Vec<String>, Vec<String>)>,
    /// Whether the operator may impersonate it.
    pub impersonate: Fact<bool>,
}

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The requested plan, `namespace/name`, if only one is checked.
    pub asked: Option<String>,
    /// Each plan. `None`: the kind is not installed.
    pub plans: Fact<Option<Vec<PlanRights>>>,
}

pub(super) async fn gather(client: &Client, asked: Option<&(String, String)>) -> Facts {
    let plans = match asked {
        Some((namespace, name)) => find_plan(client, namespace, name).await,
        None => match list(&Api::<RecoveryPlan>::all(client.clone()), "RecoveryPlans").await {
            Ok(plans) if plans.len() > LIMITS.0 => Err(format!(
                "there are {} plans, and rights of at most {} are asked for at once. Ask for one by --plan NAMESPACE/NAME",
                plans.len(),
                LIMITS.0
            )),
            Ok(plans) => Ok(Some(plans)),
            Err(error) if error.is_not_served() => Ok(None),
            Err(error) => Err(error.into()),
        },
    };
    let plans = match plans {
        Ok(Some(plans)) => {
            let rights = plans.iter().map(|plan| rights(client, plan));
            Ok(Some(stream::iter(rights).buffered(2).collect().await))
        }
        Ok(None) => Ok(None),
        Err(why) => Err(why),
    };
    Facts { asked: asked.map(|(namespace, name)| format!("{namespace}/{name}")), plans }
}

async fn find_plan(client: &Client, namespace: &str, name: &str) -> Fact<Option<Vec<RecoveryPlan>>> {
    let plans: Api<RecoveryPlan> = Api::namespaced(client.clone(), namespace);
    match call(format!("get RecoveryPlan {namespace}/{name}"), plans.get(name)).await {
        Ok(plan) => Ok(Some(vec![plan])),
        Err(error) if error.is_not_found() => Ok(Some(Vec::new())),
        Err(error) if error.is_not_served() => Ok(None),
        Err(error) => Err(why(&error)),
    }
}

async fn rights(client: &Client, plan: &RecoveryPlan) -> PlanRights {
    let access = Access::from_plan(&Plan::from_object(plan));
    let Access { namespace, account, .. } = &access;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = format!("get ServiceAccount {namespace}/{account}");
    let (exists, recover, impersonate) = futures::join!(
        call_opt(what, accounts.get_metadata(account)),
        recover(client, &access),
        account_may(client, (OPERATOR_NAMESPACE, OPERATOR_ACCOUNT), access.impersonation().attributes()),
    );
    PlanRights {
        plan: format!("{namespace}/{}", access.plan),
        account: format!("{namespace}/{account}"),
        exists: exists.map(|found| found.is_some()).map_err(|error| why(&error)),
        recover,
        impersonate,
    }
}

/// Returns the namespaces that the plan's account may not recover, and those that it may by a wildcard only. All other rights would take
/// many more requests: `resurgam access --check` checks those of one plan.
async fn recover(client: &Client, access: &Access) -> Fact<(Vec<String>, Vec<String>)> {
    let asked = access.own_questions().into_iter().filter_map(|question| match question {
        Question::May { right, .. } if right.verb == "recover" => Some((right, false)),
        Question::Wildcard { right, .. } => Some((right, true)),
        Question::May { .. } | Question::Account => None,
    });
    let answers = asked.map(|(right, wildcard)| async move {
        let account = (access.namespace.as_str(), access.account.as_str());
        let granted = account_may(client, account, right.attributes()).await?;
        Ok::<_, String>((right.name.unwrap_or_default(), wildcard, granted))
    });
    // After the first error, no further requests are sent.
    let answers: Vec<_> = stream::iter(answers).buffered(PARALLEL).try_collect().await?;
    let (mut refused, mut wild) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            (namespace, false, false) => refused.push(namespace),
            (namespace, true, true) => wild.push(namespace),
            (_, false, true) | (_, true, false) => {}
        }
    }
    Ok((refused, wild))
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    let plans = match (&facts.plans, &facts.asked) {
        (Err(why), _) => return CHECKS.iter().map(|check| check.unknown(why)).collect(),
        (Ok(None), None) => {
            return CHECKS
                .iter()
                .map(|check| check.does_not_apply("there is no RecoveryPlan: the kind is not installed"))
                .collect();
        }
        (Ok(Some(plans)), None) if plans.is_empty() => {
            return CHECKS.iter().map(|check| check.does_not_apply("there is no RecoveryPlan")).collect();
        }
        (Ok(plans), Some(asked)) if plans.as_ref().is_none_or(Vec::is_empty) => {
            let why =
                format!("there is no RecoveryPlan {asked}. Its author has to apply it, or name another plan");
            return CHECKS.iter().map(|check| check.fails(&why)).collect();
        }
        (Ok(plans), _) => plans.as_deref().unwrap_or_default(),
    };
    vec![
        each(ACCOUNT, plans, |plan| match &plan.exists {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(format!(
                "ServiceAccount {}, as which plan {} acts, is not there. Platform engineers make it",
                plan.account, plan.plan
            ))),
            Err(why) => Err(why.clone()),
        }),
        each(RECOVER, plans, |plan| match &plan.recover {
            Ok((refused, wild)) if refused.is_empty() && wild.is_empty() => Ok(None),
            Ok((refused, wild)) => Ok(Some(not_granted(plan, refused, wild))),
            Err(why) => Err(why.clone()),
        }),
        each(IMPERSONATE, plans, |plan| match &plan.impersonate {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(format!(
                "{OPERATOR} may not impersonate ServiceAccount {} of plan {}. A cluster \
                 administrator binds it to a Role with the verb impersonate on that account",
                plan.account, plan.plan
            ))),
            Err(why) => Err(why.clone()),
        }),
    ]
}

fn not_granted(plan: &PlanRights, refused: &[String], wild: &[String]) -> String {
    let mut said = Vec::new();
    if !refused.is_empty() {
        said.push(format!("may not recover {}", first_few(refused, LIMITS.1)));
    }
    if !wild.is_empty() {
        said.push(format!(
            "may recover {} by a wildcard only, which the fence takes for no grant",
            first_few(wild, LIMITS.1)
        ));
    }
    format!(
        "account {} of plan {} {}. A cluster administrator binds it to a ClusterRole with the verb recover on \
         quarantines.resurgam.dev and those names",
        plan.account,
        plan.plan,
        said.join(", and ")
    )
}

/// Returns one outcome for all plans. A failure outweighs an unknown.
fn each(
    check: Check,
    plans: &[PlanRights],
    problem: impl Fn(&PlanRights) -> Result<Option<String>, String>,
) -> Outcome {
    let (mut problems, mut unknown) = (Vec::new(), Vec::new());
    for plan in plans {
        match problem(plan) {
            Ok(None) => {}
            Ok(Some(problem)) => problems.push(problem),
            Err(why) => unknown.push(why),
        }
    }
    unknown.dedup();
    if !problems.is_empty() {
        return check.fails(join(&problems));
    }
    if !unknown.is_empty() {
        return check.unknown(join(&unknown));
    }
    let names: Vec<&str> = plans.iter().map(|plan| plan.plan.as_str()).collect();
    check.passes(first_few(&names, LIMITS.1))
}

fn join(all: &[String]) -> String {
    let shown = all.iter().take(LIMITS.1).cloned().collect::<Vec<_>>().join("\n");
    match all.len().saturating_sub(LIMITS.1) {
        0 => shown,
        more => format!("{shown}\nand {more} more"),
    }
}
