//! Gate `baseline`: every object is as a signed inventory has it.
//!
//! The inventory counts only if enough of the plan's keys have signed it, and if it was not captured while the attacker may have been
//! inside. What was not compared is part of the message, so that nobody reads a Pass as more than it is.

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::finding::{Finding, worst};
use super::{Answer, Question, evidence};
use crate::api::gate::{AfterCompromise, BaselineSpec, Outside};
use crate::api::{GateReason, Phase};
use crate::baseline::compare::Scope;
use crate::baseline::envelope::{Envelope, EnvelopeError};
use crate::baseline::ignore::IgnoreList;
use crate::baseline::{Baseline, Marks, Observed, compare, report};

/// What is never compared, as messages name it.
const NEVER: &str = "content of volumes, endpoints, nodes, other objects of the cluster";

/// An inventory whose signatures count, and what of the cluster it is to be compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Approved {
    /// The inventory.
    pub baseline: Baseline,
    /// Digest of the signed payload.
    pub digest: String,
}

/// Opens the envelope of an inventory. `keys`: the plan's public keys, in the form that `verifies` takes.
///
/// # Errors
/// The verdict Unknown: it is malformed, or too few of the keys have signed it.
pub fn approved<K: PartialEq>(
    spec: &BaselineSpec,
    what: &str,
    envelope: &[u8],
    keys: &[K],
    verifies: impl Fn(&K, &[u8], &[u8]) -> bool,
) -> Result<Approved, Answer> {
    let unknown = |error: EnvelopeError| match error {
        EnvelopeError::Malformed(why) => {
            Answer::unknown(GateReason::BaselineMalformed, format!("{what}: {why}"))
        }
        EnvelopeError::NotSigned(why) => Answer::unknown(
            GateReason::SignatureInvalid,
            format!("{what}: {why}. Whoever holds one signs it: resurgam baseline sign"),
        ),
    };
    let wanted = usize::try_from(spec.signatures.unwrap_or(1)).unwrap_or(usize::MAX);
    let envelope = Envelope::parse(envelope).map_err(unknown)?;
    let payload = envelope.open(keys, wanted, verifies).map_err(unknown)?;
    let baseline = Baseline::parse(payload)
        .map_err(|why| Answer::unknown(GateReason::BaselineMalformed, format!("{what}: {why}")))?;
    Ok(Approved { baseline, digest: evidence::digest_of_bytes(payload) })
}

/// Returns why an inventory proves nothing about the question. `None`: it does.
#[must_use]
pub fn inapplicable(spec: &BaselineSpec, question: &Question, baseline: &Baseline) -> Option<Answer> {
    if question.namespaces.is_empty() {
        return Some(Answer::unknown(GateReason::NothingFound, "the service has no namespace"));
    }
    let missing = question.namespaces.iter().find(|namespace| !baseline.namespaces.contains(namespace));
    if let Some(missing) = missing {
        let message =
            format!("the baseline has nothing of namespace {missing}: capture it with that namespace");
        return Some(Answer::unknown(GateReason::NotInBaseline, message));
    }
    if spec.outside == Outside::Compare && !baseline.outside {
        let message = "the baseline has nothing of what reaches in from outside: capture it from the cluster, or set outside: LeaveOut";
        return Some(Answer::unknown(GateReason::NotInBaseline, message));
    }
    if spec.secret_key_from.is_some() && baseline.secret_key.is_none() {
        let message = "the baseline has no digests of Secrets' values: capture it with --secret-key, or leave out secretKeyFrom";
        return Some(Answer::unknown(GateReason::NotInBaseline, message));
    }
    let since = question.compromised_since.filter(|since| is_late(baseline, *since))?;
    (spec.after_compromise == AfterCompromise::Forbid).then(|| {
        let at = baseline.captured_at.0;
        Answer::unknown(
            GateReason::CapturedAfterCompromise,
            format!(
                "the baseline was captured at {at}, and the attacker may have been inside since {since}: it may hold what the attacker \
                 wrote. Make one from manifests, or review this one and set afterCompromise: Reviewed"
            ),
        )
    })
}

fn is_late(baseline: &Baseline, since: Timestamp) -> bool {
    baseline.source.is_as_found() && baseline.captured_at.0 >= since
}

