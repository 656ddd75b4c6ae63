//! Requests of the operator, by the API server's audit log: its own, and those that it makes as a plan's account.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// When writes of one object were answered.
///
/// # Errors
/// The log cannot be read or parsed.
pub fn answers(log: &Path, from: u64, resource: &str, name: &str) -> Result<Vec<Timestamp>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut found = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        if !line.contains(resource) {
            continue;
        }
        let event: Value = serde_json::from_str(&line)?;
        let is = |at: &str, what: &str| event.pointer(at).is_some_and(|found| found == what);
        if is("/verb", "patch") && is("/objectRef/resource", resource) && is("/objectRef/name", name) {
            found.push(event["stageTimestamp"].as_str().unwrap_or_default().parse()?);
        }
    }
    Ok(found)
}

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";

/// How many requests there were, by verb and resource. Watches that begin count as one.
#[derive(Default)]
pub struct Requests(BTreeMap<String, usize>);

impl Requests {
    /// Reads the log from an offset on.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub fn read(log: &Path, from: u64) -> Result<Self> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut requests = Self::default();
        for line in BufReader::new(file).lines() {
            let line = line?;
            if !line.contains(OPERATOR) {
                continue;
            }
            let event: Value = serde_json::from_str(&line)?;
            if event["user"]["username"] != OPERATOR {
                continue;
            }
            let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
            // The lease is renewed at a declared interval.
            if text("/objectRef/resource") == "leases" {
                continue;
            }
            let acts_as = if event.get("impersonatedUser").is_some() { " as the plan's account" } else { "" };
            let sub = text("/objectRef/subresource");
            let slash = if sub.is_empty() { "" } else { "/" };
            let resource = match text("/objectRef/resource") {
                "" => text("/requestURI").split('?').next().unwrap_or_default(),
                resource => resource,
            };
            let what = format!("{} {resource}{slash}{sub}{acts_as}", text("/verb"));
            *requests.0.entry(what).or_default() += 1;
        }
        Ok(requests)
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// The most frequent ones, a line each.
    pub fn most(&self, count: usize, each: usize) -> String {
        let mut all: Vec<(&String, &usize)> = self.0.iter().collect();
        all.sort_by_key(|(what, number)| (std::cmp::Reverse(**number), (*what).clone()));
        let line = |(what, number): &(&String, &usize)| {
            format!("    {:>8.2}  {what}\n", **number as f64 / each as f64)
        };
        all.iter().take(count).map(line).collect()
    }
}
