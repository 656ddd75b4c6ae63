//! **I1, order**: no isolation of a service is loosened and no step of it starts unless every dependency is Recovered with its
//! continuous gates passing, by verdicts within their freshness and a live read of the dependency's ServiceRecovery.
//!
//! What the log proves, of each dependency:
//! - when a namespace's label is loosened, by whomever: it was last written as Recovered and Healthy;
//! - when the operator asks for a looser isolation, or the plan's account writes to a workload: its ServiceRecovery was read
//!   live since the service's own last write, and what was answered said Recovered and Healthy;
//! - at the same moments: each of its continuous gates that looks into namespaces had listed pods there within its freshness; or the
//!   operator, which judges such gates by what it watches, had begun to watch pods within it, and had asked within a minute as the plan's
//!   account what that may list there.
//!
//! What it does not: what a gate concluded from what it read (Healthy says what the operator made of all of them), and when an
//! `http` gate was asked, which does not go by the API server. Gates of one service that look alike are not told apart.
//! Between the live read and the write a dependency may fail: what was read counts, as nobody could know better.

use super::{Rule, WriteContext};
use crate::change::Level;
use crate::plan::{Phase, Service};
use crate::report::{Findings, Rule as Name};

pub(super) struct Order;

impl Rule for Order {
    fn check(&mut self, now: &WriteContext<'_>, findings: &mut Findings) {
        if let Some(moved) = now.moved.filter(|moved| moved.loosens())
            && let Some((name, service)) = now.plan.service_of(moved.namespace)
        {
            findings.loosenings += 1;
            *findings.loosened.entry(moved.namespace.to_owned()).or_default() += 1;
            for dependency in now.plan.dependencies(service) {
                let record = now.world.record(dependency).cloned().unwrap_or_default();
                if !record.ready() {
                    let message = format!(
                        "{} for {name} while its dependency {dependency} was not ready (Recovered {}, Healthy {})",
                        moved.text(),
                        record.recovered,
                        record.healthy
                    );
                    findings.violations.push(now.broken(Name::Order, message));
                }
            }
        }
        if let Some(ask) = now.ask() {
            findings.asks += 1;
            let what = ask.level.map_or("more in its clean room", Level::as_str);
            stand(now, ask.name, ask.service, &format!("{} asks for {what}", ask.name), findings);
        } else if let Some((name, service)) = now.acts() {
            stand(now, name, service, &format!("a step of {name} writes"), findings);
        }
    }
}

/// Checks that every dependency is healthy, by a live read and by fresh verdicts.
fn stand(now: &WriteContext<'_>, name: &str, service: &Service, what: &str, findings: &mut Findings) {
    for dependency in now.plan.dependencies(service) {
        let problems = match now.live_read(name, dependency).map(|read| read.record.as_deref()) {
            None => "was not read live before".to_owned(),
            Some(None) => "was not there by the live read".to_owned(),
            Some(Some(record)) if !record.ready() => {
                format!(
                    "was not ready by the live read (Recovered {}, Healthy {})",
                    record.recovered, record.healthy
                )
            }
            Some(Some(_)) => {
                let of = now.plan.services.get(dependency);
                let stale = of.and_then(|of| now.stale(of, Phase::Continuous));
                let Some((gate, namespace)) = stale else { continue };
                format!("has a continuous gate {gate} that had not looked into {namespace} lately")
            }
        };
        let message = format!("{what} while its dependency {dependency} {problems}");
        findings.violations.push(now.broken(Name::Order, message));
    }
}
