//! Every stage with every action: what comes of a Decision that is made then. A Decision answers a question by its digest; `Hold` and
//! `Abort` name that of the standing orders.

use k8s_openapi::jiff::Timestamp;
use strum::VariantArray;

use super::story::{Story, plan, story};
use crate::api::quarantine::ControlName;
use crate::api::{Action, Isolation, Phase, Stage, Verdict};
use crate::engine::{Inspection, Rollout, StepProgress};

/// A service `web` at a stage, and what it is asked there.
pub(super) struct Case {
    pub(super) stage: Stage,
    /// The reason of the question, if there is one.
    pub(super) asked: Option<&'static str>,
    pub(super) arrange: fn() -> Story,
}

/// `web` with a clean room step and one after its release.
const STEPS: &str = "- {name: web, restore: [{name: load, timeout: 1h, scale: {}}, {name: resume, phase: AfterRelease, scale: {}}]}";

/// The gates of one phase of `web` say so from the beginning.
fn says(phase: Phase, verdict: Verdict, seconds: i64) -> Story {
    let mut story = story("- {name: web}");
    story.says("web", phase, verdict);
    story.run(seconds);
    story
}

fn steps(services: &str, outcome: StepProgress, seconds: i64) -> Story {
    let mut story = story(services);
    story.steps_end("web", outcome);
    story.run(seconds);
    story
}

fn began(story: &mut Story, second: i64) {
    story.world.seen.compromised_since = Some(Timestamp::from_second(second).unwrap());
}

/// `compromisedSince` turns out to be earlier, at a stage where gates say so.
fn superseded(verdict: Verdict) -> Story {
    let mut story = story("- {name: web}");
    began(&mut story, -1_000);
    story.says("web", Phase::BeforeRelease, verdict);
    story.run(20);
    began(&mut story, -9_000);
    story.run(5);
    story.says("web", Phase::BeforeRelease, Verdict::Pass);
    story
}

fn runs() -> StepProgress {
    StepProgress::Running("at it".to_owned())
}

fn fails() -> StepProgress {
    StepProgress::Failed("the dump is torn".to_owned())
}

pub(super) const CASES: &[Case] = &[
    Case {
        stage: Stage::Isolated,
        asked: None,
        arrange: || {
            let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
            story.says("db", Phase::BeforeRelease, Verdict::Unknown);
            story.run(20);
            story
        },
    },
    Case {
        stage: Stage::Isolated,
        asked: Some("OnHold"),
        arrange: || {
            let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
            story.run(1);
            story.orders("web", Action::Hold);
            story.run(20);
            story
        },
    },
    Case {
        stage: Stage::Isolated,
        asked: Some("AlreadyOpen"),
        arrange: || {
            let mut story = story("- {name: web}");
            story.quarantine("web").isolation = Some(Isolation::Open);
            story.run(20);
            story
        },
    },
    Case {
        stage: Stage::Isolated,
        asked: Some("Loosened"),
        arrange: || {
            let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
            story.says("db", Phase::BeforeRelease, Verdict::Unknown);
            story.run(20);
            story.world.plan = plan("- {name: db}\n- {name: web}");
            story.run(5);
            story
        },
    },
    Case {
        stage: Stage::PreChecks,
        asked: None,
        arrange: || says(Phase::BeforeRestore, Verdict::Unknown, 20),
    },
    Case {
        stage: Stage::PreChecks,
        asked: Some("GateFailed"),
        arrange: || says(Phase::BeforeRestore, Verdict::Fail, 120),
    },
    Case {
        stage: Stage::PreChecks,
        asked: Some("GateUnknown"),
        arrange: || says(Phase::BeforeRestore, Verdict::Unknown, 1_000),
    },
    Case {
        stage: Stage::PreChecks,
        asked: Some("RolloutNotRestorable"),
        arrange: || {
            let mut story = says(Phase::BeforeRestore, Verdict::Unknown, 20);
            let rollout = Rollout { workload: "Deployment web/web".into(), message: "1 of 2".into() };
            story.seen("web").inspection =
                Some(Inspection { rollouts: vec![rollout], ..Inspection::default() });
            story.says("web", Phase::BeforeRestore, Verdict::Pass);
            story.run(20);
            story
        },
    },
    Case { stage: Stage::Restoring, asked: None, arrange: || steps(STEPS, runs(), 20) },
    Case { stage: Stage::Restoring, asked: Some("StepFailed"), arrange: || steps(STEPS, fails(), 20) },
    Case { stage: Stage::Restoring, asked: Some("StepOverrunning"), arrange: || steps(STEPS, runs(), 3_700) },
    Case {
        stage: Stage::Restoring,
        asked: Some("ApprovalNeeded"),
        arrange: || {
            steps("- {name: web, restore: [{name: cable, manual: {instructions: plug it in}}]}", runs(), 20)
        },
    },
    Case {
        stage: Stage::Restoring,
        asked: Some("ControlNotEnforced"),
        arrange: || {
            let mut story = steps(STEPS, runs(), 20);
            let found = story.quarantine("web");
            found.ready = false;
            found.lacking = Some(ControlName::Network);
            story.run(5);
            story
        },
    },
    Case {
        stage: Stage::PostChecks,
        asked: None,
        arrange: || says(Phase::BeforeRelease, Verdict::Unknown, 20),
    },
    Case {
        stage: Stage::PostChecks,
        asked: Some("GateFailed"),
        arrange: || says(Phase::BeforeRelease, Verdict::Fail, 120),
    },
    Case {
        stage: Stage::PostChecks,
        asked: Some("ApprovalNeeded"),
        arrange: || {
            let mut story = story(
                "- {name: web, gates: {beforeRelease: [{name: councils, approval: {parties: [{name: council, group: leads}]}}]}}",
            );
            story.run(20);
            story
        },
    },
    Case { stage: Stage::PostChecks, asked: Some("Superseded"), arrange: || superseded(Verdict::Unknown) },
    Case {
        stage: Stage::Reconnecting,
        asked: None,
        arrange: || {
            let mut story = story(STEPS);
            story.run(10);
            story.steps_end("web", runs());
            story.run(20);
            story
        },
    },
    Case {
        stage: Stage::Reconnecting,
        asked: Some("StepFailed"),
        arrange: || {
            let mut story = story(STEPS);
            story.run(10);
            story.steps_end("web", fails());
            story.run(20);
            story
        },
    },
    Case { stage: Stage::Recovered, asked: None, arrange: || says(Phase::Continuous, Verdict::Pass, 30) },
    Case {
        stage: Stage::Recovered,
        asked: Some("Regressed"),
        arrange: || {
            let mut story = says(Phase::Continuous, Verdict::Pass, 30);
            story.says("web", Phase::Continuous, Verdict::Fail);
            story.run(120);
            story
        },
    },
    Case { stage: Stage::Recovered, asked: Some("Superseded"), arrange: || superseded(Verdict::Pass) },
    Case {
        stage: Stage::Recovered,
        asked: Some("Held"),
        arrange: || {
            let mut story = says(Phase::Continuous, Verdict::Pass, 30);
            let found = story.quarantine("web");
            found.hold = Some(Isolation::Contained);
            found.isolation = Some(Isolation::Contained);
            story.run(20);
            story
        },
    },
];

