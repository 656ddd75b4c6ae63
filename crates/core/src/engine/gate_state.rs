//! Settles a gate's single answers into a verdict: stable for long enough, failed often enough, fresh enough.

use k8s_openapi::jiff::Timestamp;

use crate::api::{Reason, Verdict};
pub use crate::gates::Answer;
use crate::plan::GatePolicy;
use crate::time::after;

/// State of a gate at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateState {
    /// `Pass` only if the gate has passed without interruption for `stableFor`, and its last answer is fresh.
    pub verdict: Verdict,
    /// Whether it has failed `failureLimit` times in a row.
    pub failed: bool,
    /// Whether it has passed since it is evaluated as it asks now.
    pub has_passed: bool,
    /// Whether it fails although the service is what it was when the gate last passed: what it is judged against has changed.
    pub is_judged_anew: bool,
    /// Whether it has been Unknown for longer than `stableFor` plus `unknownDeadline`.
    pub is_overdue: bool,
    /// Why the verdict is Unknown although the gate's last answer is another, or there is none.
    pub unsettled: Option<Reason>,
    /// Reason of the verdict.
    pub reason: &'static str,
    /// Message of the verdict.
    pub message: String,
    /// Digest of what was evaluated.
    pub evidence: Option<String>,
    /// What passes although it is not proved in full. Only of a Pass.
    pub exceptions: Vec<String>,
    /// Since when the verdict has been the same.
    pub since: Timestamp,
    /// When the state changes without a further answer: the end of `stableFor`, of freshness, or of `unknownDeadline`.
    pub changes_at: Option<Timestamp>,
}

/// Tracks the answers of one gate in one attempt.
#[derive(Clone, Debug)]
pub struct Tracker {
    policy: GatePolicy,
    last: Option<(Answer, Timestamp)>,
    passing_since: Option<Timestamp>,
    fails: u32,
    has_passed: bool,
    /// [`Answer::subject`] of the last Pass.
    passed_subject: Option<String>,
    /// Whether it has failed since it last passed.
    is_failing: bool,
    failing_since: Timestamp,
    counted_at: Timestamp,
    unsettled_since: Timestamp,
    began: Timestamp,
}

impl Tracker {
    /// Returns a tracker without any answer.
    #[must_use]
    pub fn new(policy: GatePolicy, now: Timestamp) -> Self {
        Self {
            policy,
            last: None,
            passing_since: None,
            fails: 0,
            has_passed: false,
            passed_subject: None,
            is_failing: false,
            failing_since: now,
            counted_at: now,
            unsettled_since: now,
            began: now,
        }
    }

    /// Returns when Fails begin to count: the service may warm up before.
    fn counts_from(&self) -> Timestamp {
        after(self.began, self.policy.startup_grace)
    }

    /// Records an answer. A Pass with other evidence than before restarts `stableFor`.
    pub fn record(&mut self, answer: Answer, now: Timestamp) {
        let same = self.last.as_ref().is_some_and(|(last, _)| last.evidence == answer.evidence);
        // A gap longer than the freshness is an interruption: the state in between is unknown.
        let unbroken = self.last.as_ref().is_some_and(|(_, at)| after(*at, self.policy.freshness()) > now);
        match answer.verdict {
            Verdict::Pass => {
                if !same || !unbroken || self.passing_since.is_none() {
                    self.passing_since = Some(now);
                }
                self.fails = 0;
                self.is_failing = false;
            }
            Verdict::Fail => {
                self.passing_since = None;
                if !self.is_failing {
                    self.failing_since = now;
                }
                self.is_failing = true;
                // Changes may trigger a gate many times at once: that is one failure.
                let is_next = self.fails == 0 || now >= after(self.counted_at, self.policy.interval);
                if is_next && now >= self.counts_from() {
                    self.fails = self.fails.saturating_add(1);
                    self.counted_at = now;
                }
            }
            Verdict::Unknown => {
                // Unknown is no Fail: it neither counts towards the limit nor resets the count.
                self.passing_since = None;
            }
        }
        self.last = Some((answer, now));
        let verdict = self.state(now).verdict;
        if verdict == Verdict::Pass {
            self.has_passed = true;
            self.passed_subject = self.last.as_ref().and_then(|(last, _)| last.subject.clone());
        }
        if verdict != Verdict::Unknown {
            self.unsettled_since = now;
        }
    }

