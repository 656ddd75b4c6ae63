//! What a world is played by, and what it tells of.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{Isolation, ServiceRecoveryStatus, Verdict};
use crate::engine::{Effect, GateKey, Refusal, StepProgress};
use crate::plan::ServiceId;

/// What the world does when the engine acts on it.
pub struct Script<'a> {
    /// What a gate says when it is asked.
    pub gate: Box<dyn FnMut(&Question) -> Verdict + 'a>,
    /// How long something takes.
    pub latency: Box<dyn FnMut(Takes, ServiceId) -> Duration + 'a>,
    /// What comes of a step.
    pub step: Box<dyn FnMut(ServiceId, usize, Timestamp) -> StepProgress + 'a>,
}

/// A gate that is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which service.
    pub service: ServiceId,
    /// Which.
    pub gate: GateKey,
    /// In which attempt.
    pub attempt: i64,
    /// When.
    pub at: Timestamp,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A write to the API server.
    Write,
    /// Claiming the Quarantines of one service.
    Claim,
    /// Bringing one namespace to another isolation.
    Isolation,
    /// A step, by its index.
    Step(usize),
    /// A gate's answer.
    Answer,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Looks at the plan, after which the world is taken to run in circles.
    pub looks: usize,
}

/// The world moved for ever.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("gave up at {at} of virtual time, after {looks} looks at the plan: it does not come to rest")]
pub struct RanAway {
    /// When.
    pub at: Timestamp,
    /// After how many looks.
    pub looks: usize,
}

/// Something that happened, in the words of the world.
#[derive(Clone, Debug)]
pub struct Fact {
    /// When.
    pub at: Timestamp,
    /// To which service.
    pub service: ServiceId,
    /// What.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The engine decided on this effect, by what it saw at this moment.
    Decided(Effect),
    /// The effect took place: claimed, asked for, or a step begun.
    Done(Effect),
    /// A status was written.
    Written(Box<ServiceRecoveryStatus>),
    /// A namespace reached an isolation.
    Enforced(String, Isolation),
    /// A gate answered.
    Answered(GateKey, Verdict),
    /// A step ended.
    StepEnded(usize, StepProgress),
    /// A live read or another's claim stood in the way.
    Refused(Refusal),
}
