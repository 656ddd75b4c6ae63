//! What else a plan needs: kinds that its steps use, other accounts that write for them, and groups whose people have to approve.

use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::core::ApiResource;
use resurgam_core::preparation::{Answer, Fact, Need};

use super::super::context::{Context, account_user};
use super::super::running::Running;
use super::{Checking, MISSING_FOR, lock};
use crate::api::gate::ApprovalParty;
use crate::api::{Action, GROUP, StepSpec};
use crate::calls::call_opt;
use crate::plan::Plan;
use crate::reviews::RecoverRights;
use crate::steps::{StepClients, StepContext, StepError, Writer};
use crate::{reviews, steps};

/// Something that is asked of the API server at intervals.
pub(super) struct Other {
    what: What,
    last: Option<(Instant, Answer)>,
}

enum What {
    /// A kind that a step uses.
    Kind { step: String, kind: ApiResource },
    /// An account that writes for a step.
    Writer { step: String, writer: Writer },
    /// What a step is configured with.
    Input { step: Box<StepSpec>, of: Box<StepContext> },
    /// A party of an approval.
    Approver { of: String, party: ApprovalParty },
}

impl Other {
    /// Returns how long its answer still counts.
    pub(super) fn left(&self, granted_for: Duration, now: Instant) -> Duration {
        let Some((at, answer)) = &self.last else { return Duration::ZERO };
        let interval = if *answer == Answer::Met { granted_for } else { MISSING_FOR };
        (*at + interval).saturating_duration_since(now)
    }

    fn need(&self) -> Need {
        match &self.what {
            What::Kind { step, kind } => {
                Need::Kind { kind: format!("{} ({})", kind.kind, kind.api_version), step: step.clone() }
            }
            What::Writer { step, writer } => Need::Writer {
                user: account_user(&writer.namespace, &writer.account),
                object: writer.right().object(),
                step: step.clone(),
            },
            What::Input { step, of } => {
                Need::StepInput { step: step.name.clone(), service: of.service.clone() }
            }
            What::Approver { of, party } => {
                Need::Approver { party: party.name.clone(), group: party.group.clone(), of: of.clone() }
            }
        }
    }
}

/// Returns what else a plan needs, each once.
pub(super) fn others(plan: &Plan) -> Vec<Other> {
    let mut others: Vec<Other> = Vec::new();
    let mut add = |what: What| {
        let other = Other { what, last: None };
        let need = other.need();
        if others.iter().all(|known| known.need() != need) {
            others.push(other);
        }
    };
    for service in &plan.services {
        for step in &service.steps {
            let name = || step.name.clone();
            steps::kinds(step).into_iter().for_each(|kind| add(What::Kind { step: name(), kind }));
            let context = StepContext {
                plan_namespace: plan.namespace.clone(),
                plan: plan.name.clone(),
                account: plan.account.clone(),
                service: service.name.clone(),
                step: step.name.clone(),
                namespaces: service.namespaces.clone(),
                ..StepContext::default()
            };
            let writers = steps::writers(step, &context).into_iter();
            writers.for_each(|writer| add(What::Writer { step: name(), writer }));
            if step.apply.is_some() {
                add(What::Input { step: Box::new(step.clone()), of: Box::new(context) });
            }
            let parties = step.manual.iter().flat_map(|manual| manual.parties.clone());
            parties.for_each(|party| add(What::Approver { of: format!("step {}", step.name), party }));
        }
        for gate in &service.gates {
            let parties = gate.spec.approval.iter().flat_map(|approval| approval.parties.clone());
            parties.for_each(|party| add(What::Approver { of: format!("gate {}", gate.spec.name), party }));
        }
    }
    others
}

