//! What the audit log shows of each namespace that is isolated.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// When what happened to one namespace.
#[derive(Default)]
pub struct Seen {
    asked: Option<Timestamp>,
    refused: Option<Timestamp>,
    cut: Option<Timestamp>,
    empty: Option<Timestamp>,
}

impl Seen {
    fn since_asked(&self, moment: Option<Timestamp>) -> Option<Duration> {
        Duration::try_from(moment?.duration_since(self.asked?)).ok()
    }

    /// From the request for isolation to the first write that the fence refused.
    pub fn refused(&self) -> Option<Duration> {
        self.since_asked(self.refused)
    }

    /// To the network cut: default-deny written, and the last policy that allowed removed.
    pub fn cut(&self) -> Option<Duration> {
        self.since_asked(self.cut)
    }

    /// To the last pod gone.
    pub fn empty(&self) -> Option<Duration> {
        self.since_asked(self.empty)
    }
}

/// Of many namespaces: the median and the slowest.
pub struct Moments {
    pub median: Duration,
    pub slowest: Duration,
}

impl Moments {
    /// # Errors
    /// One of them never came, by the audit log.
    pub fn of(all: impl Iterator<Item = Option<Duration>>) -> Result<Self> {
        let all: Option<Vec<Duration>> = all.collect();
        let mut all = all.context("the audit log does not show it for every namespace")?;
        all.sort_unstable();
        ensure!(!all.is_empty(), "no namespace at all");
        Ok(Self { median: all[all.len() / 2], slowest: all[all.len() - 1] })
    }
}

impl fmt::Display for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:>6} … {:>6} ms", self.median.as_millis(), self.slowest.as_millis()))
    }
}

/// Reads the log from a moment on.
///
/// # Errors
/// It cannot be read or parsed.
pub fn read(log: &Path, since: Timestamp, names: &[String]) -> Result<BTreeMap<String, Seen>> {
    let mut all: BTreeMap<String, Seen> = names.iter().map(|name| (name.clone(), Seen::default())).collect();
    for line in BufReader::new(File::open(log)?).lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let received: Timestamp = text("/requestReceivedTimestamp").parse()?;
        if received < since {
            continue;
        }
        let done: Timestamp = text("/stageTimestamp").parse()?;
        let code = event.pointer("/responseStatus/code").and_then(Value::as_i64).unwrap_or_default();
        let (verb, resource, name) = (text("/verb"), text("/objectRef/resource"), text("/objectRef/name"));
        let (namespace, dry) = (text("/objectRef/namespace"), text("/requestURI").contains("dryRun=All"));
        if (verb, resource) == ("create", "quarantines") {
            // The name is in the body where the address has none.
            let name = if name.is_empty() { text("/requestObject/metadata/name") } else { name };
            if let Some(seen) = all.get_mut(name).filter(|_| code == 201) {
                seen.asked = Some(received);
            }
            continue;
        }
        let Some(seen) = all.get_mut(namespace) else { continue };
        let refused_by_fence =
            code == 403 && text("/responseStatus/message").contains("'resurgam-write-fence'");
        match (verb, resource) {
            ("create", "pods") if refused_by_fence => seen.refused = seen.refused.or(Some(done)),
            ("create" | "delete", "networkpolicies") if (200..300).contains(&code) && !dry => {
                seen.cut = Some(done)
            }
            ("delete", "pods") if (200..300).contains(&code) && !dry => seen.empty = Some(done),
            _ => {}
        }
    }
    Ok(all)
}
