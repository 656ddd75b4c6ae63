//! What gates are configured with, such as lists of approved images: whether it can be read and used.

use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use resurgam_core::preparation::{Answer, Fact, Need};

use super::super::context::{Context, account_user};
use super::super::running::Running;
use super::{Checking, MISSING_FOR, Reviewed, lock, presence};
use crate::access::Right;
use crate::api::GateReason;
use crate::gates::{self, Account, Interest, Question};
use crate::plan::Plan;

/// Something that a gate is configured with.
pub(super) struct Input {
    pub(super) question: Question,
    /// Namespace and name of the ConfigMap that it names.
    pub(super) config_map: Option<(String, String)>,
    /// The resourceVersion that was read, when, and the result.
    pub(super) last: Option<(Option<String>, Instant, Answer)>,
}

/// Returns the inputs of a plan's gates, each ConfigMap once.
pub(super) fn inputs(plan: &Plan) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    let gates =
        plan.services.iter().flat_map(|service| service.gates.iter().map(move |gate| (service, gate)));
    for (service, gate) in gates {
        if inputs.iter().any(|known| known.question.spec == gate.spec) {
            continue;
        }
        let question =
            Question::new(&plan.namespace, service.namespaces.clone(), gate.phase, gate.spec.clone());
        let config_map = gates::interests(&question).into_iter().find_map(|interest| match interest {
            Interest::ConfigMap { namespace, name } => Some((namespace, name)),
            Interest::Workloads { .. }
            | Interest::Pods { .. }
            | Interest::Namespace { .. }
            | Interest::Anything { .. }
            | Interest::Outside => None,
        });
        if config_map.is_none() || inputs.iter().all(|known| known.config_map != config_map) {
            inputs.push(Input { question, config_map, last: None });
        }
    }
    inputs
}

impl Checking {
    /// Reads the inputs that have changed, as the account. One that the account may not read is no fact: the missing right is.
    pub(super) async fn check_inputs(
        &mut self,
        context: &Context,
        running: &Running,
        has_account: bool,
    ) -> Vec<Fact> {
        let client = context.account_client(&self.plan, &mut running.state());
        let user = account_user(&self.plan.namespace, &self.plan.account);
        let account = client.map(|client| Account { user, client });
        let granted_for = self.intervals(&lock(&self.shared.rights)).granted;
        let mut facts = Vec::new();
        for input in &mut self.inputs {
            let mut version = None;
            if let Some((namespace, name)) = &input.config_map {
                let gate = input.question.spec.name.clone();
                let need = Need::GateInput { gate, input: format!("ConfigMap {namespace}/{name}") };
                let answer = presence(&context.stores.config_maps, namespace, name);
                if answer != Answer::Met {
                    input.last = None;
                    facts.push(Fact { need, answer });
                    continue;
                }
                let wanted = Right::get::<ConfigMap>(namespace, name);
                let may = |right: &Reviewed| {
                    right.is_granted() && (right.right == wanted || right.right.verb == "impersonate")
                };
                if !has_account || lock(&self.shared.rights).iter().filter(|right| may(right)).count() < 2 {
                    continue;
                }
                let cached = context.stores.config_maps.get(namespace, name);
                version = cached.and_then(|entry| entry.as_ref().as_ref().ok().and_then(|v| v.0.clone()));
            }
            let Some(account) = &account else { continue };
            let is_current = input.last.as_ref().is_some_and(|(of, at, answer)| {
                let interval = if *answer == Answer::Met { granted_for } else { MISSING_FOR };
                *of == version && at.elapsed() < interval
            });
            if !is_current {
                let checked = context.gate_runner.check_inputs(account, &input.question).await;
                input.last = Some((version, Instant::now(), input_answer(checked)));
            }
            let Some((_, _, answer)) = &input.last else { continue };
            if input.config_map.is_some() || *answer != Answer::Met {
                let gate = input.question.spec.name.clone();
                let named = input.config_map.as_ref();
                let named = named.map_or_else(
                    || "its own list".to_owned(),
                    |(namespace, name)| format!("ConfigMap {namespace}/{name}"),
                );
                facts.push(Fact { need: Need::GateInput { gate, input: named }, answer: answer.clone() });
            }
        }
        facts
    }
}

fn input_answer(checked: Result<(), gates::Answer>) -> Answer {
    match checked {
        Ok(()) => Answer::Met,
        Err(gates::Answer { reason: GateReason::ListMissing | GateReason::BaselineMissing, .. }) => {
            Answer::Missing
        }
        Err(gates::Answer {
            reason:
                GateReason::ListEmpty
                | GateReason::MalformedDigest
                | GateReason::Malformed
                | GateReason::NotApplicable
                | GateReason::BaselineMalformed
                | GateReason::SignatureInvalid
                | GateReason::NotInBaseline
                | GateReason::CapturedAfterCompromise
                | GateReason::SecretKeyInvalid,
            message,
            ..
        }) => Answer::Unusable(message),
        Err(gates::Answer { message, .. }) => Answer::Unknown(message),
    }
}
