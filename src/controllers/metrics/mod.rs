//! Prometheus metrics of the operator. `docs/metrics.md` lists every name.
//!
//! Every process exports its own counters and histograms, leader or not. Only the leader exports state, such as services by stage, since
//! sums over replicas would be wrong otherwise: see [`State`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Verdict;
use crate::client::REQUESTS;

mod state;

pub(crate) use state::count_controls;
pub use state::{PlanState, State};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels with values from the source code only, which bounds the number of series.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// A controller, as a label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// The plan controller.
    Plan,
    /// The Quarantine controller.
    Quarantine,
}

impl Controller {
    const ALL: [Self; 2] = [Self::Plan, Self::Quarantine];

    const fn label(self) -> (&'static str, &'static str) {
        match self {
            Self::Plan => ("controller", "plan"),
            Self::Quarantine => ("controller", "quarantine"),
        }
    }
}

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    reconciles: Counters<1>,
    errors: Counters<2>,
    durations: Histograms<1>,
    effects: Histograms<1>,
    verdicts: Counters<2>,
    gates: Histograms<1>,
    fenced: Histogram,
    /// State, which only the leader exports.
    pub state: Arc<State>,
}

/// Returns a histogram from a millisecond to minutes, for calls and for passes of many calls.
fn durations() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0])
}

/// Returns a histogram of whole seconds, the precision of creation timestamps.
fn times_to_fence() -> Histogram {
    Histogram::new([1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("resurgam");
        let metrics = Self {
            registry: Registry::default(),
            leader: Gauge::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(durations),
            effects: Family::new_with_constructor(durations),
            verdicts: Family::default(),
            gates: Family::new_with_constructor(durations),
            fenced: times_to_fence(),
            state: Arc::default(),
        };
        let build: Gauge = Gauge::default();
        build.set(1);
        let builds: Family<Labels<1>, Gauge> = Family::default();
        builds.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "Always 1, with the version of this process as a label", builds);
        registry.register("leader", "1 while this process leads", metrics.leader.clone());
        registry.register("reconciles", "Reconciliations that have ended", metrics.reconciles.clone());
        registry.register("reconcile_errors", "What failed in reconciliations", metrics.errors.clone());
        registry.register(
            "reconcile_duration_seconds",
            "How long a reconciliation took",
            metrics.durations.clone(),
        );
        registry.register(
            "effect_duration_seconds",
            "How long it took to carry out what was decided for a service",
            metrics.effects.clone(),
        );
        registry.register("gate_verdicts", "Answers of gates", metrics.verdicts.clone());
        registry.register("gate_duration_seconds", "How long a gate took to answer", metrics.gates.clone());
        registry.register(
            "time_to_fence_seconds",
            "From a Quarantine's creation to its fence verified",
            metrics.fenced.clone(),
        );
        registry.register("api_requests", "Requests to the API server", REQUESTS.count.clone());
        registry.register(
            "api_request_duration_seconds",
            "How long the API server took to answer",
            REQUESTS.durations.clone(),
        );
        registry.register_collector(Box::new(metrics.state.clone()));
        // Series that exist from the start make the first increase visible.
        for controller in Controller::ALL {
            drop(metrics.reconciles.get_or_create(&[controller.label()]));
            drop(metrics.durations.get_or_create(&[controller.label()]));
        }
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Returns the metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// A metric cannot be written.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Starts exporting state, as this process became the leader.
    pub fn begin_leading(&self) {
        self.leader.set(1);
    }

    /// Stops exporting state, as this process is no longer the leader.
    pub fn end_leading(&self) {
        self.leader.set(0);
        self.state.clear();
    }

    /// Counts a reconciliation and its duration since `began`.
    pub(crate) fn reconciled(&self, controller: Controller, began: Instant) {
        self.reconciles.get_or_create(&[controller.label()]).inc();
        self.durations.get_or_create(&[controller.label()]).observe(began.elapsed().as_secs_f64());
    }

    /// Counts a failure of a reconciliation.
    pub(crate) fn failed(&self, controller: Controller, reason: &'static str) {
        self.errors.get_or_create(&[controller.label(), ("reason", reason)]).inc();
    }

    /// Counts an effect for a service, successful or not.
    pub(crate) fn carried_out(&self, effect: &'static str, took: Duration) {
        self.effects.get_or_create(&[("effect", effect)]).observe(took.as_secs_f64());
    }

    /// Counts a gate's verdict.
    pub(crate) fn answered(&self, gate: &'static str, verdict: Verdict, took: Duration) {
        self.verdicts.get_or_create(&[("gate", gate), ("verdict", verdict.as_str())]).inc();
        self.gates.get_or_create(&[("gate", gate)]).observe(took.as_secs_f64());
    }

    /// Records the time from a Quarantine's creation to the verification of its fence, in seconds.
    pub(crate) fn fenced(&self, seconds: f64) {
        self.fenced.observe(seconds.max(0.0));
    }
}

#[cfg(test)]
mod tests;
