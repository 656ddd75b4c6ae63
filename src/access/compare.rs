//! What is granted of what a plan needs: which questions to ask, and what their answers come to. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Access, Manifest, Right, late, manifests};
use crate::isolation::OPERATOR;

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is the plan's account there?
    Account,
    /// May this user do this?
    May {
        /// The user.
        user: String,
        /// The right.
        right: Right,
        /// Which parts of the plan need it.
        needed_by: Vec<String>,
    },
    /// Does the plan's account hold, by a wildcard, what nobody is granted? Then `recover` counts for nothing.
    Wildcard(Right),
}

/// What came of a question: yes, no, or why nobody knows.
pub type Answer = Result<bool, String>;

/// One thing that is not as the plan needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// What it is, such as `list pods in namespace library-db`.
    pub what: String,
    /// The user that it is about.
    pub user: String,
    /// Which parts of the plan need it. The account itself, and who may act as it, all of the plan needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// Why nobody knows, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a plan needs, compared with what is granted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// `namespace/name`
    pub plan: String,
    /// `namespace/name` of its account.
    pub account: String,
    /// How many rights it needs; the account itself is one.
    pub needed: usize,
    /// What is not granted.
    pub missing: Vec<Gap>,
    /// What nobody could say.
    pub unknown: Vec<Gap>,
    /// What the account holds by a wildcard only.
    pub wildcards: Vec<Gap>,
    /// What to apply.
    pub apply: Vec<Manifest>,
}

impl Access {
    /// What is to be asked of a cluster.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let impersonation =
            Question::May { user: OPERATOR.to_owned(), right: self.impersonation(), needed_by: Vec::new() };
        let own = self.rights.iter().map(|(right, parts)| Question::May {
            user: self.user(),
            right: right.clone(),
            needed_by: parts.iter().cloned().collect(),
        });
        let recovers = self.rights.keys().filter(|right| right.verb == "recover");
        let wildcards =
            recovers.map(|right| Question::Wildcard(Right { verb: "never-granted", ..right.clone() }));
        [Question::Account, impersonation].into_iter().chain(own).chain(wildcards).collect()
    }

    /// What the answers come to. `isolated`: what to apply is for a recovery lead, while namespaces are isolated.
    #[must_use]
    pub fn compare(&self, answers: Vec<(Question, Answer)>, isolated: bool) -> Comparison {
        let mut found = Comparison {
            plan: format!("{}/{}", self.namespace, self.plan),
            account: format!("{}/{}", self.namespace, self.account),
            needed: answers.iter().filter(|(q, _)| !matches!(q, Question::Wildcard(_))).count(),
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
                (Question::Wildcard(_), Ok(true)) => found.wildcards.push(gap),
                (Question::Wildcard(_), Ok(false)) | (_, Ok(true)) => {}
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
        found.apply = self.closing(&lacking, isolated);
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
            Question::Wildcard(right) => gap(format!("a wildcard on {}", right.object()), &self.user()),
        }
    }

    /// The manifests that grant what is lacking; `None` is the account itself. A role is applied as a whole, so that nothing that was
    /// granted before is taken away by it.
    fn closing(&self, lacking: &BTreeSet<Option<Right>>, isolated: bool) -> Vec<Manifest> {
        let plans = std::slice::from_ref(self);
        let all = if isolated { late(plans) } else { manifests(plans) };
        all.into_iter().filter(|manifest| !manifest.grants.is_disjoint(lacking)).collect()
    }
}

impl Comparison {
    /// Is everything granted, as far as it could be found out?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.wildcards.is_empty()
    }
}