    /// Returns when to evaluate the gate next if nothing triggers it earlier: in time to prove `stableFor`, at the latest after
    /// `interval`.
    #[must_use]
    pub fn next_ask(&self, now: Timestamp) -> Timestamp {
        let latest = after(now, self.policy.interval);
        match self.passing_since.map(|since| after(since, self.policy.stable_for)) {
            Some(stable) if stable > now => stable.min(latest),
            _ => latest,
        }
    }

    /// Returns the state of the gate at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> GateState {
        // A gate with a long `stableFor` is not overdue while it proves that.
        let overdue_at =
            after(after(self.unsettled_since, self.policy.stable_for), self.policy.unknown_deadline);
        let unknown = |unsettled: Option<Reason>,
                       reason: &'static str,
                       message: String,
                       changes_at: Timestamp| GateState {
            verdict: Verdict::Unknown,
            unsettled,
            failed: false,
            has_passed: self.has_passed,
            is_judged_anew: false,
            is_overdue: now >= overdue_at,
            reason,
            message,
            evidence: None,
            exceptions: Vec::new(),
            since: self.unsettled_since,
            changes_at: [changes_at, overdue_at].into_iter().filter(|&at| at > now).min(),
        };
        let unsettled = |reason: Reason, message: String, changes_at: Timestamp| {
            unknown(Some(reason), reason.as_str(), message, changes_at)
        };
        let Some((last, at)) = &self.last else {
            return unsettled(Reason::NotAsked, "not answered yet".to_owned(), overdue_at);
        };
        let stale_at = after(*at, self.policy.freshness());
        if now >= stale_at {
            return unsettled(
                Reason::Stale,
                format!("not answered since {at}: {}", last.message),
                overdue_at,
            );
        }
        match (last.verdict, self.passing_since) {
            (Verdict::Pass, Some(since)) => {
                let stable_at = after(since, self.policy.stable_for);
                // The proof is an answer at or after the end of the window, not the passage of time.
                if *at < stable_at {
                    let message =
                        format!("passes since {since}, to be stable until {stable_at}: {}", last.message);
                    return unsettled(Reason::Stabilising, message, stale_at);
                }
                GateState {
                    verdict: Verdict::Pass,
                    unsettled: None,
                    failed: false,
                    has_passed: true,
                    is_judged_anew: false,
                    is_overdue: false,
                    reason: last.reason.as_str(),
                    message: last.message.clone(),
                    evidence: last.evidence.clone(),
                    exceptions: last.exceptions.clone(),
                    since,
                    changes_at: Some(stale_at),
                }
            }
            (Verdict::Fail, _) => GateState {
                verdict: Verdict::Fail,
                unsettled: None,
                failed: self.fails >= self.policy.failure_limit,
                has_passed: self.has_passed,
                is_judged_anew: last.subject.is_some() && last.subject == self.passed_subject,
                is_overdue: false,
                reason: last.reason.as_str(),
                message: match self.counts_from() {
                    from if now < from => format!("{} (counts from {from}: startupGrace)", last.message),
                    _ => last.message.clone(),
                },
                evidence: last.evidence.clone(),
                exceptions: Vec::new(),
                since: self.failing_since,
                changes_at: Some(stale_at),
            },
            (Verdict::Pass | Verdict::Unknown, _) => {
                unknown(None, last.reason.as_str(), last.message.clone(), stale_at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GateReason;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn answer(verdict: Verdict, evidence: &str) -> Answer {
        let evidence = Some(evidence.into());
        Answer {
            verdict,
            reason: GateReason::Current,
            message: "m".into(),
            evidence,
            subject: None,
            exceptions: Vec::new(),
        }
    }

    fn tracker(stable_ms: u64, limit: u32) -> Tracker {
        let ms = std::time::Duration::from_millis;
        Tracker::new(
            GatePolicy {
                stable_for: ms(stable_ms),
                interval: ms(1000),
                timeout: ms(500),
                failure_limit: limit,
                startup_grace: ms(0),
                unknown_deadline: ms(60_000),
            },
            at(0),
        )
    }

    #[test]
    fn fail_of_the_same_service_is_told_from_a_change_of_it() {
        let of = |verdict, subject: Option<&str>| Answer {
            subject: subject.map(str::to_owned),
            ..answer(verdict, "e")
        };
        let anew = |passed: Option<&str>, fails: Option<&str>| {
            let mut gate = tracker(0, 1);
            gate.record(of(Verdict::Pass, passed), at(0));
            // An answer that is none says nothing of the service.
            gate.record(of(Verdict::Unknown, Some("other")), at(10));
            gate.record(of(Verdict::Fail, fails), at(20));
            gate.state(at(20)).is_judged_anew
        };
        assert!(anew(Some("images"), Some("images")), "the list was edited");
        assert!(!anew(Some("images"), Some("others")), "the service was changed");
        assert!(!anew(None, None), "a gate that does not say so");
        let mut never = tracker(0, 1);
        never.record(of(Verdict::Fail, Some("images")), at(0));
        assert!(!never.state(at(0)).is_judged_anew, "it has never passed");
    }

    #[test]
    fn passes_only_after_being_stable_and_asks_in_time_to_prove_it() {
        let mut gate = tracker(300, 3);
        gate.record(answer(Verdict::Pass, "a"), at(0));
        assert_eq!(
            (gate.state(at(0)).verdict, gate.state(at(299)).reason),
            (Verdict::Unknown, "Stabilising")
        );
        assert_eq!(gate.next_ask(at(0)), at(300));
        assert_eq!(gate.next_ask(at(300)), at(1300), "never at once");
        assert_eq!(tracker(5_000, 3).next_ask(at(0)), at(1000), "at the latest after its interval");
        assert_eq!(gate.state(at(400)).verdict, Verdict::Unknown, "the clock alone proves nothing");
        gate.record(answer(Verdict::Pass, "a"), at(310));
        assert_eq!(gate.state(at(310)).verdict, Verdict::Pass);
    }

    #[test]
    fn interruption_new_evidence_or_silence_restarts_stable_for() {
        for (verdict, evidence, when) in
            [(Verdict::Unknown, "a", 100), (Verdict::Pass, "b", 100), (Verdict::Pass, "a", 40_000)]
        {
            let mut gate = tracker(300, 3);
            gate.record(answer(Verdict::Pass, "a"), at(0));
            gate.record(answer(verdict, evidence), at(when));
            gate.record(answer(Verdict::Pass, "b"), at(when + 200));
            assert_eq!(gate.state(at(when + 200)).verdict, Verdict::Unknown, "{verdict:?} {evidence} {when}");
        }
    }

    #[test]
    fn a_silence_as_long_as_an_answer_may_be_relied_on_is_a_break() {
        for (when, verdict) in [(29_999, Verdict::Pass), (30_000, Verdict::Unknown)] {
            let mut gate = tracker(300, 3);
            gate.record(answer(Verdict::Pass, "a"), at(0));
            gate.record(answer(Verdict::Pass, "a"), at(when));
            assert_eq!(gate.state(at(when)).verdict, verdict, "after {when} ms");
        }
    }

    #[test]
    fn a_pass_that_is_not_renewed_is_unknown_again() {
        let mut gate = tracker(0, 3);
        gate.record(answer(Verdict::Pass, "a"), at(0));
        assert_eq!(gate.state(at(29_999)).verdict, Verdict::Pass);
        assert_eq!(
            (gate.state(at(30_000)).verdict, gate.state(at(30_000)).reason),
            (Verdict::Unknown, "Stale")
        );
    }

    #[test]
    fn only_consecutive_fails_count_and_unknown_is_neutral() {
        let mut gate = tracker(0, 2);
        gate.record(answer(Verdict::Fail, "a"), at(0));
        assert!(!gate.state(at(0)).failed);
        gate.record(answer(Verdict::Unknown, "a"), at(1));
        assert!(!gate.state(at(1)).failed);
        gate.record(answer(Verdict::Fail, "a"), at(999));
        assert!(!gate.state(at(999)).failed, "asked again within the interval, it has failed once");
        gate.record(answer(Verdict::Fail, "a"), at(1000));
        assert!(gate.state(at(1000)).failed);
        assert_eq!(gate.state(at(1000)).since, at(0), "since the first of them");
        gate.record(answer(Verdict::Pass, "a"), at(2000));
        gate.record(answer(Verdict::Fail, "a"), at(3000));
        assert!(!gate.state(at(3000)).failed);
        assert_eq!(gate.state(at(3000)).since, at(3000));
    }

    #[test]
    fn unknown_past_its_deadline_asks_for_a_person() {
        let mut gate = tracker(0, 2);
        assert!(!gate.state(at(59_999)).is_overdue);
        assert!(gate.state(at(60_000)).is_overdue);
        assert_eq!(gate.state(at(59_999)).changes_at, Some(at(60_000)));
        assert_eq!(gate.state(at(60_000)).changes_at, None, "it says the same for ever");
        gate.record(answer(Verdict::Pass, "a"), at(61_000));
        assert!(!gate.state(at(61_000)).is_overdue);
        gate.record(answer(Verdict::Unknown, "a"), at(62_000));
        assert!(!gate.state(at(62_000)).is_overdue);
    }
}
