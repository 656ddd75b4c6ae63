//! What the operator counts, for Prometheus.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::{RecoveryPlanStatus, Verdict};

/// What the operator counts.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// 1 while this process leads.
    pub leader: Gauge,
    /// Answers of gates, by verdict.
    pub gate_answers: Family<Said, Counter>,
    /// Looks at plans.
    pub looks: Counter,
    /// Effects begun.
    pub effects: Counter,
    services: Family<Services, Gauge<i64, std::sync::atomic::AtomicI64>>,
}

/// Label of [`Metrics::gate_answers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Said {
    /// `Pass`, `Fail`, `Unknown`.
    pub verdict: Word,
}

/// A verdict, as a label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the words are those of api::Verdict")]
pub enum Word {
    Pass,
    Fail,
    Unknown,
}

impl From<Verdict> for Said {
    fn from(verdict: Verdict) -> Self {
        let verdict = match verdict {
            Verdict::Pass => Word::Pass,
            Verdict::Fail => Word::Fail,
            Verdict::Unknown => Word::Unknown,
        };
        Self { verdict }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Services {
    plan: String,
    state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("resurgam");
        let metrics = Self {
            registry: Mutex::default(),
            leader: Gauge::<i64, std::sync::atomic::AtomicI64>::default(),
            gate_answers: Family::default(),
            looks: Counter::<u64, AtomicU64>::default(),
            effects: Counter::<u64, AtomicU64>::default(),
            services: Family::default(),
        };
        registry.register("leader", "1 while this process leads", metrics.leader.clone());
        registry.register("gate_answers", "Answers of gates, by verdict", metrics.gate_answers.clone());
        registry.register("plan_looks", "Looks at plans", metrics.looks.clone());
        registry.register("effects", "Effects begun", metrics.effects.clone());
        registry.register("services", "Services of each plan, by state", metrics.services.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A metric cannot be written.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner))?;
        Ok(text)
    }

    /// Counts of a plan, as in its status.
    pub(crate) fn plan(&self, plan: &str, status: &RecoveryPlanStatus) {
        let counts = [
            ("recovered", status.recovered),
            ("running", status.running),
            ("waiting", status.waiting),
            ("needs_decision", status.needs_decision),
        ];
        for (state, count) in counts {
            self.services.get_or_create(&Services { plan: plan.to_owned(), state }).set(i64::from(count));
        }
    }
}