/// What has become of `web` two minutes later.
fn outcome(mut story: Story) -> String {
    story.run(120);
    let isolation = story.isolation("web");
    let status = story.status("web");
    let mut told =
        vec![format!("{} in attempt {}, {}", status.stage.as_str(), status.attempt, isolation.as_str())];
    told.extend(story.needs("web").map(|reason| format!("asked {reason}")));
    let steps: Vec<String> =
        status.steps.iter().map(|step| format!("{} {:?}", step.name, step.state)).collect();
    told.extend((!steps.is_empty()).then(|| steps.join(" ")));
    // What it asks is what it waits for.
    let held = status.standing_orders.as_ref().is_some_and(|orders| orders.hold.is_some());
    told.extend((held && story.needs("web") != Some("OnHold")).then(|| "on hold".to_owned()));
    told.extend((!status.exceptions.is_empty()).then(|| "with exceptions".to_owned()));
    told.join("; ")
}

fn decided(case: &Case, action: Action) -> String {
    let mut story = (case.arrange)();
    if action.is_standing_order() {
        story.orders("web", action);
    } else {
        // Without a question, a Decision can name nothing that counts.
        let status = story.status("web");
        let orders = || status.standing_orders.as_ref().unwrap().digest.clone();
        let digest = status.decision.as_ref().map_or_else(orders, |question| question.digest.clone());
        story.decide("web", action, &digest);
    }
    outcome(story)
}

#[test]
fn every_stage_with_every_decision_comes_to_this() {
    let mut table = String::new();
    for case in CASES {
        let arranged = (case.arrange)();
        let (stage, asked) = (arranged.stage("web"), arranged.needs("web"));
        assert_eq!((stage, asked), (case.stage, case.asked), "{:?}", arranged.status("web"));
        let without = outcome(arranged);
        table += &format!("{}, {}\n", stage.as_str(), case.asked.unwrap_or("asked nothing"));
        table += &format!("  {:<16} {without}\n", "(nothing)");
        let mut ignored = Vec::new();
        for &action in Action::VARIANTS {
            match decided(case, action) {
                same if same == without => ignored.push(action.as_str()),
                outcome => table += &format!("  {:<16} {outcome}\n", action.as_str()),
            }
        }
        table += &format!("  {:<16} {}\n\n", "ignored:", ignored.join(", "));
    }
    for stage in Stage::ALL {
        assert!(CASES.iter().any(|case| case.stage == stage), "{stage:?}");
    }
    insta::assert_snapshot!(table);
}
