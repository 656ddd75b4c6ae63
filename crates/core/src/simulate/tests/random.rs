//! Random plans, verdicts and delays.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::api::{Phase, RecoveryPlanSpec, ServiceSpec, Verdict};
use crate::engine::StepProgress;
use crate::plan::Plan;
use crate::simulate::{Limits, Script, Takes, World};

/// A plan as stated. What depends on what is read from here, never from the compiled plan.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub spec: RecoveryPlanSpec,
    /// What the gates of a (service, phase) say: at which second it changes, and to what. Else they pass.
    pub verdicts: BTreeMap<(usize, Phase), Vec<(u32, Verdict)>>,
    /// From which delays are drawn, in turn.
    pub delays: Vec<u16>,
    /// Steps that fail the first time they are tried.
    pub flaky: Vec<bool>,
    /// What people do, drawn from in turn.
    pub people: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Shape {
    edges: Vec<prop::sample::Index>,
    group: Option<u8>,
    tier: i32,
    steps: usize,
}

fn shape() -> impl Strategy<Value = Shape> {
    let edges = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (edges, prop::option::weighted(0.25, 0_u8..2), 0..4_i32, 1_usize..3)
        .prop_map(|(edges, group, tier, steps)| Shape { edges, group, tier, steps })
}

/// Every third service ends with a step after its release.
fn after(id: usize, step: usize) -> &'static str {
    if id % 3 == 2 && step > 0 { ", phase: AfterRelease" } else { "" }
}

/// Plans of up to nine services, each depending on earlier ones only; groups may still close a cycle.
pub(super) fn plan() -> impl Strategy<Value = RecoveryPlanSpec> {
    (prop::collection::vec(shape(), 1..10), 1..5_i32, prop::bool::weighted(0.2)).prop_map(
        |(shapes, max_parallel, tiered)| {
            let groups = shapes.iter().map(|s| s.group).collect::<Vec<_>>();
            let tier_of = |id: usize| match groups[id] {
                Some(group) => i32::from(group),
                None => shapes[id].tier,
            };
            let services = shapes.iter().enumerate().map(|(id, shape)| {
                let earlier = shape.edges.iter().filter(|_| id > 0).map(|edge| edge.index(id));
                let needs: Vec<String> = earlier.map(|e| format!("s{e}")).collect();
                let together = shape.group.map_or_else(String::new, |g| format!(", together: g{g}"));
                let steps: Vec<String> =
                    (0..shape.steps).map(|step| format!("{{name: t{step}, scale: {{}}{}}}", after(id, step))).collect();
                format!(
                    "- {{name: s{id}, tier: {}{together}, dependsOn: [{}], restore: [{}]}}\n",
                    tier_of(id),
                    needs.join(", "),
                    steps.join(", ")
                )
            });
            let order = if tiered { "Tiers" } else { "Dependencies" };
            let images = "imageDigests: {approvedFrom: {configMap: {name: images}}}, interval: 7s, unknownDeadline: 40s";
            let health = "workloads: {}, interval: 5s, unknownDeadline: 40s";
            let yaml = format!(
                "incidentRef: {{name: nov}}\nserviceAccountName: recovery\norder: {order}\nmaxParallel: \
                 {max_parallel}\ndefaults:\n  gates:\n    beforeRestore: [{{name: images, {images}}}]\n    \
                 beforeRelease: [{{name: up, {health}, stableFor: 2s}}]\n    continuous: [{{name: beat, workloads: {{}}, interval: 15s, \
                 failureLimit: 2}}]\nservices:\n{}",
                services.collect::<String>()
            );
            serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
        },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![3 => Just(Verdict::Pass), 1 => Just(Verdict::Fail), 1 => Just(Verdict::Unknown)]
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::BeforeRestore), Just(Phase::BeforeRelease), Just(Phase::Continuous)]
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let changes = prop::collection::vec((0_usize..10, phase(), 0_u32..90, verdict()), 0..12);
    let delays = prop::collection::vec(0_u16..4_000, 8..64);
    let flaky = prop::collection::vec(prop::bool::weighted(0.1), 10);
    let people = prop::collection::vec(any::<u8>(), 8..64);
    (plan(), changes, delays, flaky, people).prop_map(|(spec, changes, delays, flaky, people)| {
        let mut verdicts: BTreeMap<(usize, Phase), Vec<(u32, Verdict)>> = BTreeMap::new();
        for (service, phase, at, verdict) in changes {
            verdicts.entry((service, phase)).or_default().push((at, verdict));
        }
        verdicts.values_mut().for_each(|changes| changes.sort_by_key(|(at, _)| *at));
        Case { spec, verdicts, delays, flaky, people }
    })
}