impl Checking {
    /// Asks for what has not been answered lately.
    pub(super) async fn check_others(&mut self, context: &Context, running: &Running) -> Vec<Fact> {
        let account = context.account_client(&self.plan, &mut running.state());
        let account = account.map(|client| context.step_clients(client));
        let granted_for = self.intervals(&lock(&self.shared.rights)).granted;
        let mut facts = Vec::new();
        for other in &mut self.others {
            if other.left(granted_for, Instant::now()).is_zero() {
                let answer = ask(context, account.as_ref(), &self.plan, &other.what).await;
                other.last = Some((Instant::now(), answer));
            }
            let Some((_, answer)) = &other.last else { continue };
            facts.push(Fact { need: other.need(), answer: answer.clone() });
        }
        facts
    }
}

async fn ask(context: &Context, account: Option<&StepClients>, plan: &Plan, what: &What) -> Answer {
    match what {
        What::Kind { kind, .. } => {
            let what = format!("list the kinds of {}", kind.api_version);
            let client = &context.client;
            let listed = if kind.group.is_empty() {
                call_opt(what, client.list_core_api_resources(&kind.version)).await
            } else {
                call_opt(what, client.list_api_group_resources(&kind.api_version)).await
            };
            match listed {
                Ok(Some(listed)) if listed.resources.iter().any(|of| of.name == kind.plural) => Answer::Met,
                Ok(_) => Answer::Missing,
                Err(error) => Answer::Unknown(error.to_string()),
            }
        }
        What::Writer { writer, .. } => match writer.review(&context.client).await {
            Ok(RecoverRights { recover: true, wildcard: false }) => Answer::Met,
            Ok(_) => Answer::Missing,
            Err(error) => Answer::Unknown(error.to_string()),
        },
        What::Input { step, of } => match account {
            Some(account) => input(context, account, step, of).await,
            None => Answer::Unknown("there is no client for the plan's account".to_owned()),
        },
        What::Approver { party, .. } => {
            let attributes = ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some("recoveryplans".to_owned()),
                namespace: Some(plan.namespace.clone()),
                name: Some(plan.name.clone()),
                verb: Some(Action::Approve.verb().to_owned()),
                ..ResourceAttributes::default()
            };
            let what = format!("ask whether group {} may approve", party.group);
            match reviews::group_may(&context.client, &party.group, attributes, what).await {
                Ok(true) => Answer::Met,
                Ok(false) => Answer::Missing,
                Err(error) => Answer::Unknown(error.to_string()),
            }
        }
    }
}

/// Reads what a step is configured with, as the plan's account, and whether that account holds the rights that follow from it.
async fn input(context: &Context, account: &StepClients, step: &StepSpec, of: &StepContext) -> Answer {
    let rights = match steps::prepare(account, step, of).await {
        Ok(rights) => rights,
        Err(StepError::Problem(problem)) => return Answer::Unusable(problem.to_string()),
        Err(error) => return Answer::Unknown(error.to_string()),
    };
    let mut missing = Vec::new();
    for right in rights {
        let what = format!("ask whether account {}/{} may {right}", of.plan_namespace, of.account);
        let asked = (of.plan_namespace.as_str(), of.account.as_str());
        match reviews::account_may(&context.client, asked, right.attributes(), what).await {
            Ok(true) => {}
            Ok(false) => missing.push(right.to_string()),
            Err(error) => return Answer::Unknown(error.to_string()),
        }
    }
    if missing.is_empty() {
        return Answer::Met;
    }
    let user = account_user(&of.plan_namespace, &of.account);
    Answer::Unusable(format!("{user} may not {}: grant it by a Role", missing.join(", nor ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_services_manifests_are_read_whatever_their_steps_are_called() {
        let step = |map: &str| format!("[{{name: configure, apply: {{configMaps: [{{name: {map}}}]}}}}]");
        let yaml = format!(
            "{{serviceAccountName: recovery, services: [{{name: db, restore: {}}}, {{name: web, restore: {}}}]}}",
            step("of-db"),
            step("of-web")
        );
        let plan = Plan::compile("recovery", "p", "uid-1", &serde_yaml::from_str(&yaml).unwrap());
        let needs: Vec<Need> = others(&plan).iter().map(Other::need).collect();
        let input =
            |service: &str| Need::StepInput { step: "configure".to_owned(), service: service.to_owned() };
        assert_eq!(needs, [input("db"), input("web")]);
    }
}
