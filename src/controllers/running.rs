//! In-memory state of a running plan between reconciliations: this process's own last writes, gate tasks, finished steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;

use super::gate_tasks::GateTask;
use super::preparation::PreparationTask;
use super::step_tasks::StepTask;
use super::verdicts::Verdicts;
use super::view::View;
use crate::api::{Quarantine, RecoveryPlanStatus, ServiceRecovery};
use crate::engine::{AcceptedState, GateKey, Inspection, Refusal, ResumeObservation, StepProgress, StepRun};
use crate::gates::KeptReads;
use crate::plan::Plan;

/// Namespace and name of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlanKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for PlanKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A plan with a task of its own.
pub(crate) struct Running {
    pub(crate) key: PlanKey,
    wake: Notify,
    changes: Mutex<Changes>,
    state: Mutex<State>,
}

/// Changes since the last reconciliation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Anything may have changed.
    pub(crate) all: bool,
    /// Changed services, by name.
    pub(crate) services: BTreeSet<String>,
    /// Changed namespaces, which affect all services in them.
    pub(crate) namespaces: BTreeSet<String>,
}

/// Wakes a plan's task for one service.
#[derive(Clone)]
pub(crate) struct Wake {
    running: Weak<Running>,
    service: String,
}

impl Wake {
    /// Reports a change of the service.
    pub(crate) fn notify_one(&self) {
        if let Some(running) = self.running.upgrade() {
            running.wake_for(&self.service);
        }
    }
}

/// State kept between reconciliations.
#[derive(Default)]
pub(crate) struct State {
    /// The plan as last compiled. `None` before the first reconciliation, and if the plan is unreadable.
    pub(crate) plan: Option<Arc<Plan>>,
    /// Generation of an unreadable plan and the error, once the status reports it.
    pub(crate) unreadable: Option<(Option<i64>, String)>,
    /// Name of the plan's account, and a client that impersonates it.
    pub(crate) account: Option<(String, Client)>,
    /// State of services, by name.
    pub(crate) services: BTreeMap<String, ServiceState>,
    /// Records of accepted requirements that this process wrote, by name, until the watch has caught up (I6).
    pub(crate) accepted_own: BTreeMap<String, ConfigMap>,
    /// Parsed records of accepted requirements, with the resourceVersion that was parsed.
    pub(crate) accepted_read: BTreeMap<String, (Option<String>, AcceptedState)>,
    /// Observations and decisions of the last reconciliation. `None`: there was none, or it failed.
    pub(crate) view: Option<View>,
    /// Task that checks whether everything exists that the plan will need.
    pub(crate) preparation: Option<PreparationTask>,
    /// What its gates have read, kept between two phases as well. `None`: no gate has asked yet, or none reads anything that is kept.
    pub(crate) kept_reads: Option<Arc<KeptReads>>,
    /// Statuses of its Decisions that this process wrote.
    pub(crate) verdicts: Verdicts,
    /// A write of the plan's status is running.
    pub(crate) status_busy: bool,
    /// This process's last write of the plan's status, until the watch has caught up (I6). Prevents a second write.
    pub(crate) own_status: Option<(ObjectMeta, RecoveryPlanStatus)>,
    /// When the plan's status was last written.
    pub(crate) status_written_at: Option<Timestamp>,
}

/// State kept of one service.
#[derive(Default)]
pub(crate) struct ServiceState {
    /// This process's last write of the ServiceRecovery, until the watch has caught up (I6).
    pub(crate) own: Option<ServiceRecovery>,
    /// Time of that write.
    pub(crate) own_since: Option<Instant>,
    /// Quarantines that this process claimed, by namespace, until the watch has caught up (I6).
    pub(crate) claimed: BTreeMap<String, Quarantine>,
    /// An effect or write is running.
    pub(crate) busy: bool,
    /// Gate tasks.
    pub(crate) gates: BTreeMap<GateKey, GateTask>,
    /// Progress of the steps of attempt `steps_of`.
    pub(crate) steps: BTreeMap<StepRun, StepProgress>,
    /// The attempt that `steps` belongs to.
    pub(crate) steps_of: i64,
    /// Task that observes the running step.
    pub(crate) step_task: Option<StepTask>,
    /// Suspended objects as last read, with the attempt and the generation of the plan.
    pub(crate) resumes: Option<(i64, Option<i64>, Vec<ResumeObservation>)>,
    /// Workloads as last inspected, with the attempt and the generation of the plan.
    pub(crate) inspection: Option<(i64, Option<i64>, Inspection)>,
    /// Why the last effect was refused.
    pub(crate) refused: Option<Refusal>,
    /// Whether `refused` is about an effect, and not only about the write of a status.
    is_effect_refused: bool,
    /// Backoff after a failed write: nothing is started before this time.
    pub(crate) not_before: Option<Timestamp>,
    /// When the status was last written.
    pub(crate) written_at: Option<Timestamp>,
}

impl ServiceState {
    /// Keeps the result of an effect or of a write. A write that succeeds does not end the failure of an effect.
    pub(crate) fn keep_refusal(&mut self, refused: Option<Refusal>, of_effect: bool) {
        let before = self.refused.take();
        self.refused = match refused {
            Some(refused) => {
                let since = before.as_ref().and_then(|before| before.since).or(refused.since);
                self.is_effect_refused = of_effect;
                Some(Refusal { since, ..refused })
            }
            None => before.filter(|_| self.is_effect_refused && !of_effect),
        };
    }
}

impl Running {
    pub(crate) fn new(key: PlanKey) -> Self {
        Self { key, wake: Notify::new(), changes: Mutex::default(), state: Mutex::default() }
    }

    /// Waits for a change since the last reconciliation.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Wakes the plan's task: anything may have changed.
    pub(crate) fn wake_for_all(&self) {
        self.changes().all = true;
        self.wake.notify_one();
    }

    /// Wakes the plan's task: this service has changed.
    pub(crate) fn wake_for(&self, service: &str) {
        self.changes().services.insert(service.to_owned());
        self.wake.notify_one();
    }

    /// Wakes the plan's task: an object of this namespace has changed.
    pub(crate) fn wake_for_namespace(&self, namespace: &str) {
        self.changes().namespaces.insert(namespace.to_owned());
        self.wake.notify_one();
    }

    /// Wakes the plan's task to write the plan's own status only.
    pub(crate) fn wake_for_status(&self) {
        self.wake.notify_one();
    }

    /// Returns a handle that wakes the plan's task for a service.
    pub(crate) fn waker(self: &Arc<Self>, service: &str) -> Wake {
        Wake { running: Arc::downgrade(self), service: service.to_owned() }
    }

    /// Returns the changes since the last call.
    pub(crate) fn take_changes(&self) -> Changes {
        std::mem::take(&mut *self.changes())
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state. Must not be held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether `a` is at least as new as `b`, by resourceVersion. A version that is not a number counts as older.
pub(crate) fn at_least_as_new(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    match (version(a), version(b)) {
        (Some(a), Some(b)) => a >= b,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
