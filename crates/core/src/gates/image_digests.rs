//! Gate `imageDigests`: all images are on the approved list, by digest.
//!
//! Before restore the gate checks the images in the specs; in later phases also the running images as the node's runtime reports them,
//! since a spec does not prove what runs. That proves an image by tag, too, where the plan permits tags.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::finding::{Finding, worst};
use super::images::{self, Approved, ListError, NodeImages};
use super::inventory::Inventory;
use super::{Answer, Question, evidence};
use crate::api::gate::{ImageDigestsSpec, ImageTags};
use crate::api::{GateReason, Phase};
use select::{Image, ImageSource, select};

mod select;

/// Maximum number of exceptions in an answer, the one that counts the others included.
const EXCEPTIONS_LIMIT: usize = 6;

/// The images that a gate lets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePolicy {
    /// The approved images.
    pub approved: Approved,
    /// Whether an image may be named by tag alone.
    pub tags: ImageTags,
}

/// Returns the images that a gate lets pass. `list`: the ConfigMap in the plan's namespace that the gate names, if it names one.
///
/// # Errors
/// The verdict Unknown, if the list does not exist or is malformed.
pub fn policy(
    spec: &ImageDigestsSpec,
    plan_namespace: &str,
    list: Option<&ConfigMap>,
) -> Result<ImagePolicy, Answer> {
    let approved = match (&spec.approved, &spec.approved_from) {
        (Some(entries), None) => images::inline(entries).map_err(|error| no_list("the plan", error)),
        (None, Some(from)) => {
            let what = format!("ConfigMap {plan_namespace}/{}", from.config_map.name);
            let list = list.ok_or_else(|| {
                Answer::unknown(GateReason::ListMissing, format!("{what} of approved digests is missing"))
            })?;
            images::from_config_map(list).map_err(|error| no_list(&what, error))
        }
        _ => Err(Answer::unknown(
            GateReason::Malformed,
            "the gate names not exactly one of approved, approvedFrom",
        )),
    }?;
    Ok(ImagePolicy { approved, tags: spec.tags })
}

fn no_list(what: &str, error: ListError) -> Answer {
    match error {
        ListError::Malformed(message) => {
            Answer::unknown(GateReason::MalformedDigest, format!("{what}, {message}"))
        }
        ListError::Empty => {
            Answer::unknown(GateReason::ListEmpty, format!("{what} approves no digest at all"))
        }
    }
}

/// What the images are checked against.
struct Facts<'a> {
    policy: &'a ImagePolicy,
    phase: Phase,
    nodes: &'a NodeImages,
    /// Tags under which a container runs a digest that the list has for the tag.
    proved: BTreeSet<String>,
}

