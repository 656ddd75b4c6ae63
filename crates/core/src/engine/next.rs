//! Next state of one service, while it is being decided.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Effect, ServiceObservation};
use crate::api::conditions::shorten;
use crate::api::service_recovery::Block;
use crate::api::{Health, Phase, Reason, ServiceRecoveryStatus, Stage};

/// Next state of one service.
#[derive(Clone, Debug)]
pub(super) struct Next {
    pub status: ServiceRecoveryStatus,
    pub effect: Option<Effect>,
    pub ask: Vec<Phase>,
    pub observe_step: Option<usize>,
    pub blocks: Vec<Block>,
    pub wake: Vec<Timestamp>,
    pub health: Health,
}

impl Next {
    /// Returns the state unchanged.
    pub(super) fn unchanged(of: &ServiceObservation) -> Self {
        Self {
            status: of.status.clone(),
            effect: None,
            ask: phases(of.status.stage).to_vec(),
            observe_step: None,
            blocks: of.status.blocked_by.clone(),
            wake: Vec::new(),
            health: Health::default(),
        }
    }

    /// Returns the state of a new attempt: without the previous attempt's blockers, and with no gate to evaluate yet.
    pub(super) fn begun(status: ServiceRecoveryStatus) -> Self {
        let ask = if status.stage == Stage::Recovered { phases(Stage::Recovered) } else { &[] };
        Self {
            status,
            effect: None,
            ask: ask.to_vec(),
            observe_step: None,
            blocks: Vec::new(),
            wake: Vec::new(),
            health: Health::default(),
        }
    }

    pub(super) fn block(&mut self, reason: Reason, name: &str, message: impl Into<String>) {
        self.blocks.push(Block { reason, name: shorten(name, 128), message: shorten(&message.into(), 512) });
    }
}

/// Returns the phases whose gates are evaluated at a stage. Continuous gates start before the release, so that they are settled in time.
pub(super) fn phases(stage: Stage) -> &'static [Phase] {
    match stage {
        Stage::Isolated => &[],
        Stage::PreChecks | Stage::Restoring => &[Phase::BeforeRestore],
        Stage::PostChecks | Stage::Reconnecting => &[Phase::BeforeRelease, Phase::Continuous],
        Stage::Recovered => &[Phase::Continuous],
    }
}

/// Returns a time in whole seconds, as the API server stores it, so that a value read back equals the one written.
pub(super) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Returns the message about a namespace without a Quarantine.
pub(super) fn missing_quarantine(namespace: &str) -> String {
    format!("namespace {namespace} has no Quarantine: on-call staff can create one")
}
