//! The visitor's log: which connections succeeded, and when.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::wait::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";

/// One attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When the attempt ended.
    pub at: Timestamp,
    /// Service: `postgres` or `catalogue`.
    pub service: String,
    /// Whether the connection succeeded.
    pub open: bool,
}

/// All attempts, in order.
#[derive(Clone, Debug)]
pub struct Visits(Vec<Visit>);

impl Visits {
    pub(super) async fn read(client: &Client) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), "visitors");
        let log = pods.logs("visitor", &LogParams { timestamps: true, ..LogParams::default() }).await?;
        let visit = |line: &str| {
            let mut words = line.split_whitespace();
            let (at, service, word) = (words.next()?, words.next()?, words.next()?);
            Some(Visit { at: at.parse().ok()?, service: service.to_owned(), open: word == "open" })
        };
        let visits =
            log.lines().map(|line| visit(line).with_context(|| format!("the visitor says '{line}'")));
        Ok(Self(visits.collect::<Result<_>>()?))
    }

    /// Returns the number of attempts to connect to a service between two times, none of which may have succeeded.
    ///
    /// # Errors
    /// One succeeded, or there was none.
    pub fn none_between(&self, service: &str, from: Timestamp, until: Timestamp) -> Result<usize> {
        let tries: Vec<&Visit> =
            self.0.iter().filter(|v| v.service == service && v.at > from && v.at < until).collect();
        ensure!(!tries.is_empty(), "nobody tried to reach {service} between {from} and {until}");
        if let Some(open) = tries.iter().find(|visit| visit.open) {
            anyhow::bail!(
                "{service} was reached at {}, though it was isolated from {from} to {until}",
                open.at
            );
        }
        Ok(tries.len())
    }

    /// Returns the number of attempts since a time.
    #[must_use]
    pub fn tries_since(&self, service: &str, from: Timestamp) -> usize {
        self.0.iter().filter(|visit| visit.service == service && visit.at > from).count()
    }

    /// Returns whether an attempt since a time succeeded.
    #[must_use]
    pub fn any_since(&self, service: &str, from: Timestamp) -> bool {
        self.0.iter().any(|visit| visit.service == service && visit.at > from && visit.open)
    }
}

/// Returns when the operator deleted its last NetworkPolicy in a namespace, by the audit log. No connection may succeed before.
///
/// # Errors
/// The log cannot be read, or has no such event.
pub fn opened_at(audit_log: &Path, namespace: &str) -> Result<Timestamp> {
    let log = std::fs::read_to_string(audit_log)?;
    let opens = |event: &Value| {
        let is = |at: &str, wanted: &str| text(event, at) == wanted;
        is("/verb", "delete")
            && is("/objectRef/resource", "networkpolicies")
            && is("/objectRef/namespace", namespace)
            && is("/user/username", OPERATOR)
    };
    let mut events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = events.rfind(opens).with_context(|| format!("{namespace} was never opened"))?;
    text(&last, "/requestReceivedTimestamp").parse().context("an audit event without a time")
}