impl Case {
    /// Everything goes well.
    pub(super) fn calm(spec: RecoveryPlanSpec, delays: Vec<u16>) -> Self {
        Self { spec, verdicts: BTreeMap::new(), delays, flaky: Vec::new(), people: Vec::new() }
    }

    pub(super) fn plan(&self) -> Plan {
        Plan::compile("recovery", "p", "uid-1", &self.spec)
    }

    pub(super) fn world(&self) -> World<'_> {
        let mut drawn = 0_usize;
        let mut tried = BTreeMap::new();
        let script = Script {
            gate: Box::new(|q| {
                let second = u32::try_from(q.at.as_second()).unwrap();
                let changes = self.verdicts.get(&(q.service, q.gate.phase)).map_or(&[][..], Vec::as_slice);
                let last = changes.iter().rev().find(|(at, _)| *at <= second);
                last.map_or(Verdict::Pass, |(_, verdict)| *verdict)
            }),
            latency: Box::new(move |takes, id| {
                drawn += 1;
                let drawn = u64::from(self.delays[(drawn * 7 + id) % self.delays.len()]);
                Duration::from_millis(match takes {
                    Takes::Write | Takes::Answer => drawn / 100,
                    Takes::Claim => drawn / 20,
                    Takes::Isolation => drawn / 2,
                    Takes::Step(_) => drawn * 2,
                })
            }),
            step: Box::new(move |id, index, at| {
                let times = tried.entry((id, index)).or_insert(0);
                *times += 1;
                let again = at.checked_add(SignedDuration::from_secs(3)).unwrap();
                match (self.flaky.get(id), *times) {
                    (Some(true), 1) => StepProgress::Retry {
                        message: "not yet".to_owned(),
                        at: again,
                        since: at,
                        denied: false,
                    },
                    (Some(true), 2) | (Some(false), 1) => StepProgress::Running("at it".to_owned()),
                    _ => StepProgress::Succeeded,
                }
            }),
        };
        World::new(self.plan(), script, Limits { looks: 50_000 }, Timestamp::UNIX_EPOCH)
    }
}

/// What a service waits for by the words of DESIGN §3, from the spec alone: what any member of its group states, and
/// under `order: Tiers` the nearest lower tier; its own group left out.
pub(super) fn needs(spec: &RecoveryPlanSpec, service: usize) -> Vec<usize> {
    let of = &spec.services;
    let mates = |id: usize| -> Vec<usize> {
        let same = |s: &ServiceSpec| s.together.is_some() && s.together == of[id].together;
        (0..of.len()).filter(|&other| other == id || same(&of[other])).collect()
    };
    let group = mates(service);
    let mut needs = Vec::new();
    for &member in &group {
        let stated = of[member].depends_on.iter().filter_map(|d| of.iter().position(|s| s.name == d.0));
        needs.extend(stated);
        if spec.order == crate::api::recovery_plan::Order::Tiers {
            let below = of.iter().filter_map(|s| s.tier).filter(|&t| Some(t) < of[member].tier).max();
            needs.extend((0..of.len()).filter(|&s| below.is_some() && of[s].tier == below));
        }
    }
    needs.retain(|id| !group.contains(id));
    needs.sort_unstable();
    needs.dedup();
    needs
}