/// Returns what isolation may have left on what the question is about.
#[must_use]
pub fn marks(question: &Question) -> Marks {
    let seals =
        question.seals.iter().map(|(namespace, seal)| (namespace.clone(), seal.uid.clone())).collect();
    let is_isolated = question.phase != Phase::Continuous;
    let isolated = question.namespaces.iter().filter(|_| is_isolated).cloned().collect();
    Marks { seals, isolated }
}

/// Returns the gate's answer. `has_key`: digests of Secrets' values were taken with the key of the inventory.
#[must_use]
pub fn judge(
    spec: &BaselineSpec,
    question: &Question,
    approved: &Approved,
    observed: Observed,
    has_key: bool,
) -> Answer {
    let Approved { baseline, digest } = approved;
    if let Some(unknown) = inapplicable(spec, question, baseline) {
        return unknown;
    }
    // Before the day there is no Incident; whoever judges has one, or does not know whether the inventory is the attacker's.
    if baseline.source.is_as_found() && question.compromised_since.is_none() {
        let message = "the plan names no Incident that can be read, so nobody says whether the baseline was captured before the compromise";
        return Answer::unknown(GateReason::NoCompromiseTime, message);
    }
    let ignore = match IgnoreList::parse(&spec.ignore) {
        Ok(ignore) => ignore,
        Err(why) => return Answer::unknown(GateReason::Malformed, why),
    };
    let empty = question.namespaces.iter().find(|namespace| {
        !observed.objects.iter().any(|object| object.kind == "Namespace" && object.name == **namespace)
    });
    if let Some(namespace) = empty {
        return Answer::unknown(GateReason::NothingFound, format!("namespace {namespace} was not read"));
    }
    let secret_values = has_key && baseline.secret_key.is_some();
    let scope = Scope {
        namespaces: &question.namespaces,
        ignore,
        marks: marks(question),
        secret_values,
        outside: spec.outside == Outside::Compare,
        pods_may_be_gone: question.phase == Phase::BeforeRestore,
    };
    let outcome = compare(baseline, observed, &scope);
    let findings: Vec<_> = outcome
        .differences
        .iter()
        .filter_map(|difference| {
            let message = report::sentence(&difference.object, &difference.change);
            Some((&difference.object, Finding::fail(GateReason::DiffersFromBaseline, message)?))
        })
        .collect();
    let basis = || {
        let differences = findings.iter().zip(&outcome.differences);
        let differences: Vec<String> = differences
            .map(|((object, _), of)| format!("{object}: {}", report::sentence(object, &of.change)))
            .collect();
        evidence::digest(&json!({
            "gate": "baseline",
            "phase": question.phase.as_str(),
            "baseline": digest,
            "namespaces": question.namespaces,
            "ignore": spec.ignore,
            "secretValues": secret_values,
            "differences": differences,
        }))
    };
    let mut not_compared = vec![NEVER.to_owned()];
    if !secret_values {
        not_compared.insert(0, "values of Secrets".to_owned());
    }
    if spec.outside == Outside::LeaveOut {
        not_compared.insert(0, "cluster-wide bindings, roles and webhooks".to_owned());
    }
    if outcome.left_out > 0 {
        not_compared.insert(0, format!("{} objects by the plan's ignore list", outcome.left_out));
    }
    worst(&findings, basis).unwrap_or_else(|| {
        let message = format!(
            "{} objects are as the baseline of {} has them; not compared: {}",
            outcome.compared,
            baseline.captured_at.0,
            not_compared.join(", ")
        );
        Answer {
            exceptions: exceptions(question, baseline),
            ..Answer::pass(GateReason::MatchesBaseline, message, basis())
        }
    })
}

/// Returns what passes although it is not proved in full.
fn exceptions(question: &Question, baseline: &Baseline) -> Vec<String> {
    let late = question.compromised_since.filter(|since| is_late(baseline, *since));
    let of = |since: Timestamp| {
        let (name, phase) = (&question.spec.name, question.phase.as_str());
        format!("gate '{name}' ({phase}): its baseline was captured after {since}, and reviewed")
    };
    late.map(of).into_iter().collect()
}

#[cfg(test)]
mod tests;
