//! State gauges, computed at each scrape from what the controllers hold. So nothing has to be removed when a plan or a Quarantine is
//! deleted, or when leadership ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::quarantine::{ControlName, ControlState};
use crate::api::{Quarantine, ServiceRecoveryStatus, Stage};

/// Services of an armed plan by stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanState {
    /// `namespace/name` of the plan.
    pub plan: String,
    /// Number of services at each stage, including zeros.
    stages: BTreeMap<Stage, usize>,
    /// Number of services that need a Decision, by reason.
    decisions: BTreeMap<String, usize>,
}

impl PlanState {
    /// Adds services to the counts.
    #[must_use]
    pub fn new<'a>(plan: String, services: impl Iterator<Item = &'a ServiceRecoveryStatus>) -> Self {
        let mut counted = Self { plan, ..Self::default() };
        counted.stages.extend(Stage::ALL.map(|stage| (stage, 0)));
        for service in services {
            *counted.stages.entry(service.stage).or_default() += 1;
            if let Some(decision) = &service.decision {
                *counted.decisions.entry(decision.reason.as_str().to_owned()).or_default() += 1;
            }
        }
        counted
    }
}

/// Number of Quarantines by control and state of the control.
type Controls = BTreeMap<(ControlName, ControlState), usize>;

/// Counts the controls of Quarantines. Controls of a Quarantine without a status, or of an unreadable one, count as not enforced.
pub(crate) fn count_controls<'a>(quarantines: impl Iterator<Item = Option<&'a Quarantine>>) -> Controls {
    let every =
        ControlName::ALL.into_iter().flat_map(|name| ControlState::ALL.map(|state| ((name, state), 0)));
    let mut counted: Controls = every.collect();
    for quarantine in quarantines {
        let controls = quarantine.and_then(|q| q.status.as_ref()).map_or(&[][..], |status| &status.controls);
        for name in ControlName::ALL {
            let reported = controls.iter().find(|control| control.name == name);
            let state = reported.map_or(ControlState::NotEnforced, |control| control.state);
            *counted.entry((name, state)).or_default() += 1;
        }
    }
    counted
}

type Source<T> = Mutex<Option<Box<dyn Fn() -> T + Send + Sync>>>;

/// State that only the leader exports. Empty until the controllers set their sources.
#[derive(Default)]
pub struct State {
    plans: Source<Vec<PlanState>>,
    controls: Source<Controls>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

fn lock<T>(source: &Source<T>) -> MutexGuard<'_, Option<Box<dyn Fn() -> T + Send + Sync>>> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Sets the source of the plans' state.
    pub(crate) fn set_plans(&self, plans: impl Fn() -> Vec<PlanState> + Send + Sync + 'static) {
        *lock(&self.plans) = Some(Box::new(plans));
    }

    /// Sets the source of the state of controls.
    pub(crate) fn set_controls(&self, controls: impl Fn() -> Controls + Send + Sync + 'static) {
        *lock(&self.controls) = Some(Box::new(controls));
    }

    /// Removes all sources.
    pub(super) fn clear(&self) {
        *lock(&self.plans) = None;
        *lock(&self.controls) = None;
    }
}

/// Writes one gauge: values by labels.
fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = ([(&'a str, &'a str); 2], usize)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, count) in values {
        let value = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let plans = lock(&self.plans).as_ref().map(|plans| plans()).unwrap_or_default();
        let controls = lock(&self.controls).as_ref().map(|controls| controls()).unwrap_or_default();
        let stages = plans.iter().flat_map(|plan| {
            plan.stages
                .iter()
                .map(|(stage, n)| ([("plan", plan.plan.as_str()), ("stage", stage.as_str())], *n))
        });
        gauge(&mut encoder, "services", "Services of armed plans, by stage", stages)?;
        let decisions = plans.iter().flat_map(|plan| {
            plan.decisions
                .iter()
                .map(|(why, n)| ([("plan", plan.plan.as_str()), ("reason", why.as_str())], *n))
        });
        gauge(&mut encoder, "decisions_needed", "Services that need a person's decision", decisions)?;
        let controls = controls
            .iter()
            .map(|((name, state), n)| ([("control", name.as_str()), ("state", state.as_str())], *n));
        gauge(&mut encoder, "quarantine_controls", "Controls of all Quarantines, by state", controls)
    }
}
