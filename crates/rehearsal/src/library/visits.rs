//! What the visitor's log tells: who could be connected to when.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::wait::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";

/// One try to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When it was over.
    pub at: Timestamp,
    /// To what: `postgres` or `catalogue`.
    pub service: String,
    /// Whether a connection was made.
    pub open: bool,
}

/// All tries, in order.
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

    /// How often a service was tried between two times. It is an error if it was ever reached.
    ///
    /// # Errors
    /// It was, or it was not even tried.
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

    /// How often a service was tried after this.
    #[must_use]
    pub fn tries_since(&self, service: &str, from: Timestamp) -> usize {
        self.0.iter().filter(|visit| visit.service == service && visit.at > from).count()
    }

    /// Whether a service was reached after this.
    #[must_use]
    pub fn any_since(&self, service: &str, from: Timestamp) -> bool {
        self.0.iter().any(|visit| visit.service == service && visit.at > from && visit.open)
    }
}

/// When the operator took the last of its NetworkPolicies out of a namespace, by the audit log: until then nothing may get in.
///
/// # Errors
/// The log cannot be read, or says no such thing.
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
