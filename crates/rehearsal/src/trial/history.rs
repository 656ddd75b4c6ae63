//! History of each object in a recovery, from the audit log: what two recoveries must have in common, whatever their timing and failed
//! attempts.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// States of each object in order, and how often each was created and deleted. Names are without the trial's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    states: BTreeMap<String, Vec<Value>>,
    counts: BTreeMap<String, u32>,
}

/// States that are read from the specification of workloads.
const SPECIFIED: [&str; 2] = ["replicas", "suspend"];

/// A successful write.
struct Write {
    revision: u64,
    what: String,
    state: Value,
}

impl History {
    /// Parses a part of an audit log.
    pub(crate) fn read(log: &[u8], trial: &str) -> Result<Self> {
        let (mut writes, mut counts) = (Vec::new(), BTreeMap::new());
        for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).context("a line of the audit log")?;
            let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
            let dry = crate::text(&event, "/requestURI").contains("dryRun=");
            if event["stage"] != "ResponseComplete" || !(200..300).contains(&code) || dry {
                continue;
            }
            let of = |field: &str| crate::text(&event, &format!("/objectRef/{field}"));
            let namespace = if of("resource") == "namespaces" { of("name") } else { of("namespace") };
            // A quarantine has no namespace, and the name of one.
            let place = if namespace.is_empty() { of("name") } else { namespace };
            let Some(place) = place.strip_prefix(trial).filter(|rest| rest.starts_with('-')) else {
                continue;
            };
            let verb = crate::text(&event, "/verb");
            let name = of("name").replace(trial, "*");
            let what = format!("{} *{place}/{name}", of("resource"));
            // Controllers of the API server's own make and delete pods by names of the moment: what counts is how many.
            let pod = of("resource") == "pods" && of("subresource").is_empty();
            match verb {
                "create" if pod => *counts.entry(format!("create pods *{place}")).or_default() += 1,
                "create" | "patch" if code == 201 && COUNTED.contains(&of("resource")) => {
                    let name = crate::text(&event, "/responseObject/metadata/name");
                    *counts.entry(format!("create {} *{place}/{name}", of("resource"))).or_default() += 1;
                }
                "delete" if COUNTED.contains(&of("resource")) => {
                    *counts.entry(format!("delete {what}")).or_default() += 1;
                }
                _ => {}
            }
            let object = &event["responseObject"];
            let revision = crate::text(object, "/metadata/resourceVersion").parse().unwrap_or_default();
            if ["create", "update", "patch"].contains(&verb) {
                // To who asks for metadata alone, the rest is not answered: what was asked for came about.
                let partial = object["kind"] == "PartialObjectMetadata";
                let told = if partial { &event["requestObject"] } else { object };
                // A write of metadata alone says nothing of the specification.
                let said = |field: &str| !partial || !told["spec"].is_null() || !SPECIFIED.contains(&field);
                let states = states(of("resource"), told).filter(|(field, _)| said(field));
                writes.extend(states.map(|(field, state)| Write {
                    revision,
                    what: format!("{what} {field}"),
                    state,
                }));
            }
        }
        // Two answers may be logged in another order than that in which the writes took effect.
        writes.sort_by_key(|write| write.revision);
        let mut states: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for write in writes {
            let is_quarantine = write.what.starts_with("quarantines ");
            let all = states.entry(write.what).or_default();
            // An isolation that takes its time reports how far it came: on a busy machine more often.
            if is_quarantine && write.state == "Sealed" && all.last() == Some(&json!("Contained")) {
                all.pop();
            }
            if all.last() != Some(&write.state) {
                all.push(write.state);
            }
        }
        Ok(Self { states, counts })
    }

    /// Returns the states of one object.
    #[must_use]
    pub fn states(&self, what: &str) -> &[Value] {
        self.states.get(what).map_or(&[], Vec::as_slice)
    }

    /// Reduces the history to what no fault may change. If a dependency does not answer for a moment, its dependents request less and
    /// their network is closed until it answers.
    #[must_use]
    pub fn without_fault_effects(mut self) -> Self {
        self.states.retain(|what, _| !what.ends_with(" asks for"));
        self.counts.retain(|what, _| !what.contains(" networkpolicies "));
        self
    }

    /// Returns the differences to another history, as messages.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let text = |states: Option<&Vec<Value>>| {
            states.map_or("nothing".to_owned(), |s| Value::from(s.clone()).to_string())
        };
        let states = self.states.keys().chain(other.states.keys().filter(|k| !self.states.contains_key(*k)));
        let states = states
            .map(|what| (what, text(self.states.get(what)), text(other.states.get(what))))
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|(what, ours, theirs)| format!("{what} went through {theirs}, not {ours}"));
        let counts = self.counts.keys().chain(other.counts.keys().filter(|k| !self.counts.contains_key(*k)));
        let often = |history: &Self, what| history.counts.get(what).copied().unwrap_or_default();
        let counts = counts
            .map(|what| (what, often(self, what), often(other, what)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|(what, ours, theirs)| format!("{what}: {theirs} times, not {ours}"));
        states.chain(counts).collect()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, states) in &self.states {
            writeln!(f, "{what}: {}", Value::from(states.clone()))?;
        }
        self.counts.iter().try_for_each(|(what, count)| writeln!(f, "{what}: {count}"))
    }
}

/// Resources whose creations and deletions are counted.
const COUNTED: [&str; 2] = ["serviceaccounts", "networkpolicies"];

/// Returns the recorded states of an object.
fn states(resource: &str, object: &Value) -> impl Iterator<Item = (&'static str, Value)> {
    let at = |field: &str| object.pointer(field).cloned().unwrap_or_default();
    let is = |type_: &str| json!(crate::condition(object, type_) == "True");
    let all = match resource {
        "namespaces" => vec![("isolation", at("/metadata/labels/resurgam.dev~1isolation"))],
        "deployments" | "statefulsets" => vec![("replicas", at("/spec/replicas"))],
        "cronjobs" => vec![("suspend", at("/spec/suspend"))],
        "quarantines" => vec![
            ("isolation", at("/status/isolation")),
            ("claimed", at("/status/claimedBy/attempt")),
            ("captured", json!(at("/status/capture/digest").is_string())),
        ],
        "servicerecoveries" => vec![
            ("stage", at("/status/stage")),
            ("attempt", at("/status/attempt")),
            ("asks for", at("/spec/isolation")),
            ("Recovered", is("Recovered")),
            ("NeedsDecision", is("NeedsDecision")),
        ],
        _ => Vec::new(),
    };
    all.into_iter()
}