type Check = fn(&Image, &Facts<'_>) -> Option<Finding>;

/// Checks in order. The first finding of an image counts.
const CHECKS: [Check; 5] = [is_pinned, is_approved, is_reported, running_is_approved, tag_is_proved];

impl ImagePolicy {
    /// Returns the tag that names an image, if tags are permitted and the list has it.
    fn listed_tag(&self, image: &str) -> Option<String> {
        let tag = images::tagged(image).filter(|_| self.tags == ImageTags::ProveWhenRunning)?;
        self.approved.of_tag(&tag).is_some().then_some(tag)
    }

    /// Returns whether a running digest is one of those that the list has for a tag, or the node says that it is the same image.
    fn proves(&self, tag: &str, runs: &str, node: &str, nodes: &NodeImages) -> bool {
        self.approved.of_tag(tag).is_some_and(|digests| {
            digests.contains(runs) || digests.iter().any(|digest| nodes.are_same(node, digest, runs))
        })
    }
}

fn is_pinned(image: &Image, facts: &Facts<'_>) -> Option<Finding> {
    let ImageSource::Specified { name, .. } = &image.source else { return None };
    if images::pinned(name).is_some() {
        return None;
    }
    let tag = images::tagged(name).filter(|_| facts.policy.tags == ImageTags::ProveWhenRunning);
    match tag {
        Some(_) if image.is_volume() => Finding::fail(
            GateReason::NotPinned,
            format!("'{name}' is not pinned by a sha256 digest, and no node reports what a volume holds"),
        ),
        Some(tag) if facts.policy.approved.of_tag(&tag).is_none() => Finding::fail(
            GateReason::NotApproved,
            format!("'{name}' is by tag, and the approved list has no entry '{tag} sha256:…'"),
        ),
        Some(_) => None,
        None => Finding::fail(GateReason::NotPinned, format!("'{name}' is not pinned by a sha256 digest")),
    }
}

fn is_approved(image: &Image, facts: &Facts<'_>) -> Option<Finding> {
    let ImageSource::Specified { name, .. } = &image.source else { return None };
    let digest = images::pinned(name)?;
    if facts.policy.approved.contains(digest) {
        return None;
    }
    Finding::fail(GateReason::NotApproved, format!("{digest} is not on the approved list"))
}

fn is_reported(image: &Image, _: &Facts<'_>) -> Option<Finding> {
    match &image.source {
        ImageSource::Running { image_id, started: false, .. } if image_id.is_empty() => {
            Finding::unknown(GateReason::InProgress, "has not started yet".to_owned())
        }
        ImageSource::Running { image_id, started: true, .. } if image_id.is_empty() => {
            Finding::unknown(GateReason::NoImageID, "its node does not report which image it runs".to_owned())
        }
        ImageSource::Running { image_id, .. } if images::running(image_id).is_none() => Finding::unknown(
            GateReason::MalformedImageID,
            format!("it runs '{image_id}', which holds no sha256 digest"),
        ),
        ImageSource::Specified { .. } | ImageSource::Running { .. } => None,
    }
}

fn running_is_approved(image: &Image, facts: &Facts<'_>) -> Option<Finding> {
    let ImageSource::Running { image_id, specified, node, .. } = &image.source else { return None };
    let runs = images::running(image_id)?;
    if let Some(tag) = facts.policy.listed_tag(specified) {
        if facts.policy.proves(&tag, &runs, node, facts.nodes) {
            return None;
        }
        return Finding::fail(
            GateReason::RunningImageNotApproved,
            format!("it runs {runs}, which the approved list does not have for '{tag}'"),
        );
    }
    if facts.policy.approved.contains(&runs) {
        return None;
    }
    match images::pinned(specified).filter(|pinned| facts.policy.approved.contains(pinned)) {
        Some(pinned) if facts.nodes.are_same(node, pinned, &runs) => None,
        Some(pinned) => {
            Finding::unknown(GateReason::UnresolvedDigest, unresolved(pinned, &runs, node, facts))
        }
        None => Finding::fail(
            GateReason::RunningImageNotApproved,
            format!("it runs {runs}, which is not on the approved list"),
        ),
    }
}

/// Returns the message about a digest that may be another name of the pinned image: its index, or the manifest or configuration for a
/// platform.
fn unresolved(pinned: &str, runs: &str, node: &str, facts: &Facts<'_>) -> String {
    let why = facts.nodes.why_unread(node).map_or_else(String::new, |why| format!(" ({why})"));
    format!(
        "its spec pins {pinned}, which is approved, and its node reports {runs}: index and platform of one image, or another image. If your \
         registry has both for this image, write both into one entry of the approved list, separated by a blank. Neither the list nor \
         node {node} says so{why}"
    )
}

/// A tag that nothing ran under in the clean room would be released without any proof.
fn tag_is_proved(image: &Image, facts: &Facts<'_>) -> Option<Finding> {
    let ImageSource::Specified { name, runs: true } = &image.source else { return None };
    let tag = facts.policy.listed_tag(name).filter(|_| facts.phase == Phase::BeforeRelease)?;
    if facts.proved.contains(&tag) {
        return None;
    }
    Finding::unknown(
        GateReason::TagNotProved,
        format!(
            "'{name}' is by tag, and no container runs it, which would prove it: start it, or pin it by digest"
        ),
    )
}

/// Returns the nodes whose list of images could tell what the approved list does not: whether a digest that runs is the same image as an
/// approved one. Mostly none.
#[must_use]
pub fn nodes_to_ask(policy: &ImagePolicy, question: &Question, inventory: &Inventory) -> BTreeSet<String> {
    let nodes = NodeImages::default();
    let images = select(policy, question, inventory);
    let unresolved = images.into_iter().filter_map(|image| {
        let ImageSource::Running { image_id, specified, node, .. } = image.source else { return None };
        let runs = images::running(&image_id)?;
        let asks = match policy.listed_tag(&specified) {
            Some(tag) => !policy.proves(&tag, &runs, &node, &nodes),
            None => {
                let pinned = images::pinned(&specified);
                !policy.approved.contains(&runs) && pinned.is_some_and(|pin| policy.approved.contains(pin))
            }
        };
        (asks && !node.is_empty()).then_some(node)
    });
    unresolved.collect()
}

/// Returns the gate's answer for an inventory. `nodes`: what [`nodes_to_ask`] names, as far as it could be read.
#[must_use]
pub fn judge(policy: &ImagePolicy, question: &Question, inventory: &Inventory, nodes: &NodeImages) -> Answer {
    if let Some(missing) = inventory.nothing_starts(question) {
        return Answer::unknown(GateReason::NothingFound, missing);
    }
    let phase = question.phase;
    let images = select(policy, question, inventory);
    if images.is_empty() {
        let places = question.namespaces.join(", ");
        if !question.namespaces.is_empty() {
            let message = format!("there is no image to check in namespaces [{places}]");
            let evidence = evidence::digest(&basis(policy, phase, &images));
            let exceptions = vec![format!("gate '{}' ({}): {message}", question.spec.name, phase.as_str())];
            return Answer { exceptions, ..Answer::pass(GateReason::NothingToCheck, message, evidence) };
        }
        return Answer::unknown(GateReason::NothingFound, format!("no image in namespaces [{places}]"));
    }
    let facts = Facts { policy, phase, nodes, proved: proved(policy, &images, nodes) };
    let findings: Vec<(String, Finding)> = images
        .iter()
        .filter_map(|image| {
            let finding = CHECKS.iter().find_map(|check| check(image, &facts))?;
            Some((format!("{}, {}", image.object, image.place), finding))
        })
        .collect();
    let evidence = || evidence::digest(&basis(policy, phase, &images));
    let answer = worst(&findings, evidence).unwrap_or_else(|| {
        let count = images.len();
        let message = format!("{count} images are on the approved list");
        Answer {
            exceptions: exceptions(policy, phase, &images),
            ..Answer::pass(GateReason::Approved, message, evidence())
        }
    });
    Answer { subject: Some(subject(&images)), ..answer }
}

/// Returns a digest of the images alone. Pods come and go, and the list may change: the images are the same.
fn subject(images: &[Image]) -> String {
    let of = |image: &Image| match &image.source {
        ImageSource::Specified { name, .. } => name.clone(),
        ImageSource::Running { image_id, .. } => image_id.clone(),
    };
    evidence::digest(&json!(images.iter().map(of).collect::<BTreeSet<String>>()))
}

/// Returns the tags that running containers prove.
fn proved(policy: &ImagePolicy, images: &[Image], nodes: &NodeImages) -> BTreeSet<String> {
    let of = |image: &Image| {
        let ImageSource::Running { image_id, specified, node, .. } = &image.source else { return None };
        let runs = images::running(image_id)?;
        policy.listed_tag(specified).filter(|tag| policy.proves(tag, &runs, node, nodes))
    };
    images.iter().filter_map(of).collect()
}

/// Returns the images that pass by tag, for people.
fn exceptions(policy: &ImagePolicy, phase: Phase, images: &[Image]) -> Vec<String> {
    let of = |image: &Image| {
        let ImageSource::Specified { name, runs } = &image.source else { return None };
        policy.listed_tag(name)?;
        let how = match phase {
            Phase::BeforeRelease if !runs => "is by tag, and nothing runs it: not proved",
            _ => "is by tag: proved only by what runs",
        };
        Some(format!("{}, {}: '{name}' {how}", image.object, image.place))
    };
    let mut exceptions: Vec<String> = images.iter().filter_map(of).collect();
    if exceptions.len() > EXCEPTIONS_LIMIT {
        let others = exceptions.len() - (EXCEPTIONS_LIMIT - 1);
        exceptions.truncate(EXCEPTIONS_LIMIT - 1);
        exceptions.push(format!("{others} more images are by tag: proved only by what runs"));
    }
    exceptions
}

/// Returns the evidence that the verdict is based on.
fn basis(policy: &ImagePolicy, phase: Phase, images: &[Image]) -> Value {
    let seen = |image: &Image| {
        let (field, value, specified) = match &image.source {
            ImageSource::Specified { name, .. } => ("image", name, None),
            ImageSource::Running { image_id, specified, .. } => ("imageID", image_id, Some(specified)),
        };
        json!({
            "kind": image.object.kind,
            "namespace": image.object.namespace,
            "name": image.object.name,
            "uid": image.object.uid,
            "place": image.place,
            "specified": specified,
            field: value,
        })
    };
    json!({
        "gate": "imageDigests",
        "phase": phase.as_str(),
        "approved": policy.approved,
        "tags": policy.tags,
        "images": images.iter().map(seen).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tag_tests;
#[cfg(test)]
mod tests;
