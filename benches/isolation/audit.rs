//! What the audit log shows of each namespace that is isolated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Label of what the fence goes by: the lists of isolated namespaces, in the operator's namespace.
const LIST_LABEL: &str = "resurgam.dev/isolation-list";
/// Lines without any of these are of no interest here: most are not parsed.
const OF_INTEREST: [&str; 4] = ["networkpolicies", "\"pods\"", "quarantines", LIST_LABEL];

/// When what happened to one namespace.
#[derive(Clone, Default)]
pub struct Namespace {
    /// Its Quarantine was asked for.
    asked: Option<Timestamp>,
    refused: Option<Timestamp>,
    cut: Option<Timestamp>,
    empty: Option<Timestamp>,
}

/// When what happened to all.
pub struct Record {
    /// The first Quarantine was asked for.
    asked: Option<Timestamp>,
    /// The first list was written that the fence goes by. `None`: there are no lists.
    listed: Option<Timestamp>,
    namespaces: BTreeMap<String, Namespace>,
}

/// Of many namespaces: the median and the slowest.
pub struct Moments {
    pub median: Duration,
    pub slowest: Duration,
}

impl Moments {
    fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        Some(Self { median: *all.get(all.len() / 2)?, slowest: *all.last()? })
    }
}

impl Record {
    /// From when on all is counted: the first list write, else the first Quarantine.
    fn start(&self) -> Result<Timestamp> {
        self.listed.or(self.asked).context("the audit log shows no request for isolation")
    }

    /// Was a list written?
    pub fn has_list(&self) -> bool {
        self.listed.is_some()
    }

    /// From the first request of whoever isolates to the moment from which all is counted.
    pub fn until_start(&self, began: Timestamp) -> Result<Duration> {
        Ok(Duration::try_from(self.start()?.duration_since(began)).unwrap_or_default())
    }

    fn moments(&self, names: &[String], moment: impl Fn(&Namespace) -> Option<Timestamp>) -> Result<Moments> {
        let start = self.start()?;
        self.between(names, |_| Some(start), moment)
    }

    fn between(
        &self,
        names: &[String],
        from: impl Fn(&Namespace) -> Option<Timestamp>,
        to: impl Fn(&Namespace) -> Option<Timestamp>,
    ) -> Result<Moments> {
        let all: Vec<Duration> = names
            .iter()
            .filter_map(|name| self.namespaces.get(name))
            .filter_map(|seen| Some(to(seen)?.duration_since(from(seen)?)))
            .map(|took| Duration::try_from(took).unwrap_or_default())
            .collect();
        ensure!(all.len() == names.len(), "the audit log shows it of {} of {}", all.len(), names.len());
        Moments::of(all).context("no namespace at all")
    }

    /// To the first write that the fence refused, in these namespaces: from the request for their Quarantine, or from the first list
    /// write where that came before.
    pub fn refused(&self, names: &[String]) -> Result<Moments> {
        let start = self.start()?;
        let from = |seen: &Namespace| match seen.asked {
            Some(asked) if seen.refused.is_some_and(|refused| asked < refused) => Some(asked),
            Some(_) | None => Some(start),
        };
        self.between(names, from, |seen| seen.refused).context("the first refused write")
    }

    /// To the network cut: default-deny written, and the last policy that allowed emptied or removed.
    pub fn cut(&self, names: &[String]) -> Result<Moments> {
        self.moments(names, |seen| seen.cut).context("the network cut")
    }

    /// To the last pod gone.
    pub fn empty(&self, names: &[String]) -> Result<Moments> {
        self.moments(names, |seen| seen.empty).context("the last pod gone")
    }
}

/// Reads the log from a moment on.
///
/// # Errors
/// It cannot be read or parsed.
pub fn read(log: &Path, since: Timestamp, names: &[String]) -> Result<Record> {
    let namespaces = names.iter().map(|name| (name.clone(), Namespace::default())).collect();
    let mut record = Record { asked: None, listed: None, namespaces };
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        let refused = line.contains("ValidatingAdmissionPolicy 'resurgam-");
        if !refused && !OF_INTEREST.iter().any(|word| line.contains(word)) {
            continue;
        }
        let event: Value = serde_json::from_str(&line)?;
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let received: Timestamp = text("/requestReceivedTimestamp").parse()?;
        if received < since {
            continue;
        }
        let done: Timestamp = text("/stageTimestamp").parse()?;
        let code = event.pointer("/responseStatus/code").and_then(Value::as_i64).unwrap_or_default();
        let (verb, resource) = (text("/verb"), text("/objectRef/resource"));
        let (namespace, dry) = (text("/objectRef/namespace"), text("/requestURI").contains("dryRun=All"));
        let written = (200..300).contains(&code) && !dry;
        if written && resource == "configmaps" && namespace == "resurgam-system" {
            let labels = event.pointer("/responseObject/metadata/labels");
            let is_list = labels.is_some_and(|labels| labels.get(LIST_LABEL).is_some());
            // The first of them: a later one may be answered, and so logged, before it.
            if is_list && record.listed.is_none_or(|at| received < at) {
                record.listed = Some(received);
            }
            continue;
        }
        if written && resource == "quarantines" && ["create", "patch"].contains(&verb) {
            record.asked = Some(record.asked.map_or(received, |at| at.min(received)));
            if verb == "create"
                && let Some(seen) = record.namespaces.get_mut(text("/objectRef/name"))
            {
                seen.asked = Some(received);
            }
            continue;
        }
        let Some(seen) = record.namespaces.get_mut(namespace) else { continue };
        if code == 403 && refused {
            seen.refused = Some(seen.refused.map_or(done, |at| at.min(done)));
        }
        match (verb, resource) {
            ("create" | "update" | "patch" | "delete" | "deletecollection", "networkpolicies") if written => {
                seen.cut = Some(done);
            }
            ("delete", "pods") if written => seen.empty = Some(done),
            _ => {}
        }
    }
    Ok(record)
}
