//! The API servers on which controls are probed: each one that the cluster lists, and the one behind the operator's own client. They
//! share storage, but each has its own admission plugins, caches and version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use kube::{Client, Config};
use tokio::sync::watch;

use super::admission::{PolicyProbe, ProbeReport, ProbeResult, resolve_unreachable};
use crate::calls::DEADLINE;

/// Name in every API server's certificate.
const NAME: &str = "kubernetes.default.svc";
/// Deadline for connecting to a listed API server, and for its answer. A server that is down must not delay a pass.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// Maximum number of API servers that are probed.
const MOST: usize = 16;
/// How long a list that can no longer be read is valid.
const STALE: Duration = Duration::from_secs(60);
/// Each API server keeps listing itself, so an empty list is an error.
const NONE: &str = "the EndpointSlices of default/kubernetes list no API server";

/// State of the API servers, shared by the watch that lists them and by the probes.
#[derive(Clone)]
pub struct Servers(Arc<Inner>);

struct Inner {
    own: Server,
    /// The configuration of the operator's own client.
    config: Config,
    /// Where a listed address is reached, if not at the address itself.
    routes: BTreeMap<SocketAddr, Uri>,
    state: Mutex<State>,
    epoch: watch::Sender<u64>,
}

struct State {
    listed: BTreeMap<SocketAddr, Listed>,
    /// Why the list is unknown.
    unknown: Option<String>,
    /// Since when the list cannot be read.
    failing: Option<Instant>,
}

struct Listed {
    /// `Err`: why no client can be created.
    server: Result<Server, String>,
    /// Why the server did not answer the last probe.
    away: Option<String>,
    /// Probed namespaces. `true`: the server admitted writes there and has not refused since. Caches of servers lag one by one.
    leaks: BTreeMap<String, bool>,
}

impl Listed {
    /// A server that admits writes in one namespace is not assumed to refuse in namespaces that were not probed.
    fn is_leaking(&self, namespace: &str) -> bool {
        let anywhere = || self.leaks.values().any(|leaks| *leaks);
        self.leaks.get(namespace).copied().unwrap_or_else(anywhere)
    }
}

/// An API server that can be probed.
#[derive(Clone)]
pub struct Server {
    /// Its address, for people.
    pub name: String,
    /// Client for this server.
    pub client: Client,
    /// Deadline of a call.
    pub deadline: Duration,
    /// Its listed address. `None`: the server behind the operator's own client.
    pub listed: Option<SocketAddr>,
    /// Host and port of the connection.
    at: (String, u16),
}

/// Servers to probe.
#[derive(Default)]
pub struct ProbeTargets {
    /// Servers with a client.
    pub servers: Vec<Server>,
    /// Listed servers that cannot be probed, and why.
    pub away: Vec<(SocketAddr, String)>,
    /// Why the list is unknown.
    pub unknown: Option<String>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("own", &self.0.own.name).finish_non_exhaustive()
    }
}

impl Servers {
    /// Creates the state without any listed server. `config`: the configuration of the operator's own client.
    #[must_use]
    pub fn new(client: Client, config: Config, routes: BTreeMap<SocketAddr, Uri>) -> Self {
        let at = host_and_port(&config.cluster_url);
        let name = format!("{}:{} (which answers the operator)", at.0, at.1);
        let own = Server { name, client, deadline: DEADLINE, listed: None, at };
        let unknown = Some("the EndpointSlices of default/kubernetes are not read yet".to_owned());
        let state = Mutex::new(State { listed: BTreeMap::new(), unknown, failing: None });
        Self(Arc::new(Inner { own, config, routes, state, epoch: watch::Sender::new(0) }))
    }

