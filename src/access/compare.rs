//! Compares what a plan needs with what is granted: which questions to ask, and what the answers mean. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Access, Manifest, Right, late, manifests};
use crate::isolation::OPERATOR;

/// A question to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the plan's account exists.
    Account,
    /// Whether a user has a right.
    May {
        /// The user.
        user: String,
        /// The right.
        right: Right,
        /// Which parts of the plan need it.
        needed_by: Vec<String>,
    },
    /// Whether an account holds `never-granted`, and so a wildcard. Then `recover` does not count.
    Wildcard {
        /// The user.
        user: String,
        /// The right.
        right: Right,
    },
}

/// Answer to a question: yes, no, or why it is unknown.
pub type Answer = Result<bool, String>;

/// A missing or unknown right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Description, such as `list pods in namespace library-db`.
    pub what: String,
    /// The user.
    pub user: String,
    /// Parts of the plan that need it. Empty for the account itself, and for the right to impersonate it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// Why the answer is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Result of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// `namespace/name`
    pub plan: String,
    /// `namespace/name` of its account.
    pub account: String,
    /// How many rights it needs; the account itself is one.
    pub needed: usize,
    /// Rights that are not granted.
    pub missing: Vec<Gap>,
    /// Rights whose answer is unknown.
    pub unknown: Vec<Gap>,
    /// Rights that the account holds by a wildcard only.
    pub wildcards: Vec<Gap>,
    /// Manifests to apply.
    pub apply: Vec<Manifest>,
}

impl Access {
    /// Returns the questions to ask.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let mut questions = self.own_questions();
        for (account, rights) in &self.writers {
            questions.extend(on(&account.user(), rights));
        }
        questions
    }

    /// Returns the questions to ask about the plan's account, and about the operator.
    #[must_use]
    pub fn own_questions(&self) -> Vec<Question> {
        let impersonation =
            Question::May { user: OPERATOR.to_owned(), right: self.impersonation(), needed_by: Vec::new() };
        [Question::Account, impersonation].into_iter().chain(on(&self.user(), &self.rights)).collect()
    }

    /// Returns the result for the answers. `isolated`: the manifests are for a recovery lead, while namespaces are isolated.
    #[must_use]
    pub fn compare(&self, answers: Vec<(Question, Answer)>, isolated: bool) -> Comparison {
        let mut found = Comparison {
            plan: format!("{}/{}", self.namespace, self.plan),
            account: format!("{}/{}", self.namespace, self.account),
            needed: answers.iter().filter(|(q, _)| !matches!(q, Question::Wildcard { .. })).count(),
            missing: Vec::new(),
            unknown: Vec::new(),
            wildcards: Vec::new(),
            apply: Vec::new(),
        };
        let mut lacking = BTreeSet::new();
        for (question, answer) in answers {
            let gap = self.gap(&question);
            match (question, answer) {
                (_, Err(why)) => found.unknown.push(Gap { why: Some(why), ..gap }),
                (Question::Wildcard { .. }, Ok(true)) => found.wildcards.push(gap),
                (Question::Wildcard { .. }, Ok(false)) | (_, Ok(true)) => {}
                (Question::Account, Ok(false)) => {
                    lacking.insert(None);
                    found.missing.push(gap);
                }
                (Question::May { right, .. }, Ok(false)) => {
                    lacking.insert(Some(right));
                    found.missing.push(gap);
                }
            }
        }
        found.apply = self.missing_manifests(&lacking, isolated);
        found
    }

    fn gap(&self, question: &Question) -> Gap {
        let gap =
            |what: String, user: &str| Gap { what, user: user.to_owned(), needed_by: Vec::new(), why: None };
        match question {
            Question::Account => {
                gap(format!("ServiceAccount {}/{}", self.namespace, self.account), &self.user())
            }
            Question::May { user, right, needed_by } => {
                Gap { needed_by: needed_by.clone(), ..gap(right.to_string(), user) }
            }
            Question::Wildcard { user, right } => gap(format!("a wildcard on {}", right.object()), user),
        }
    }

    /// Returns the manifests that grant the missing rights; `None` is the account itself. A role is included as a whole, so that applying
    /// it removes nothing that was granted.
    fn missing_manifests(&self, lacking: &BTreeSet<Option<Right>>, isolated: bool) -> Vec<Manifest> {
        let plans = std::slice::from_ref(self);
        let all = if isolated { late(plans) } else { manifests(plans) };
        all.into_iter().filter(|manifest| !manifest.grants.is_disjoint(lacking)).collect()
    }
}

/// Returns the questions about the rights of a user.
fn on(user: &str, rights: &BTreeMap<Right, BTreeSet<String>>) -> Vec<Question> {
    let may = rights.iter().map(|(right, parts)| Question::May {
        user: user.to_owned(),
        right: right.clone(),
        needed_by: parts.iter().cloned().collect(),
    });
    let recovers = rights.keys().filter(|right| right.verb == "recover");
    let wildcards = recovers.map(|right| Question::Wildcard {
        user: user.to_owned(),
        right: Right { verb: "never-granted", ..right.clone() },
    });
    may.chain(wildcards).collect()
}

impl Comparison {
    /// Returns whether everything is granted, as far as known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.wildcards.is_empty()
    }
}
