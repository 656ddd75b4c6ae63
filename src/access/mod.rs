//! The rights that a plan needs, and the manifests that grant them. Pure: a plan in, objects out.
//!
//! The rights of a gate, step or resume are defined next to it, in its `rights`, and not repeated here.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::GROUP;
use crate::gates::{self, Question};
use crate::plan::{Plan, Service};
use crate::resume;
use crate::steps::{self, StepContext};

mod compare;
mod manifests;
mod right;

pub use compare::{Answer, Comparison, Gap, Question as CheckQuestion};
pub use manifests::{Manifest, authors, late, list, manifests, yaml};
pub use right::Right;

/// What one plan's account needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Namespace of the plan and of its account.
    pub namespace: String,
    /// Name of the plan.
    pub plan: String,
    /// Name of the account.
    pub account: String,
    /// Each right of the account, and which parts of the plan need it.
    pub rights: BTreeMap<Right, BTreeSet<String>>,
    /// What accounts need that write for a step and are not the plan's, such as Velero's.
    pub writers: BTreeMap<WriterAccount, BTreeMap<Right, BTreeSet<String>>>,
}

/// An account that writes for a step and is not the plan's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriterAccount {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub name: String,
}

impl WriterAccount {
    /// Returns the user name of the account.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl Access {
    /// Returns the rights that a plan's account needs, without a request to a cluster.
    #[must_use]
    pub fn from_plan(plan: &Plan) -> Self {
        let mut access = Self {
            namespace: plan.namespace.clone(),
            plan: plan.name.clone(),
            account: plan.account.clone(),
            rights: BTreeMap::new(),
            writers: BTreeMap::new(),
        };
        for service in &plan.services {
            access.add_service(plan, service);
        }
        access
    }

    fn add_service(&mut self, plan: &Plan, service: &Service) {
        for namespace in &service.namespaces {
            self.add("letting out of quarantine", [Right::on_quarantine("recover", Some(namespace))]);
        }
        // RBAC cannot limit `create` by name, which it does not know yet.
        if plan.creates_quarantines && !service.namespaces.is_empty() {
            self.add("quarantinePolicy: Create", [Right::on_quarantine("create", None)]);
        }
        if !service.replaces.is_empty() {
            let create = Right {
                group: String::new(),
                resource: "namespaces".to_owned(),
                verb: "create",
                namespace: None,
                name: None,
            };
            self.add("replaces", [Right::on_quarantine("create", None), create]);
        }
        for gate in &service.gates {
            let question =
                Question::new(&plan.namespace, service.namespaces.clone(), gate.phase, gate.spec.clone());
            self.add(&format!("gate {}", gate.spec.name), gates::rights(&question));
        }
        for step in &service.steps {
            let context = StepContext {
                plan_namespace: plan.namespace.clone(),
                plan: plan.name.clone(),
                account: plan.account.clone(),
                step: step.name.clone(),
                namespaces: service.namespaces.clone(),
                ..StepContext::default()
            };
            self.add(&format!("step {}", step.name), steps::rights(step, &context));
            for writer in steps::writers(step, &context) {
                let right = writer.right();
                let account = WriterAccount { namespace: writer.namespace, name: writer.account };
                let rights = self.writers.entry(account).or_default();
                rights.entry(right).or_default().insert(format!("step {}", step.name));
            }
        }
        self.add("resume", resume::rights(&service.namespaces, &service.resume));
    }

    fn add(&mut self, part: &str, rights: impl IntoIterator<Item = Right>) {
        for right in rights {
            self.rights.entry(right).or_default().insert(part.to_owned());
        }
    }

    /// Returns the user name of the account.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account)
    }

    /// Returns the operator's right to impersonate the account.
    #[must_use]
    pub fn impersonation(&self) -> Right {
        self.on_account("impersonate")
    }

    /// Returns the right that an author of the plan needs.
    #[must_use]
    pub fn authorship(&self) -> Right {
        self.on_account("use")
    }

    fn on_account(&self, verb: &'static str) -> Right {
        Right {
            group: String::new(),
            resource: "serviceaccounts".to_owned(),
            verb,
            namespace: Some(self.namespace.clone()),
            name: Some(self.account.clone()),
        }
    }
}

impl Right {
    pub(crate) fn on_quarantine(verb: &'static str, name: Option<&str>) -> Self {
        Self {
            group: GROUP.to_owned(),
            resource: "quarantines".to_owned(),
            verb,
            namespace: None,
            name: name.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests;