    /// Returns a number that increases when the list changes or a server is back. Controls then have to be verified again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.0.epoch.borrow()
    }

    /// Subscribes to that number.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    /// Returns the server behind the operator's own client.
    #[must_use]
    pub fn own(&self) -> &Server {
        &self.0.own
    }

    /// Returns the servers to probe now.
    #[must_use]
    pub fn targets(&self) -> ProbeTargets {
        let state = self.state();
        let mut now = ProbeTargets { unknown: state.unknown.clone(), ..ProbeTargets::default() };
        for (address, listed) in &state.listed {
            match (&listed.server, &listed.away) {
                (Ok(server), None) => now.servers.push(server.clone()),
                (Err(why), _) | (Ok(_), Some(why)) => now.away.push((*address, why.clone())),
            }
        }
        if !now.servers.iter().any(|server| server.at == self.0.own.at) {
            now.servers.push(self.0.own.clone());
        }
        now
    }

    /// Sets the listed servers.
    pub(crate) fn list(&self, found: &BTreeSet<SocketAddr>) {
        let has_client = |listed: &Listed| listed.server.is_ok();
        let known: BTreeSet<SocketAddr> =
            self.state().listed.iter().filter(|(_, listed)| has_client(listed)).map(|(at, _)| *at).collect();
        // Creating a client may succeed by now. It may read a file, so it is done without the lock.
        let wanted = found.iter().enumerate();
        let made: Vec<_> = wanted
            .filter(|(number, address)| *number >= MOST || !known.contains(address))
            .map(|(number, address)| (*address, self.server(*address, number)))
            .collect();
        let mut state = self.state();
        state.failing = None;
        // With listing disabled there never were any. If there were some, another writer removed them.
        let gone = !state.listed.is_empty() || state.unknown.as_deref() == Some(NONE);
        let unknown = (found.is_empty() && gone).then(|| NONE.to_owned());
        let same = state.unknown == unknown
            && state.listed.keys().eq(found)
            && made.iter().all(|(_, server)| server.is_err());
        state.unknown = unknown;
        state.listed.retain(|address, _| found.contains(address));
        for (address, server) in made {
            let fresh = Listed { server: Err(String::new()), away: None, leaks: BTreeMap::new() };
            state.listed.entry(address).or_insert(fresh).server = server;
        }
        drop(state);
        if !same {
            self.advance_epoch();
        }
    }

    /// Records that the list cannot be read. For a while, the last list is still valid.
    pub(crate) fn unreadable(&self, why: String, now: Instant) {
        let mut state = self.state();
        let since = *state.failing.get_or_insert(now);
        let stood = state.unknown.is_none();
        if stood && now.duration_since(since) < STALE {
            return;
        }
        state.unknown = Some(why);
        drop(state);
        if stood {
            self.advance_epoch();
        }
    }

    /// Records the result of probing one server in a namespace, and returns what it means. A server that does not answer is skipped until
    /// it is back, so that it delays nothing else.
    pub(crate) fn remember(&self, namespace: &str, mut tried: Vec<PolicyProbe>) -> Vec<PolicyProbe> {
        let why = resolve_unreachable(&mut tried);
        let mut state = self.state();
        let of = tried.first().and_then(|tried| tried.listed);
        let Some(listed) = of.and_then(|address| state.listed.get_mut(&address)) else { return tried };
        if let (Some(why), None) = (&why, &listed.away) {
            tracing::warn!(address = ?of, why, "listed API server does not answer; isolation is not verified on it until it does");
        }
        // A server that answered another probe is back only when all namespaces are probed again.
        listed.away = listed.away.take().or(why);
        if tried.iter().all(|tried| tried.result == ProbeResult::Denied) {
            listed.leaks.insert(namespace.to_owned(), false);
        }
        drop(state);
        self.recall(namespace, tried)
    }

    /// A server that admitted writes counts as doing so until it refuses, even while it does not answer.
    pub(crate) fn recall(&self, namespace: &str, mut tried: Vec<PolicyProbe>) -> Vec<PolicyProbe> {
        let state = self.state();
        for tried in tried.iter_mut().filter(|tried| matches!(tried.result, ProbeResult::Unreachable(_))) {
            let listed = tried.listed.and_then(|address| state.listed.get(&address));
            if listed.is_some_and(|listed| listed.is_leaking(namespace)) {
                tried.result = ProbeResult::Admitted;
            }
        }
        tried
    }

    /// After enough probes, a server that admits writes is reported.
    pub(crate) fn leaks(&self, namespace: &str, probed: &ProbeReport) {
        let mut state = self.state();
        for tried in probed.probes.iter().filter(|tried| tried.result == ProbeResult::Admitted) {
            if let Some(listed) = tried.listed.and_then(|address| state.listed.get_mut(&address)) {
                listed.leaks.insert(namespace.to_owned(), true);
            }
        }
    }

    /// Returns the servers that do not answer.
    pub(crate) fn unanswering(&self) -> Vec<Server> {
        let state = self.state();
        let away = state.listed.values().filter(|listed| listed.away.is_some());
        away.filter_map(|listed| listed.server.clone().ok()).collect()
    }

    /// Records that a server answers again.
    pub(crate) fn mark_answering(&self, address: SocketAddr) {
        let was = self.state().listed.get_mut(&address).and_then(|listed| listed.away.take());
        if was.is_some() {
            self.advance_epoch();
        }
    }

    fn advance_epoch(&self) {
        self.0.epoch.send_modify(|epoch| *epoch = epoch.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the operator's credentials, so the certificate must prove that the server is this cluster's: writers of EndpointSlices could
    /// list any address.
    fn server(&self, address: SocketAddr, number: usize) -> Result<Server, String> {
        let config = &self.0.config;
        if number >= MOST {
            return Err(format!("more than {MOST} API servers are listed"));
        }
        let tells = config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTPS)
            && !config.accept_invalid_certs
            && (config.root_cert.is_some() || config.root_cert_file.is_some());
        if !tells {
            return Err("the operator's own client knows no certificate authority of this cluster".to_owned());
        }
        let mut config = config.clone();
        config.cluster_url = match self.0.routes.get(&address) {
            Some(url) => url.clone(),
            None => format!("https://{address}").parse().map_err(|error| format!("{error}"))?,
        };
        config.tls_server_name = Some(NAME.to_owned());
        config.connect_timeout = Some(CONNECT);
        let at = host_and_port(&config.cluster_url);
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        Ok(Server { name: address.to_string(), client, deadline: ANSWER, listed: Some(address), at })
    }
}

fn host_and_port(url: &Uri) -> (String, u16) {
    let usual = if url.scheme() == Some(&http::uri::Scheme::HTTP) { 80 } else { 443 };
    (url.host().unwrap_or_default().to_owned(), url.port_u16().unwrap_or(usual))
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
