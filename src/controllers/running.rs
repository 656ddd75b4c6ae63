//! What this process holds of a running plan between two looks: its own last writes, gates being asked, steps done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;

use super::gate_tasks::GateTask;
use super::step_tasks::StepTask;
use super::view::View;
use crate::api::{Quarantine, RecoveryPlanStatus, ServiceRecovery};
use crate::engine::{AcceptedState, GateKey, Refusal, ResumeObservation, StepProgress};
use crate::plan::Plan;

/// A plan by namespace and name.
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

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Everything may have.
    pub(crate) all: bool,
    /// Services, by name.
    pub(crate) services: BTreeSet<String>,
    /// Namespaces: all services that live there.
    pub(crate) namespaces: BTreeSet<String>,
}

/// Wakes a plan's task for one service.
#[derive(Clone)]
pub(crate) struct Wake {
    running: Weak<Running>,
    service: String,
}

impl Wake {
    /// Says that the service has changed.
    pub(crate) fn notify_one(&self) {
        if let Some(running) = self.running.upgrade() {
            running.wake_for(&self.service);
        }
    }
}

/// What is held between two looks.
#[derive(Default)]
pub(crate) struct State {
    /// The plan as last compiled. `None` before the first look, and when it cannot be read.
    pub(crate) plan: Option<Arc<Plan>>,
    /// The generation of the plan that cannot be read, and why, once that has been told.
    pub(crate) unreadable: Option<(Option<i64>, String)>,
    /// A client that acts as the plan's account, and that account's name.
    pub(crate) account: Option<(String, Client)>,
    /// By service name.
    pub(crate) services: BTreeMap<String, ServiceState>,
    /// Records of accepted requirements that this process wrote, until the watch has caught up with them (I6), by name.
    pub(crate) accepted_own: BTreeMap<String, ConfigMap>,
    /// Records of accepted requirements as last read, and at which resourceVersion.
    pub(crate) accepted_read: BTreeMap<String, (Option<String>, AcceptedState)>,
    /// What was observed and decided at the last look. `None`: there was none, or it came to nothing.
    pub(crate) view: Option<View>,
    /// A write of the plan's own status is under way.
    pub(crate) status_busy: bool,
    /// This process's own last write of it, until the watch has caught up with it (I6): it is not written twice.
    pub(crate) own_status: Option<(ObjectMeta, RecoveryPlanStatus)>,
    /// When the plan's own status was last written.
    pub(crate) status_written_at: Option<Timestamp>,
}

/// What is held of one service.
#[derive(Default)]
pub(crate) struct ServiceState {
    /// This process's own last write, until the watch has caught up with it (I6).
    pub(crate) own: Option<ServiceRecovery>,
    /// When that was.
    pub(crate) own_since: Option<Instant>,
    /// Quarantines as this process claimed them, by namespace, until the watch has caught up with that (I6).
    pub(crate) claimed: BTreeMap<String, Quarantine>,
    /// An effect or write is under way.
    pub(crate) busy: bool,
    /// Gates being asked.
    pub(crate) gates: BTreeMap<GateKey, GateTask>,
    /// How far the steps of `steps_of` are.
    pub(crate) steps: BTreeMap<usize, StepProgress>,
    /// Which attempt `steps` belongs to.
    pub(crate) steps_of: i64,
    /// A step being observed.
    pub(crate) step_task: Option<StepTask>,
    /// What is suspended, as last looked at: in which attempt, and for which generation of the plan.
    pub(crate) resumes: Option<(i64, Option<i64>, Vec<ResumeObservation>)>,
    /// What its workloads ask of their node, as last looked at: in which attempt, and for which generation of the plan.
    pub(crate) host_access: Option<(i64, Option<i64>, Vec<String>)>,
    /// Why the last effect was refused.
    pub(crate) refused: Option<Refusal>,
    /// A write failed: nothing is begun before this.
    pub(crate) not_before: Option<Timestamp>,
    /// When the status was last written.
    pub(crate) written_at: Option<Timestamp>,
}

impl Running {
    pub(crate) fn new(key: PlanKey) -> Self {
        Self { key, wake: Notify::new(), changes: Mutex::default(), state: Mutex::default() }
    }

    /// Returns once something has changed since the last look.
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

    /// Wakes the plan's task: something of this namespace has changed.
    pub(crate) fn wake_for_namespace(&self, namespace: &str) {
        self.changes().namespaces.insert(namespace.to_owned());
        self.wake.notify_one();
    }

    /// Wakes the plan's task for nothing but the plan's own status.
    pub(crate) fn wake_for_status(&self) {
        self.wake.notify_one();
    }

    /// Wakes the plan's task for a service whenever it is told to.
    pub(crate) fn waker(self: &Arc<Self>, service: &str) -> Wake {
        Wake { running: Arc::downgrade(self), service: service.to_owned() }
    }

    /// What has changed since this was last asked.
    pub(crate) fn take_changes(&self) -> Changes {
        std::mem::take(&mut *self.changes())
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for as short as possible: never across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is `a` at least as new as `b`, by resourceVersion? One that is no number is taken as older.
pub(crate) fn at_least_as_new(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    match (version(a), version(b)) {
        (Some(a), Some(b)) => a >= b,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
