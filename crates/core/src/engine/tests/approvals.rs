//! Gate `approval` and step `manual`: people agree.

use super::story::{Story, plan, story};
use crate::api::{Action, Isolation, Phase, Reason, Stage, Verdict};

const QUORUM: &str = "- name: db\n  gates:\n    beforeRelease: [{name: councils, approval: {parties: [{name: rbkc, group: rbkc-leads}, \
                      {name: wcc, group: wcc-leads}]}}]";

#[test]
fn gate_waits_for_every_party_and_asks_once_all_else_passes() {
    let mut story = story(QUORUM);
    story.says("db", Phase::BeforeRelease, Verdict::Unknown);
    story.run(20);
    assert_eq!(
        (story.stage("db"), story.needs("db")),
        (Stage::PostChecks, None),
        "nobody is asked too early"
    );
    story.says("db", Phase::BeforeRelease, Verdict::Pass);
    story.run(20);
    assert_eq!(story.needs("db"), Some("ApprovalNeeded"));
    insta::assert_snapshot!(story.question("db"), @"councils: needs approval: 1 of party rbkc (group rbkc-leads), 1 of party wcc (group wcc-leads). They decide by a Decision: Approve or Reject or Retry");
    story.approves("db", "ana", "rbkc-leads");
    story.run(20);
    story.approves("db", "ana", "wcc-leads");
    story.run(20);
    assert_eq!(story.isolation("db"), Isolation::CleanRoom, "one person is not two parties");
    story.approves("db", "bo", "wcc-leads");
    story.run(30);
    assert_eq!(story.stage("db"), Stage::Recovered);
    let gate = story.status("db").gates.iter().find(|gate| gate.name == "councils").unwrap();
    assert_eq!(gate.message, "approved by ana (Decision d0), ana (Decision d1), bo (Decision d2)");
    assert!(story.status("db").exceptions.is_empty());
}

#[test]
fn rejection_voids_what_was_approved_and_gives_its_reason() {
    let mut story = story(QUORUM);
    story.run(30);
    story.approves("db", "ana", "rbkc-leads");
    story.run(10);
    story.answers("db", Action::Reject);
    story.run(10);
    assert_eq!(story.needs("db"), Some("ApprovalNeeded"));
    let question = story.question("db");
    assert!(question.contains("rejected by wren (Decision d1): put back the approved version"), "{question}");
    story.approves("db", "bo", "wcc-leads");
    story.run(10);
    assert_eq!(story.isolation("db"), Isolation::CleanRoom, "ana's approval was before the rejection");
    story.approves("db", "ana", "rbkc-leads");
    story.run(30);
    assert_eq!(story.stage("db"), Stage::Recovered);
}

#[test]
fn endless_rejections_hold_until_a_retry_and_say_so() {
    let mut story = story(
        "- name: db\n  gates:\n    beforeRelease: [{name: lead, approval: {parties: [{name: it, group: leads}]}}]",
    );
    story.run(30);
    for _ in 0..65 {
        story.answers("db", Action::Reject);
        story.run(2);
    }
    story.approves("db", "ana", "leads");
    story.run(30);
    assert_eq!((story.stage("db"), story.isolation("db")), (Stage::PostChecks, Isolation::CleanRoom));
    let question = story.question("db");
    assert!(question.contains("which counts no more, as it was rejected more than 64 times"), "{question}");
    story.retry("db");
    story.run(30);
    story.approves("db", "ana", "leads");
    story.run(30);
    assert_eq!(story.stage("db"), Stage::Recovered);
}

#[test]
fn approvals_of_one_attempt_do_not_count_in_the_next() {
    let mut story = story(QUORUM);
    story.run(30);
    story.approves("db", "ana", "rbkc-leads");
    story.approves("db", "bo", "wcc-leads");
    story.run(30);
    assert_eq!(story.stage("db"), Stage::Recovered);
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.run(60);
    story.retry("db");
    story.says("db", Phase::Continuous, Verdict::Pass);
    story.run(60);
    assert_eq!((story.stage("db"), story.needs("db")), (Stage::PostChecks, Some("ApprovalNeeded")));
}

#[test]
fn approval_under_continuous_is_a_problem_of_the_plan() {
    let plan =
        plan("- {name: db, gates: {continuous: [{name: a, approval: {parties: [{name: x, group: y}]}}]}}");
    assert_eq!(plan.services[0].problems[0].reason, Reason::MalformedGate);
}

#[test]
fn manual_step_is_done_once_somebody_approves_it() {
    let manual = "- {name: link, restore: [{name: partner, manual: {instructions: plug the partner back in}}, {name: start, scale: {}}]}";
    let mut story: Story = story(manual);
    story.run(30);
    assert_eq!(story.needs("link"), Some("ApprovalNeeded"));
    insta::assert_snapshot!(story.question("link"), @"partner: plug the partner back in: needs approval: one person who may approve. They decide by a Decision: Approve or Reject or Retry");
    assert_eq!(story.steps_begun("link"), 0, "the next step waits");
    story.answers("link", Action::Approve);
    story.run(30);
    assert_eq!((story.stage("link"), story.steps_begun("link")), (Stage::Recovered, 1));
}
