//! Counts the operator's requests to the API server, from the audit log.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use anyhow::Result;
use control_plane::ControlPlane;
use serde_json::Value;

use crate::wait::text;

/// Prefix of the accounts of the operator and its pods.
const OPERATOR: &str = "system:serviceaccount:resurgam-system:";

/// A position in the audit log, from which requests are counted.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Mark {
    /// Returns the current end of the log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn now(cluster: &ControlPlane) -> Result<Self> {
        Ok(Self(std::fs::metadata(cluster.audit_log())?.len()))
    }

    /// Counts the requests after some time.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn count_after(self, cluster: &ControlPlane, time: std::time::Duration) -> Result<Requests> {
        tokio::time::sleep(time).await;
        self.count(cluster)
    }

    /// Counts the requests of the operator since, including impersonated ones, without watches and its lease.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn count(self, cluster: &ControlPlane) -> Result<Requests> {
        let mut file = std::fs::File::open(cluster.audit_log())?;
        file.seek(SeekFrom::Start(self.0))?;
        let mut log = String::new();
        file.read_to_string(&mut log)?;
        let mut requests = Requests::default();
        // The last line may not be complete.
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let at = |pointer| text(&event, pointer);
            let user = at("/user/username");
            let resource = at("/objectRef/resource");
            if !user.starts_with(OPERATOR) || at("/verb") == "watch" || resource == "leases" {
                continue;
            }
            let as_whom = event.pointer("/impersonatedUser/username").and_then(Value::as_str).unwrap_or(user);
            let resource = match (resource, at("/objectRef/subresource")) {
                ("", _) => at("/requestURI").to_owned(),
                (resource, "") => resource.to_owned(),
                (resource, subresource) => format!("{resource}/{subresource}"),
            };
            let tried = if at("/requestURI").contains("dryRun=All") { " (dry run)" } else { "" };
            let account = as_whom.rsplit(':').next().unwrap_or_default();
            let key = format!("{} {resource}{tried} as {account}", at("/verb"));
            *requests.0.entry(key).or_default() += 1;
        }
        Ok(requests)
    }
}

/// Number of requests by verb, resource and account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub BTreeMap<String, usize>);

impl Requests {
    /// Returns their sum.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(key, count)| (std::cmp::Reverse(**count), *key));
        all.iter().try_for_each(|(key, count)| writeln!(f, "{count:6} {key}"))
    }
}
